"""Which clips a folder holds: every layout, in natural order, and whatever is no clip is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from clipfiles import levels, names, pictures, touch, write_frames, write_list
from hypothesis import given, settings
from hypothesis import strategies as st

from vfbench import clips
from vfbench.clips.scan import Scan, _add_frames, first_gap
from vfbench.clips.text import natural_key
from vfbench.errors import MissingData

pytest.importorskip("av")  # without it no clip can be made, nor read


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
    seen = clips.detect(str(touch(tmp_path, *files)))
    assert (seen.kind, names(seen), seen.classes, len(seen)) == (kind, found, groups, len(found))
    assert [entry.path for entry in seen.entries] == [tmp_path / name for name in found]


def test_order_is_natural_and_says_where_that_differs(tmp_path: Path) -> None:
    touch(tmp_path, *(f"v{k}.mp4" for k in (1, 2, 10, 11)))
    found = clips.detect(tmp_path)
    assert names(found) == ["v1.mp4", "v2.mp4", "v10.mp4", "v11.mp4"]
    assert found.notes == ("natural order differs from lexicographic order in 3 places",)  # 1, 10, 11, 2
    padded = clips.detect(touch(tmp_path / "padded", "v01.mp4", "v02.mp4", "v10.mp4"))
    assert padded.notes == ()


def test_order_of_frames_is_natural_and_says_where_that_differs(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", pictures(), "frame{}.png")
    write_frames(tmp_path / "b", pictures())
    found = clips.detect(tmp_path)
    assert found.notes == ("natural order of frames differs from lexicographic order in 1: a",)
    assert levels(clips.read_clip(found, 0, frames=12)) == [10.0 * k for k in range(12)]


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
    assert first_gap(frames) == said


@settings(derandomize=True, deadline=None, database=None)
@given(st.lists(st.text("09a1_.", min_size=1, max_size=5), min_size=1, max_size=5, unique=True))
def test_the_quick_look_at_the_order_of_frames_is_right(stems: list[str]) -> None:
    frames = [f"x{stem}.png" for stem in stems]
    found = Scan(Path())
    _add_frames(found, "v", frames)
    assert bool(found.unordered) == (sorted(frames) != sorted(frames, key=natural_key))


@pytest.mark.pitfall("a wrong layout")
def test_what_is_no_clip_is_not_entered_or_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "readme.txt", "sub/labels.csv", "preview.png", ".DS_Store", "sub/.DS_Store", "Thumbs.db")
    touch(tmp_path, "__MACOSX/a.mp4", "__MACOSX/b/1.png", ".cache/c.mp4", "UCFTrainTestlist/x.mp4", "void/", "sub/no/")
    found = clips.detect(tmp_path)
    assert names(found) == ["a.mp4"]
    assert found.notes == (
        "not scored, no layout reads them: preview.png, readme.txt, sub/labels.csv",
        "ignored: .DS_Store (2), .cache, Thumbs.db and 2 more",
        "2 empty folders: sub/no, void",
    )


def test_videos_in_several_formats_are_pointed_out(tmp_path: Path) -> None:
    found = clips.detect(touch(tmp_path, "a.gif", "a.mp4", "b.mp4"))
    assert found.notes == (
        "mixed: 1 .gif, 2 .mp4",
        "names in several formats, each scored as a clip: 1 (a)",
        "a GIF has at most 256 colours a frame, and equal neighbours are often stored as one frame",
    )
    frames = clips.detect(touch(tmp_path / "frames", "a/1.png", "b/1.jpg"))
    assert frames.notes == ("mixed: 1 png, 1 jpeg",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "holds no clips (it is empty); needed: videos (.avi .mp4"),
        (["a/", "b.txt"], "holds no clips (not scored, no layout reads them: b.txt; 1 empty folder: a); needed"),
        (["1.png", "2.png"], "no clips but single images (1.png, 2.png): each clip needs its own folder of frames"),
        (["a.mp4", "c/1.png"], "holds videos (1: a.mp4) and frame folders (1: c): which are the clips?"),
        (["a.mp4", "x/s.npz"], "holds videos (1: a.mp4) and array clips (1: x/s.npz): which are the clips?"),
        (["c/1.png", "c/flow.npy"], "holds frame folders (1: c) and array clips (1: c/flow.npy)"),
        (["a/b/c/1.png"], "lie 3 levels deep (a/b/c), needed: 1, or 2 with a class; give a folder further down"),
        (["a/1.png", "b/c/1.png"], "frame folders at different depths, a (1) and b/c (2): which are the clips?"),
        (["a/1.png", "a/b/1.png"], "frame folders at different depths, a (1) and a/b (2)"),
        (["c/1.png", "c/2.jpg"], "/c holds png and jpeg images: which are the frames?"),
    ],
)
@pytest.mark.pitfall("a wrong layout")
def test_what_is_no_layout_or_two_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(MissingData, match=re.escape(message)) as error:
        clips.detect(touch(tmp_path, *files))
    assert str(tmp_path) in str(error.value)


def test_a_single_file_stands_for_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.txt")
    found = clips.detect(tmp_path / "a.mp4")
    assert (names(found), found.kind, found.notes) == (["a.mp4"], "videos", ())
    with pytest.raises(MissingData, match=r"c\.txt holds no clips"):
        clips.detect(tmp_path / "c.txt")
    with pytest.raises(MissingData, match=r"missing: No such file or directory; give a folder"):
        clips.detect(tmp_path / "missing")


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    touch(tmp_path, "there/a.mp4", "here/")
    (tmp_path / "here/x").symlink_to(tmp_path / "there")
    assert names(clips.detect(tmp_path / "here")) == ["x/a.mp4"]
    (tmp_path / "there/up").symlink_to(tmp_path / "there")
    with pytest.raises(MissingData, match="there/up links to a folder above itself"):
        clips.detect(tmp_path / "there")


@pytest.mark.pitfall("a wrong layout")
def test_describe_says_what_was_found(tmp_path: Path) -> None:
    found = clips.detect(touch(tmp_path, "x/c1/1.png", "y/c2/1.png", "list.txt"))
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
    found = clips.detect(tmp_path / "clips", listing=listing)
    assert (names(found), found.classes) == (["x/a#1.mp4", "y/d.mp4"], ("x", "y"))
    assert found.notes == ("not listed, not scored: 3 (x/b.mp4, y/c.mp4, frames)",)
    only = clips.detect(tmp_path / "clips", listing=write_list(listing, "frames/"))
    assert (only.kind, names(only)) == ("frames", ["frames"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.mp4", "gone.mp4", "../b.mp4"], "2 of 3 listed clips are not in {}: gone.mp4, ../b.mp4; write paths relat"),
        (["a.mp4", "./a.mp4"], "names a clip twice: a.mp4; keep one line"),
        (["", " "], "names no clip; write one relative path a line"),
    ],
)
@pytest.mark.pitfall("missing files of a dataset")
def test_a_list_that_does_not_fit_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    listing = write_list(tmp_path / "list.txt", *lines)
    with pytest.raises(MissingData, match=re.escape(message.format(tmp_path))):
        clips.detect(touch(tmp_path, "a.mp4"), listing=listing)


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9.mp4")
    for name in ("latin", "gone"):
        with pytest.raises(MissingData, match=f"{name}: cannot be read as a list of clips"):
            clips.detect(touch(tmp_path, "a.mp4"), listing=tmp_path / name)
