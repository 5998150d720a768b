"""Tests of repeated scores: cached features, damaged files, interruption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from clipfiles import write_frames
from conftest import flip_byte
from scoring import plan_score, run_score, save_array, shapes_clips
from torch import Tensor

from vfbench.errors import MissingData
from vfbench.interfaces import Clips, Request
from vfbench.metrics._shapes_judge import ShapesJudgeExtractor
from vfbench.scoring import clips
from vfbench.scoring.job import score

pytest.importorskip("av")  # reads and writes videos
pytestmark = pytest.mark.usefixtures("empty_cwd")


@pytest.fixture
def batch_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that the Shapes judge has embedded, with an empty cache."""
    monkeypatch.setenv("VFBENCH_CACHE", str(tmp_path / "cache"))
    counts: list[int] = []
    original = ShapesJudgeExtractor.__call__

    def recording_call(
        self: ShapesJudgeExtractor, batch: Clips, requests: Sequence[Request], outputs: Sequence[str]
    ) -> dict[str, Tensor]:
        counts.append(len(batch))
        return original(self, batch, requests, outputs)

    monkeypatch.setattr(ShapesJudgeExtractor, "__call__", recording_call)
    return counts


@pytest.mark.slow
def test_a_repeated_score_extracts_nothing(tmp_path: Path, batch_sizes: list[int]) -> None:
    fake = save_array(tmp_path / "fake.npy", shapes_clips(8))
    first = run_score(fake)
    assert sum(batch_sizes) == 8 + 64 + 8  # generated, real, holdout
    assert run_score(fake) == first
    assert sum(batch_sizes) == 80
    run_score(fake, num_real=32, output="fewer")
    assert sum(batch_sizes) == 80 + 32 + 8  # other real clips, the same generated ones
    run_score(save_array(fake, shapes_clips(8, first=8)), output="changed")
    assert sum(batch_sizes) == 120 + 8


@pytest.mark.slow
def test_repairing_a_damaged_clip_keeps_other_features(
    tmp_path: Path, batch_sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "CACHE_CHUNK", 4)
    for i, clip in enumerate(shapes_clips(12)):
        write_frames(tmp_path / "fake" / str(i), clip)
    broken = tmp_path / "fake" / "9" / "0009.png"
    flip_byte(broken, 60)
    with pytest.raises(MissingData, match=r"9.0009\.png"):
        run_score(tmp_path / "fake", output="mine")
    assert not Path("mine/results.json").exists()  # no score of the other 11
    assert batch_sizes == [4, 4]
    flip_byte(broken, 60)
    run_score(tmp_path / "fake", output="mended")
    assert batch_sizes[:3] == [4, 4, 4]
    assert sum(batch_sizes) == 12 + 64 + 12


@pytest.mark.slow
def test_an_interrupted_score_loses_one_chunk(
    tmp_path: Path, batch_sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "CACHE_CHUNK", 4)
    scoring = plan_score(save_array(tmp_path / "fake.npy", shapes_clips(12)), output="mine")
    original = ShapesJudgeExtractor.__call__

    def interrupted(
        self: ShapesJudgeExtractor, batch: Clips, requests: Sequence[Request], outputs: Sequence[str]
    ) -> dict[str, Tensor]:
        if len(batch_sizes) == 2:
            raise KeyboardInterrupt
        return original(self, batch, requests, outputs)

    with monkeypatch.context() as patch:
        patch.setattr(ShapesJudgeExtractor, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            score(scoring)
    assert batch_sizes == [4, 4]
    score(scoring)
    assert batch_sizes[:3] == [4, 4, 4]
    assert sum(batch_sizes) == 12 + 64 + 12
