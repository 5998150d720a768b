"""Frames by PyAV, the reference: it reads every file, on every machine, and gives the pixels of swscale's rgb24."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vfbench.video import mpeg4
from vfbench.video.frame_range import FrameRange, unreadable
from vfbench.video.header import check_file
from vfbench.video.rotation import Pixels, matrix, upright

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

MANY = 1024  # frames: a file that is asked for more by mistake gets its error, not that of a full memory


def version() -> str:
    """Its version, and those of the libraries that make the pixels."""
    import av

    libraries = (f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in ("libavcodec", "libswscale"))
    return f"pyav {av.__version__} ({', '.join(libraries)})"


def read(
    path: str | os.PathLike[str], wanted: FrameRange, stream: int | None = None
) -> UInt8[Tensor, "frames 3 height width"]:
    """The frames asked for, as shown: uint8 (T, 3, H, W), in memory pixel by pixel as they come (channels last).

    Raises `MissingData` unless the file has them all.
    """
    try:
        images = _joined(_images(path, wanted, stream, jump=True), wanted.frames)
    except _Unproven:
        images = _joined(_images(path, wanted, stream, jump=False), wanted.frames)
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def groups(path: str | os.PathLike[str], declared: int, size: int) -> Iterator[UInt8[Tensor, "_ 3 height width"]]:
    """All frames from one opening of the file, `size` at a time; the last group may be smaller.

    Raises `MissingData` before the last group where they are not as many as declared.
    """
    images = _images(path, FrameRange(), None, jump=False)
    for first in range(0, max(declared, 1), size):
        wanted = min(size, declared - first)
        group = list(islice(images, wanted))
        if len(group) < wanted or first + wanted == declared:
            decoded = first + len(group) + sum(1 for _ in images)
            if decoded != declared:
                raise unreadable(path, FrameRange(), decoded, "another number")
        yield torch.from_numpy(np.stack(group)).permute(0, 3, 1, 2)


def count(path: str | os.PathLike[str], stream: int | None = None) -> int:
    """How many frames come out; raises `MissingData` for none, and for damage."""
    found = sum(1 for _ in _frames(path, FrameRange(), stream))
    if found == 0:
        raise unreadable(path, FrameRange(), 0, "the video holds no frame")
    return found


class _Unproven(Exception):
    """What came after a jump may not be what comes there without one."""


def _joined(images: Iterator[Pixels], total: int | None) -> UInt8[np.ndarray, "frames height width 3"]:
    """Images in one array, which is made first where it is known, and likely, that they are so many."""
    if total is None or total > MANY:
        return np.stack(list(images))
    first = next(images)
    joined = np.empty((total, *first.shape), np.uint8)
    for place, image in zip(joined, chain([first], images), strict=True):
        place[:] = image
    return joined


def _images(path: str | os.PathLike[str], wanted: FrameRange, stream: int | None, *, jump: bool) -> Iterator[Pixels]:
    """The frames asked for, all or an error, and all of one size."""
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()  # one for all frames, since each makes its tables anew
    decoded, shape = 0, None
    for number, frame in _frames(path, wanted, stream, jump=jump):
        if number in wanted:
            image = _pixels(frame, reformatter)
            shape = shape or image.shape
            if image.shape != shape:
                raise unreadable(path, wanted, number, "the frame size changes within the video")
            yield image
        decoded = number + 1
        if decoded == wanted.stop:
            return
    if wanted.stop is not None or shape is None:
        raise unreadable(path, wanted, decoded, "the video ends there")


def _frames(
    path: str | os.PathLike[str], wanted: FrameRange, stream: int | None, *, jump: bool = False
) -> Iterator[tuple[int, VideoFrame]]:
    """The frames of a stream with their numbers, from the first, or with `jump` from a keyframe before `wanted`."""
    import av

    check_file(path)
    number = first = 0
    try:
        # As a URL of a file: a name with a colon would be taken for another protocol.
        with av.open(f"file:{os.fspath(path)}") as container:
            video = next((s for s in container.streams.video if stream in (None, s.index)), None)
            if video is None:
                raise unreadable(path, wanted, 0, "no video stream" if stream is None else f"no video stream {stream}")
            if jump and (first := _keyframe(container, video, wanted.start)):
                container.seek(first, stream=video)
                number = first
            for frame in container.decode(video):
                if first and not _follows(frame, number, first):
                    raise _Unproven
                yield number, frame
                number += 1
    except av.error.FFmpegError as error:
        if first:
            raise _Unproven from error
        raise unreadable(path, wanted, number, error.strerror or str(error)) from error
    if first and wanted.stop is not None:  # an error must tell how many frames come from the beginning
        raise _Unproven


def _keyframe(container: InputContainer, video: VideoStream, start: int) -> int:
    """The number of the last keyframe up to frame `start`, if decoding may begin there; 0 if that is not sure.

    It is sure in an AVI with MPEG-4 without B-frames, each of whose packets before it says that it is one frame:
    nothing is shown in another order, and nothing refers to what stands before an I-frame. Raises `_Unproven` where
    packets were read that do not say so.
    """
    plain = container.format.name == "avi" and video.codec_context.name == "mpeg4"
    if start == 0 or not plain or video.codec_context.has_b_frames:
        return 0
    entries = video.index_entries[: start + 1]
    first = max((i for i, entry in enumerate(entries) if entry.is_keyframe), default=0)
    bits = mpeg4.time_bits(video.codec_context.extradata or b"")
    # By the index alone, what is not coded looks like a frame, of which nothing comes.
    for number, packet in enumerate(islice(container.demux(video), first)):
        bits = mpeg4.one_frame(bytes(packet), bits)
        if packet.dts != number or not bits:
            raise _Unproven
    return first


def _follows(frame: VideoFrame, number: int, first: int) -> bool:
    """Whether a frame after a jump is the one of that number, the first an I-frame, none of them a B-frame or damaged.

    What is missing in a damaged one is filled from those before it, which a jump leaves out.
    """
    from av.video.frame import PictureType

    kinds = (PictureType.I,) if number == first else (PictureType.I, PictureType.P)
    return frame.pts == number and frame.pict_type in kinds and not frame.is_corrupt


def _pixels(frame: VideoFrame, reformatter: VideoReformatter) -> Pixels:
    """The frame as shown."""
    # Threads would take longer to start than a frame takes.
    image = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    turn = matrix(frame)
    return image if turn is None else upright(image, turn)
