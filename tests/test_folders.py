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
from clipfiles import (
    FRAMES,
    KINDS,
    all_kinds,
    levels,
    names,
    pictures,
    touch,
    write_frames,
    write_list,
    write_video,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vfbench import folders
from vfbench.errors import MissingData, UserError
from vfbench.folders.scan import Scan, _add_frames, gap, natural

pytest.importorskip("av")  # without it no clip can be made, nor read


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, folders.Found]:
    """The same two clips as videos, as frame folders and as arrays."""
    return all_kinds(tmp_path)


# Which layout


@pytest.mark.parametrize(
    ("files", "kind", "found", "groups"),
    [
        (["b.mp4", "a.AVI"], "videos", ["a.AVI", "b.mp4"], ()),
        (["x/a.mp4", "y/a.mp4", "y/b.webm"], "videos", ["x/a.mp4", "y/a.mp4", "y/b.webm"], ("x", "y")),
        (["deep/down/x/a.gif", "deep/down/y/b.gif"], "videos", ["deep/down/x/a.gif", "deep/down/y/b.gif"], ("x", "y")),
        (["a.mp4", "x/b.mp4"], "videos", ["a.mp4", "x/b.mp4"], ()),  # no level that all have
        (["c/1.png", "c/2.png", "d/1.png"], "frames", ["c", "d"], ()),
        (["k/c.mp4/1.jpg", "l/d/1.JPEG"], "frames", ["k/c.mp4", "l/d"], ("k", "l")),
    ],
)
def test_layouts(tmp_path: Path, files: list[str], kind: str, found: list[str], groups: tuple[str, ...]) -> None:
    seen = folders.detect(str(touch(tmp_path, *files)))
    assert (seen.kind, names(seen), seen.groups, len(seen)) == (kind, found, groups, len(found))
    assert [entry.path for entry in seen.entries] == [tmp_path / name for name in found]


def test_order_is_natural_and_says_where_that_differs(tmp_path: Path) -> None:
    touch(tmp_path, *(f"v{k}.mp4" for k in (1, 2, 10, 11)))
    found = folders.detect(tmp_path)
    assert names(found) == ["v1.mp4", "v2.mp4", "v10.mp4", "v11.mp4"]
    assert found.notes == ("natural order differs from lexicographic order in 3 places",)  # 1, 10, 11, 2
    padded = folders.detect(touch(tmp_path / "padded", "v01.mp4", "v02.mp4", "v10.mp4"))
    assert padded.notes == ()


def test_order_of_frames_is_natural_and_says_where_that_differs(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", pictures(), "frame{}.png")
    write_frames(tmp_path / "b", pictures())
    found = folders.detect(tmp_path)
    assert found.notes == ("natural order of frames differs from lexicographic order in 1: a",)
    assert levels(folders.clip(found, 0, frames=12)) == [10.0 * k for k in range(12)]


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (["1.png", "2.png", "3.png"], ""),
        (["1.png", "2.png", "4.png"], "2.png, then 4.png"),
        (["f2_8.png", "f2_9.png", "f2_10.png"], ""),  # the last number counts
        (["0.png", "3.png", "6.png"], ""),  # every third frame
        (["0.png", "3.png", "9.png", "12.png"], "3.png, then 9.png"),
        (["4.png", "0.png", "1.png"], "1.png, then 4.png"),
        (["a.png", "1.png", "3.png", "4.png"], ""),  # not every frame has a number
        (["a1.png", "b1.png", "a3.png"], ""),  # nor one of its own
        (["7.png"], ""),
        ([], ""),
    ],
)
def test_a_gap_is_a_step_larger_than_the_others(frames: list[str], said: str) -> None:
    assert gap(frames) == said


@settings(derandomize=True, deadline=None, database=None)
@given(st.lists(st.text("09a1_.", min_size=1, max_size=5), min_size=1, max_size=5, unique=True))
def test_the_quick_look_at_the_order_of_frames_is_right(stems: list[str]) -> None:
    frames = [f"x{stem}.png" for stem in stems]
    found = Scan(Path())
    _add_frames(found, "v", frames)
    assert bool(found.unordered) == (sorted(frames) != sorted(frames, key=natural))


def test_what_is_no_clip_is_not_entered_or_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "readme.txt", "sub/labels.csv", "preview.png", ".DS_Store", "sub/.DS_Store", "Thumbs.db")
    touch(tmp_path, "__MACOSX/a.mp4", "__MACOSX/b/1.png", ".cache/c.mp4", "UCFTrainTestlist/x.mp4", "void/", "sub/no/")
    found = folders.detect(tmp_path)
    assert names(found) == ["a.mp4"]
    assert found.notes == (
        "not scored, no layout reads them: preview.png, readme.txt, sub/labels.csv",
        "ignored: .DS_Store (2), .cache, Thumbs.db and 2 more",
        "2 empty folders: sub/no, void",
    )


def test_videos_in_several_formats_are_pointed_out(tmp_path: Path) -> None:
    found = folders.detect(touch(tmp_path, "a.gif", "a.mp4", "b.mp4"))
    assert found.notes == (
        "mixed: 1 .gif, 2 .mp4",
        "names that stand there in several formats, each scored as a clip: 1 (a)",
        "a GIF has at most 256 colours a frame, and equal neighbours are often stored as one frame",
    )
    frames = folders.detect(touch(tmp_path / "frames", "a/1.png", "b/1.jpg"))
    assert frames.notes == ("mixed: 1 png, 1 jpeg",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "holds no clips (it is empty); needed: videos (.avi .mp4"),
        (["a/", "b.txt"], "holds no clips (not scored, no layout reads them: b.txt; 1 empty folder: a); needed"),
        (["1.png", "2.png"], "no clips but single images (1.png, 2.png): frames must stand in a folder for each clip"),
        (["a.mp4", "c/1.png"], "holds videos (1: a.mp4) and frame folders (1: c): which are the clips?"),
        (["a.mp4", "x/s.npz"], "holds videos (1: a.mp4) and array clips (1: x/s.npz): which are the clips?"),
        (["c/1.png", "c/flow.npy"], "holds frame folders (1: c) and array clips (1: c/flow.npy)"),
        (["a/b/c/1.png"], "lie 3 levels deep (a/b/c), needed: 1, or 2 with a class; give a folder further down"),
        (["a/1.png", "b/c/1.png"], "frame folders at different depths, a (1) and b/c (2): which are the clips?"),
        (["a/1.png", "a/b/1.png"], "frame folders at different depths, a (1) and a/b (2)"),
        (["c/1.png", "c/2.jpg"], "/c holds png and jpeg images: which are the frames?"),
    ],
)
def test_what_is_no_layout_or_two_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(MissingData, match=re.escape(message)) as error:
        folders.detect(touch(tmp_path, *files))
    assert str(tmp_path) in str(error.value)


def test_a_single_file_stands_for_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.txt")
    found = folders.detect(tmp_path / "a.mp4")
    assert (names(found), found.kind, found.notes) == (["a.mp4"], "videos", ())
    with pytest.raises(MissingData, match=r"c\.txt holds no clips"):
        folders.detect(tmp_path / "c.txt")
    with pytest.raises(MissingData, match=r"missing: No such file or directory; give a folder"):
        folders.detect(tmp_path / "missing")


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    touch(tmp_path, "there/a.mp4", "here/")
    (tmp_path / "here/x").symlink_to(tmp_path / "there")
    assert names(folders.detect(tmp_path / "here")) == ["x/a.mp4"]
    (tmp_path / "there/up").symlink_to(tmp_path / "there")
    with pytest.raises(MissingData, match="there/up links to a folder above itself"):
        folders.detect(tmp_path / "there")


def test_describe_says_what_was_found(tmp_path: Path) -> None:
    found = folders.detect(touch(tmp_path, "x/c1/1.png", "y/c2/1.png", "list.txt"))
    assert found.describe().splitlines() == [
        f"folder  {tmp_path}",
        "found   frame folders: 2, classes: 2",
        "first   x/c1",
        "last    y/c2",
        "note    not scored, no layout reads them: list.txt",
    ]


# A list of clips


def test_only_listed_clips_count_and_the_others_are_named(tmp_path: Path) -> None:
    touch(tmp_path / "clips", "x/a#1.mp4", "x/b.mp4", "y/c.mp4", "y/d.mp4", "frames/1.png")
    listing = write_list(tmp_path / "list.txt", "\ufeffy/d.mp4", "", "./x/a#1.mp4", "")
    found = folders.detect(tmp_path / "clips", listing=listing)
    assert (names(found), found.groups) == (["x/a#1.mp4", "y/d.mp4"], ("x", "y"))
    assert found.notes == ("not listed, not scored: 3 (x/b.mp4, y/c.mp4, frames)",)
    only = folders.detect(tmp_path / "clips", listing=write_list(listing, "frames/"))
    assert (only.kind, names(only)) == ("frames", ["frames"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.mp4", "gone.mp4", "../b.mp4"], "2 of 3 listed clips are not in {}: gone.mp4, ../b.mp4; write paths relat"),
        (["a.mp4", "./a.mp4"], "names a clip twice, which would count twice: a.mp4"),
        (["", " "], "names no clip; write one relative path a line"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    listing = write_list(tmp_path / "list.txt", *lines)
    with pytest.raises(MissingData, match=re.escape(message.format(tmp_path))):
        folders.detect(touch(tmp_path, "a.mp4"), listing=listing)


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9.mp4")
    for name in ("latin", "gone"):
        with pytest.raises(MissingData, match=f"{name}: cannot be read as a list of clips"):
            folders.detect(touch(tmp_path, "a.mp4"), listing=tmp_path / name)


# Frames


@KINDS
def test_the_frames_are_those_asked_for(kinds: Mapping[str, folders.Found], kind: str) -> None:
    found = kinds[kind]
    clips = folders.clips(found, [1, 0], frames=3, stride=2, drop_first=4)
    assert (clips.dtype, tuple(clips.shape), clips.is_contiguous()) == (torch.uint8, (2, 3, 3, 8, 10), True)
    assert [levels(clip) for clip in clips] == [[41, 61, 81], [40, 60, 80]]
    assert levels(folders.clip(found, 0, frames=12))[-1] == 110
    assert tuple(folders.clips(found, [], frames=3).shape) == (0, 3, 3, 8, 10)
    assert folders.resolution(found) == (8, 10)


@KINDS
def test_the_hashed_start_is_fixed_by_the_name(kinds: Mapping[str, folders.Found], kind: str) -> None:
    found = kinds[kind]
    for i, entry in enumerate(found.entries):
        places = FRAMES - 2 - (3 - 1) * 2
        place = int.from_bytes(hashlib.sha256(entry.name.encode()).digest()[:8], "little") % places
        clip = folders.clip(found, i, frames=3, stride=2, drop_first=2, start="hashed")
        assert levels(clip)[0] == i + 10 * (2 + place)
        assert len(folders.clip(found, i, frames=6, stride=2, drop_first=1, start="hashed")) == 6  # the only place


@KINDS
def test_a_short_clip_is_named_and_not_padded(kinds: Mapping[str, folders.Found], kind: str) -> None:
    found = kinds[kind]
    for start in ("zero", "hashed"):
        with pytest.raises(
            MissingData, match=r"v.*(has|needs 4 frames from 1 at stride 4, declared 12, decoded) 12( |\b)"
        ):
            folders.clips(found, [0], frames=4, stride=4, drop_first=1, start=start)
    assert folders.too_short(found, frames=3, stride=4, drop_first=3) == []
    assert folders.too_short(found, frames=3, stride=4, drop_first=4) == names(found)


@KINDS
def test_senseless_requests_are_refused(kinds: Mapping[str, folders.Found], kind: str) -> None:
    found = kinds[kind]
    wrong: list[dict[str, Any]] = [{"frames": 0}, {"stride": 0}, {"drop_first": -1}]
    for options in wrong:
        with pytest.raises(UserError, match=f"{next(iter(options))}=.*: at least .*{kind}"):
            folders.clips(found, [0], **{"frames": 2, **options})
    with pytest.raises(UserError, match=r"start='random'.*zero, hashed"):
        folders.clips(found, [0], frames=2, start="random")
    for index in (2, -1):
        with pytest.raises(IndexError, match=f"{kind} has 2 clips: no clip {index}"):
            folders.clip(found, index, frames=2)


@KINDS
def test_clips_of_another_resolution_are_named(kinds: Mapping[str, folders.Found], kind: str) -> None:
    root = kinds[kind].root
    tall = pictures(height=10, width=8)
    if kind == "videos":
        write_video(root / "w.avi", tall)
    elif kind == "frames":
        write_frames(root / "w", tall)
    else:
        np.save(root / "w.npy", tall[None])
    found = folders.detect(root)
    with pytest.raises(MissingData, match=r": w.* has 8x10 pixels, the first clip v.* 10x8: clips of one"):
        folders.clips(found, [2], frames=2)
    assert tuple(folders.clip(found, 2, frames=2).shape) == (2, 3, 10, 8)


def test_bytes_of_0_and_1_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "c", pictures() % 2 + np.eye(8, 10, dtype=np.uint8)[..., None])
    with pytest.raises(UserError, match=r", c: all bytes of these clips are 0 or 1"):
        folders.clips(folders.detect(tmp_path), [0], frames=2)


def test_a_gif_is_not_retimed(tmp_path: Path) -> None:
    first, *rest = map(Image.fromarray, pictures()[[0, 1, 1, 1, 2]])
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=[500, 100, 100, 100, 30])
    found = folders.detect(tmp_path)
    assert levels(folders.clip(found, 0, frames=3)) == [0, 10, 20]
    with pytest.raises(MissingData, match=r"a\.gif: needs 5 frames from 0, declared 3, decoded 3"):
        folders.clip(found, 0, frames=5)


# Damage


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_damaged_files_are_named(kinds: Mapping[str, folders.Found], content: bytes) -> None:
    for kind, name in {"videos": "v1.avi", "frames": "v1/0003.png"}.items():
        (kinds[kind].root / name).write_bytes(content)
        with pytest.raises(MissingData, match=name):
            folders.clips(kinds[kind], [0, 1], frames=4)
    with pytest.raises(MissingData, match=r"v1\.avi: "):
        folders.too_short(kinds["videos"], frames=4)


def test_files_that_went_away_are_named(kinds: Mapping[str, folders.Found]) -> None:
    for kind, found in kinds.items():
        path = found.entries[-1].path
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        for read in (lambda found=found: folders.clip(found, 1, frames=2), lambda found=found: folders.manifest(found)):
            with pytest.raises(MissingData, match=f"{kind}/{path.name}: .*No such file"):
                read()


def test_an_avi_that_was_cut_off_is_refused(kinds: Mapping[str, folders.Found]) -> None:
    path = kinds["videos"].entries[0].path
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(MissingData, match=rf"v0\.avi: cut off, {len(whole) - 1:,} of {len(whole):,} bytes"):
        folders.clip(kinds["videos"], 0, frames=2)
    path.write_bytes(whole[:4] + b"\xff" * 4 + whole[8:-1])  # a writer that could not say
    assert levels(folders.clip(kinds["videos"], 0, frames=2)) == [0, 10]


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
        assert levels(folders.clip(folders.detect(tmp_path), 0, frames=1)) == [20]
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
        folders.clips(folders.detect(tmp_path), [0], frames=1)


def test_a_frame_of_another_size_is_named(tmp_path: Path) -> None:
    write_frames(tmp_path / "c", pictures())
    Image.new("RGB", (4, 4)).save(tmp_path / "c/0002.png")
    found = folders.detect(tmp_path)
    assert len(folders.clip(found, 0, frames=2)) == 2
    with pytest.raises(MissingData, match=r"c/0002\.png: the frame size changes within the clip, 10x8 and 4x4"):
        folders.clip(found, 0, frames=3)


# The manifest


def test_the_manifest_does_not_care_where_and_when(kinds: Mapping[str, folders.Found], tmp_path: Path) -> None:
    before = {kind: folders.manifest(found) for kind, found in kinds.items()}
    assert all(re.fullmatch("[0-9a-f]{64}", each) for each in before.values())
    assert len(set(before.values())) == 3
    for kind in kinds:
        shutil.copytree(tmp_path / kind, tmp_path / "moved" / kind, copy_function=shutil.copyfile)
    (tmp_path / "moved/frames/readme.txt").touch()
    after = {kind: folders.manifest(folders.detect(tmp_path / "moved" / kind)) for kind in kinds}
    assert before == after


@pytest.mark.parametrize("large", [False, True])
@KINDS
def test_the_manifest_follows_all_that_was_replaced(kinds: Mapping[str, folders.Found], kind: str, large: bool) -> None:
    # As if these were: a video in three places, a frame folder by three frames.
    depth = folders.Depth(100, 16) if large else folders.DEEP
    root, path = kinds[kind].root, kinds[kind].entries[-1].path
    seen = [folders.manifest(kinds[kind], depth)]
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in dict.fromkeys((files[0], files[len(files) // 2], files[-1])):
        content = bytearray(file.read_bytes())
        more = [len(content) // 4] * (kind == "arrays")  # which are hashed whole at any size
        for place in (0, len(content) // 2, -1, *more):
            content[place] ^= 1
            file.write_bytes(content)
            seen.append(folders.manifest(kinds[kind], depth))
    files[1 % len(files)].write_bytes(files[1 % len(files)].read_bytes() + b"+")
    seen.append(folders.manifest(kinds[kind], depth))
    path.rename(root / f"z{path.suffix}")
    if kind != "arrays":
        seen.append(folders.manifest(folders.detect(root), depth))
        shutil.rmtree(root / "z") if kind == "frames" else (root / "z.avi").unlink()
        seen.append(folders.manifest(folders.detect(root), depth))
    assert len(set(seen)) == len(seen) >= 5


def test_a_frame_that_went_away_changes_the_manifest(kinds: Mapping[str, folders.Found]) -> None:
    before = folders.manifest(kinds["frames"])
    (kinds["frames"].entries[0].path / "0001.png").unlink()
    assert folders.manifest(kinds["frames"]) != before


# Two sides


def test_clips_stored_alike_do_not_mismatch(kinds: Mapping[str, folders.Found]) -> None:
    """All of these are lossless, of one size and length; only the videos have a frame rate."""
    for real in kinds.values():
        for fake in kinds.values():
            assert folders.mismatches(real, fake) == []


def test_every_mismatch_is_told(kinds: Mapping[str, folders.Found], tmp_path: Path) -> None:
    for quality, name in ((75, "coarse"), (95, "fine")):
        for i in range(2):
            write_frames(tmp_path / name / f"c{i}", pictures(frames=10 + i, width=20), "{:02}.jpg", quality=quality)
    coarse, fine = (folders.detect(tmp_path / name) for name in ("coarse", "fine"))
    assert [line.split(";")[0] for line in folders.mismatches(kinds["frames"], coarse)] == [
        "compression: real lossless, fake jpeg",
        "resolution (width x height): real 10x8, fake 20x8",
        "frames a clip: real 12, fake 10 to 11",
    ]
    (quantiser,) = folders.mismatches(fine, coarse)
    assert quantiser.startswith("JPEG quantiser (mean step): real 5.8, fake 29; ")  # a tenth and half of Annex K's


def test_a_gif_differs_in_compression_and_rate(kinds: Mapping[str, folders.Found], tmp_path: Path) -> None:
    first, *rest = map(Image.fromarray, pictures())
    (tmp_path / "gifs").mkdir()
    first.save(tmp_path / "gifs/a.gif", save_all=True, append_images=rest, duration=100)
    told = folders.mismatches(kinds["videos"], folders.detect(tmp_path / "gifs"))
    assert [line.split(";")[0] for line in told] == [
        "compression: real lossless, fake gif bgra",
        "frames a second: real 25, fake 10",
    ]


def test_features_do_not_tell_how_clips_were_stored(kinds: Mapping[str, folders.Found], tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.zeros((2, 5), np.float32))
    (told,) = folders.mismatches(kinds["videos"], folders.detect(tmp_path / "f.npy"))
    assert told.endswith("f.npy: features do not tell how their clips were stored")


# Genuine clips


def test_genuine_ucf101(real_data: Path) -> None:
    with pytest.raises(MissingData, match=r"ucf101 holds videos \(5: UCF-101/.*\) and frame folders \(2: jpegs_c3d/"):
        folders.detect(real_data / "ucf101")  # the split lists beside them are not entered
    found = folders.detect(real_data / "ucf101/UCF-101")
    assert (found.kind, len(found), found.groups[0], found.notes) == ("videos", 5, "ApplyEyeMakeup", ())
    assert levels(folders.clip(found, 0, frames=3)) == pytest.approx([87.1196, 87.2279, 86.1584], abs=0.02)
    assert folders.too_short(found, frames=141) == ["BaseballPitch/v_BaseballPitch_g01_c01.avi"]


def test_genuine_frame_folders(real_data: Path) -> None:
    with pytest.raises(MissingData, match=r"3 levels deep.*give a folder further down, such as .*/sky_test"):
        folders.detect(real_data / "sky_timelapse")
    sky = folders.detect(real_data / "sky_timelapse/sky_test")
    assert (sky.kind, len(sky), len(sky.groups), sky.entries[0].name) == (
        "frames", 6, 6, "mdganREAL00/mdganREAL00_1"
    )  # fmt: skip
    clips = folders.clips(sky, range(6), frames=16, stride=2)
    assert tuple(clips.shape) == (6, 16, 3, 128, 128)
    assert clips.float().std((1, 2, 3, 4)).min() > 5
    with pytest.raises(MissingData, match="mdganREAL00_1 has 32 frames, needs 16 from 0 at stride 3"):
        folders.clips(sky, [0], frames=16, stride=3)


def test_genuine_taichi_is_the_same_as_png_and_as_mp4(real_data: Path) -> None:
    png, mp4 = folders.detect(real_data / "taichi_png"), folders.detect(real_data / "taichi_hd")
    assert png.entries[0].name == "test/w2awOCDRtrc#001729#002009.mp4"  # a folder
    assert mp4.notes == ("not scored, no layout reads them: taichi256_pairs.csv, taichi-metadata.csv",)
    assert torch.equal(folders.clip(png, 0, frames=16), folders.clip(mp4, 1, frames=16))
    told = folders.mismatches(mp4, png)
    assert told[0].startswith("compression: real h264 yuv420p, fake lossless")
    assert told[1].startswith("frames a clip: real 280 to 458, fake 16")


def test_genuine_broken_and_odd_files_are_named(real_data: Path) -> None:
    broken = folders.detect(real_data / "broken")
    for i, name in enumerate(names(broken)):
        with pytest.raises(MissingData, match=f"broken/{re.escape(name)}"):
            folders.clip(broken, i, frames=16)
    odd = folders.detect(real_data / "odd")
    assert folders.too_short(odd, frames=16) == ["fifteen_frames.mp4", "one_frame.mp4"]
    with pytest.raises(MissingData, match=r"fifteen_frames\.mp4: needs 16 frames from 0, declared 15, decoded 15"):
        folders.clip(odd, 0, frames=16)
    with pytest.raises(MissingData, match=r"portrait_180x320\.mp4 has 180x320 pixels, the first clip fifteen_frames"):
        folders.clips(odd, [2], frames=15)
