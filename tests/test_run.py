"""A run ends with the same result however it got there: resumed, damaged and mended, in batches of any size."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, close_clips, close_scores, contents, flip, lasting, results, resumes
from torch import Tensor

import vfbench as package
from vfbench import video
from vfbench.baselines.noise import Noise
from vfbench.datasets import shapes
from vfbench.datasets.shapes import Shapes
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.interfaces import Clips, Request, Score
from vfbench.metrics import fvd
from vfbench.pipeline import features as features_
from vfbench.pipeline import real_clips as selection
from vfbench.pipeline.cost import ClipCost
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.job import run as start
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan
from vfbench.pipeline.real_clips import choose
from vfbench.pipeline.requests import make_requests
from vfbench.pipeline.sample import sample
from vfbench.report.results import ScoreRecord
from vfbench.utils.progress import Progress
from vfbench.utils.tensor_files import read_tensors, write_tensors

COUNT, BATCH = 70, 16  # three chunks: 32, 32 and 6 clips, in batches of 16, 16; 16, 16; 6
KEYS = {"cost", "data", "dataset", "environment", "model", "model_spec", "note", "preset", "protocol", "reference"}
KEYS |= {"run_dir", "run_id", "schema", "scores", "seed", "weights"}
SCORE = {
    "error",
    "limit",
    "limit_error",
    "slope",
    "value",
    "low",
    "high",
    "floor",
    "n_real",
    "n_fake",
    "note",
    "title",
    "better",
}
COST = {"parameters", "flops_per_clip", "evaluations", "calls", "seconds_per_clip", "peak_memory_bytes"}


def run(folder: Path, **options: Any) -> dict[str, Any]:
    given = {"model": "noise", "num_samples": COUNT, "smoke": True, "device": "cpu", "batch_size": BATCH, **options}
    return package.benchmark(output=folder, **given).to_json()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing has disturbed; not to be touched, but copied."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(folder)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "copy")


def test_fewer_metrics_later_leave_the_other_scores_where_they_are(finished: Path, copied: Path) -> None:
    before = results(finished)
    again = run(copied, metrics=["fvd"])
    assert list(again["scores"]) == list(before["scores"]) == ["fvd", "kvd", "is", "clipsim"]
    assert again["scores"] == before["scores"]
    named = read_tensors(copied / "scored.safetensors")[0].keys()
    assert {"fake.shapes_judge.features", "fake.shapes_judge.logits", "fake.shapes_judge.similarity"} <= named


def chunk(folder: Path, index: int) -> Path:
    return folder / "chunks" / f"{index:06d}.safetensors"


def untimed(folder: Path) -> dict[str, tuple[dict[str, bytes], dict[str, str]]]:
    """All chunks of a run, without the seconds they took."""
    found = {}
    for path in sorted((folder / "chunks").iterdir()):
        tensors, metadata = read_tensors(path)
        named = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
        found[path.name] = named, {key: value for key, value in metadata.items() if key != "seconds"}
    return found


# What a run leaves.


@pytest.mark.pitfall("numbers that cannot be made again")
def test_a_result_says_all_that_is_needed_to_trust_it(finished: Path) -> None:
    result = results(finished)
    assert result.keys() == KEYS
    assert (result["model"], result["dataset"], result["seed"]) == ("noise", "shapes", 0)
    assert result["run_dir"] == str(finished)
    assert result["cost"].keys() == COST
    assert list(result["scores"]) == ["fvd", "kvd", "is", "clipsim"]
    for score in result["scores"].values():
        assert score.keys() == SCORE
        assert (score["n_real"], score["n_fake"]) == (64, COUNT)
        assert score["low"] <= score["value"] <= score["high"]
    assert re.fullmatch(r"[0-9a-f]{12}", result["protocol"]["id"])
    assert result["protocol"]["data_fingerprint"] == shapes.build().fingerprint
    assert result["protocol"]["comparable"] is False


def test_a_run_folder_has_its_parts_and_nothing_else(finished: Path) -> None:
    chunks = [f"chunks/{i:06d}.safetensors" for i in range(3)]
    tables = [f"tables/table.{suffix}" for suffix in ("csv", "md", "tex")]
    samples = [f"samples/{name}" for name in ("sheet.png", "clips.webp", "real/sheet.png", "real/clips.webp")]
    made = {*chunks, *tables, *samples, "run.json", "results.json", "scored.safetensors", "data.md", "manifest.csv"}
    assert contents(finished).keys() - {".lock"} == made
    assert "not comparable" in (finished / "tables" / "table.md").read_text()


def test_a_chunk_knows_its_run_and_its_requests(finished: Path) -> None:
    found = [read_tensors(chunk(finished, i))[1] for i in range(3)]
    assert {metadata["run"] for metadata in found} == {results(finished)["run_id"]}
    assert [metadata["requests"] for metadata in found] == ["0-31", "32-63", "64-69"]


def test_the_run_id_follows_what_moves_the_numbers_and_nothing_else(tmp_path: Path) -> None:
    def run_id(**options: Any) -> str:
        given = {"model": "noise", "num_samples": 8, "smoke": True, "device": "cpu", **options}
        return str(plan(RunOptions(output=tmp_path / "x", **given)).specification.id)

    usual = run_id()
    assert run_id(batch_size=3, keep_clips=True) == usual
    others: list[dict[str, Any]] = [{"seed": 1}, {"num_samples": 9}, {"model": "real"}, {"dataset": "shapes(frames=8)"}]
    assert len({usual, *(run_id(**other) for other in others)}) == 5


def test_a_default_that_is_typed_is_the_same_run(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vfbench.pipeline.plan.measure", lambda *_: ClipCost(0, 0, 0, {}, 0.0))  # it takes its time
    given: dict[str, Any] = {"checkpoint": checkpoints / "vdm", "num_samples": 4, "smoke": True, "device": "cpu"}
    plans = [plan(RunOptions(model=model, **given)) for model in ("vdm", "vdm(steps=25)", "vdm(steps=24)")]
    same, typed, other = (p.specification.id for p in plans)
    assert same == typed != other


# Resuming.


def test_a_finished_run_is_not_made_again(copied: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(self: Noise, asked: Sequence[Request]) -> Clips:
        calls.append(len(asked))
        return torch.full((len(asked), 16, 3, 32, 32), 9, dtype=torch.uint8)

    monkeypatch.setattr(Noise, "sample", counted)
    assert lasting(run(copied)) == lasting(results(finished))
    assert set(calls) == {1}  # only the plan's own, to count the cost


def test_the_memory_that_a_run_took_stays_when_only_its_scores_are_made_again(copied: Path) -> None:
    content = results(copied)
    content["cost"]["peak_memory_bytes"] = 10**15
    (copied / "results.json").write_text(json.dumps(content))
    assert run(copied)["cost"]["peak_memory_bytes"] == 10**15
    content["cost"]["peak_memory_bytes"] = 1
    (copied / "results.json").write_text(json.dumps(content))
    assert run(copied)["cost"]["peak_memory_bytes"] > 1


def damaged(path: Path) -> None:
    flip(path, path.stat().st_size // 2)


def mislabelled(path: Path) -> None:
    flip(path, path.read_bytes().index(b'"seconds":"') + len(b'"seconds":"'), bits=1)  # another digit


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced_by_its_neighbour(path: Path) -> None:
    shutil.copy(path.with_name("000000.safetensors"), path)


def replaced_by_another_run(path: Path) -> None:
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, **{**metadata, "run": "0" * 64})


def short(path: Path) -> None:
    tensors, metadata = read_tensors(path)
    write_tensors(path, {name: tensor[:-1] for name, tensor in tensors.items()}, **metadata)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (damaged, "does not match its hash"),
        (mislabelled, "does not match its hash"),
        (truncated, "unreadable"),
        (emptied, "unreadable"),
        (replaced_by_its_neighbour, "belongs to requests 0-31, not 32-63"),
        (replaced_by_another_run, "belongs to run 0000"),
        (short, "does not hold 32 clips"),
        (Path.unlink, ""),
    ],
)
def test_a_chunk_that_is_not_right_is_found_and_made_again(
    harm: Callable[[Path], None], said: str, copied: Path, finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    harm(chunk(copied, 1))
    again = run(copied)
    err = capfd.readouterr().err
    assert said in err
    assert (f"{chunk(copied, 1)} cannot be used" in err) is bool(said)
    assert f"resumed: {COUNT - 32} of {COUNT} clips are already there" in err
    assert lasting(again) == lasting(results(finished))
    assert untimed(copied) == untimed(finished)


def test_clips_that_are_wanted_only_now_are_made_now(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = lasting(results(copied))
    again = run(copied, keep_clips=True)
    assert "it lacks clips" in capfd.readouterr().err
    assert lasting(again) == before
    assert read_tensors(chunk(copied, 2))[0]["clips"].shape == (6, 16, 3, 32, 32)


@pytest.mark.parametrize(
    "after", [16, 48, 70]
)  # clips: amid the first chunk, amid the second, before the last is written
def test_ctrl_c_says_how_to_go_on_and_going_on_ends_the_same(
    after: int, finished: Path, tmp_path: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["run", "--model", "noise", "-n", COUNT, "--smoke", "--device=cpu", "--batch_size", BATCH]
    command += ["--output", tmp_path / "a run"]
    count = Progress.advance

    def interrupted(self: Progress, amount: int, note: str = "") -> None:
        count(self, amount, note)
        if self.title == "generate" and self.done == after:
            signal.default_int_handler(signal.SIGINT, None)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", interrupted)
        stopped = vfbench(*command)
    assert stopped.code == 130
    assert "Traceback" not in stopped.err
    assert not (tmp_path / "a run" / "results.json").exists()
    again = resumes(stopped.err)
    assert again == [str(word).replace("--batch_size", "--batch-size") for word in command]
    done = vfbench(*again)
    assert done.code == 0
    assert (f"resumed: {32 * (after // 32)} of" in done.err) is (after > 32)
    assert lasting(results(tmp_path / "a run")) == lasting(results(finished))


def test_ctrl_c_before_the_work_begins_says_the_same(vfbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vfbench.pipeline.plan.plan", interrupted)
    stopped = vfbench("run", "--model", "noise(", "--seed", 1)
    assert (stopped.code, resumes(stopped.err)) == (130, ["run", "--model", "noise(", "--seed", "1"])


# Batches.


@pytest.mark.slow
@pytest.mark.parametrize("model", ["videofusion", "vdm"])
def test_the_batch_size_does_not_change_a_clip(model: str, checkpoints: Path, tmp_path: Path) -> None:
    given = {"model": model, "checkpoint": checkpoints / model, "steps": 2, "num_samples": 8, "keep_clips": True}
    made = {size: run(tmp_path / str(size), batch_size=size, **given) for size in (1, 3, 64)}
    clips = {size: read_tensors(chunk(tmp_path / str(size), 0))[0]["clips"] for size in made}
    for size in (3, 64):
        close_clips(clips[size], clips[1])
        close_scores(made[size], made[1])


def test_a_large_batch_makes_larger_chunks_but_not_in_a_folder_that_has_smaller_ones(tmp_path: Path) -> None:
    run(tmp_path / "small", num_samples=40)
    run(tmp_path / "small", num_samples=40, batch_size=40)
    run(tmp_path / "large", num_samples=40, batch_size=40)
    assert [len(list((tmp_path / name / "chunks").iterdir())) for name in ("small", "large")] == [2, 1]
    close_scores(results(tmp_path / "small"), results(tmp_path / "large"))


class Wrong(Noise):
    """A sampler that answers each batch with whatever it is told."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__(shapes.build())
        self.answer = answer

    def sample(self, requests: Sequence[Request]) -> Clips:
        return video.to_uint8(self.answer)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (torch.rand(1, 16, 3, 32, 32), "2 of 16x32x32 were due, 1 of 16x32x32 came"),
        (torch.rand(2, 16, 3, 32, 31), "2 of 16x32x32 were due, 2 of 16x32x31 came"),
        (torch.full((2, 16, 3, 32, 32), float("nan")), "NaN or infinity"),
    ],
)
def test_clips_that_are_none_are_named(answer: Tensor, said: str) -> None:
    batch = [Request(i, i, 0, "") for i in (6, 7)]
    with pytest.raises(UserError, match=f"clips 6 to 7 cannot be scored: .*{said}"):
        sample(Wrong(answer), batch)


def test_a_gpu_that_is_too_small_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def too_small(*_: object) -> None:  # where fewer clips at once are no help
        raise torch.OutOfMemoryError("CUDA out of memory")

    planned = plan(RunOptions(model="noise", smoke=True, device="cpu", output=tmp_path / "run"))
    monkeypatch.setattr("vfbench.pipeline.job.real_features", too_small)
    with pytest.raises(BadEnvironment, match=r"run keeps what is done\) does not fit .*--dtype bfloat16"):
        start(planned)


# Real clips.


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, int]]:
    """Split and number of real clips each time features of some are made, with an empty cache."""
    seen: list[tuple[str, int]] = []
    make = features_._features

    def noted(data: Shapes, split: Any, indices: Sequence[int], *more: Any) -> dict[str, Tensor]:
        seen.append((split, len(indices)))
        return make(data, split, indices, *more)

    monkeypatch.setattr(features_, "_features", noted)
    monkeypatch.setenv("VFBENCH_CACHE", str(tmp_path / "cache"))
    return seen


@pytest.mark.pitfall("stale features of real clips")
def test_real_features_are_made_once(
    counted: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path / "1", num_samples=8)
    made = [("train", 64), ("train", 8)]  # to score against, and for the floor
    assert counted == made
    second = run(tmp_path / "2", num_samples=8)
    run(tmp_path / "3", num_samples=8, seed=1)  # other clips, the same real ones
    assert counted == made
    assert lasting(first) == lasting(second)
    run(tmp_path / "4", num_samples=8, metrics=["is"])  # needs other outputs
    assert len(counted) == 4
    monkeypatch.setattr(shapes, "VERSION", 2)  # other real clips under the same name
    run(tmp_path / "5", num_samples=8)
    assert len(counted) == 6


@pytest.mark.parametrize("harm", [damaged, truncated, replaced_by_another_run])
def test_a_damaged_cache_is_found_and_made_again(
    harm: Callable[[Path], None], counted: list[tuple[str, int]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = run(tmp_path / "1", num_samples=8)
    path = max((tmp_path / "cache" / "real").iterdir(), key=lambda file: file.stat().st_size)
    if harm is replaced_by_another_run:
        write_tensors(path, read_tensors(path)[0], key="another")
    else:
        harm(path)
    second = run(tmp_path / "2", num_samples=8)
    assert f"{path} cannot be used" in capfd.readouterr().err
    assert len(counted) == 3
    assert lasting(first) == lasting(second)
    run(tmp_path / "3", num_samples=8)
    assert len(counted) == 3


def test_a_cache_that_cannot_be_written_stops_nothing(
    counted: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VFBENCH_CACHE", str(tmp_path / "file" / "cache"))
    result = run(tmp_path / "run", num_samples=8)
    assert result["scores"]
    assert "warning: features of real clips are not kept" in capfd.readouterr().err


def test_both_splits_can_be_laid_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shapes, "size", lambda _, split: {"train": 3, "test": 5}[split])
    assert selection.available(shapes.build(), "both") == 8
    chosen = selection.videos(shapes.build(), "both", [7, 0, 2, 3, 0])
    assert chosen == [("test", 4), ("train", 0), ("train", 2), ("test", 0), ("train", 0)]


def test_a_number_that_is_none_is_null() -> None:
    record = ScoreRecord.of(fvd.build(), Score(1.0, float("nan"), float("inf"), 0.0, 4, 8)).to_json()
    assert (record["value"], record["low"], record["high"], record["n_real"]) == (1.0, None, None, 4)


# Which clips.


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


def test_choose_comes_to_an_end_where_hashes_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "derive_seed", lambda _, index, purpose="": index % 2)
    assert choose(5, 3, 0) == [0, 2, 4]


@pytest.mark.pitfall("numbers that cannot be made again")
def test_a_longer_run_begins_like_a_shorter_one() -> None:
    data = shapes.build()
    longer = make_requests(data, "test", 20, seed=5)
    assert longer[:6] == make_requests(data, "test", 6, seed=5)
    assert [request.index for request in longer] == list(range(20))
    assert len({request.seed for request in longer}) == 20
    assert longer[0] != make_requests(data, "test", 1, seed=6)[0]
    first = longer[0]
    assert data.captions("test", [first.source]) == [first.prompt]
    assert data.labels("test", [first.source]) == [first.label]


def test_requests_need_a_clip_to_take_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shapes, "size", lambda *_: 0)
    with pytest.raises(UserError, match="shapes has no test clips"):
        make_requests(shapes.build(), "test", 4, seed=0)


# From Python.


@pytest.mark.usefixtures("few_real")
def test_python_gets_what_is_written(tmp_path: Path) -> None:
    result = package.benchmark(model="noise", num_samples=64, metrics=["fvd"], device="cpu", output=str(tmp_path / "r"))
    assert result.to_json() == results(tmp_path / "r")
    assert result.protocol.comparable is True
    assert list(result.scores) == ["fvd"]
    assert result.scores["fvd"].value > 5 * result.scores["fvd"].floor


def test_python_gets_its_mistakes_as_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'noise'"):
        package.benchmark(model="nois")
    with pytest.raises(MissingData, match=r"none does not exist"):
        package.benchmark(model="vdm", checkpoint=str(tmp_path / "none"), smoke=True)
    held = RunFolder.hold(tmp_path / "run", plan(RunOptions(model="noise", smoke=True, device="cpu")).specification)
    with held, pytest.raises(BadEnvironment, match="in use"):
        package.benchmark(model="noise", smoke=True, device="cpu", output=tmp_path / "run")


# On a GPU.


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("model", ["videofusion", "vdm"])
def test_a_gpu_makes_the_clips_that_a_cpu_makes(model: str, checkpoints: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": model, "checkpoint": checkpoints / model, "steps": 2, "num_samples": 16}
    found = {}
    for device in ("cpu", "cuda"):
        result = run(tmp_path / device, device=device, dtype="float32", keep_clips=True, **given)
        assert result["cost"]["peak_memory_bytes"] > 0
        found[device] = read_tensors(chunk(tmp_path / device, 0))[0]
    difference = (found["cpu"]["clips"].int() - found["cuda"]["clips"].int()).abs().float()
    assert float(difference.mean()) < 1  # the same noise: other arithmetic moves a pixel by a grey level, if at all
    a, b = (found[device]["shapes_judge.features"] for device in found)
    assert float((a - b).norm() / a.norm()) < 0.05
    assert run(tmp_path / "bf16", device="cuda", **given)["environment"]["device"] == torch.cuda.get_device_name()
