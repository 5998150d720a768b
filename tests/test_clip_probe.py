"""Tests of `vfbench.clips.probe`: frame count and size of clips of every kind, and the cache for videos."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from clipfiles import FRAMES, HEIGHT, WIDTH, all_kinds, grey_clip, write_video

from vfbench import video
from vfbench.clips import ClipFile, ClipFolder, detect, measure, measure_all
from vfbench.errors import MissingData, UserError
from vfbench.utils.files import read_json

pytest.importorskip("av")  # writes and reads the clips


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, ClipFolder]:
    return all_kinds(tmp_path_factory.mktemp("kinds"))


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ClipFile]:
    """Videos of 5, 6 and 7 frames, and an empty cache."""
    monkeypatch.setenv("VFBENCH_CACHE", str(tmp_path / "cache"))
    for frames in (5, 6, 7):
        write_video(tmp_path / f"{frames}.mkv", grey_clip(frames=frames))
    return [ClipFile(f"{frames}.mkv", tmp_path / f"{frames}.mkv") for frames in (5, 6, 7)]


@pytest.fixture
def read_headers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the videos whose headers are read, in order."""
    names: list[str] = []
    header = video.header

    def record(path: Path) -> video.Header:
        names.append(path.name)
        return header(path)

    monkeypatch.setattr(video, "header", record)
    return names


def counts(entries: Sequence[ClipFile]) -> list[int]:
    return [count for count, _, _ in measure_all(entries)]


@pytest.mark.parametrize("kind", ["videos", "frames", "arrays"])
def test_every_kind_is_measured(kinds: Mapping[str, ClipFolder], kind: str) -> None:
    assert measure_all(kinds[kind].entries) == [(FRAMES, HEIGHT, WIDTH)] * 2


def test_genuine_files_are_measured(real_data: Path) -> None:
    folder = detect(real_data / "ucf101/UCF-101")
    assert measure_all(folder.entries) == [(n, 240, 320) for n in (164, 107, 141, 240, 251)]
    rotated = ClipFile("video_90.mov", real_data / "decoder/video_90.mov")
    assert measure(rotated)[1:] == (568, 320)


def test_features_have_no_frames(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="features, not clips"):
        measure(ClipFile("x.npy", tmp_path / "x.npy", kind="features"))


def test_an_empty_frame_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    with pytest.raises(MissingData, match="c holds no image"):
        measure(ClipFile("c", tmp_path / "c", kind="frames"))


def test_headers_of_videos_are_cached(
    clips: Sequence[ClipFile], read_headers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert counts(clips[:2]) == [5, 6]
    captured = capsys.readouterr()
    assert "measured: 2/2 videos" in captured.err
    assert captured.out == ""
    assert counts(clips[::-1]) == [7, 6, 5]
    assert read_headers == ["5.mkv", "6.mkv", "7.mkv"]
    capsys.readouterr()
    assert counts([*clips, clips[0]]) == [5, 6, 7, 5]
    assert capsys.readouterr().err == ""


def test_a_changed_video_is_read_again(clips: Sequence[ClipFile], read_headers: list[str]) -> None:
    counts(clips)
    write_video(clips[0].path, grey_clip(frames=9))
    assert counts(clips) == [9, 6, 7]
    os.utime(clips[1].path, ns=(1, 1))
    counts(clips)
    assert read_headers[3:] == ["5.mkv", "6.mkv"]


def test_results_before_a_bad_video_are_cached(clips: Sequence[ClipFile], read_headers: list[str]) -> None:
    clips[1].path.write_bytes(b"<html>not found</html>")
    for _ in range(2):
        with pytest.raises(MissingData, match=r"6\.mkv: "):
            counts(clips)
    assert read_headers == ["5.mkv", "6.mkv", "6.mkv"]
    clips[0].path.unlink()
    with pytest.raises(MissingData, match=r"5\.mkv: No such file"):
        counts(clips)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": null}', '{"a": [5]}', '{"a": [5, "x", 1]}'])
def test_a_damaged_cache_is_replaced(
    clips: Sequence[ClipFile], content: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/videos.json").write_text(content)
    assert counts(clips) == [5, 6, 7]
    error = capsys.readouterr().err
    assert "videos.json" in error
    assert "again" in error
    assert len(read_json(tmp_path / "cache/videos.json")) == 3


def test_an_unwritable_cache_is_a_warning(
    clips: Sequence[ClipFile], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "cache").touch()
    assert counts(clips) == [5, 6, 7]
    assert "not cached" in capsys.readouterr().err
