"""What `vfbench data verify` sees of a video file before any frame is decoded: its head, its index, its time stamps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clipfiles import pictures
from datatrees import avi, declaring, found, write

from vfbench.data.avi_index import frame_counts
from vfbench.data.verify import require_no_errors, verify

av = pytest.importorskip("av")


# Head and index


def without_index(content: bytes) -> bytes:
    """The same AVI, its index called otherwise, as one that was written to its end without an index."""
    place = content.rindex(b"idx1")
    return content[:place] + b"JUNK" + content[place + 4 :]


def silent(content: bytes) -> bytes:
    """The same AVI, whose stream is of sound as far as its head says."""
    return content.replace(b"vids", b"auds")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content, (20, 20)),
        (lambda content: declaring(content, 7), (7, 20)),
        (lambda content: declaring(content, 0), None),  # its writer could not go back
        (without_index, None),
        (silent, None),
        (lambda content: content[:-100], (20, 13)),  # 6 entries of 16 bytes are gone, and a part of the seventh
        (lambda content: content[: content.index(b"movi") + 50], None),
        (lambda content: content + b"RIFF\x04\0\0\0AVIX", None),  # large files go on so, each part with its index
        (lambda content: b"RIFX" + content[4:], None),
        (lambda content: b"", None),
        (lambda content: content[:13], None),
    ],
)
def test_head_and_index_of_an_avi(
    tmp_path: Path, change: Callable[[bytes], bytes], told: tuple[int, int] | None
) -> None:
    assert frame_counts(write(tmp_path / "x.avi", change(avi()))) == told


def test_the_index_is_that_of_the_pictures(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "x.avi"), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        pictured = container.add_stream("mpeg4", rate=25, pix_fmt="yuv420p", height=16, width=32)
        for k in range(5):
            heard = av.AudioFrame.from_ndarray(np.zeros((1, 320), np.int16), layout="mono")
            heard.sample_rate, heard.pts = 8000, 320 * k
            container.mux(sound.encode(heard))
            container.mux(pictured.encode(av.VideoFrame.from_ndarray(pictures(k, 1, 16, 32)[0], format="rgb24")))
        container.mux(pictured.encode())
    assert frame_counts(tmp_path / "x.avi") == (5, 5)


# Frame rates


def timed(path: Path, stamps: Sequence[int], *, b_frames: int = 0, rate: int = 1000) -> None:
    """A video whose frames are shown at these times, in parts of a second of which there are `rate`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate, pix_fmt="yuv420p", height=16, width=32)
        stream.time_base = stream.codec_context.time_base = Fraction(1, rate)
        stream.codec_context.max_b_frames = b_frames
        for k, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(pictures(7 * k % 200, 1, 16, 32)[0], format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


EVEN = [40 * k for k in range(24)]
SLOWER = [*EVEN[:12], *(EVEN[12] + 120 * k for k in range(12))]
ROUNDED = [round(k * 1000 / 30) for k in range(24)]  # as containers do that count thousandths
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
        ("x.mkv", SLOWER, "", "40 to 120 ms"),  # its index does not tell of all frames
        ("x.mkv", LATE, "", "40 to 120 ms"),
        ("x.mp4", [0], "", ""),
    ],
)
def test_a_variable_frame_rate_is_named(
    tmp_path: Path, name: str, stamps: Sequence[int], quick: str, full: str
) -> None:
    timed(tmp_path / name, stamps)
    for deep, told in ((False, quick), (True, full)):
        report = verify("folder", tmp_path, full=deep, frames=1)
        assert found(report) == ({"rate": [(name, told)]} if told else {})
        require_no_errors(report)  # it is a warning


def test_frames_that_are_shown_in_another_order_are_none_out_of_time(tmp_path: Path) -> None:
    timed(tmp_path / "x.mp4", EVEN, b_frames=2)
    timed(tmp_path / "y.avi", range(24), b_frames=2, rate=25)
    assert "rate" not in found(verify("folder", tmp_path, full=True))
    with av.open(str(tmp_path / "x.mp4")) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert stamps != sorted(stamps)


def test_a_frame_left_out_of_an_avi_is_found_by_its_packets(tmp_path: Path) -> None:
    timed(tmp_path / "x.avi", [*range(9), *range(10, 24)], rate=25)
    assert frame_counts(tmp_path / "x.avi") == (24, 24)  # one of them empty
    assert found(verify("folder", tmp_path)) == {}
    told = found(verify("folder", tmp_path, full=True))
    assert told == {
        "count": [("x.avi", "declared 24, decoded 23")],
        "rate": [("x.avi", "40 to 80 ms")],
    }
