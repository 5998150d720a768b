"""Tests of what the plan of a score finds before any network runs: sizes, lengths, gaps, too few clips or frames."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clipfiles import write_frames, write_video
from scoring import plan_score, run_score, save_array, shapes_clips

from vfbench.errors import MissingData, UserError

pytest.importorskip("av")  # reads and writes videos
pytestmark = pytest.mark.usefixtures("empty_cwd")


def folder_of(root: Path, count: int = 2, frames: int = 16, side: int = 32) -> Path:
    """Frame folders 0, 1, ... of Moving Shapes."""
    for i, clip in enumerate(shapes_clips(count, frames=frames, side=side)):
        write_frames(root / str(i), clip)
    return root


def add_smaller_frame_folder(root: Path) -> None:
    write_frames(root / "9", shapes_clips(1, side=24)[0])


def add_smaller_frame(root: Path) -> None:
    write_frames(root / "9", shapes_clips(1)[0])
    write_frames(root / "9", shapes_clips(1, side=24)[0, :1], "0007.png")


def add_damaged_frame(root: Path) -> None:
    write_frames(root / "9", shapes_clips(1)[0])
    (root / "9/0007.png").write_bytes(b"no image")


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (add_smaller_frame_folder, r"1 of 3 clips .*: 9 \(24x24\).*--list"),
        (add_smaller_frame, r"9/0007.png: the frame size changes .*32x32 and 24x24"),
        (add_damaged_frame, r"9/0007.png: no readable image"),
    ],
)
@pytest.mark.usefixtures("no_extraction")
def test_a_clip_that_cannot_be_scored_is_named_by_the_plan(
    add: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    add(folder_of(tmp_path / "fake"))
    with pytest.raises(MissingData, match=message):
        plan_score(tmp_path / "fake")


@pytest.mark.usefixtures("no_extraction")
def test_a_short_real_clip_is_named_by_the_plan(tmp_path: Path) -> None:
    for i, frames in enumerate((16, 16, 16, 9)):
        write_video(tmp_path / f"real/{i}.avi", shapes_clips(1, i, frames=frames)[0])
    with pytest.raises(MissingData, match=r"3\.avi has 9 frames.*short='skip'"):
        plan_score(folder_of(tmp_path / "fake"), real=str(tmp_path / "real"))


@pytest.mark.usefixtures("no_extraction")
def test_clips_too_short_for_a_network_are_refused_by_the_plan(tmp_path: Path) -> None:
    fake = save_array(tmp_path / "a.npy", shapes_clips(4, frames=2))
    with pytest.raises(UserError, match=r"frame_change, for base_flicker .*2 frames.*--metrics"):
        plan_score(fake, real="shapes(frames=2)", metrics=["base_flicker"])


@pytest.mark.usefixtures("no_extraction")
def test_gaps_and_strangers_among_frames_get_a_warning(tmp_path: Path) -> None:
    fake = folder_of(tmp_path / "fake", frames=18)
    (fake / "1/0007.png").unlink()
    write_frames(fake / "0", shapes_clips(1)[0, :1], "cover.png")
    note = plan_score(fake).note
    assert "1 clip: 1: 0006.png, then 0008.png" in note
    assert "0/cover.png" in note


@pytest.mark.parametrize(("fakes", "reals"), [(2, 5), (5, 2), (2, 2)])
def test_a_smoke_run_scores_two_clips_of_a_side(fakes: int, reals: int, tmp_path: Path) -> None:
    real = folder_of(tmp_path / "real", reals)
    result = run_score(save_array(tmp_path / "a.npy", shapes_clips(fakes, 8)), real=str(real), output="mine")
    assert {"fvd", "kvd", "is"} <= result["scores"].keys()
    fvd, kvd = result["scores"]["fvd"], result["scores"]["kvd"]
    assert math.isfinite(fvd["value"]), kvd["value"]
    assert (fvd["floor"] is None) == (reals < 4)
    assert (kvd["low"] is None) == (min(fakes, reals) < 3)


def test_a_smoke_run_leaves_out_metrics_that_need_more_clips(tmp_path: Path) -> None:
    fake = save_array(tmp_path / "a.npy", np.random.default_rng(0).random((4, 8)))
    real = save_array(tmp_path / "b.npy", np.random.default_rng(1).random((9, 8)))
    plan = plan_score(fake, real=str(real), metrics=["fvd"])
    assert "too few" not in plan.note
    with pytest.raises(UserError, match="precision needs 5 generated and 10 real clips"):
        plan_score(fake, real=str(real), metrics=["fvd", "precision"])


@pytest.mark.usefixtures("no_extraction")
def test_reported_folders_are_judged_by_the_plan(reports: Path) -> None:
    with pytest.raises(MissingData, match=r"0005\.mp4 \(48x48\)"):
        plan_score(reports / "h6_mixed_sizes", real=str(reports / "real"))
    plan = plan_score(reports / "h7_frame_gap", real=str(reports / "real"))
    assert "clip2: 0006.png, then 0008.png" in plan.note
