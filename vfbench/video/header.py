"""Declared properties of a video file, read without decoding it: from the header of an AVI, else from the packets."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vfbench.errors import MissingData
from vfbench.utils.files import open_file, require_file
from vfbench.video import animation, riff
from vfbench.video.packets import one_frame_each, shown
from vfbench.video.properties import MAX_PIXELS, Header, require_size
from vfbench.video.rotation import displayed_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.error import FFmpegError
    from av.video.stream import VideoStream


def header(path: str | os.PathLike[str]) -> Header:
    """Declared properties of the first video stream of a file, in general without decoding it.

    The frame count of an MPEG-4 AVI comes from its header. For other files, whose headers are often wrong, the packets
    that show a frame are counted; the few files whose packets do not tell are decoded. A truncated file may declare
    more frames than it has. Raises `MissingData` for a file that is not a video or whose frames are too large.
    """
    if animation.is_animation(path):
        return animation.header(path)
    with _reading_errors(path):
        declared = riff.avi_header(Path(path))
    if declared:
        require_size(path, declared.width, declared.height)
    return declared or _packet_header(path)


def check_complete(path: str | os.PathLike[str]) -> None:
    """Raise `MissingData` for an AVI shorter than its RIFF header declares, which would decode without an error.

    Other files pass, and so do AVIs that declare no size.
    """
    with _reading_errors(path), open_file(Path(path)) as file:
        head, size = file.read(8), os.fstat(file.fileno()).st_size
    length = int.from_bytes(head[4:], "little")
    if head[:4] == b"RIFF" and length not in riff.UNKNOWN_SIZES and size < length + 8:
        sizes = f"{size:,} of {length + 8:,} bytes"
        raise MissingData(f"{os.fspath(path)}: cut off, {sizes}; get this file again or take it out")


@contextlib.contextmanager
def _reading_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Context manager: turn errors of opening a file into `MissingData` naming it."""
    require_file(path)
    try:
        yield
    except OSError as error:
        raise MissingData(f"{os.fspath(path)}: {error.strerror}; get this file again") from error


def _packet_header(path: str | os.PathLike[str]) -> Header:
    """Header of any file from its packets; the first frame gives the rotation."""
    packets, first = [], None
    with open_video(path) as (container, video):
        codec = video.codec_context.codec.canonical_name
        for packet in container.demux(video):
            if record := shown(packet, codec):
                packets.append(record)
            if first is None:
                first = next(iter(packet.decode()), None)
        size = (video.height, video.width) if first is None else displayed_size(first)
        rate = float(video.average_rate) if video.average_rate else None
        pixels = video.pix_fmt or ""
    one_each = one_frame_each(packets, codec) and not (first and first.interlaced_frame)  # fields may be packets
    return Header(len(packets) if one_each else _decoded(path, len(packets)), *size, rate, codec, pixels)


def _decoded(path: str | os.PathLike[str], packets: int) -> int:
    """Number of frames that decode; of a damaged file the number of packets, so that later reads report the loss."""
    try:
        with open_video(path) as (container, video):
            return sum(1 for _ in container.decode(video))
    except MissingData:
        return packets


@contextlib.contextmanager
def open_video(path: str | os.PathLike[str]) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Context manager: `open_stream` of the first video stream, with decoder errors as `MissingData`."""
    import av

    try:
        with open_stream(path) as opened:
            yield opened
    except av.error.FFmpegError as error:
        raise MissingData(
            f"{os.fspath(path)}: no readable video ({reason(error)}); get this file again or take it out"
        ) from error


@contextlib.contextmanager
def open_stream(
    path: str | os.PathLike[str], stream: int | None = None
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Context manager: a file opened by PyAV and its video stream of index `stream`, by default the first.

    Raises PyAV's errors, and `MissingData` for a path that is no file, a file without that stream or with an unknown
    codec, and frames that are too large.
    """
    import av

    require_file(path)
    # As a URL of a file: a name with a colon would be taken for another protocol. Tags may be in any encoding.
    with av.open(f"file:{os.fspath(path)}", metadata_errors="replace") as container:
        video = next((s for s in container.streams.video if stream in (None, s.index)), None)
        if video is None:
            which = "" if stream is None else f" {stream}"
            raise MissingData(f"{os.fspath(path)}: no video stream{which}; get this file again or take it out")
        if video.codec_context is None:
            raise MissingData(f"{os.fspath(path)}: its codec is not known; encode it again or take it out")
        require_size(path, video.width, video.height)
        video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # of later frames, which may be larger
        yield container, video


def reason(error: FFmpegError) -> str:
    """Reason of a decoder error; explains EINVAL, which FFmpeg also raises for frames that are too large."""
    too_large = f"; possibly a frame of more than {MAX_PIXELS:,} pixels" if error.errno == errno.EINVAL else ""
    return f"{error.strerror or error}{too_large}"
