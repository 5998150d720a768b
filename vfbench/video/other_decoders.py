"""Decoding with decord or torchcodec, only when chosen by name and only for plain files.

Both silently misread some files. decord returns frames that the container hides, is off by some frames after seeking
among B-frames or open groups of pictures, and repeats the last frame of a short file. Both return wrong colours for
10-bit video. On plain files both equal PyAV within 2 of 255 levels (tests/test_decoders.py).

decord: https://github.com/dmlc/decord; torchcodec, which needs FFmpeg's shared libraries:
https://github.com/meta-pytorch/torchcodec.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from jaxtyping import UInt8
from torch import Tensor

from vfbench.errors import BadEnvironment, UserError
from vfbench.utils import memory
from vfbench.video import pyav
from vfbench.video.frame_range import FrameRange, unreadable
from vfbench.video.header import header, open_video
from vfbench.video.rotation import display_matrix

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

MODULES = {"decord": "decord", "torchcodec": "torchcodec.decoders"}
PLAIN_CODECS = {"avi": "mpeg4", "mov,mp4,m4a,3gp,3g2,mj2": "h264"}  # container to codec, FFmpeg's names


def version(name: str) -> str:
    """Name and version of a decoder, such as `decord 0.6.0`."""
    _load(name)
    return f"{name} {importlib.metadata.version(name)}"


def require_plain(path: str | os.PathLike[str], name: str, stream: int | None = None) -> None:
    """Raise `BadEnvironment` unless the decoder is installed, and `UserError` unless the file is plain."""
    _load(name)
    if reason := _not_plain(path, stream):
        raise UserError(f"{os.fspath(path)}: {name} may misread this file: {reason}; use decoder='auto'")


def read(path: str | os.PathLike[str], frame_range: FrameRange, name: str) -> UInt8[Tensor, "frames 3 height width"]:
    """Decode frames of a plain file, uint8 (T, 3, H, W); raises `MissingData` unless the file has them all."""
    total = header(path).frames
    stop = total if frame_range.stop is None else frame_range.stop
    numbers = list(range(frame_range.start, stop, frame_range.stride))
    if stop > total or not numbers:
        raise unreadable(path, frame_range, pyav.count_frames(path), "the video ends there")
    reader = {"decord": _decord, "torchcodec": _torchcodec}[name]
    try:
        with memory.require_memory(str(path)):
            return reader(_load(name), os.path.abspath(path), numbers, total)  # noqa: PTH100  # keeps symbolic links
    except memory.NoMemory:
        raise
    except Exception as error:  # each decoder has its own error classes
        raise unreadable(path, frame_range, pyav.count_frames(path), f"{name}: {str(error).splitlines()[0]}") from error


def _decord(module: ModuleType, path: str, numbers: list[int], total: int) -> Tensor:
    reader = module.VideoReader(path, num_threads=1)
    if len(reader) != total:
        raise RuntimeError(f"it counts {len(reader)} frames")
    return torch.from_numpy(reader.get_batch(numbers).asnumpy()).permute(0, 3, 1, 2)


def _torchcodec(module: ModuleType, path: str, numbers: list[int], total: int) -> Tensor:
    reader = module.VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="exact")
    if len(reader) != total:
        raise RuntimeError(f"it counts {len(reader)} frames")
    frames: Tensor = reader.get_frames_at(numbers).data
    return frames


def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(MODULES[name])
    except (ImportError, RuntimeError, OSError) as error:  # torchcodec raises the last two without FFmpeg
        reason = str(error).strip().splitlines()[0]
        raise BadEnvironment(
            f"{name} cannot be loaded ({reason}): pip install {name}, or use decoder='auto'"
        ) from error


def _not_plain(path: str | os.PathLike[str], stream: int | None) -> str:
    """Reason why a file is not plain; empty for a plain file."""
    if os.fsencode(path).decode(errors="ignore") != os.fspath(path):
        return "its name is not UTF-8"
    with open_video(path) as (container, video):
        codec = video.codec_context
        if stream is not None or len(container.streams.video) > 1:
            return "it has several video streams"
        if PLAIN_CODECS.get(container.format.name) != codec.name:
            return f"it is {codec.codec.canonical_name} in {container.format.name}"
        if codec.pix_fmt != "yuv420p":
            return f"its pixels are {codec.pix_fmt}"
        if container.format.name == "avi":
            return "it has B-frames in an AVI" if codec.has_b_frames else ""
        first = next(container.decode(video), None)
        if first is None or display_matrix(first):
            return "it is rotated, or shows no frame"
        container.seek(0)
        return _hidden_or_open([packet for packet in container.demux(video) if packet.size])


def _hidden_or_open(packets: Sequence[Packet[VideoStream]]) -> str:
    """Reason where packets are hidden, or some that follow a keyframe are shown before it; else empty."""
    if any(packet.is_discard for packet in packets):
        return "its container hides some frames"
    newest = None
    for packet in packets:
        newest = packet.pts if packet.is_keyframe else newest
        if newest is None or packet.pts is None or packet.pts < newest:
            return "it has open groups of pictures"
    return ""
