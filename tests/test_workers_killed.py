"""Runs that several processes share, killed, stopped and started again: the result is that of one process alone."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import file_contents, python, results, resume_arguments, without_timings
from pages import DOCS, ROOT, code
from processes import START, require_same, run_of_three_chunks, start_command, tasks, wait_for

from vfbench import load_results
from vfbench.pipeline import status

pytestmark = pytest.mark.slow

HASTY = f"from vfbench.pipeline import plan; plan.PATIENCE = 3.0\n{START}"  # hangs are noticed after 3 s


@contextmanager
def worker(arguments: list[str], start: str = START, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Context manager: the command in a process with these environment variables, killed at the end."""
    process = subprocess.Popen(
        python("-c", start, *arguments),
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ranks(count: int) -> list[dict[str, str]]:
    return [{"RANK": str(number), "WORLD_SIZE": str(count)} for number in range(count)]


@pytest.mark.thorough
@pytest.mark.parametrize("environments", [ranks(2), tasks(4)], ids=["ranks", "slurm"])
def test_processes_of_a_launcher_give_the_result_of_one(
    environments: list[Mapping[str, str]], alone: Path, checkpoints: Path, tmp_path: Path
) -> None:
    arguments = run_of_three_chunks(checkpoints, tmp_path / "run")
    processes = [
        subprocess.Popen(python("-m", "vfbench", *arguments), env={**os.environ, **each}) for each in environments
    ]
    assert [process.wait() for process in processes] == [0] * len(processes)
    require_same(tmp_path / "run", alone)


@pytest.mark.thorough
@pytest.mark.parametrize("count", [2, 4])
def test_workers_give_the_result_of_one(count: int, alone: Path, checkpoints: Path, tmp_path: Path) -> None:
    arguments = [*run_of_three_chunks(checkpoints, tmp_path / "run"), "--workers", str(count)]
    outcome = subprocess.run(python("-m", "vfbench", *arguments), capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert "| videofusion" in outcome.stdout
    assert f"generate ({count} workers): 96/96 clips" in outcome.stderr
    require_same(tmp_path / "run", alone)


@pytest.mark.thorough
def test_workers_killed_at_random_and_replaced_in_other_numbers(alone: Path, checkpoints: Path, tmp_path: Path) -> None:
    arguments, rng = run_of_three_chunks(checkpoints, tmp_path / "run"), random.Random(0)
    for number in range(10):
        with worker(arguments, **ranks(4)[number % 4]) as one, worker(arguments, **ranks(3)[number % 3]) as other:
            wait_for(tmp_path / "run" / "run.json", one)
            time.sleep(rng.uniform(0, 8))
            one.kill()
            time.sleep(rng.uniform(0, 2))
            other.kill()
    outcome = subprocess.run(python("-m", "vfbench", *arguments), check=False)
    assert outcome.returncode == 0
    require_same(tmp_path / "run", alone)


def test_two_that_score_a_moved_folder_at_once_give_one_result(alone: Path, checkpoints: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(alone, tmp_path / "moved")
    for name in ("results.json", "scored.safetensors"):
        (folder / name).unlink()
    arguments = run_of_three_chunks(checkpoints, folder)
    processes = [subprocess.Popen(python("-m", "vfbench", *arguments), env={**os.environ, **r}) for r in ranks(2)]
    assert [process.wait() for process in processes] == [0, 0]
    require_same(folder, alone)


def test_a_killed_worker_is_named_and_the_other_ends_the_run(alone: Path, checkpoints: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with start_command([*run_of_three_chunks(checkpoints, folder), "--workers", "2"]) as process:
        wait_for(folder / "chunks" / "000000.safetensors", process)
        victim = next(each for each in status.read(folder).workers if each.rank == 1)
        os.kill(victim.process, signal.SIGKILL)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "worker 1 was killed by signal 9" in err
    require_same(folder, alone)


def test_the_chunk_of_a_hanging_worker_is_made_by_another(alone: Path, checkpoints: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = run_of_three_chunks(checkpoints, folder)
    with worker(arguments, HASTY) as hanging:
        while not list((folder / "workers").glob("000000.*")):
            assert hanging.poll() is None
            time.sleep(0.01)
        hanging.send_signal(signal.SIGSTOP)
        with worker(arguments, HASTY, RANK="1", WORLD_SIZE="2") as other:
            _, err = other.communicate(timeout=600)
        assert other.returncode == 0, err
        assert re.search("showed no sign of life for .*: making its 000000 here", err)
        before = file_contents(folder / "chunks")
        hanging.send_signal(signal.SIGCONT)
        assert hanging.wait() == 0
    assert file_contents(folder / "chunks") == before
    require_same(folder, alone)


@pytest.mark.thorough
def test_ctrl_c_stops_all_workers_and_one_process_resumes(alone: Path, checkpoints: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with start_command([*run_of_three_chunks(checkpoints, folder), "--workers", "4"]) as process:
        wait_for(folder / "chunks" / "000001.safetensors", process)
        members = [each.process for each in status.read(folder).workers]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=600)
    assert (process.returncode, "Traceback" in err) == (130, False)
    assert all(not Path(f"/proc/{each}").exists() for each in members)
    *arguments, flag, count = resume_arguments(err)
    assert (flag, count) == ("--workers", "4")
    assert subprocess.run(python("-m", "vfbench", *arguments), check=False).returncode == 0
    require_same(folder, alone)


def test_workers_end_with_the_process_that_started_them(checkpoints: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with start_command([*run_of_three_chunks(checkpoints, folder), "--workers", "2"]) as process:
        wait_for(folder / "chunks" / "000000.safetensors", process)
        members = [each.process for each in status.read(folder).workers]
        process.kill()
    assert members
    while any(Path(f"/proc/{each}").exists() for each in members):
        time.sleep(0.1)


@pytest.mark.one_case
@pytest.mark.parametrize("arguments", [["--checkpoint", "nowhere"], ["--metrics", "fvd", "-n", "3"]])
def test_an_error_is_told_once_as_without_workers(arguments: list[str]) -> None:
    command = python("-m", "vfbench", "run", "--model", "vdm", "--device", "cpu", *arguments)
    outcomes: list[Any] = [
        subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        for more in ([], ["--workers", "2"])
    ]
    assert outcomes[0].returncode == outcomes[1].returncode > 0
    assert outcomes[0].stderr == outcomes[1].stderr


def test_the_commands_of_the_page_make_one_run(bucket: str, tmp_path: Path) -> None:
    """As written, in a smaller run: two workers of a machine, torchrun, Ray and a Slurm array; and in an S3 bucket."""
    small = {"VFBENCH_SMOKE": "1", "VFBENCH_STEPS": "1", "VFBENCH_METRICS": "fvd", "VFBENCH_DEVICE": "cpu"}
    page = DOCS["docs/scale"]
    launched, under_torchrun, by_ray, stored, state = (block.replace(" 8", " 2") for block in code(page, "sh"))
    script, _ = code(page, "bash")
    ray: list[tuple[str, dict[str, str]]] = [(by_ray, {})] if find_spec("ray") else []
    scripts = [
        (launched, {}),
        (under_torchrun, {}),
        *ray,
        *((script, each) for each in tasks(2)),
        (stored, {}),
        (state, {}),
    ]
    found = {}
    for number, (text, variables) in enumerate(scripts):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **small, **variables}
        outcome = subprocess.run(["bash", "-e", "-c", text], cwd=tmp_path, env=environment, text=True, stdout=-1)
        assert outcome.returncode == 0, text
        found[number] = without_timings(results(tmp_path / "runs" / "videofusion"))
    assert all(each == found[0] for each in found.values())
    assert "(finished)" in outcome.stdout
    (record,) = load_results(f"{bucket}/videofusion")
    assert without_timings(record.to_json()) == found[0]
