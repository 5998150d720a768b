"""Tests of `vfbench.clips.scan` and `vfbench.clips.layout`: clips of a folder in every layout, their order, notes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from clipfiles import clip_names, grey_clip, grey_levels, touch, write_frames, write_list
from hypothesis import given, settings
from hypothesis import strategies as st

from vfbench import clips
from vfbench.clips.scan import Scan, _add_frames, first_gap
from vfbench.clips.text import natural_key
from vfbench.errors import MissingData

pytest.importorskip("av")  # writes and reads the clips


# Layouts


@pytest.mark.parametrize(
    ("files", "kind", "expected_names", "classes"),
    [
        (["b.mp4", "a.AVI"], "videos", ["a.AVI", "b.mp4"], ()),
        (["x/a.mp4", "y/a.mp4", "y/b.webm"], "videos", ["x/a.mp4", "y/a.mp4", "y/b.webm"], ("x", "y")),
        (["deep/down/x/a.gif", "deep/down/y/b.gif"], "videos", ["deep/down/x/a.gif", "deep/down/y/b.gif"], ("x", "y")),
        (["a.mp4", "x/b.mp4"], "videos", ["a.mp4", "x/b.mp4"], ()),  # no common level
        (["c/1.png", "c/2.png", "d/1.png"], "frames", ["c", "d"], ()),
        (["k/c.mp4/1.jpg", "l/d/1.JPEG"], "frames", ["k/c.mp4", "l/d"], ("k", "l")),
    ],
)
def test_layouts(
    tmp_path: Path, files: list[str], kind: str, expected_names: list[str], classes: tuple[str, ...]
) -> None:
    folder = clips.detect(str(touch(tmp_path, *files)))
    assert (folder.kind, clip_names(folder)) == (kind, expected_names)
    assert (folder.classes, len(folder)) == (classes, len(expected_names))
    assert [entry.path for entry in folder.entries] == [tmp_path / name for name in expected_names]


def test_clips_are_in_natural_order_with_a_note(tmp_path: Path) -> None:
    touch(tmp_path, *(f"v{k}.mp4" for k in (1, 2, 10, 11)))
    folder = clips.detect(tmp_path)
    assert clip_names(folder) == ["v1.mp4", "v2.mp4", "v10.mp4", "v11.mp4"]
    assert folder.notes == ("natural order differs from lexicographic order in 3 places",)  # 1, 10, 11, 2
    padded = clips.detect(touch(tmp_path / "padded", "v01.mp4", "v02.mp4", "v10.mp4"))
    assert padded.notes == ()


def test_frames_are_in_natural_order_with_a_note(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", grey_clip(), "frame{}.png")
    write_frames(tmp_path / "b", grey_clip())
    folder = clips.detect(tmp_path)
    assert folder.notes == ("natural order of frames differs from lexicographic order in 1: a",)
    assert grey_levels(clips.read_clip(folder, 0, frames=12)) == [10.0 * k for k in range(12)]


@pytest.mark.parametrize(
    ("frames", "gap"),
    [
        (["1.png", "2.png", "3.png"], ""),
        (["1.png", "2.png", "4.png"], "2.png, then 4.png"),
        (["f2_8.png", "f2_9.png", "f2_10.png"], ""),  # the last number counts
        (["0.png", "3.png", "6.png"], ""),  # a constant step of 3
        (["0.png", "3.png", "9.png", "12.png"], "3.png, then 9.png"),
        (["4.png", "0.png", "1.png"], "1.png, then 4.png"),
        (["a.png", "1.png", "3.png", "4.png"], "1.png, then 3.png"),  # `a.png` is no frame
        (["a.png", "b1.png", "b3.png", "c.png"], ""),  # nor is any name the usual one
        (["a1.png", "b1.png", "a3.png"], ""),  # repeated numbers
        (["7.png"], ""),
        ([], ""),
    ],
)
def test_a_gap_is_a_step_larger_than_the_other_steps(frames: list[str], gap: str) -> None:
    assert first_gap(frames) == gap


@settings(derandomize=True, deadline=None, database=None)
@given(st.lists(st.text("09a1_.", min_size=1, max_size=5), min_size=1, max_size=5, unique=True))
def test_the_scan_detects_frames_out_of_natural_order(stems: list[str]) -> None:
    frames = [f"x{stem}.png" for stem in stems]
    scan = Scan(Path())
    _add_frames(scan, "v", frames)
    assert bool(scan.unordered) == (sorted(frames) != sorted(frames, key=natural_key))


@pytest.mark.pitfall("a wrong layout")
def test_other_files_are_noted_or_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "readme.txt", "sub/labels.csv", "preview.png", ".DS_Store", "sub/.DS_Store", "Thumbs.db")
    touch(tmp_path, "__MACOSX/a.mp4", "__MACOSX/b/1.png", ".cache/c.mp4", "UCFTrainTestlist/x.mp4", "void/", "sub/no/")
    folder = clips.detect(tmp_path)
    assert clip_names(folder) == ["a.mp4"]
    assert folder.notes == (
        "not scored, no layout reads them: preview.png, readme.txt, sub/labels.csv",
        "ignored: .DS_Store (2), .cache, Thumbs.db and 2 more",
        "2 empty folders: sub/no, void",
    )


def test_several_formats_get_notes(tmp_path: Path) -> None:
    folder = clips.detect(touch(tmp_path, "a.gif", "a.mp4", "b.mp4"))
    assert folder.notes == (
        "mixed: 1 .gif, 2 .mp4",
        "names in several formats, each scored as a clip: 1 (a)",
        "a GIF has at most 256 colours a frame, and equal neighbours are often stored as one frame",
    )
    frames = clips.detect(touch(tmp_path / "frames", "a/1.png", "b/1.jpg"))
    assert frames.notes == ("mixed: 1 png, 1 jpeg",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "(it is empty); needed: videos (.avi .mp4"),
        (["a/", "b.txt"], "holds no clips ("),
        (["1.png", "2.png"], "single images (1.png, 2.png)"),
        (["a.mp4", "c/1.png"], "videos (1: a.mp4) and frame folders (1: c)"),
        (["a.mp4", "x/s.npz"], "videos (1: a.mp4) and array clips (1: x/s.npz)"),
        (["c/1.png", "c/flow.npy"], "frame folders (1: c) and array clips (1: c/flow.npy)"),
        (["a/b/c/1.png"], "3 levels deep (a/b/c)"),
        (["a/1.png", "b/c/1.png"], "a (1) and b/c (2)"),
        (["a/1.png", "a/b/1.png"], "a (1) and a/b (2)"),
        (["c/1.png", "c/2.jpg"], "/c holds png and jpeg images"),
    ],
)
@pytest.mark.pitfall("a wrong layout")
def test_unknown_or_mixed_layouts_are_refused(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(MissingData, match=re.escape(message)) as error:
        clips.detect(touch(tmp_path, *files))
    assert str(tmp_path) in str(error.value)


def test_a_single_video_is_a_folder_of_one_clip(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.txt")
    folder = clips.detect(tmp_path / "a.mp4")
    assert (clip_names(folder), folder.kind, folder.notes) == (["a.mp4"], "videos", ())
    with pytest.raises(MissingData, match=r"c\.txt"):
        clips.detect(tmp_path / "c.txt")
    with pytest.raises(MissingData, match=r"missing: No such file"):
        clips.detect(tmp_path / "missing")


def test_links_are_followed_and_cycles_refused(tmp_path: Path) -> None:
    touch(tmp_path, "linked/a.mp4", "root/")
    (tmp_path / "root/x").symlink_to(tmp_path / "linked")
    assert clip_names(clips.detect(tmp_path / "root")) == ["x/a.mp4"]
    (tmp_path / "linked/up").symlink_to(tmp_path / "linked")
    with pytest.raises(MissingData, match="linked/up"):
        clips.detect(tmp_path / "linked")


@pytest.mark.pitfall("a wrong layout")
def test_describe_prints_kind_range_and_notes(tmp_path: Path) -> None:
    folder = clips.detect(touch(tmp_path, "x/c1/1.png", "y/c2/1.png", "list.txt"))
    assert folder.describe().splitlines() == [
        f"folder  {tmp_path}",
        "found   frame folders: 2, classes: 2",
        "first   x/c1",
        "last    y/c2",
        "note    not scored, no layout reads them: list.txt",
    ]


# Lists of clips


def test_a_list_selects_clips_and_the_rest_is_noted(tmp_path: Path) -> None:
    touch(tmp_path / "clips", "x/a#1.mp4", "x/b.mp4", "y/c.mp4", "y/d.mp4", "frames/1.png")
    listing = write_list(tmp_path / "list.txt", "\ufeffy/d.mp4", "", "./x/a#1.mp4", "")
    folder = clips.detect(tmp_path / "clips", listing=listing)
    assert (clip_names(folder), folder.classes) == (["x/a#1.mp4", "y/d.mp4"], ("x", "y"))
    assert folder.notes == ("not listed, not scored: 3 (x/b.mp4, y/c.mp4, frames)",)
    only = clips.detect(tmp_path / "clips", listing=write_list(listing, "frames/"))
    assert (only.kind, clip_names(only)) == ("frames", ["frames"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.mp4", "gone.mp4", "../b.mp4"], "not in {}: gone.mp4, ../b.mp4"),
        (["a.mp4", "./a.mp4"], "twice: a.mp4"),
        (["", " "], "no clip"),
    ],
)
@pytest.mark.pitfall("missing files of a dataset")
def test_a_bad_list_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    listing = write_list(tmp_path / "list.txt", *lines)
    with pytest.raises(MissingData, match=re.escape(message.format(tmp_path))):
        clips.detect(touch(tmp_path, "a.mp4"), listing=listing)


def test_an_unreadable_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9.mp4")
    for name, message in (("latin", "is not UTF-8 text"), ("gone", "does not exist")):
        with pytest.raises(MissingData, match=f"{name} {message}"):
            clips.detect(touch(tmp_path, "a.mp4"), listing=tmp_path / name)
