"""Tests of batch sizes in `vfbench.pipeline.generate`: full GPU memory halves the batches, the result is unchanged."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import close_clips, close_scores, file_contents, without_timings
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

MESSAGE = "do not fit into the memory of the GPU"


class FakeMemory:
    """GPU memory that holds `capacity` items; records the size of every batch."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.batch_sizes = capacity, list[int]()

    def allocate(self, items: Sequence[Any]) -> None:
        self.batch_sizes.append(len(items))
        if len(items) > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory")


def run(folder: Path) -> dict[str, Any]:
    result = vfbench.run(
        model="noise", num_samples=70, smoke=True, device="cpu", batch_size=16, keep_clips=True, output=folder
    )
    return without_timings(result.to_json())


def limit_noise(memory: FakeMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model `noise` allocate from this memory."""
    original = Noise.sample

    def sample(self: Noise, requests: Sequence[Request]) -> Clips:
        memory.allocate(requests)
        return original(self, requests)

    monkeypatch.setattr(Noise, "sample", sample)


def chunks(folder: Path) -> list[dict[str, Tensor]]:
    return [read_tensors(folder / name)[0] for name in file_contents(folder) if name.startswith("chunks/")]


@pytest.mark.slow
def test_batches_are_halved_and_the_result_is_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    expected, memory = run(tmp_path / "full"), FakeMemory(6)
    limit_noise(memory, monkeypatch)
    capfd.readouterr()
    halved = run(tmp_path / "halved")
    close_scores(halved, expected)
    assert {**halved, "scores": None} == {**expected, "scores": None}
    for chunk, expected_chunk in zip(chunks(tmp_path / "halved"), chunks(tmp_path / "full"), strict=True):
        assert chunk.keys() == expected_chunk.keys()
        assert torch.equal(chunk["clips"], expected_chunk["clips"])
        for name in chunk:
            torch.testing.assert_close(chunk[name], expected_chunk[name])
    halvings = re.findall(rf"clips 0 to (\d+) {MESSAGE}: batches of (\d+)", capfd.readouterr().err)
    assert halvings == [("15", "8"), ("7", "4")]
    batch_sizes = [size for size in memory.batch_sizes if size > 1]  # the plan measures the cost of single clips
    assert batch_sizes == [16, 8, *[4] * 17, 2]  # chunks of 32, 32 and 6


def test_a_single_clip_that_does_not_fit_ends_the_run_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(RunOptions(model="noise", smoke=True, device="cpu", output=tmp_path / "run"))
    limit_noise(FakeMemory(0), monkeypatch)
    with pytest.raises(BadEnvironment, match=r"clip 0 does not fit .*--dtype bfloat16.*offload='model'.*--device cpu"):
        job.run(planned)


def test_a_plan_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_noise(FakeMemory(0), monkeypatch)
    with pytest.raises(BadEnvironment, match=r"noise.*does not fit into the memory"):
        plan(RunOptions(model="noise", smoke=True, device="cpu", output=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


class LimitedExtractor(Colour):
    """Extractor that allocates from a `FakeMemory`."""

    def __init__(self, memory: FakeMemory) -> None:
        super().__init__("verified", ["features", "logits"])
        self.memory = memory

    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        assert len(clips) == len(requests)
        self.memory.allocate(requests)
        return super().__call__(clips, requests, outputs)


def features(memory: FakeMemory, clips: Clips, collector: FeatureCollector | None = None) -> Mapping[str, Tensor]:
    collector = collector or FeatureCollector({"colour": LimitedExtractor(memory)}, {"colour": ["features", "logits"]})
    return collector.features(clips, requests(*range(len(clips))))


@pytest.mark.parametrize("capacity", [1, 3, 5])
def test_an_extractor_halves_its_batches(capacity: int, capfd: pytest.CaptureFixture[str]) -> None:
    clips = torch.randint(0, 256, (11, 2, 3, 8, 8), dtype=torch.uint8)
    memory = FakeMemory(capacity)
    computed, expected = features(memory, clips), features(FakeMemory(11), clips)
    assert computed.keys() == {"colour.features", "colour.logits"}
    assert all(torch.equal(computed[name], expected[name]) for name in expected)
    assert f"colour: 11 clips {MESSAGE}: batches of 5" in capfd.readouterr().err
    assert sum(count for count in memory.batch_sizes if count <= capacity) == 11


def test_an_extractor_keeps_the_smaller_batch_size(capfd: pytest.CaptureFixture[str]) -> None:
    clips, memory = torch.zeros(8, 2, 3, 8, 8, dtype=torch.uint8), FakeMemory(4)
    collector = FeatureCollector({"colour": LimitedExtractor(memory)}, {"colour": ["features"]})
    for _ in range(2):
        features(memory, clips, collector)
    assert memory.batch_sizes == [8, 4, 4, 4, 4]
    assert capfd.readouterr().err.count(MESSAGE) == 1


def test_a_single_clip_that_an_extractor_cannot_hold_is_refused() -> None:
    with pytest.raises(BadEnvironment, match="colour: 1 clip does not fit"):
        features(FakeMemory(0), torch.zeros(2, 2, 3, 8, 8, dtype=torch.uint8))


# A real GPU.


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_full_gpu_samples_equal_clips_in_smaller_batches(
    checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sampler = vdm.build(BuildContext(shapes.build(), torch.device("cuda"), checkpoint=checkpoints / "vdm"), steps=2)
    batch, batches = requests(*range(64)), AdaptiveBatches(64)
    torch.cuda.reset_peak_memory_stats()
    expected = sampler.sample(batch)
    peak, total = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.7 * peak / total)
    try:
        parts = [clips for _, clips in batches.each(batch, sampler.sample, lambda part: f"{len(part)} clips")]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert batches.size < 64
    assert f"64 clips {MESSAGE}" in capsys.readouterr().err
    close_clips(torch.cat(parts), expected)
