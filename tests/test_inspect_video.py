"""Tests of `vfbench.data.inspect_video` and `vfbench.video.riff`: headers, indices and timestamps of videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clipfiles import grey_clip
from datatrees import avi, findings, with_declared_frames, write

from vfbench.data.verify import require_no_errors, verify
from vfbench.video.riff import frame_counts

av = pytest.importorskip("av")


# Header and index


def without_index(content: bytes) -> bytes:
    """Rename the index of an AVI to a chunk that readers skip."""
    offset = content.rindex(b"idx1")
    return content[:offset] + b"JUNK" + content[offset + 4 :]


def with_audio_header(content: bytes) -> bytes:
    """Declare the video stream of an AVI as audio."""
    return content.replace(b"vids", b"auds")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content, (20, 20)),
        (lambda content: with_declared_frames(content, 7), (7, 20)),
        (lambda content: with_declared_frames(content, 0), None),  # a streaming writer leaves 0
        (without_index, None),
        (with_audio_header, None),
        (lambda content: content[:-100], (20, 13)),  # 6 index entries of 16 bytes, and part of a seventh
        (lambda content: content[: content.index(b"movi") + 50], None),
        (
            lambda content: content + b"RIFF\x04\0\0\0AVIX",
            None,
        ),  # large files have several RIFF parts with an index each
        (lambda content: b"RIFX" + content[4:], None),
        (lambda content: b"", None),
        (lambda content: content[:13], None),
    ],
)
def test_frame_counts_of_an_avi_from_header_and_index(
    tmp_path: Path, change: Callable[[bytes], bytes], expected: tuple[int, int] | None
) -> None:
    assert frame_counts(write(tmp_path / "x.avi", change(avi()))) == expected


def test_only_video_packets_of_the_index_are_counted(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "x.avi"), "w") as container:
        audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        video = container.add_stream("mpeg4", rate=25, pix_fmt="yuv420p", height=16, width=32)
        for k in range(5):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 320), np.int16), layout="mono")
            samples.sample_rate, samples.pts = 8000, 320 * k
            container.mux(audio.encode(samples))
            container.mux(video.encode(av.VideoFrame.from_ndarray(grey_clip(k, 1, 16, 32)[0], format="rgb24")))
        container.mux(video.encode())
    assert frame_counts(tmp_path / "x.avi") == (5, 5)


# Frame rates


def write_timed(path: Path, stamps: Sequence[int], *, b_frames: int = 0, rate: int = 1000) -> None:
    """Video with frames at these times, in units of 1 / `rate` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate, pix_fmt="yuv420p", height=16, width=32)
        stream.time_base = stream.codec_context.time_base = Fraction(1, rate)
        stream.codec_context.max_b_frames = b_frames
        for k, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(grey_clip(7 * k % 200, 1, 16, 32)[0], format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


EVEN = [40 * k for k in range(24)]
SLOWER = [*EVEN[:12], *(EVEN[12] + 120 * k for k in range(12))]
ROUNDED = [round(k * 1000 / 30) for k in range(24)]  # as in containers that count milliseconds
DROPPED = [*EVEN[:9], *EVEN[10:]]
LATE = [*(40 * k for k in range(90)), *(3600 + 120 * k for k in range(10))]


@pytest.mark.parametrize(
    ("name", "stamps", "quick", "full"),
    [
        ("x.mp4", EVEN, "", ""),
        ("x.mp4", SLOWER, "40 to 120 ms", "40 to 120 ms"),
        ("x.mp4", DROPPED, "40 to 80 ms", "40 to 80 ms"),
        ("x.mp4", ROUNDED, "", ""),
        ("x.mkv", ROUNDED, "", ""),
        ("x.mkv", SLOWER, "", "40 to 120 ms"),  # its index does not list every frame
        ("x.mkv", LATE, "", "40 to 120 ms"),
        ("x.mp4", [0], "", ""),
    ],
)
def test_a_variable_frame_rate_is_a_warning(
    tmp_path: Path, name: str, stamps: Sequence[int], quick: str, full: str
) -> None:
    write_timed(tmp_path / name, stamps)
    for decode, expected in ((False, quick), (True, full)):
        report = verify("folder", tmp_path, full=decode, frames=1)
        assert findings(report) == ({"rate": [(name, expected)]} if expected else {})
        require_no_errors(report)


def test_reordered_b_frames_are_no_variable_frame_rate(tmp_path: Path) -> None:
    write_timed(tmp_path / "x.mp4", EVEN, b_frames=2)
    write_timed(tmp_path / "y.avi", range(24), b_frames=2, rate=25)
    assert "rate" not in findings(verify("folder", tmp_path, full=True))
    with av.open(str(tmp_path / "x.mp4")) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert stamps != sorted(stamps)


def test_a_dropped_frame_of_an_avi_is_uneven_and_no_damage(tmp_path: Path) -> None:
    write_timed(tmp_path / "x.avi", [*range(9), *range(10, 24)], rate=25)
    assert frame_counts(tmp_path / "x.avi") == (24, 24)  # one of them empty
    assert findings(verify("folder", tmp_path)) == {}
    assert findings(verify("folder", tmp_path, full=True)) == {"rate": [("x.avi", "40 to 80 ms")]}
