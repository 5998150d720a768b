"""A score keeps its work: what has been seen is not looked at again, whatever ended the last attempt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from clipfiles import write_frames
from conftest import flip
from scoring import drawn, looked, saved, scored
from torch import Tensor

from vfbench import clips as folders
from vfbench.errors import MissingData
from vfbench.interfaces import Clips, Request
from vfbench.metrics._shapes_judge import ShapesJudgeExtractor
from vfbench.scoring import clips
from vfbench.scoring.job import score

pytest.importorskip("av")  # without it no clip can be made, nor read
pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clips the judge has seen, call by call, with a cache that knows nothing yet."""
    monkeypatch.setenv("VFBENCH_CACHE", str(tmp_path / "cache"))
    counts: list[int] = []
    call = ShapesJudgeExtractor.__call__

    def counted(
        self: ShapesJudgeExtractor, batch: Clips, asked: Sequence[Request], outputs: Sequence[str]
    ) -> dict[str, Tensor]:
        counts.append(len(batch))
        return call(self, batch, asked, outputs)

    monkeypatch.setattr(ShapesJudgeExtractor, "__call__", counted)
    return counts


def test_the_second_time_nothing_is_made_again(tmp_path: Path, seen: list[int]) -> None:
    fake = saved(tmp_path / "fake.npy", drawn(8))
    first = scored(fake)
    assert sum(seen) == 8 + 64 + 8  # generated, real, spare
    assert scored(fake) == first
    assert sum(seen) == 80
    scored(fake, num_real=32, output="fewer")
    assert sum(seen) == 80 + 32 + 8  # other real clips, the same generated ones
    scored(saved(fake, drawn(8, first=8)), output="changed")
    assert sum(seen) == 120 + 8


def test_a_clip_that_cannot_be_decoded_is_named_and_mending_it_loses_no_other(
    tmp_path: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "CACHE_CHUNK", 4)
    for i, clip in enumerate(drawn(12)):
        write_frames(tmp_path / "fake" / str(i), clip)
    broken = tmp_path / "fake" / "9" / "0009.png"
    flip(broken, 60)
    with pytest.raises(MissingData, match=r"9.0009\.png"):
        scored(tmp_path / "fake", output="mine")
    assert not Path("mine/results.json").exists()  # no number of the other 11
    assert seen == [4, 4]
    flip(broken, 60)
    scored(tmp_path / "fake", output="mended")
    assert seen[:3] == [4, 4, 4]
    assert sum(seen) == 12 + 64 + 12


def test_an_interrupted_score_loses_one_piece(tmp_path: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "CACHE_CHUNK", 4)
    scoring = looked(saved(tmp_path / "fake.npy", drawn(12)), output="mine")
    read = folders.read_clips

    def stopped(found: folders.ClipFolder, indices: Sequence[int], **options: Any) -> Clips:
        if list(indices) == [8, 9, 10, 11]:
            raise KeyboardInterrupt
        return read(found, indices, **options)

    with monkeypatch.context() as patch:
        patch.setattr(folders, "read_clips", stopped)
        with pytest.raises(KeyboardInterrupt):
            score(scoring)
    assert seen == [4, 4]
    score(scoring)
    assert seen[:3] == [4, 4, 4]
    assert sum(seen) == 12 + 64 + 12
