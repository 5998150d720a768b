"""What cannot be scored is refused with a reason before any network runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clipfiles import pictures, write_frames, write_video
from conftest import Command
from samples import FAKE
from scoring import drawn, looked, saved, scored

from vfbench.errors import MissingData, UserError
from vfbench.scoring import clips

pytest.importorskip("av")  # without it no clip can be made, nor read
pytestmark = pytest.mark.usefixtures("elsewhere")


def too_short(root: Path) -> None:
    for i, clip in enumerate(drawn(3)):
        write_frames(root / str(i), clip[: 16 if i == 1 else 12])


def of_another_size(root: Path) -> None:
    saved(root / "a.npy", drawn(3, side=48))


def of_no_square(root: Path) -> None:
    saved(root / "a.npy", drawn(3, side=48)[:, :, :32])


def alone(root: Path) -> None:
    saved(root / "a.npy", drawn(1))


def floats(root: Path) -> None:
    saved(root / "a.npy", drawn(3).astype(np.float32) / 255)


def cut_to_bits(root: Path) -> None:
    saved(root / "a.npy", (drawn(3) > 127).astype(np.uint8))


def rows(root: Path) -> None:
    saved(root / "a.npy", FAKE)


def two_layouts(root: Path) -> None:
    of_another_size(root)
    write_frames(root / "clip", drawn(1)[0])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (too_short, r"2 of 3 clips have fewer than the 16 frames that protocol shapes.* needs: 0, 2; .*--list FILE"),
        (of_another_size, r'48x48 pixels .* scores 32x32.*--real "shapes\(height=48, width=48\)"'),
        (of_no_square, r"48x32 pixels .* scores 32x32"),
        (alone, "holds 1 clip: a score needs at least 2"),
        (floats, r"float32 .* in the first.*scale them to 0\.\.1"),
        (cut_to_bits, "all bytes of these clips are 0 or 1"),
        (rows, "holds features and --real shapes is a dataset"),
        (two_layouts, "which are the clips"),
        (Path.mkdir, "holds no clips"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_clips_that_do_not_fit_are_refused(make: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    make(tmp_path / "fake")
    with pytest.raises(UserError, match=said):
        looked(tmp_path / "fake", output="mine")
    assert not Path("mine").exists()


@pytest.mark.usefixtures("no_network")
def test_too_few_clips_for_a_metric_are_refused_unless_it_is_a_try(tmp_path: Path) -> None:
    fake = saved(tmp_path / "a.npy", drawn(8))
    with pytest.raises(UserError, match=r"8 .*too few: fvd needs 64.*--smoke"):
        looked(fake, smoke=False)
    assert "not comparable" in looked(fake).describe()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"real": "shpaes"}, "did you mean 'shapes'"),
        ({"real": "nowhere/at/all"}, "no such file or folder"),
        ({"real": "folder"}, "--data-root DIR"),
        ({"protocol": "stylgan-v"}, "did you mean 'stylegan-v'"),
        ({"metrics": ["fdv"]}, "did you mean 'fvd'"),
        ({"metrics": ["fvd", "clipsim"]}, "clipsim: what were the clips asked to show.*--prompts FILE"),
        ({"num_real": 2}, "--num-real 2: a score and its floor need at least 4"),
        ({"weights": "none"}, "--weights"),
        ({"output": "../theirs/runs/x"}, "lies in .*theirs.*choose another --output"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        looked(saved(tmp_path / "theirs" / "a.npy", drawn(2)).parent, **options)


@pytest.mark.parametrize("piece", [256, 2])
def test_a_clip_of_another_size_than_the_first_is_named(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "CACHE_CHUNK", piece)
    for i, side in enumerate((32, 32, 48)):
        write_frames(tmp_path / "fake" / str(i), drawn(1, i, side=side)[0])
    with pytest.raises(MissingData, match=r"2 has 48x48 pixels, the first clip (0 )?32x32"):
        scored(tmp_path / "fake", output="mine")


def test_a_dataset_goes_before_a_folder_of_its_name(tmp_path: Path) -> None:
    write_video(Path("shapes") / "a.avi", pictures())
    assert "shapes, train, at 16x32x32" in looked(saved(tmp_path / "a.npy", drawn(2))).describe()
    fake = saved(tmp_path / "b.npy", np.stack([pictures(i, height=8, width=8) for i in range(4)]))
    given = {"real": "folder(root='./shapes', frames=4, height=8, width=8)", "num_real": 4}
    with pytest.raises(MissingData, match="folder has 1 real clips here"):
        looked(fake, **given)


def test_a_folder_that_is_not_there_is_missing_data(tmp_path: Path, vfbench: Command) -> None:
    done = vfbench("score", "--real", "shapes", "--fake", tmp_path / "none")
    assert (done.code, "none: No such file or directory" in done.err) == (4, True)
