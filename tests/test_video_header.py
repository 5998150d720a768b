"""Tests of `vfbench.video.header` and `check_complete`: declared sizes, rates and frame counts of video files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from vfbench import video
from vfbench.errors import MissingData

UCF101 = "ucf101/UCF-101"
SUFFIXES = (".avi", ".mp4", ".mov", ".mkv", ".webm")


@pytest.mark.slow
def test_headers_equal_the_decoded_frames(real_data: Path) -> None:
    excluded = ("hostile", "reports")  # folders with other tests
    paths = [path for path in real_data.rglob("*") if path.relative_to(real_data).parts[0] not in excluded]
    for path in sorted(path for path in paths if path.suffix in SUFFIXES and path.is_file()):
        if "broken" in path.parts or path.name == "corrupted.mp4":
            continue
        header = video.header(path)
        assert header.frames == video.count_frames(path), path.name
        assert (header.height, header.width) == tuple(video.decode(path, frames=1).shape[2:]), path.name


def test_a_header_has_rate_codec_and_pixel_format(real_data: Path) -> None:
    header = video.header(real_data / "decoder/h264_10bits.mp4")
    assert header == video.Header(30, 200, 200, 30.0, "h264", "yuv420p10le")
    assert video.header(real_data / "decoder/av1_video.mkv")[3:] == (25.0, "av1", "yuv420p")
    assert video.header(real_data / "decoder/video_90.mov")[1:3] == (568, 320)  # after rotation


def test_avi_headers_equal_those_of_pyav(real_data: Path) -> None:
    av = pytest.importorskip("av")
    paths = sorted((real_data / UCF101).rglob("*.avi"))
    assert len(paths) == 5
    for path in paths:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            expected = (stream.frames, stream.height, stream.width, float(stream.average_rate), "mpeg4", stream.pix_fmt)
        assert video.header(path) == expected


def test_avi_headers_are_read_without_pyav(real_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    monkeypatch.setattr(av, "open", None)
    content = next((real_data / UCF101).rglob("v_Basketball*.avi")).read_bytes()
    (tmp_path / "x.avi").write_bytes(content[:9000])
    assert video.header(tmp_path / "x.avi") == (141, 240, 320, 30000 / 1001, "mpeg4", "yuv420p")


def test_a_truncated_avi_declares_its_original_frames(real_data: Path) -> None:
    assert video.header(real_data / "broken/truncated_40pct.avi").frames == 107


def test_an_avi_without_a_declared_count_is_counted(real_data: Path, tmp_path: Path) -> None:
    content = bytearray(next((real_data / UCF101).rglob("v_Basketball*.avi")).read_bytes())
    struct.pack_into("<I", content, content.index(b"strh") + 8 + 32, 0)
    (tmp_path / "x.avi").write_bytes(content)
    assert video.header(tmp_path / "x.avi").frames == 141


@pytest.mark.parametrize("name", ["text_renamed.avi", "zero_byte.avi", "mp4_truncated_before_moov.mp4"])
def test_files_that_are_no_videos_are_refused(real_data: Path, name: str) -> None:
    with pytest.raises(MissingData, match=f"broken/{name}: no readable video .*; get this file again"):
        video.header(real_data / "broken" / name)


@pytest.mark.parametrize("length", [8, 12, 20, 30, 99, 120, 170, 190])
def test_a_file_truncated_in_its_header_is_refused(real_data: Path, length: int, tmp_path: Path) -> None:
    content = next((real_data / UCF101).rglob("v_Basketball*.avi")).read_bytes()
    (tmp_path / "x.avi").write_bytes(content[:length])
    with pytest.raises(MissingData, match=r"x\.avi: no readable video"):
        video.header(tmp_path / "x.avi")


# Completeness.


def riff(declared: int, size: int) -> bytes:
    """Start of an AVI that declares `declared` bytes after the first 8, padded to `size` bytes."""
    return (b"RIFF" + declared.to_bytes(4, "little") + b"AVI ").ljust(size, b"x")


@pytest.mark.parametrize("content", [riff(92, 99), riff(1 << 30, 12)])
def test_a_truncated_avi_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.avi"
    path.write_bytes(content)
    declared = int.from_bytes(content[4:8], "little") + 8
    with pytest.raises(MissingData, match=rf"x\.avi: cut off, {len(content)} of {declared:,} bytes"):
        video.check_complete(path)


@pytest.mark.parametrize("content", [riff(92, 100), riff(92, 101), riff(0, 50), riff(0xFFFFFFFF, 50), b"", b"ftyp" * 9])
def test_complete_avis_and_other_files_pass(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.avi"
    path.write_bytes(content)
    video.check_complete(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"x\.avi: No such file or directory; get this file again"):
        video.check_complete(str(tmp_path / "x.avi"))
