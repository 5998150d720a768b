"""What a video file says of itself, read without decoding: from the head of an AVI, or from the packets of any other.

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
from vfbench.video.rotation import shown

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

UNKNOWN = (0, 0xFFFFFFFF)  # sizes in the head of an AVI whose writer could not go back to fill them in
HEAD = 1 << 15  # bytes of an AVI that hold its head; those of UCF101 take 9 KB
MPEG4 = ("XVID", "DIVX", "DX50", "FMP4", "MP4V")  # four letters by which AVIs name MPEG-4 part 2, in any case


class Header(NamedTuple):
    """What a file declares: the frames it will show, their size as shown, frames a second, codec and pixel format."""

    frames: int
    height: int
    width: int
    rate: float | None
    codec: str
    pixels: str


def header(path: str | os.PathLike[str]) -> Header:
    """What a video file declares, of its first video stream, without decoding it.

    An AVI with MPEG-4 declares its frames in its head. Of any other file the packets are counted, but for those that
    the container says are not shown; their heads often give another number. A file that was cut off may declare more
    than it has. Raises `MissingData` for what is no video.
    """
    return _avi(_head(path)[0]) or _counted(path)


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise `MissingData` for what is no file: a folder, a name that is not there, a pipe that would be waited for."""
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise MissingData(f"{os.fspath(path)}: {error.strerror}; get this file again") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
        raise MissingData(f"{os.fspath(path)}: {kind}, not a video file; take it out")


def check_whole(path: str | os.PathLike[str]) -> None:
    """Raise `MissingData` for an AVI shorter than its own RIFF header says: cut off, it decodes without any error.

    Other files pass, and so do AVIs whose writer left their size open.
    """
    head, size = _head(path)
    length = int.from_bytes(head[4:8], "little")
    if head[:4] == b"RIFF" and length not in UNKNOWN and size < length + 8:
        said = f"{os.fspath(path)}: cut off, {size:,} of {length + 8:,} bytes"
        raise MissingData(f"{said}; get this file again or take it out")


def _head(path: str | os.PathLike[str]) -> tuple[bytes, int]:
    """The beginning of a file, and its size."""
    check_file(path)
    try:
        with Path(path).open("rb") as file:
            return file.read(HEAD), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise MissingData(f"{os.fspath(path)}: {error.strerror}; get this file again") from error


def _avi(head: bytes) -> Header | None:
    """The header of an AVI with MPEG-4, whose pixels need no look at the stream; None for any other file."""
    if head[:4] != b"RIFF" or head[8:12] != b"AVI ":
        return None
    stream = b""
    for name, content in _chunks(head, 12):
        if name == b"strh":
            stream = content
        elif name == b"strf" and stream[:4] == b"vids" and len(stream) >= 36 and len(content) >= 20:
            scale, rate, _, frames = struct.unpack_from("<4I", stream, 20)
            width, height = struct.unpack_from("<2i", content, 4)
            if content[16:20].upper().decode("latin-1") not in MPEG4 or frames in UNKNOWN:
                return None
            return Header(frames, abs(height), width, rate / scale if rate and scale else None, "mpeg4", "yuv420p")
    return None


def _chunks(data: bytes, start: int) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a RIFF file in their order, those within lists too, up to the first frame."""
    while start + 12 <= len(data):
        name, size = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "little")
        if name == b"LIST":
            if data[start + 8 : start + 12] == b"movi":
                return
            start += 12
        else:
            yield name, data[start + 8 : start + 8 + size]
            start += 8 + size + size % 2


def _counted(path: str | os.PathLike[str]) -> Header:
    """The header of any file, its packets counted; the first frame says how the others are turned."""
    frames, first = 0, None
    with opened(path) as (container, video):
        for packet in container.demux(video):
            frames += bool(packet.size) and not packet.is_discard
            if first is None:
                first = next(iter(packet.decode()), None)
        size = (video.height, video.width) if first is None else shown(first)
        rate = float(video.average_rate) if video.average_rate else None
        return Header(frames, *size, rate, video.codec_context.codec.canonical_name, video.pix_fmt or "")


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file opened by PyAV, and its first video stream; whatever is wrong with it comes as `MissingData`."""
    import av

    check_file(path)
    try:
        # As a URL of a file: a name with a colon would be taken for another protocol.
        with av.open(f"file:{os.fspath(path)}") as container:
            if not container.streams.video:
                raise MissingData(f"{os.fspath(path)}: no video stream; get this file again or take it out")
            yield container, container.streams.video[0]
    except av.error.FFmpegError as error:
        said = f"{os.fspath(path)}: no readable video ({error.strerror or error})"
        raise MissingData(f"{said}; get this file again or take it out") from error
