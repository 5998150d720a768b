"""The frames of clips that others made are those asked for, and what is damaged or no frame is named."""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clipfiles import FRAMES, KINDS, all_kinds, levels, names, pictures, write_frames, write_video
from PIL import Image

from vfbench import clips as folders
from vfbench.errors import MissingData, UserError

pytest.importorskip("av")  # without it no clip can be made, nor read


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, folders.ClipFolder]:
    """The same two clips as videos, as frame folders and as arrays."""
    return all_kinds(tmp_path)


# Frames


@KINDS
@pytest.mark.pitfall("which frames")
def test_the_frames_are_those_asked_for(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    found = kinds[kind]
    clips = folders.read_clips(found, [1, 0], frames=3, stride=2, drop_first=4)
    assert (clips.dtype, tuple(clips.shape), clips.is_contiguous()) == (torch.uint8, (2, 3, 3, 8, 10), True)
    assert [levels(clip) for clip in clips] == [[41, 61, 81], [40, 60, 80]]
    assert levels(folders.read_clip(found, 0, frames=12))[-1] == 110
    assert tuple(folders.read_clips(found, [], frames=3).shape) == (0, 3, 3, 8, 10)
    assert folders.resolution(found) == (8, 10)


@KINDS
def test_the_hashed_start_is_fixed_by_the_name(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    found = kinds[kind]
    for i, entry in enumerate(found.entries):
        places = FRAMES - 2 - (3 - 1) * 2
        place = int.from_bytes(hashlib.sha256(entry.name.encode()).digest()[:8], "little") % places
        clip = folders.read_clip(found, i, frames=3, stride=2, drop_first=2, start="hashed")
        assert levels(clip)[0] == i + 10 * (2 + place)
        assert len(folders.read_clip(found, i, frames=6, stride=2, drop_first=1, start="hashed")) == 6  # the only place


@KINDS
@pytest.mark.pitfall("padded short clips")
def test_a_short_clip_is_named_and_not_padded(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    found = kinds[kind]
    for start in ("zero", "hashed"):
        with pytest.raises(
            MissingData, match=r"v.*(has|needs 4 frames from 1 at stride 4, declared 12, decoded) 12( |\b)"
        ):
            folders.read_clips(found, [0], frames=4, stride=4, drop_first=1, start=start)
    assert folders.too_short(found, frames=3, stride=4, drop_first=3) == []
    assert folders.too_short(found, frames=3, stride=4, drop_first=4) == names(found)


@KINDS
def test_senseless_requests_are_refused(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    found = kinds[kind]
    wrong: list[dict[str, Any]] = [{"frames": 0}, {"stride": 0}, {"drop_first": -1}]
    for options in wrong:
        with pytest.raises(UserError, match=f"{next(iter(options))}=.*: at least .*{kind}"):
            folders.read_clips(found, [0], **{"frames": 2, **options})
    with pytest.raises(UserError, match=r"start='random'.*zero, hashed"):
        folders.read_clips(found, [0], frames=2, start="random")
    for index in (2, -1):
        with pytest.raises(IndexError, match=f"{kind} has 2 clips: no clip {index}"):
            folders.read_clip(found, index, frames=2)


@KINDS
def test_clips_of_another_resolution_are_named(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    root = kinds[kind].root
    tall = pictures(height=10, width=8)
    if kind == "videos":
        write_video(root / "w.avi", tall)
    elif kind == "frames":
        write_frames(root / "w", tall)
    else:
        np.save(root / "w.npy", tall[None])
    found = folders.detect(root)
    with pytest.raises(MissingData, match=r": w.* has 8x10 pixels, the first clip v.* 10x8: .*--list FILE"):
        folders.read_clips(found, [2], frames=2)
    assert tuple(folders.read_clip(found, 2, frames=2).shape) == (2, 3, 10, 8)


def test_bytes_of_0_and_1_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "c", pictures() % 2 + np.eye(8, 10, dtype=np.uint8)[..., None])
    with pytest.raises(UserError, match=r", c: all bytes of these clips are 0 or 1"):
        folders.read_clips(folders.detect(tmp_path), [0], frames=2)


@pytest.mark.pitfall("frames resampled by their times")
def test_a_gif_is_not_retimed(tmp_path: Path) -> None:
    first, *rest = map(Image.fromarray, pictures()[[0, 1, 1, 1, 2]])
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=[500, 100, 100, 100, 30])
    found = folders.detect(tmp_path)
    assert levels(folders.read_clip(found, 0, frames=3)) == [0, 10, 20]
    with pytest.raises(MissingData, match=r"a\.gif: needs 5 frames from 0, declared 3, decoded 3"):
        folders.read_clip(found, 0, frames=5)


@pytest.mark.pitfall("frames resampled by their times")
def test_frames_at_uneven_times_are_those_in_the_file(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", pictures(), times=[k * k for k in range(FRAMES)])
    found = folders.detect(tmp_path)
    assert levels(folders.read_clip(found, 0, frames=FRAMES)) == [10 * k for k in range(FRAMES)]


# Damage


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_damaged_files_are_named(kinds: Mapping[str, folders.ClipFolder], content: bytes) -> None:
    for kind, name in {"videos": "v1.avi", "frames": "v1/0003.png"}.items():
        (kinds[kind].root / name).write_bytes(content)
        with pytest.raises(MissingData, match=name):
            folders.read_clips(kinds[kind], [0, 1], frames=4)
    with pytest.raises(MissingData, match=r"v1\.avi: "):
        folders.too_short(kinds["videos"], frames=4)


def test_files_that_went_away_are_named(kinds: Mapping[str, folders.ClipFolder]) -> None:
    for kind, found in kinds.items():
        path = found.entries[-1].path
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        for read in (
            lambda found=found: folders.read_clip(found, 1, frames=2),
            lambda found=found: folders.content_hash(found),
        ):
            with pytest.raises(MissingData, match=f"{kind}/{path.name}: .*No such file"):
                read()


def test_an_avi_that_was_cut_off_is_refused(kinds: Mapping[str, folders.ClipFolder]) -> None:
    path = kinds["videos"].entries[0].path
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(MissingData, match=rf"v0\.avi: cut off, {len(whole) - 1:,} of {len(whole):,} bytes"):
        folders.read_clip(kinds["videos"], 0, frames=2)
    path.write_bytes(whole[:4] + b"\xff" * 4 + whole[8:-1])  # a writer that could not say
    assert levels(folders.read_clip(kinds["videos"], 0, frames=2)) == [0, 10]


# What an image may be


def deep_png(path: Path) -> None:
    """An RGB image of 16 bits, which Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = zlib.compress(b"\0" + bytes(range(12)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def test_images_of_8_bits_are_read_whatever_their_mode(tmp_path: Path) -> None:
    grey = Image.fromarray(pictures(20)[0])
    for mode in ("RGB", "RGBA", "L", "LA", "P"):
        (tmp_path / mode).mkdir()
        grey.convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / mode / "1.png")
        assert levels(folders.read_clip(folders.detect(tmp_path), 0, frames=1)) == [20]
        shutil.rmtree(tmp_path / mode)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: Image.new("RGBA", (4, 4), (9, 9, 9, 254)).save(path), "is transparent: save it again as RGB"),
        (lambda path: Image.new("I;16", (4, 4), 999).save(path), "is I;16 of 16 bits, needed: RGB or grey of 8 bits"),
        (deep_png, "is RGB of 16 bits, needed"),
        (lambda path: Image.new("CMYK", (4, 4)).save(path, "JPEG"), "is CMYK, needed"),
    ],
)
def test_images_of_more_than_8_bit_rgb_are_refused(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    (tmp_path / "c").mkdir()
    make(tmp_path / "c/1.png")
    with pytest.raises(MissingData, match=rf"c/1\.png {re.escape(message)}"):
        folders.read_clips(folders.detect(tmp_path), [0], frames=1)


def test_a_frame_of_another_size_is_named(tmp_path: Path) -> None:
    write_frames(tmp_path / "c", pictures())
    Image.new("RGB", (4, 4)).save(tmp_path / "c/0002.png")
    found = folders.detect(tmp_path)
    assert len(folders.read_clip(found, 0, frames=2)) == 2
    with pytest.raises(MissingData, match=r"c/0002\.png: the frame size changes within the clip, 10x8 and 4x4"):
        folders.read_clip(found, 0, frames=3)
