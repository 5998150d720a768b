"""How many frames entries have and how large they are: of every kind, looked at once where that takes time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from clipfiles import FRAMES, HEIGHT, WIDTH, all_kinds, pictures, write_video

from vfbench import video
from vfbench.clips import ClipFile, ClipFolder, detect, measure, measure_all
from vfbench.errors import MissingData, UserError
from vfbench.utils.files import read_json

pytest.importorskip("av")  # without it no clip can be made, nor read


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, ClipFolder]:
    return all_kinds(tmp_path_factory.mktemp("kinds"))


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ClipFile]:
    """Videos of 5, 6 and 7 frames, and an empty cache."""
    monkeypatch.setenv("VFBENCH_CACHE", str(tmp_path / "cache"))
    for frames in (5, 6, 7):
        write_video(tmp_path / f"{frames}.mkv", pictures(frames=frames))
    return [ClipFile(f"{frames}.mkv", tmp_path / f"{frames}.mkv") for frames in (5, 6, 7)]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the videos whose headers are read, as they are."""
    seen: list[str] = []
    header = video.header

    def noted(path: Path) -> video.Header:
        seen.append(path.name)
        return header(path)

    monkeypatch.setattr(video, "header", noted)
    return seen


def counts(entries: Sequence[ClipFile]) -> list[int]:
    return [count for count, _, _ in measure_all(entries)]


@pytest.mark.parametrize("kind", ["videos", "frames", "arrays"])
def test_every_kind_is_measured(kinds: Mapping[str, ClipFolder], kind: str) -> None:
    assert measure_all(kinds[kind].entries) == [(FRAMES, HEIGHT, WIDTH)] * 2


def test_genuine_files_are_measured(real_data: Path) -> None:
    found = detect(real_data / "ucf101/UCF-101")
    assert measure_all(found.entries) == [(n, 240, 320) for n in (164, 107, 141, 240, 251)]
    turned = ClipFile("video_90.mov", real_data / "decoder/video_90.mov")
    assert measure(turned)[1:] == (568, 320)


def test_features_have_no_frames(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds features, not clips"):
        measure(ClipFile("x.npy", tmp_path / "x.npy", kind="features"))


def test_an_empty_frame_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    with pytest.raises(MissingData, match="c holds no image"):
        measure(ClipFile("c", tmp_path / "c", kind="frames"))


def test_videos_are_looked_at_once(
    clips: Sequence[ClipFile], looked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert counts(clips[:2]) == [5, 6]
    told = capsys.readouterr()
    assert "measured: 2/2 videos" in told.err
    assert told.out == ""
    assert counts(clips[::-1]) == [7, 6, 5]
    assert looked == ["5.mkv", "6.mkv", "7.mkv"]
    capsys.readouterr()
    assert counts([*clips, clips[0]]) == [5, 6, 7, 5]
    assert capsys.readouterr().err == ""


def test_a_file_that_changed_is_looked_at_again(clips: Sequence[ClipFile], looked: list[str]) -> None:
    counts(clips)
    write_video(clips[0].path, pictures(frames=9))
    assert counts(clips) == [9, 6, 7]
    os.utime(clips[1].path, ns=(1, 1))
    counts(clips)
    assert looked[3:] == ["5.mkv", "6.mkv"]


def test_what_was_found_before_a_bad_video_is_kept(clips: Sequence[ClipFile], looked: list[str]) -> None:
    clips[1].path.write_bytes(b"<html>not found</html>")
    for _ in range(2):
        with pytest.raises(MissingData, match=r"6\.mkv: "):
            counts(clips)
    assert looked == ["5.mkv", "6.mkv", "6.mkv"]
    clips[0].path.unlink()
    with pytest.raises(MissingData, match=r"5\.mkv: No such file"):
        counts(clips)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": null}', '{"a": [5]}', '{"a": [5, "x", 1]}'])
def test_a_damaged_cache_is_made_again(
    clips: Sequence[ClipFile], content: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/videos.json").write_text(content)
    assert counts(clips) == [5, 6, 7]
    assert "videos.json cannot be used" in capsys.readouterr().err
    assert len(read_json(tmp_path / "cache/videos.json")) == 3


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    clips: Sequence[ClipFile], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "cache").touch()
    assert counts(clips) == [5, 6, 7]
    assert "results are not cached" in capsys.readouterr().err
