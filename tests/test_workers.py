"""Tests of processes that share a run: ranks, claims, status, and refused launches; no second process is started."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, file_contents, flip_byte, results
from test_cli import HEAVY, imported_packages

import vfbench as package
from vfbench.baselines.noise import Noise
from vfbench.errors import UserError
from vfbench.pipeline import job, launch, status, workers
from vfbench.pipeline.feature_chunks import FeatureChunks
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.generate import generate
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan
from vfbench.pipeline.workers import Rank, Worker
from vfbench.utils import process_id

RUN: dict[str, Any] = {"model": "noise", "num_samples": 70, "smoke": True, "device": "cpu", "batch_size": 16}
ELSEWHERE = "0123abcd.9"  # a process of another machine


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.01)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished run of three chunks; tests change copies only."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    package.run(output=folder, **RUN)
    return folder


@pytest.fixture
def run_copy(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(scope="module")
def ended() -> str:
    """A process of this machine that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return f"{process_id.machine_id()}.{process.pid}"


# Ranks.


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ("", Rank(0, 1)),
        ("RANK=2 WORLD_SIZE=4", Rank(2, 4)),
        ("SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_COUNT=4", Rank(3, 4)),
        ("SLURM_ARRAY_TASK_ID=4 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_STEP=1", Rank(3, 4)),
        ("SLURM_ARRAY_TASK_ID=6 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_STEP=2", Rank(3, 4)),
        ("SLURM_ARRAY_TASK_ID=90 SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_MIN=7", Rank(2, 3)),  # a list: 7,8,90
        ("SLURM_ARRAY_TASK_ID=1 SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_MIN=0 RANK=3 WORLD_SIZE=4", Rank(7, 8)),
        ("SLURM_JOB_ID=7 LOCAL_RANK=1", Rank(0, 1)),
    ],
)
def test_the_rank_is_that_of_the_launcher(variables: str, rank: Rank) -> None:
    assert Rank.from_environment(dict(pair.split("=") for pair in variables.split())) == rank


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ("RANK=0", "WORLD_SIZE"),
        ("WORLD_SIZE=2", "RANK"),
        ("RANK=2 WORLD_SIZE=2", "RANK=2.*last is 1"),
        ("RANK=-1 WORLD_SIZE=2", "RANK=-1"),
        ("RANK=one WORLD_SIZE=2", "RANK=one"),
        ("RANK= WORLD_SIZE=2", "RANK="),
        ("RANK=0 WORLD_SIZE=0", "WORLD_SIZE=0"),
        ("RANK=0 WORLD_SIZE=1e3", "WORLD_SIZE=1e3"),
        ("SLURM_ARRAY_TASK_ID=0", "SLURM_ARRAY_TASK_COUNT"),
        ("SLURM_ARRAY_TASK_COUNT=3", "SLURM_ARRAY_TASK_ID"),
        ("SLURM_ARRAY_TASK_ID=0 SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_MIN=1", "SLURM_ARRAY_TASK_ID=0"),
        ("SLURM_ARRAY_TASK_ID=1 SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_STEP=0", "STEP=0"),
    ],
)
def test_variables_that_do_not_fit_together_are_refused(variables: str, named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        Rank.from_environment(dict(pair.split("=") for pair in variables.split()))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("command", ["run", "generate"])
def test_a_wrong_number_or_rank_is_refused_at_once(
    command: str, vfbench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for number in (0, -1, 100_000):
        outcome = vfbench(command, "--workers", number, "--output", tmp_path / "x")
        assert (outcome.code, f"--workers {number}" in outcome.err) == (2, True)
    monkeypatch.setenv("RANK", "0")
    outcome = vfbench(command, "--output", tmp_path / "x")
    assert (outcome.code, "WORLD_SIZE" in outcome.err) == (2, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("length", "count"), [(10, 1), (10, 3), (2, 4), (0, 2)])
def test_the_blocks_of_all_ranks_cover_the_list_once(length: int, count: int) -> None:
    assert [i for number in range(count) for i in Rank(number, count).block(length)] == list(range(length))


# Claims.


def claim(folder: Path, item: str, process: str) -> Path:
    """The file of another worker, which makes `item`."""
    (folder / "workers").mkdir(exist_ok=True)
    file = folder / "workers" / f"{item}.{process}.json"
    file.write_text(json.dumps({"rank": 1, "of": 2, "clips": 3, "seconds": 2.0, "under_way": 1}))
    return file


def taken(worker: Worker, items: str, done: set[str]) -> Iterator[str]:
    """The items that a worker makes, one after the other."""
    for item in worker.share(list(items), done.__contains__):
        yield item
        done.add(item)


def test_a_worker_begins_at_its_place_and_goes_round(tmp_path: Path) -> None:
    for rank, order in ((Rank(0, 2), "abcd"), (Rank(1, 2), "cdab"), (Rank(3, 4), "dabc")):
        assert "".join(taken(Worker(tmp_path, rank), "abcd", set())) == order
    assert "".join(taken(Worker(tmp_path, Rank(1, 2)), "abcd", {"a", "d"})) == "cb"


def test_what_another_makes_is_left_to_it(tmp_path: Path) -> None:
    file, done = claim(tmp_path, "b", ELSEWHERE), set[str]()
    items = taken(Worker(tmp_path, Rank()), "abc", done)
    assert [next(items), next(items)] == ["a", "c"]
    done.add("b")
    file.unlink()
    assert list(items) == []


def test_what_another_gave_up_is_made(tmp_path: Path) -> None:
    file = claim(tmp_path, "b", ELSEWHERE)
    items = taken(Worker(tmp_path, Rank()), "abc", set())
    assert [next(items), next(items)] == ["a", "c"]
    file.rename(file.with_name(f"idle.{ELSEWHERE}.json"))
    assert list(items) == ["b"]


def test_the_item_of_an_ended_process_is_made_at_once(
    tmp_path: Path, ended: str, capsys: pytest.CaptureFixture[str]
) -> None:
    claim(tmp_path, "b", ended)
    worker = Worker(tmp_path, Rank())
    assert "".join(taken(worker, "abc", set())) == "abc"
    assert f"worker 1 ({ended}) ended" in capsys.readouterr().err
    (failed,) = (tmp_path / "workers").glob("failed.*")
    assert "at b" in json.loads(failed.read_text())["error"]
    worker.clear()
    assert not failed.exists()


@pytest.mark.parametrize("hours", [-5, 0, 5])
def test_the_item_of_a_silent_process_is_made_after_a_while_whatever_the_clocks(
    tmp_path: Path, hours: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file = claim(tmp_path, "a", ELSEWHERE)
    now = file.stat().st_mtime + 3600 * hours
    os.utime(file, (now, now))
    assert "".join(taken(Worker(tmp_path, Rank(), patience=0.05), "ab", set())) == "ba"
    assert "no sign of life" in capsys.readouterr().err


def test_an_error_stays_in_the_workers_file_and_ctrl_c_does_not(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    with pytest.raises(UserError), Worker(tmp_path, Rank(1, 2)).working():
        raise UserError("clip 7 is broken")
    (failed,) = (tmp_path / "workers").iterdir()
    assert failed.name.startswith("failed.")
    assert json.loads(failed.read_text())["error"] == "clip 7 is broken"
    failed.unlink()
    with pytest.raises(KeyboardInterrupt), Worker(tmp_path, Rank()).working():
        raise KeyboardInterrupt
    assert not list((tmp_path / "workers").iterdir())


# Chunks and results.


def maker(folder: Path, rank: Rank = Rank()) -> FeatureChunks:  # noqa: B008  # immutable
    made_by = plan(RunOptions(output=folder, **RUN))
    run_folder = RunFolder.join(folder, made_by.specification)
    worker = Worker(folder, rank)
    rest = (made_by.sampler, made_by.requests, made_by.device, 0, worker)
    return FeatureChunks(run_folder, *rest, collector=made_by.collector)


def test_a_chunk_that_another_made_meanwhile_stays(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run_copy / "chunks" / "000001.safetensors"
    content, before = path.read_bytes(), path.stat()
    made = maker(run_copy)
    monkeypatch.setattr(made.worker, "share", lambda items, is_done: ["000001"])  # though it is there
    generate(made)
    assert path.stat().st_ino == before.st_ino
    path.unlink()
    generate(made)
    assert path.stat().st_ino != before.st_ino
    assert path.read_bytes() == content


@pytest.mark.parametrize("rank", [Rank(0, 2), Rank(1, 2)])
def test_a_changed_byte_is_found_by_the_worker_of_that_part_and_by_the_one_that_scores(
    run_copy: Path, finished: Path, rank: Rank, capfd: pytest.CaptureFixture[str]
) -> None:
    flip_byte(run_copy / "chunks" / "000002.safetensors", -5)
    made = maker(run_copy, rank)
    assert made.is_complete("000002") is (rank.number == 0)
    made.load()
    assert capfd.readouterr().err.count("cannot be used") == 1
    assert file_contents(run_copy / "chunks") == file_contents(finished / "chunks")


def test_the_run_fixes_batches_and_threads(
    run_copy: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, int]] = []
    original = Noise.sample

    def sample(self: Noise, requests: Any) -> Any:
        seen.append((len(requests), torch.get_num_threads()))
        return original(self, requests)

    monkeypatch.setattr(Noise, "sample", sample)
    layout = json.loads((run_copy / "run.json").read_text())
    layout["layout"]["threads"] = 3
    (run_copy / "run.json").write_text(json.dumps(layout))
    shutil.rmtree(run_copy / "chunks")
    result = package.run(output=run_copy, **{**RUN, "batch_size": 5})
    assert "batches of 16" in capfd.readouterr().err
    assert [pair for pair in seen if pair[1] == 3] == [(16, 3)] * 4 + [(6, 3)]
    assert torch.get_num_threads() == 1
    assert result.environment
    assert result.environment.threads == "3"
    assert file_contents(run_copy / "chunks") == file_contents(finished / "chunks")


def test_a_worker_waits_for_the_result_of_another(
    run_copy: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = claim(run_copy, "scores", ELSEWHERE)

    def scored_elsewhere(*_: object) -> None:
        os.utime(run_copy / "results.json")
        file.unlink(missing_ok=True)

    monkeypatch.setattr(time, "sleep", scored_elsewhere)
    monkeypatch.setattr(job, "_score", lambda *_: pytest.fail("scored twice"))
    assert package.run(output=run_copy, **RUN).to_json() == results(finished)


def test_two_that_score_at_once_write_the_same_files(run_copy: Path) -> None:
    package.run(output=run_copy, **RUN)
    shutil.rmtree(run_copy / "events")
    first = file_contents(run_copy)
    (run_copy / "results.json").unlink()
    (run_copy / "scored.safetensors").unlink()
    package.run(output=run_copy, **RUN)
    shutil.rmtree(run_copy / "events")
    assert file_contents(run_copy) == first


# Events and traces.


def test_events_tell_what_each_process_made_and_found(run_copy: Path) -> None:
    (file,) = (run_copy / "events").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    made = [each["item"] for each in lines if each["event"] == "made"]
    assert (lines[0]["event"], lines[-1]["event"]) == ("begin", "end")
    assert made[-4:] == ["000000", "000001", "000002", "scores"]
    assert all(each["seconds"] >= 0 for each in lines if each["event"] == "made")
    flip_byte(run_copy / "chunks" / "000001.safetensors", -5)
    package.run(output=run_copy, **RUN)
    lines = [json.loads(line) for line in file.read_text().splitlines()][len(lines) :]
    assert [each["item"] for each in lines if each["event"] == "damaged"] == ["000001"]
    assert "000001" in [each["item"] for each in lines if each["event"] == "made"]


@pytest.mark.slow
def test_profile_writes_a_trace_of_one_batch(tmp_path: Path) -> None:
    package.run(output=tmp_path / "run", profile=True, **RUN)
    (trace,) = (tmp_path / "run" / "profile").iterdir()
    assert trace.name == f"{process_id.process_id()}.json.gz"
    names = {each.get("name") for each in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]}
    assert {"aten::empty", "aten::random_"} <= names, names


# Status.


def test_status_of_a_finished_a_running_and_a_stopped_run(
    run_copy: Path, ended: str, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = vfbench("status", run_copy)
    assert (outcome.code, outcome.err) == (0, "")
    assert "(finished)" in outcome.out
    assert "70 of 70 clips, 3 of 3 chunks" in outcome.out
    (run_copy / "chunks" / "000002.safetensors").unlink()
    assert status.read(run_copy).state == "stopped"
    claim(run_copy, "000002", ELSEWHERE)
    claim(run_copy, "000001", ended)
    old = claim(run_copy, "000000", "0123abcd.10")
    os.utime(old, (0, 0))
    claim(run_copy, "idle", "0123abcd.11").write_text("{")  # half written
    slow = claim(run_copy, "slow", "0123abcd.12")  # compiles for longer than a minute
    slow.write_text('{"patience": 900}')
    os.utime(slow, (time.time() - 300, time.time() - 300))
    state = json.loads(vfbench("status", "--json", run_copy).out)
    assert (state["state"], state["clips_done"], state["chunks_done"]) == ("running", 64, 2)
    assert (state["clips_per_second"], state["seconds_left"], state["clips_under_way"]) == (1.5, 4.0, 1.0)
    assert [each["making"] for each in state["workers"]] == ["000002", "idle", "slow"]
    assert sorted(each["making"] for each in state["failures"]) == ["000000", "000001"]


def test_status_of_no_run_names_the_remedy(tmp_path: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, Path(), Path("..")):
        outcome = vfbench("status", folder)
        assert (outcome.code, f"{folder} holds no run" in outcome.err) == (4, True)


def test_status_imports_nothing_heavy(run_copy: Path) -> None:
    by_typer = {"pydantic"}
    assert imported_packages("-m", "vfbench", "status", str(run_copy)) & (HEAVY - by_typer) == set()


# Launching.


def test_a_worker_has_the_rank_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    found = [launch._environment(Rank(1, 4), number, 2, "3") for number in (0, 1)]
    assert [Rank.from_environment(variables) for variables in found] == [Rank(2, 8), Rank(3, 8)]
    assert [(each["LOCAL_RANK"], each["OMP_NUM_THREADS"]) for each in found] == [("2", "3"), ("3", "3")]
