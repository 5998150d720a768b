"""Tests of `vfbench.clips.fingerprint`: content hash of a folder, and mismatches between real and generated clips."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from clipfiles import KINDS, all_kinds, grey_clip, write_frames
from PIL import Image

from vfbench import clips

pytest.importorskip("av")  # writes and reads the clips


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, clips.ClipFolder]:
    return all_kinds(tmp_path)


# Content hash


def test_the_hash_ignores_path_and_time(kinds: Mapping[str, clips.ClipFolder], tmp_path: Path) -> None:
    before = {kind: clips.content_hash(folder) for kind, folder in kinds.items()}
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
def test_the_hash_changes_with_content_and_names(kinds: Mapping[str, clips.ClipFolder], kind: str, large: bool) -> None:
    # A reduced depth hashes a video at three positions, and three frames of a folder.
    depth = clips.HashDepth(100, 16) if large else clips.DEEP_HASH
    root, path = kinds[kind].root, kinds[kind].entries[-1].path
    hashes = [clips.content_hash(kinds[kind], depth)]
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in dict.fromkeys((files[0], files[len(files) // 2], files[-1])):
        content = bytearray(file.read_bytes())
        more = [len(content) // 4] * (kind == "arrays")  # arrays are always hashed completely
        for offset in (0, len(content) // 2, -1, *more):
            content[offset] ^= 1
            file.write_bytes(content)
            hashes.append(clips.content_hash(kinds[kind], depth))
    files[1 % len(files)].write_bytes(files[1 % len(files)].read_bytes() + b"+")
    hashes.append(clips.content_hash(kinds[kind], depth))
    path.rename(root / f"z{path.suffix}")
    if kind != "arrays":
        hashes.append(clips.content_hash(clips.detect(root), depth))
        shutil.rmtree(root / "z") if kind == "frames" else (root / "z.avi").unlink()
        hashes.append(clips.content_hash(clips.detect(root), depth))
    assert len(set(hashes)) == len(hashes) >= 5


def test_a_deleted_frame_changes_the_hash(kinds: Mapping[str, clips.ClipFolder]) -> None:
    before = clips.content_hash(kinds["frames"])
    (kinds["frames"].entries[0].path / "0001.png").unlink()
    assert clips.content_hash(kinds["frames"]) != before


# Mismatches of real and generated clips


def test_lossless_clips_of_one_size_do_not_mismatch(kinds: Mapping[str, clips.ClipFolder]) -> None:
    """Compare every pair of layouts; only videos have a frame rate."""
    for real in kinds.values():
        for fake in kinds.values():
            assert clips.mismatches(real, fake) == []


@pytest.mark.pitfall("compression and JPEG quality")
def test_every_mismatch_is_reported(kinds: Mapping[str, clips.ClipFolder], tmp_path: Path) -> None:
    for quality, name in ((75, "coarse"), (95, "fine")):
        for i in range(2):
            write_frames(tmp_path / name / f"c{i}", grey_clip(frames=10 + i, width=20), "{:02}.jpg", quality=quality)
    coarse, fine = (clips.detect(tmp_path / name) for name in ("coarse", "fine"))
    assert [line.split(";")[0] for line in clips.mismatches(kinds["frames"], coarse)] == [
        "compression: real lossless, fake jpeg",
        "resolution (width x height): real 10x8, fake 20x8",
        "frames a clip: real 12, fake 10 to 11",
    ]
    (quantiser,) = clips.mismatches(fine, coarse)
    assert quantiser.startswith(
        "JPEG quantiser (mean step): real 5.8, fake 29; "
    )  # 0.1 and 0.5 times the table of Annex K


def test_a_gif_differs_in_compression_and_rate(kinds: Mapping[str, clips.ClipFolder], tmp_path: Path) -> None:
    first, *rest = map(Image.fromarray, grey_clip())
    (tmp_path / "gifs").mkdir()
    first.save(tmp_path / "gifs/a.gif", save_all=True, append_images=rest, duration=100)
    mismatches = clips.mismatches(kinds["videos"], clips.detect(tmp_path / "gifs"))
    assert [line.split(";")[0] for line in mismatches] == [
        "compression: real lossless, fake gif bgra",
        "frames a second: real 25, fake 10",
    ]


def test_features_give_one_note_instead_of_mismatches(kinds: Mapping[str, clips.ClipFolder], tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.zeros((2, 5), np.float32))
    (note,) = clips.mismatches(kinds["videos"], clips.detect(tmp_path / "f.npy"))
    assert "f.npy: features" in note
