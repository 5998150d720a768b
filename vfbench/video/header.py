"""Declared properties of a video file, read without decoding: from the header of an AVI, else from the packets.

RIFF chunks: Microsoft, "AVI RIFF File Reference" (avih, strh, strf); `dwLength` of strh counts the frames.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vfbench.errors import MissingData
from vfbench.video.rotation import displayed_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # in an AVI whose writer could not seek back to fill them in
HEAD_BYTES = 1 << 15  # read for the header of an AVI; UCF101 needs 9 KB
MPEG4_FOURCCS = ("XVID", "DIVX", "DX50", "FMP4", "MP4V")  # of MPEG-4 part 2 in AVI files, in any case


class Header(NamedTuple):
    """Declared frame count, height and width as displayed, frames per second, codec and pixel format."""

    frames: int
    height: int
    width: int
    rate: float | None
    codec: str
    pixels: str


def header(path: str | os.PathLike[str]) -> Header:
    """Declared properties of the first video stream of a file, without decoding it.

    The frame count of an MPEG-4 AVI comes from its header. For other files, whose headers are often wrong, the shown
    packets are counted. A truncated file may declare more frames than it has. Raises `MissingData` for a file that is
    not a video.
    """
    return _avi_header(_read_head(path)[0]) or _packet_header(path)


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise `MissingData` unless `path` is a regular file; reading a pipe would block."""
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise MissingData(f"{os.fspath(path)}: {error.strerror}; get this file again") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
        raise MissingData(f"{os.fspath(path)}: {kind}, not a video file; take it out")


def check_complete(path: str | os.PathLike[str]) -> None:
    """Raise `MissingData` for an AVI shorter than its RIFF header declares, which would decode without an error.

    Other files pass, and so do AVIs that declare no size.
    """
    head, size = _read_head(path)
    length = int.from_bytes(head[4:8], "little")
    if head[:4] == b"RIFF" and length not in UNKNOWN_SIZES and size < length + 8:
        sizes = f"{size:,} of {length + 8:,} bytes"
        raise MissingData(f"{os.fspath(path)}: cut off, {sizes}; get this file again or take it out")


def _read_head(path: str | os.PathLike[str]) -> tuple[bytes, int]:
    """First `HEAD_BYTES` of a file, and its size in bytes."""
    check_file(path)
    try:
        with Path(path).open("rb") as file:
            return file.read(HEAD_BYTES), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise MissingData(f"{os.fspath(path)}: {error.strerror}; get this file again") from error


def _avi_header(head: bytes) -> Header | None:
    """Header of an MPEG-4 AVI, whose pixel format is known without the stream; None for any other file."""
    if head[:4] != b"RIFF" or head[8:12] != b"AVI ":
        return None
    stream = b""
    for name, content in _chunks(head, 12):
        if name == b"strh":
            stream = content
        elif name == b"strf" and stream[:4] == b"vids" and len(stream) >= 36 and len(content) >= 20:
            scale, rate, _, frames = struct.unpack_from("<4I", stream, 20)
            width, height = struct.unpack_from("<2i", content, 4)
            if content[16:20].upper().decode("latin-1") not in MPEG4_FOURCCS or frames in UNKNOWN_SIZES:
                return None
            return Header(frames, abs(height), width, rate / scale if rate and scale else None, "mpeg4", "yuv420p")
    return None


def _chunks(data: bytes, start: int) -> Iterator[tuple[bytes, bytes]]:
    """Chunks (name, content) of a RIFF file in order, nested ones included, up to the first frame."""
    while start + 12 <= len(data):
        name, size = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "little")
        if name == b"LIST":
            if data[start + 8 : start + 12] == b"movi":
                return
            start += 12
        else:
            yield name, data[start + 8 : start + 8 + size]
            start += 8 + size + size % 2


def _packet_header(path: str | os.PathLike[str]) -> Header:
    """Header of any file from its packets; the first frame gives the rotation."""
    frames, first = 0, None
    with open_video(path) as (container, video):
        for packet in container.demux(video):
            frames += bool(packet.size) and not packet.is_discard
            if first is None:
                first = next(iter(packet.decode()), None)
        size = (video.height, video.width) if first is None else displayed_size(first)
        rate = float(video.average_rate) if video.average_rate else None
        return Header(frames, *size, rate, video.codec_context.codec.canonical_name, video.pix_fmt or "")


@contextlib.contextmanager
def open_video(path: str | os.PathLike[str]) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Context manager: a file opened by PyAV and its first video stream; decoder errors become `MissingData`."""
    import av

    check_file(path)
    try:
        # As a URL of a file: a name with a colon would be taken for another protocol.
        with av.open(f"file:{os.fspath(path)}") as container:
            if not container.streams.video:
                raise MissingData(f"{os.fspath(path)}: no video stream; get this file again or take it out")
            yield container, container.streams.video[0]
    except av.error.FFmpegError as error:
        reason = f"no readable video ({error.strerror or error})"
        raise MissingData(f"{os.fspath(path)}: {reason}; get this file again or take it out") from error
