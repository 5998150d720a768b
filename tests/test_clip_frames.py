"""Tests of reading frames with `vfbench.clips`: frame selection, short clips, resolutions, damaged files."""

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
from clipfiles import FRAMES, KINDS, all_kinds, clip_names, grey_clip, grey_levels, write_frames, write_video
from PIL import Image

from vfbench import clips as folders
from vfbench.errors import MissingData, UserError

pytest.importorskip("av")  # writes and reads the clips


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, folders.ClipFolder]:
    return all_kinds(tmp_path)


# Frames


@KINDS
@pytest.mark.pitfall("which frames")
def test_start_stride_and_count_select_the_frames(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    folder = kinds[kind]
    clips = folders.read_clips(folder, [1, 0], frames=3, stride=2, drop_first=4)
    assert (clips.dtype, tuple(clips.shape), clips.is_contiguous()) == (torch.uint8, (2, 3, 3, 8, 10), True)
    assert [grey_levels(clip) for clip in clips] == [[41, 61, 81], [40, 60, 80]]
    assert grey_levels(folders.read_clip(folder, 0, frames=12))[-1] == 110
    assert tuple(folders.read_clips(folder, [], frames=3).shape) == (0, 3, 3, 8, 10)
    assert folders.resolution(folder) == (8, 10)


@KINDS
def test_the_hashed_start_depends_on_the_name_only(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    folder = kinds[kind]
    for i, entry in enumerate(folder.entries):
        starts = FRAMES - 2 - (3 - 1) * 2
        start = int.from_bytes(hashlib.sha256(entry.name.encode()).digest()[:8], "little") % starts
        clip = folders.read_clip(folder, i, frames=3, stride=2, drop_first=2, start="hashed")
        assert grey_levels(clip)[0] == i + 10 * (2 + start)
        assert (
            len(folders.read_clip(folder, i, frames=6, stride=2, drop_first=1, start="hashed")) == 6
        )  # the only start


@KINDS
@pytest.mark.pitfall("padded short clips")
def test_a_short_clip_is_refused_not_padded(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    folder = kinds[kind]
    for start in ("zero", "hashed"):
        with pytest.raises(
            MissingData, match=r"v.*(has|needs 4 frames from 1 at stride 4, declared 12, decoded) 12( |\b)"
        ):
            folders.read_clips(folder, [0], frames=4, stride=4, drop_first=1, start=start)
    assert folders.too_short(folder, frames=3, stride=4, drop_first=3) == []
    assert folders.too_short(folder, frames=3, stride=4, drop_first=4) == clip_names(folder)


@KINDS
def test_invalid_frame_options_are_refused(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    folder = kinds[kind]
    invalid: list[dict[str, Any]] = [{"frames": 0}, {"stride": 0}, {"drop_first": -1}]
    for options in invalid:
        with pytest.raises(UserError, match=f"{next(iter(options))}=.*: at least .*{kind}"):
            folders.read_clips(folder, [0], **{"frames": 2, **options})
    with pytest.raises(UserError, match=r"start='random'.*zero, hashed"):
        folders.read_clips(folder, [0], frames=2, start="random")
    for index in (2, -1):
        with pytest.raises(IndexError, match=f"{kind} has 2 clips"):
            folders.read_clip(folder, index, frames=2)


@KINDS
def test_clips_of_another_resolution_are_refused(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    root = kinds[kind].root
    tall = grey_clip(height=10, width=8)
    if kind == "videos":
        write_video(root / "w.avi", tall)
    elif kind == "frames":
        write_frames(root / "w", tall)
    else:
        np.save(root / "w.npy", tall[None])
    folder = folders.detect(root)
    with pytest.raises(MissingData, match=r"w.* 8x10 .*v.* 10x8: .*--list FILE"):
        folders.read_clips(folder, [2], frames=2)
    assert tuple(folders.read_clip(folder, 2, frames=2).shape) == (2, 3, 10, 8)


def test_pixel_values_of_0_and_1_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "c", grey_clip() % 2 + np.eye(8, 10, dtype=np.uint8)[..., None])
    with pytest.raises(UserError, match=r"c: .*0 or 1"):
        folders.read_clips(folders.detect(tmp_path), [0], frames=2)


@pytest.mark.pitfall("frames resampled by their times")
def test_frame_durations_of_a_gif_are_ignored(tmp_path: Path) -> None:
    first, *rest = map(Image.fromarray, grey_clip()[[0, 1, 1, 1, 2]])
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=[500, 100, 100, 100, 30])
    folder = folders.detect(tmp_path)
    assert grey_levels(folders.read_clip(folder, 0, frames=3)) == [0, 10, 20]
    with pytest.raises(MissingData, match=r"a\.gif: needs 5 frames .*decoded 3"):
        folders.read_clip(folder, 0, frames=5)


@pytest.mark.pitfall("frames resampled by their times")
def test_uneven_timestamps_are_ignored(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", grey_clip(), times=[k * k for k in range(FRAMES)])
    folder = folders.detect(tmp_path)
    assert grey_levels(folders.read_clip(folder, 0, frames=FRAMES)) == [10 * k for k in range(FRAMES)]


# Damage


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_damaged_files_are_refused(kinds: Mapping[str, folders.ClipFolder], content: bytes) -> None:
    for kind, name in {"videos": "v1.avi", "frames": "v1/0003.png"}.items():
        (kinds[kind].root / name).write_bytes(content)
        with pytest.raises(MissingData, match=name):
            folders.read_clips(kinds[kind], [0, 1], frames=4)
    with pytest.raises(MissingData, match=r"v1\.avi: "):
        folders.too_short(kinds["videos"], frames=4)


def test_deleted_files_are_named(kinds: Mapping[str, folders.ClipFolder]) -> None:
    for kind, folder in kinds.items():
        path = folder.entries[-1].path
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        for read in (
            lambda folder=folder: folders.read_clip(folder, 1, frames=2),
            lambda folder=folder: folders.content_hash(folder),
        ):
            with pytest.raises(MissingData, match=f"{kind}/{path.name}: .*No such file"):
                read()


def test_a_truncated_avi_is_refused(kinds: Mapping[str, folders.ClipFolder]) -> None:
    path = kinds["videos"].entries[0].path
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(MissingData, match=rf"v0\.avi: .*{len(content) - 1:,} of {len(content):,} bytes"):
        folders.read_clip(kinds["videos"], 0, frames=2)
    path.write_bytes(content[:4] + b"\xff" * 4 + content[8:-1])  # a streaming writer leaves the size unknown
    assert grey_levels(folders.read_clip(kinds["videos"], 0, frames=2)) == [0, 10]


# Image modes


def write_16_bit_png(path: Path) -> None:
    """Write an RGB image of 16 bits, which Pillow cannot do."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = zlib.compress(b"\0" + bytes(range(12)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def test_8_bit_images_of_every_mode_are_read(tmp_path: Path) -> None:
    grey = Image.fromarray(grey_clip(20)[0])
    for mode in ("RGB", "RGBA", "L", "LA", "P"):
        (tmp_path / mode).mkdir()
        grey.convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / mode / "1.png")
        assert grey_levels(folders.read_clip(folders.detect(tmp_path), 0, frames=1)) == [20]
        shutil.rmtree(tmp_path / mode)


@pytest.mark.parametrize(
    ("write_image", "message"),
    [
        (lambda path: Image.new("RGBA", (4, 4), (9, 9, 9, 254)).save(path), "is transparent"),
        (lambda path: Image.new("I;16", (4, 4), 999).save(path), "is I;16 of 16 bits"),
        (write_16_bit_png, "is RGB of 16 bits"),
        (lambda path: Image.new("CMYK", (4, 4)).save(path, "JPEG"), "is CMYK"),
    ],
)
def test_images_other_than_8_bit_rgb_or_grey_are_refused(
    tmp_path: Path, write_image: Callable[[Path], None], message: str
) -> None:
    (tmp_path / "c").mkdir()
    write_image(tmp_path / "c/1.png")
    with pytest.raises(MissingData, match=rf"c/1\.png {re.escape(message)}"):
        folders.read_clips(folders.detect(tmp_path), [0], frames=1)


def test_a_change_of_frame_size_is_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "c", grey_clip())
    Image.new("RGB", (4, 4)).save(tmp_path / "c/0002.png")
    folder = folders.detect(tmp_path)
    assert len(folders.read_clip(folder, 0, frames=2)) == 2
    with pytest.raises(MissingData, match=r"c/0002\.png: .*10x8 and 4x4"):
        folders.read_clip(folder, 0, frames=3)
