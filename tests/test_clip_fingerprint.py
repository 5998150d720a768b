"""The hash of a folder follows all that matters, and two sides that were stored unlike are told apart."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from clipfiles import KINDS, all_kinds, pictures, write_frames
from PIL import Image

from vfbench import clips

pytest.importorskip("av")  # without it no clip can be made, nor read


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, clips.ClipFolder]:
    """The same two clips as videos, as frame folders and as arrays."""
    return all_kinds(tmp_path)


# The manifest


def test_the_manifest_does_not_care_where_and_when(kinds: Mapping[str, clips.ClipFolder], tmp_path: Path) -> None:
    before = {kind: clips.content_hash(found) for kind, found in kinds.items()}
    assert all(re.fullmatch("[0-9a-f]{64}", each) for each in before.values())
    assert len(set(before.values())) == 3
    for kind in kinds:
        shutil.copytree(tmp_path / kind, tmp_path / "moved" / kind, copy_function=shutil.copyfile)
    (tmp_path / "moved/frames/readme.txt").touch()
    after = {kind: clips.content_hash(clips.detect(tmp_path / "moved" / kind)) for kind in kinds}
    assert before == after


@pytest.mark.parametrize("large", [False, True])
@KINDS
@pytest.mark.pitfall("which real clips")
def test_the_manifest_follows_all_that_was_replaced(
    kinds: Mapping[str, clips.ClipFolder], kind: str, large: bool
) -> None:
    # As if these were: a video in three places, a frame folder by three frames.
    depth = clips.HashDepth(100, 16) if large else clips.DEEP_HASH
    root, path = kinds[kind].root, kinds[kind].entries[-1].path
    seen = [clips.content_hash(kinds[kind], depth)]
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in dict.fromkeys((files[0], files[len(files) // 2], files[-1])):
        content = bytearray(file.read_bytes())
        more = [len(content) // 4] * (kind == "arrays")  # which are hashed whole at any size
        for place in (0, len(content) // 2, -1, *more):
            content[place] ^= 1
            file.write_bytes(content)
            seen.append(clips.content_hash(kinds[kind], depth))
    files[1 % len(files)].write_bytes(files[1 % len(files)].read_bytes() + b"+")
    seen.append(clips.content_hash(kinds[kind], depth))
    path.rename(root / f"z{path.suffix}")
    if kind != "arrays":
        seen.append(clips.content_hash(clips.detect(root), depth))
        shutil.rmtree(root / "z") if kind == "frames" else (root / "z.avi").unlink()
        seen.append(clips.content_hash(clips.detect(root), depth))
    assert len(set(seen)) == len(seen) >= 5


def test_a_frame_that_went_away_changes_the_manifest(kinds: Mapping[str, clips.ClipFolder]) -> None:
    before = clips.content_hash(kinds["frames"])
    (kinds["frames"].entries[0].path / "0001.png").unlink()
    assert clips.content_hash(kinds["frames"]) != before


# Two sides


def test_clips_stored_alike_do_not_mismatch(kinds: Mapping[str, clips.ClipFolder]) -> None:
    """All of these are lossless, of one size and length; only the videos have a frame rate."""
    for real in kinds.values():
        for fake in kinds.values():
            assert clips.mismatches(real, fake) == []


@pytest.mark.pitfall("compression and JPEG quality")
def test_every_mismatch_is_told(kinds: Mapping[str, clips.ClipFolder], tmp_path: Path) -> None:
    for quality, name in ((75, "coarse"), (95, "fine")):
        for i in range(2):
            write_frames(tmp_path / name / f"c{i}", pictures(frames=10 + i, width=20), "{:02}.jpg", quality=quality)
    coarse, fine = (clips.detect(tmp_path / name) for name in ("coarse", "fine"))
    assert [line.split(";")[0] for line in clips.mismatches(kinds["frames"], coarse)] == [
        "compression: real lossless, fake jpeg",
        "resolution (width x height): real 10x8, fake 20x8",
        "frames a clip: real 12, fake 10 to 11",
    ]
    (quantiser,) = clips.mismatches(fine, coarse)
    assert quantiser.startswith("JPEG quantiser (mean step): real 5.8, fake 29; ")  # a tenth and half of Annex K's


def test_a_gif_differs_in_compression_and_rate(kinds: Mapping[str, clips.ClipFolder], tmp_path: Path) -> None:
    first, *rest = map(Image.fromarray, pictures())
    (tmp_path / "gifs").mkdir()
    first.save(tmp_path / "gifs/a.gif", save_all=True, append_images=rest, duration=100)
    told = clips.mismatches(kinds["videos"], clips.detect(tmp_path / "gifs"))
    assert [line.split(";")[0] for line in told] == [
        "compression: real lossless, fake gif bgra",
        "frames a second: real 25, fake 10",
    ]


def test_features_do_not_tell_how_clips_were_stored(kinds: Mapping[str, clips.ClipFolder], tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.zeros((2, 5), np.float32))
    (told,) = clips.mismatches(kinds["videos"], clips.detect(tmp_path / "f.npy"))
    assert told.endswith("f.npy: features do not record how their clips were stored")
