"""Decoding with PyAV, the reference decoder for every file; pixels are those of swscale's rgb24."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vfbench.video import mpeg4
from vfbench.video.frame_range import FrameRange, in_groups, select, unreadable
from vfbench.video.header import open_stream, reason
from vfbench.video.rotation import Pixels, apply_matrix, display_matrix

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

MAX_PREALLOCATED = 1024  # frames: a mistaken larger number fails for the file, not for memory


def version() -> str:
    """Versions of PyAV and of the FFmpeg libraries that determine the pixels."""
    import av

    libraries = (f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in ("libavcodec", "libswscale"))
    return f"pyav {av.__version__} ({', '.join(libraries)})"


def read(
    path: str | os.PathLike[str], frame_range: FrameRange, stream: int | None = None
) -> UInt8[Tensor, "frames 3 height width"]:
    """Decode frames as displayed, uint8 (T, 3, H, W), channels last in memory.

    Raises `MissingData` unless the file has them all.
    """
    try:
        images = _stack(_images(path, frame_range, stream, seek=True), frame_range.frames)
    except _UnsafeSeek:
        images = _stack(_images(path, frame_range, stream, seek=False), frame_range.frames)
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def frame_groups(path: str | os.PathLike[str], declared: int, size: int) -> Iterator[UInt8[Tensor, "_ 3 height width"]]:
    """Iterate over all frames of a file, opened once, `size` at a time; see `vfbench.video.frame_range.in_groups`."""
    yield from in_groups(path, _images(path, FrameRange(), None, seek=False), declared, size)


def count_frames(path: str | os.PathLike[str], stream: int | None = None) -> int:
    """Number of frames that decode; raises `MissingData` for none, and for damage."""
    total = sum(1 for _ in _frames(path, FrameRange(), stream))
    if total == 0:
        raise unreadable(path, FrameRange(), 0, "the video holds no frame")
    return total


class _UnsafeSeek(Exception):
    """Frames after seeking may differ from those of sequential decoding."""


def _stack(images: Iterator[Pixels], total: int | None) -> UInt8[np.ndarray, "frames height width 3"]:
    """Stack images; for a known, plausible `total` into one preallocated array."""
    if total is None or total > MAX_PREALLOCATED:
        return np.stack(list(images))
    first = next(images)
    stacked = np.empty((total, *first.shape), np.uint8)
    for place, image in zip(stacked, chain([first], images), strict=True):
        place[:] = image
    return stacked


def _images(
    path: str | os.PathLike[str], frame_range: FrameRange, stream: int | None, *, seek: bool
) -> Iterator[Pixels]:
    """Frames of a range, all of one size; raises `MissingData` unless the file has them all."""
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()  # one for all frames: each builds its own tables
    decoded = _frames(path, frame_range, stream, seek=seek)
    return select(path, frame_range, ((number, partial(_pixels, frame, reformatter)) for number, frame in decoded))


def _frames(
    path: str | os.PathLike[str], frame_range: FrameRange, stream: int | None, *, seek: bool = False
) -> Iterator[tuple[int, VideoFrame]]:
    """Numbered frames of a stream from the first one, or with `seek` from a keyframe at or before the range."""
    import av

    number = first = 0
    try:
        with open_stream(path, stream) as (container, video):
            if seek and (first := _keyframe(container, video, frame_range.start)):
                container.seek(first, stream=video)
                number = first
            for frame in container.decode(video):
                if first and not _follows(frame, number, first):
                    raise _UnsafeSeek
                yield number, frame
                number += 1
    except av.error.FFmpegError as error:
        if first:
            raise _UnsafeSeek from error
        raise unreadable(path, frame_range, number, reason(error)) from error
    if first and frame_range.stop is not None:  # the error must count the frames from the first one
        raise _UnsafeSeek


def _keyframe(container: InputContainer, video: VideoStream, start: int) -> int:
    """Number of the last keyframe up to frame `start` where decoding can safely start; 0 for none.

    Safe is an MPEG-4 AVI without B-frames in which every earlier packet is exactly one coded frame: frames are shown in
    stored order, and none refers to a frame before an I-frame. Raises `_UnsafeSeek` where an earlier packet is not.
    """
    plain = container.format.name == "avi" and video.codec_context.name == "mpeg4"
    if start == 0 or not plain or video.codec_context.has_b_frames:
        return 0
    entries = video.index_entries[: start + 1]
    first = max((i for i, entry in enumerate(entries) if entry.is_keyframe), default=0)
    bits = mpeg4.time_bits(video.codec_context.extradata or b"")
    # In the index, packets that are not coded look like frames, although they give none.
    for number, packet in enumerate(islice(container.demux(video), first)):
        bits = mpeg4.coded_frame_bits(bytes(packet), bits)
        if packet.dts != number or not bits:
            raise _UnsafeSeek
    return first


def _follows(frame: VideoFrame, number: int, first: int) -> bool:
    """True where a frame after seeking has the expected number and type, first an I-frame, and is not damaged.

    Decoders fill damage from earlier frames, which seeking skips.
    """
    from av.video.frame import PictureType

    types = (PictureType.I,) if number == first else (PictureType.I, PictureType.P)
    return frame.pts == number and frame.pict_type in types and not frame.is_corrupt


def _pixels(frame: VideoFrame, reformatter: VideoReformatter) -> Pixels:
    """Frame as displayed, RGB (H, W, 3)."""
    # Starting threads takes longer than converting a frame.
    image = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    matrix = display_matrix(frame)
    return image if matrix is None else apply_matrix(image, matrix)
