"""Tests of inputs that `vfbench score` refuses before any network runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clipfiles import grey_clip, write_frames, write_video
from conftest import Command
from samples import FAKE
from scoring import plan_score, save_array, shapes_clips

from vfbench.errors import MissingData, UserError

pytest.importorskip("av")  # reads and writes videos
pytestmark = pytest.mark.usefixtures("empty_cwd")


def write_short_clips(root: Path) -> None:
    for i, clip in enumerate(shapes_clips(3)):
        write_frames(root / str(i), clip[: 16 if i == 1 else 12])


def write_larger_clips(root: Path) -> None:
    save_array(root / "a.npy", shapes_clips(3, side=48))


def write_non_square_clips(root: Path) -> None:
    save_array(root / "a.npy", shapes_clips(3, side=48)[:, :, :32])


def write_single_clip(root: Path) -> None:
    save_array(root / "a.npy", shapes_clips(1))


def write_floats(root: Path) -> None:
    save_array(root / "a.npy", shapes_clips(3).astype(np.float32) / 255)


def write_bits(root: Path) -> None:
    save_array(root / "a.npy", (shapes_clips(3) > 127).astype(np.uint8))


def write_features(root: Path) -> None:
    save_array(root / "a.npy", FAKE)


def write_two_layouts(root: Path) -> None:
    write_larger_clips(root)
    write_frames(root / "clip", shapes_clips(1)[0])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            write_short_clips,
            r"2 of 3 clips have fewer than the 16 frames that protocol shapes.* needs: 0, 2; .*--list FILE",
        ),
        (write_larger_clips, r'48x48 pixels .* scores 32x32.*--real "shapes\(height=48, width=48\)"'),
        (write_non_square_clips, r"48x32 pixels .* scores 32x32"),
        (write_single_clip, "holds 1 clip: a score needs at least 2"),
        (write_floats, r"float32 .* in the first.*scale them to 0\.\.1"),
        (write_bits, "all bytes of these clips are 0 or 1"),
        (write_features, "holds features and --real shapes is a dataset"),
        (write_two_layouts, "which are the clips"),
        (Path.mkdir, "holds no clips"),
    ],
)
@pytest.mark.usefixtures("no_extraction")
def test_invalid_clips_are_refused(write: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    write(tmp_path / "fake")
    with pytest.raises(UserError, match=message):
        plan_score(tmp_path / "fake", output="mine")
    assert not Path("mine").exists()


@pytest.mark.usefixtures("no_extraction")
def test_too_few_clips_are_refused_without_smoke(tmp_path: Path) -> None:
    fake = save_array(tmp_path / "a.npy", shapes_clips(8))
    with pytest.raises(UserError, match=r"8 .*too few: fvd needs 64.*--smoke"):
        plan_score(fake, smoke=False)
    assert "not comparable" in plan_score(fake).describe()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"real": "shpaes"}, "did you mean 'shapes'"),
        ({"real": "nowhere/at/all"}, "no such file or folder"),
        ({"real": "folder"}, "--data-root DIR"),
        ({"protocol": "stylgan-v"}, "did you mean 'stylegan-v'"),
        ({"metrics": ["fdv"]}, "did you mean 'fvd'"),
        ({"metrics": ["fvd", "clipsim"]}, "clipsim: what were the clips asked to show.*--prompts FILE"),
        ({"num_real": 1}, "--num-real 1: choose 2 to"),
        ({"weights": "none"}, "--weights"),
        ({"output": "../theirs/runs/x"}, "lies in .*theirs.*choose another --output"),
    ],
)
@pytest.mark.usefixtures("no_extraction")
def test_invalid_options_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        plan_score(save_array(tmp_path / "theirs" / "a.npy", shapes_clips(2)).parent, **options)


def test_a_dataset_name_has_priority_over_a_folder(tmp_path: Path) -> None:
    write_video(Path("shapes") / "a.avi", grey_clip())
    assert "shapes, train, at 16x32x32" in plan_score(save_array(tmp_path / "a.npy", shapes_clips(2))).describe()
    fake = save_array(tmp_path / "b.npy", np.stack([grey_clip(i, height=8, width=8) for i in range(4)]))
    options = {"real": "folder(root='./shapes', frames=4, height=8, width=8)", "num_real": 4}
    with pytest.raises(MissingData, match="folder has 1 real clips here"):
        plan_score(fake, **options)


def test_a_missing_folder_is_refused(tmp_path: Path, vfbench: Command) -> None:
    outcome = vfbench("score", "--real", "shapes", "--fake", tmp_path / "none")
    assert (outcome.code, "none: No such file or directory" in outcome.err) == (4, True)
