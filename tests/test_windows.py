from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from clipfiles import pictures, write_video

from vfbench import video
from vfbench.cut import Cut
from vfbench.errors import MissingData
from vfbench.files import read_json
from vfbench.interfaces import ClipShape
from vfbench.windows import Windows, frame_counts

pytest.importorskip("av")  # without it no clip can be made, nor read

EVERY = Cut("folder", ClipShape(16, 8, 8), start="every")
CHUNKS = Cut("folder", ClipShape(4, 8, 8), stride=2, drop_first=1, start="chunks")


def test_windows_are_addressed_video_by_video() -> None:
    every = Windows(EVERY, ["a", "b", "c"], [20, 16, 17])
    expected = [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (2, 0), (2, 1)]
    assert [every[index] for index in range(len(every))] == expected
    chunks = Windows(CHUNKS, ["a", "b"], [16, 15])
    assert [chunks[index] for index in range(len(chunks))] == [(0, 1), (0, 9), (1, 1)]


def test_no_such_window() -> None:
    every = Windows(EVERY, ["a"], [20])
    for index in (5, -1):
        with pytest.raises(IndexError, match=f"there are 5 windows: no window {index}"):
            every[index]
    assert len(Windows(EVERY, [], [])) == 0


def test_short_videos_are_named() -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    message = r"^folder: 4 of 6 videos have fewer frames than the 16 .*: a \(15\), c \(3\), d \(0\) and 1 more; take"
    with pytest.raises(MissingData, match=message):
        Windows(EVERY, names, [15, 16, 3, 0, 20, 9])
    with pytest.raises(MissingData, match=r"the 8 that a clip needs: b \(7\)"):
        Windows(CHUNKS, ["a", "b"], [8, 7])


# Frames are counted once


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Videos of 5, 6 and 7 frames, and an empty cache."""
    monkeypatch.setenv("VFBENCH_CACHE", str(tmp_path / "cache"))
    for frames in (5, 6, 7):
        write_video(tmp_path / f"{frames}.avi", pictures(frames=frames))
    return [tmp_path / f"{frames}.avi" for frames in (5, 6, 7)]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the videos that were decoded, as they are."""
    seen: list[str] = []
    count = video.count_frames

    def noted(path: Path) -> int:
        seen.append(path.name)
        return count(path)

    monkeypatch.setattr(video, "count_frames", noted)
    return seen


def test_frames_are_counted_once(clips: Sequence[Path], counted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert frame_counts(clips[:2]) == [5, 6]
    told = capsys.readouterr()
    assert "frames counted: 2/2 videos" in told.err
    assert told.out == ""
    assert frame_counts(clips[::-1]) == [7, 6, 5]
    assert counted == ["5.avi", "6.avi", "7.avi"]
    capsys.readouterr()
    assert frame_counts([*clips, clips[0]]) == [5, 6, 7, 5]
    assert capsys.readouterr().err == ""


def test_a_file_or_decoder_that_changed_is_counted_again(
    clips: Sequence[Path], counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame_counts(clips)
    write_video(clips[0], pictures(frames=9))
    assert frame_counts(clips) == [9, 6, 7]
    os.utime(clips[1], ns=(1, 1))
    frame_counts(clips)
    assert counted[3:] == ["5.avi", "6.avi"]
    monkeypatch.setattr(video, "decoder", lambda: "another decoder")
    frame_counts(clips[2:])
    assert counted[5:] == ["7.avi"]


def test_what_was_counted_before_a_bad_video_is_kept(clips: Sequence[Path], counted: list[str]) -> None:
    clips[1].write_bytes(b"<html>not found</html>")
    for _ in range(2):
        with pytest.raises(MissingData, match=r"6\.avi: needs all frames"):
            frame_counts(clips)
    assert counted == ["5.avi", "6.avi", "6.avi"]
    clips[2].write_bytes(clips[2].read_bytes()[:-1])
    with pytest.raises(MissingData, match=r"7\.avi: cut off"):
        frame_counts([clips[0], clips[2]])
    clips[0].unlink()
    with pytest.raises(MissingData, match=r"5\.avi: No such file"):
        frame_counts(clips)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": null}', '{"a": "five"}'])
def test_a_damaged_cache_is_made_again(
    clips: Sequence[Path], content: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/frames.json").write_text(content)
    assert frame_counts(clips) == [5, 6, 7]
    assert "frames.json cannot be used" in capsys.readouterr().err
    assert len(read_json(tmp_path / "cache/frames.json")) == 3


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    clips: Sequence[Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "cache").touch()
    assert frame_counts(clips) == [5, 6, 7]
    assert "numbers of frames are not kept" in capsys.readouterr().err
