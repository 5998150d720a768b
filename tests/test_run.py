"""Tests of runs: equal results after resuming, damage, and with any batch size; real clips, requests, errors."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import (
    Command,
    close_clips,
    close_scores,
    file_contents,
    flip_byte,
    results,
    resume_arguments,
    without_timings,
)
from torch import Tensor

import vfbench as package
from vfbench import video
from vfbench.baselines.noise import Noise
from vfbench.datasets import shapes
from vfbench.datasets.shapes import Shapes
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.interfaces import Clips, Request, Score
from vfbench.metrics import fvd
from vfbench.metrics.attributes import ATTRIBUTES
from vfbench.pipeline import features as features_
from vfbench.pipeline import real_clips as selection
from vfbench.pipeline.cost import ClipCost
from vfbench.pipeline.job import run as start
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan
from vfbench.pipeline.real_clips import choose
from vfbench.pipeline.requests import make_requests
from vfbench.pipeline.sample import NotFinite, sample
from vfbench.report.result_parts import ScoreRecord
from vfbench.utils.progress import Progress
from vfbench.utils.tensor_files import read_tensors, write_tensors

COUNT, BATCH = 70, 16  # chunks of 32, 32 and 6 clips, in batches of 16
KEYS = {"cost", "data", "dataset", "environment", "model", "model_spec", "note", "preset", "protocol", "reference"}
KEYS |= {"run_dir", "run_id", "sampling", "schema", "scores", "seed", "signature", "weights"}
SCORE_KEYS = {"value", "low", "high", "floor", "error", "limit", "limit_error", "slope", "n_real", "n_fake"}
SCORE_KEYS |= {"note", "title", "better"}
SCORES = ["fvd", "kvd", "is", "clipsim", "attributes", *ATTRIBUTES]
COST_KEYS = {"parameters", "flops_per_clip", "evaluations", "calls", "seconds_per_clip", "peak_memory_bytes"}


def run(folder: Path, **options: Any) -> dict[str, Any]:
    defaults = {"model": "noise", "num_samples": COUNT, "smoke": True, "device": "cpu", "batch_size": BATCH, **options}
    return package.run(output=folder, **defaults).to_json()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished run; shared by the module, so tests change copies only."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(folder)
    return folder


@pytest.fixture
def run_copy(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.mark.slow
def test_a_run_with_fewer_metrics_keeps_the_other_scores(finished: Path, run_copy: Path) -> None:
    before = results(finished)
    repeated = run(run_copy, metrics=["fvd"])
    assert list(repeated["scores"]) == list(before["scores"]) == SCORES
    assert repeated["scores"] == before["scores"]
    cached = read_tensors(run_copy / "scored.safetensors")[0].keys()
    assert {"fake.shapes_judge.features", "fake.shapes_judge.logits", "fake.shapes_judge.similarity"} <= cached


def chunk(folder: Path, index: int) -> Path:
    return folder / "chunks" / f"{index:06d}.safetensors"


# Files of a run.


@pytest.mark.pitfall("numbers that cannot be made again")
def test_a_result_records_protocol_cost_and_intervals(finished: Path) -> None:
    result = results(finished)
    assert result.keys() == KEYS
    assert (result["model"], result["dataset"], result["seed"]) == ("noise", "shapes", 0)
    assert result["run_dir"] == str(finished)
    assert result["cost"].keys() == COST_KEYS
    assert result["sampling"] == {}
    assert list(result["scores"]) == SCORES
    for score in result["scores"].values():
        assert score.keys() - {"chance", "part_of"} == SCORE_KEYS
        assert (score["n_real"], score["n_fake"]) == (64, COUNT)
        assert score["low"] <= score["value"] <= score["high"]
    assert re.fullmatch(r"[0-9a-f]{12}", result["protocol"]["id"])
    assert result["protocol"]["data_fingerprint"] == shapes.build().fingerprint
    assert result["protocol"]["comparable"] is False


def test_a_run_folder_has_the_documented_files(finished: Path) -> None:
    chunks = [f"chunks/{i:06d}.safetensors" for i in range(3)]
    tables = [f"tables/table.{suffix}" for suffix in ("csv", "md", "tex")]
    samples = [f"samples/{name}" for name in ("sheet.png", "clips.webp", "real/sheet.png", "real/clips.webp")]
    chunks += [f"timings/{i:06d}.json" for i in range(3)]
    expected = {*chunks, *tables, *samples, "run.json", "results.json", "scored.safetensors", "data.md", "manifest.csv"}
    (events,) = (finished / "events").iterdir()
    assert file_contents(finished).keys() - {".lock"} == {*expected, f"events/{events.name}"}
    assert "not comparable" in (finished / "tables" / "table.md").read_text()


def test_chunks_record_their_run_and_requests(finished: Path) -> None:
    metadata_of_chunks = [read_tensors(chunk(finished, i))[1] for i in range(3)]
    assert {metadata["run"] for metadata in metadata_of_chunks} == {results(finished)["run_id"]}
    assert [metadata["requests"] for metadata in metadata_of_chunks] == ["0-31", "32-63", "64-69"]


def test_the_run_id_depends_on_options_that_change_scores(tmp_path: Path) -> None:
    def run_id(**options: Any) -> str:
        arguments = {"model": "noise", "num_samples": 8, "smoke": True, "device": "cpu", **options}
        return str(plan(RunOptions(output=tmp_path / "x", **arguments)).specification.id)

    default = run_id()
    assert run_id(batch_size=3, keep_clips=True) == default
    others: list[dict[str, Any]] = [{"seed": 1}, {"num_samples": 9}, {"model": "real"}, {"dataset": "shapes(frames=8)"}]
    assert len({default, *(run_id(**other) for other in others)}) == 5


def test_an_explicit_default_gives_the_same_run_id(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vfbench.pipeline.plan.measure", lambda *_: ClipCost(0, 0, 0, {}, 0.0))  # slow
    arguments: dict[str, Any] = {"checkpoint": checkpoints / "vdm", "num_samples": 4, "smoke": True, "device": "cpu"}
    plans = [
        plan(RunOptions(model=model, **arguments)) for model in ("vdm", "vdm(solver='dpm++2m')", "vdm(solver='ddim')")
    ]
    default, explicit, other = (p.specification.id for p in plans)
    assert default == explicit != other


# Resuming.


def test_a_finished_run_is_not_sampled_again(run_copy: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counting_sample(self: Noise, requests: Sequence[Request]) -> Clips:
        calls.append(len(requests))
        return torch.full((len(requests), 16, 3, 32, 32), 9, dtype=torch.uint8)

    monkeypatch.setattr(Noise, "sample", counting_sample)
    assert without_timings(run(run_copy)) == without_timings(results(finished))
    assert set(calls) == {1}  # only to measure the cost


def flip_middle_byte(path: Path) -> None:
    flip_byte(path, path.stat().st_size // 2)


def change_seconds(path: Path) -> None:
    record = path.parent.parent / "timings" / f"{path.stem}.json"
    flip_byte(record, record.read_bytes().index(b'"seconds": ') + len(b'"seconds": '), bits=1)  # another digit


def lose_seconds(path: Path) -> None:
    (path.parent.parent / "timings" / f"{path.stem}.json").unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_neighbour(path: Path) -> None:
    shutil.copy(path.with_name("000000.safetensors"), path)


def replace_by_another_run(path: Path) -> None:
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, **{**metadata, "run": "0" * 64})


def drop_last_clip(path: Path) -> None:
    tensors, metadata = read_tensors(path)
    write_tensors(path, {name: tensor[:-1] for name, tensor in tensors.items()}, **metadata)


@pytest.mark.one_case
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_middle_byte, "does not match its hash"),
        (change_seconds, "does not match its hash"),
        (lose_seconds, "its record is lost"),
        (truncate, "unreadable"),
        (empty, "unreadable"),
        (replace_by_neighbour, "belongs to requests 0-31, not 32-63"),
        (replace_by_another_run, "belongs to run 0000"),
        (drop_last_clip, "does not hold 32 clips"),
        (Path.unlink, ""),
    ],
)
def test_a_damaged_chunk_is_sampled_again(
    damage: Callable[[Path], None], reason: str, run_copy: Path, finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(chunk(run_copy, 1))
    resumed = run(run_copy)
    err = capfd.readouterr().err
    assert reason in err
    assert (f"{chunk(run_copy, 1)} cannot be used" in err) is bool(reason)
    assert f"resumed: {COUNT - 32} of {COUNT} clips are already there" in err
    assert without_timings(resumed) == without_timings(results(finished))
    assert file_contents(run_copy / "chunks") == file_contents(finished / "chunks")


@pytest.mark.slow
def test_keep_clips_on_a_finished_run_samples_them(run_copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = without_timings(results(run_copy))
    repeated = run(run_copy, keep_clips=True)
    assert "it lacks clips" in capfd.readouterr().err
    assert without_timings(repeated) == before
    assert read_tensors(chunk(run_copy, 2))[0]["clips"].shape == (6, 16, 3, 32, 32)


# Interrupted within the first chunk, within the second, and before the last is written.
@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("after", [16, 48, 70])
def test_ctrl_c_prints_the_resume_command_which_gives_equal_results(
    after: int, finished: Path, tmp_path: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["run", "--model", "noise", "-n", COUNT, "--smoke", "--device=cpu", "--batch_size", BATCH]
    command += ["--output", tmp_path / "a run"]
    original = Progress.advance

    def interrupted(self: Progress, amount: int, note: str = "") -> None:
        original(self, amount, note)
        if self.title == "generate" and self.done == after:
            signal.default_int_handler(signal.SIGINT, None)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", interrupted)
        interrupted_outcome = vfbench(*command)
    assert interrupted_outcome.code == 130
    assert "Traceback" not in interrupted_outcome.err
    assert not (tmp_path / "a run" / "results.json").exists()
    arguments = resume_arguments(interrupted_outcome.err)
    assert arguments == [str(argument).replace("--batch_size", "--batch-size") for argument in command]
    resumed_outcome = vfbench(*arguments)
    assert resumed_outcome.code == 0
    assert (f"resumed: {32 * (after // 32)} of" in resumed_outcome.err) is (after > 32)
    assert without_timings(results(tmp_path / "a run")) == without_timings(results(finished))


def test_ctrl_c_before_planning_prints_the_resume_command(vfbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vfbench.pipeline.plan.plan", interrupted)
    outcome = vfbench("run", "--model", "noise", "--seed", 1)
    assert (outcome.code, resume_arguments(outcome.err)) == (130, ["run", "--model", "noise", "--seed", "1"])


# Batches.


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("model", ["vdm", "videofusion"])
def test_the_batch_size_does_not_change_clips(model: str, checkpoints: Path, tmp_path: Path) -> None:
    arguments = {"model": model, "checkpoint": checkpoints / model, "steps": 2, "num_samples": 8, "keep_clips": True}
    results_by_size = {size: run(tmp_path / str(size), batch_size=size, **arguments) for size in (1, 3, 64)}
    clips = {size: read_tensors(chunk(tmp_path / str(size), 0))[0]["clips"] for size in results_by_size}
    for size in (3, 64):
        close_clips(clips[size], clips[1])
        close_scores(results_by_size[size], results_by_size[1])


@pytest.mark.slow
def test_a_large_batch_size_enlarges_chunks_in_new_folders_only(tmp_path: Path) -> None:
    run(tmp_path / "small", num_samples=40)
    run(tmp_path / "small", num_samples=40, batch_size=40)
    run(tmp_path / "large", num_samples=40, batch_size=40)
    assert [len(list((tmp_path / name / "chunks").iterdir())) for name in ("small", "large")] == [2, 1]
    close_scores(results(tmp_path / "small"), results(tmp_path / "large"))


class FixedAnswer(Noise):
    """Sampler that returns the same clips for every batch."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__(shapes.build())
        self.answer = answer

    def sample(self, requests: Sequence[Request]) -> Clips:
        return video.to_uint8(self.answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.rand(1, 16, 3, 32, 32), "2 of 16x32x32 were due, 1 of 16x32x32 came"),
        (torch.rand(2, 16, 3, 32, 31), "2 of 16x32x32 were due, 2 of 16x32x31 came"),
        (torch.full((2, 16, 3, 32, 32), float("nan")), "NaN or infinity"),
    ],
)
def test_invalid_clips_are_refused_naming_their_requests(answer: Tensor, message: str) -> None:
    batch = [Request(i, i, 0, "") for i in (6, 7)]
    with pytest.raises(UserError, match=f"clips 6 to 7 cannot be scored: .*{message}"):
        sample(FixedAnswer(answer), batch)


def test_only_clips_that_are_not_finite_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Clips:
        raise ValueError("a fault of the plug-in")

    monkeypatch.setattr(FixedAnswer, "sample", fail)
    with pytest.raises(UserError, match="clip 6 cannot be scored: a fault of the plug-in") as caught:
        sample(FixedAnswer(torch.zeros(0)), [Request(6, 6, 0, "")])
    assert not isinstance(caught.value, NotFinite)


def test_out_of_memory_is_reported_with_remedies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def out_of_memory(*_: object) -> None:  # even with the smallest batch
        raise torch.OutOfMemoryError("CUDA out of memory")

    run_plan = plan(RunOptions(model="noise", smoke=True, device="cpu", output=tmp_path / "run"))
    monkeypatch.setattr("vfbench.pipeline.job.real_features", out_of_memory)
    with pytest.raises(BadEnvironment, match=r"does not fit .*--dtype bfloat16"):
        start(run_plan)


# Real clips.


@pytest.fixture
def extractions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, int]]:
    """Split and number of clips of each extraction of real features, with an empty cache."""
    calls: list[tuple[str, int]] = []
    original = features_._features

    def recorded(data: Shapes, split: Any, indices: Sequence[int], *more: Any) -> dict[str, Tensor]:
        calls.append((split, len(indices)))
        return original(data, split, indices, *more)

    monkeypatch.setattr(features_, "_features", recorded)
    monkeypatch.setenv("VFBENCH_CACHE", str(tmp_path / "cache"))
    return calls


@pytest.mark.slow
@pytest.mark.pitfall("stale features of real clips")
def test_real_features_are_extracted_once(
    extractions: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path / "1", num_samples=8)
    expected = [("train", 64), ("train", 8)]  # for the scores, and for the floor
    assert extractions == expected
    second = run(tmp_path / "2", num_samples=8)
    run(tmp_path / "3", num_samples=8, seed=1)  # other generated clips, the same real ones
    assert extractions == expected
    assert without_timings(first) == without_timings(second)
    run(tmp_path / "4", num_samples=8, metrics=["is"])  # needs other outputs
    assert len(extractions) == 4
    monkeypatch.setattr(shapes, "VERSION", 2)  # other real clips under the same name
    run(tmp_path / "5", num_samples=8)
    assert len(extractions) == 6


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("damage", [flip_middle_byte, truncate, replace_by_another_run])
def test_a_damaged_cache_is_extracted_again(
    damage: Callable[[Path], None],
    extractions: list[tuple[str, int]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    first = run(tmp_path / "1", num_samples=8)
    path = max((tmp_path / "cache" / "real").iterdir(), key=lambda file: file.stat().st_size)
    if damage is replace_by_another_run:
        write_tensors(path, read_tensors(path)[0], key="another")
    else:
        damage(path)
    second = run(tmp_path / "2", num_samples=8)
    assert f"{path} cannot be used" in capfd.readouterr().err
    assert len(extractions) == 3
    assert without_timings(first) == without_timings(second)
    run(tmp_path / "3", num_samples=8)
    assert len(extractions) == 3


@pytest.mark.slow
def test_an_unwritable_cache_is_a_warning(
    extractions: list[tuple[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VFBENCH_CACHE", str(tmp_path / "file" / "cache"))
    result = run(tmp_path / "run", num_samples=8)
    assert result["scores"]
    assert "warning: features of real clips are not kept" in capfd.readouterr().err


def test_split_both_concatenates_train_and_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shapes, "size", lambda _, split: {"train": 3, "test": 5}[split])
    assert selection.available(shapes.build(), "both") == 8
    chosen = selection.videos(shapes.build(), "both", [7, 0, 2, 3, 0])
    assert chosen == [("test", 4), ("train", 0), ("train", 2), ("test", 0), ("train", 0)]


def test_nonfinite_scores_are_null_in_json() -> None:
    record = ScoreRecord.of(fvd.build(), Score(1.0, float("nan"), float("inf"), 0.0, 4, 8)).to_json()
    assert (record["value"], record["low"], record["high"], record["n_real"]) == (1.0, None, None, 4)


# Choice of clips.


@pytest.mark.pitfall("which real clips")
def test_choose_is_pinned() -> None:
    assert choose(1 << 20, 5, 0) == [976998, 123578, 559226, 383648, 663813]
    assert choose(10, 3, 1) == choose(10, 3, 1)
    assert choose(1 << 20, 3, 1) != choose(1 << 20, 3, 0)


@pytest.mark.parametrize(("size", "count"), [(100, 7), (100, 99), (2000, 1999), (5, 5), (5, 9), (5, 0)])
@pytest.mark.pitfall("more clips than there are")
def test_choose_repeats_nothing(size: int, count: int) -> None:
    chosen = choose(size, count, 3)
    assert len(chosen) == len(set(chosen)) == min(size, count)
    assert set(chosen) <= set(range(size))


def test_choose_handles_equal_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "derive_seed", lambda _, index, purpose="": index % 2)
    monkeypatch.setattr(selection, "derive_seeds", lambda _, indices, purpose="": [index % 2 for index in indices])
    assert choose(5, 3, 0) == [0, 2, 4]


@pytest.mark.pitfall("numbers that cannot be made again")
def test_requests_do_not_depend_on_their_number() -> None:
    data = shapes.build()
    longer = make_requests(data, "test", 20, seed=5)
    assert list(longer[:6]) == list(make_requests(data, "test", 6, seed=5))
    assert [request.index for request in longer] == list(range(20))
    assert len({request.seed for request in longer}) == 20
    assert longer[0] != make_requests(data, "test", 1, seed=6)[0]
    first = longer[0]
    assert data.captions("test", [first.source]) == [first.prompt]
    assert data.labels("test", [first.source]) == [first.label]


def test_requests_from_an_empty_split_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shapes, "size", lambda *_: 0)
    with pytest.raises(UserError, match="shapes has no test clips"):
        make_requests(shapes.build(), "test", 4, seed=0)


# Python API.


@pytest.mark.usefixtures("few_real")
def test_benchmark_returns_the_written_result(tmp_path: Path) -> None:
    result = package.run(model="noise", num_samples=64, metrics=["fvd"], device="cpu", output=str(tmp_path / "r"))
    assert result.to_json() == results(tmp_path / "r")
    assert result.protocol.comparable is True
    assert list(result.scores) == ["fvd"]
    assert result.scores["fvd"].value > 5 * result.scores["fvd"].floor


def test_benchmark_raises_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'noise'"):
        package.run(model="nois")
    with pytest.raises(MissingData, match=r"none does not exist"):
        package.run(model="vdm", checkpoint=str(tmp_path / "none"), smoke=True)


# GPU.


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("model", ["videofusion", "vdm"])
def test_clips_of_a_gpu_equal_those_of_a_cpu(
    model: str, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vfbench.diffusion.sampler.noise_generator", lambda device: "philox")
    arguments: dict[str, Any] = {"model": model, "checkpoint": checkpoints / model, "steps": 2, "num_samples": 16}
    tensors = {}
    for device in ("cpu", "cuda"):
        result = run(tmp_path / device, device=device, dtype="float32", keep_clips=True, **arguments)
        assert result["cost"]["peak_memory_bytes"] > 0
        tensors[device] = read_tensors(chunk(tmp_path / device, 0))[0]
    difference = (tensors["cpu"]["clips"].int() - tensors["cuda"]["clips"].int()).abs().float()
    assert float(difference.mean()) < 1  # equal noise: rounding changes a pixel by at most a grey level
    a, b = (tensors[device]["shapes_judge.features"] for device in tensors)
    assert float((a - b).norm() / a.norm()) < 0.05
    assert run(tmp_path / "bf16", device="cuda", **arguments)["environment"]["device"] == torch.cuda.get_device_name()
