"""Where the GPU's memory is full, fewer clips are made or scored at once, and the result stays the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import close_clips, close_scores, contents, lasting
from helpers import Colour, requests
from torch import Tensor

import vfbench
from vfbench.baselines import vdm
from vfbench.baselines.noise import Noise
from vfbench.datasets import shapes
from vfbench.errors import BadEnvironment
from vfbench.interfaces import BuildContext, Clips, Features, Request
from vfbench.pipeline import job
from vfbench.pipeline.features import FeatureCollector
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan
from vfbench.utils.memory import AdaptiveBatches
from vfbench.utils.tensor_files import read_tensors

SAID = "do not fit into the memory of the GPU"


class Memory:
    """Stands in for that of a GPU: more than `room` things at once do not fit. Notes how many there were."""

    def __init__(self, room: int) -> None:
        self.room, self.seen = room, list[int]()

    def take(self, things: Sequence[Any]) -> None:
        self.seen.append(len(things))
        if len(things) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")


def run(folder: Path) -> dict[str, Any]:
    result = vfbench.benchmark(
        model="noise", num_samples=70, smoke=True, device="cpu", batch_size=16, keep_clips=True, output=folder
    )
    return lasting(result.to_json())


def small(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model `noise` works in that memory."""
    whole = Noise.sample

    def sample(self: Noise, asked: Sequence[Request]) -> Clips:
        memory.take(asked)
        return whole(self, asked)

    monkeypatch.setattr(Noise, "sample", sample)


def chunks(folder: Path) -> list[dict[str, Tensor]]:
    return [read_tensors(folder / name)[0] for name in contents(folder) if name.startswith("chunks/")]


def test_batches_are_halved_and_the_result_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    expected, memory = run(tmp_path / "whole"), Memory(6)
    small(memory, monkeypatch)
    capfd.readouterr()
    halved = run(tmp_path / "halved")
    close_scores(halved, expected)
    assert {**halved, "scores": None} == {**expected, "scores": None}
    for mine, theirs in zip(chunks(tmp_path / "halved"), chunks(tmp_path / "whole"), strict=True):
        assert mine.keys() == theirs.keys()
        assert torch.equal(mine["clips"], theirs["clips"])
        for name in mine:
            torch.testing.assert_close(mine[name], theirs[name])
    told = [line for line in capfd.readouterr().err.splitlines() if SAID in line]
    assert told == [
        f"clips 0 to 15 {SAID}: batches of 8 from here on",
        f"clips 0 to 7 {SAID}: batches of 4 from here on",
    ]
    made = [count for count in memory.seen if count > 1]  # the plan counts the cost of single ones
    assert made == [16, 8, *[4] * 17, 2]  # chunks of 32, 32 and 6


def test_a_clip_that_does_not_fit_alone_ends_the_run_and_says_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(RunOptions(model="noise", smoke=True, device="cpu", output=tmp_path / "run"))
    small(Memory(0), monkeypatch)
    with pytest.raises(BadEnvironment, match=r"clip 0 does not fit .*--dtype bfloat16.*offload='model'.*--device cpu"):
        job.run(planned)


def test_a_plan_that_does_not_fit_says_so_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(Memory(0), monkeypatch)
    with pytest.raises(BadEnvironment, match="noise, or a network that scores, does not fit into the memory"):
        plan(RunOptions(model="noise", smoke=True, device="cpu", output=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


class Large(Colour):
    """An extractor that works in a memory."""

    def __init__(self, memory: Memory) -> None:
        super().__init__("verified", ["features", "logits"])
        self.memory = memory

    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        assert len(clips) == len(requests)
        self.memory.take(requests)
        return super().__call__(clips, requests, outputs)


def features(memory: Memory, clips: Clips, wanted: FeatureCollector | None = None) -> Mapping[str, Tensor]:
    wanted = wanted or FeatureCollector({"colour": Large(memory)}, {"colour": ["features", "logits"]})
    return wanted.features(clips, requests(*range(len(clips))))


@pytest.mark.parametrize("room", [1, 3, 5])
def test_a_network_that_scores_takes_fewer_clips_at_once(room: int, capfd: pytest.CaptureFixture[str]) -> None:
    clips = torch.randint(0, 256, (11, 2, 3, 8, 8), dtype=torch.uint8)
    memory = Memory(room)
    found, expected = features(memory, clips), features(Memory(11), clips)
    assert found.keys() == {"colour.features", "colour.logits"}
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert f"colour: 11 clips {SAID}: batches of 5 from here on" in capfd.readouterr().err
    assert sum(count for count in memory.seen if count <= room) == 11


def test_a_network_that_scores_takes_fewer_clips_from_then_on(capfd: pytest.CaptureFixture[str]) -> None:
    clips, memory = torch.zeros(8, 2, 3, 8, 8, dtype=torch.uint8), Memory(4)
    wanted = FeatureCollector({"colour": Large(memory)}, {"colour": ["features"]})
    for _ in range(2):
        features(memory, clips, wanted)
    assert memory.seen == [8, 4, 4, 4, 4]
    assert capfd.readouterr().err.count(SAID) == 1


def test_a_clip_that_cannot_be_scored_alone_is_said() -> None:
    with pytest.raises(BadEnvironment, match="colour: 1 clip does not fit"):
        features(Memory(0), torch.zeros(2, 2, 3, 8, 8, dtype=torch.uint8))


# On a GPU, with a real lack of memory.


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_gpu_that_is_full_makes_the_same_clips_in_smaller_batches(
    checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sampler = vdm.build(BuildContext(shapes.build(), torch.device("cuda"), checkpoint=checkpoints / "vdm"), steps=2)
    asked, batches = requests(*range(64)), AdaptiveBatches(64)
    torch.cuda.reset_peak_memory_stats()
    whole = sampler.sample(asked)
    needed, there = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.7 * needed / there)
    try:
        made = torch.cat([clips for _, clips in batches.each(asked, sampler.sample, lambda part: f"{len(part)} clips")])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert batches.size < 64
    assert f"64 clips {SAID}" in capsys.readouterr().err
    close_clips(made, whole)
