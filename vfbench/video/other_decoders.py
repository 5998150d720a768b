"""Frames by decord or torchcodec, for whoever asks for them by name, and from plain files only.

Each is wrong on some files, and silent about it: decord shows frames that the container hides, is off by some frames
after a jump among B-frames or open groups of pictures, and repeats the last one to fill a short file; both take other
colours from 10 bits. On plain files both equal PyAV within 2 of 255 levels (tests/test_decoders.py).

decord: https://github.com/dmlc/decord; torchcodec: https://github.com/meta-pytorch/torchcodec, which loads the shared
libraries of FFmpeg.
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
from vfbench.video.header import header, opened
from vfbench.video.rotation import matrix

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

MODULES = {"decord": "decord", "torchcodec": "torchcodec.decoders"}
NAMES = tuple(MODULES)
PLAIN = {"avi": "mpeg4", "mov,mp4,m4a,3gp,3g2,mj2": "h264"}  # FFmpeg's names of a container and of its codec


def version(name: str) -> str:
    """Such as `decord 0.6.0`."""
    _load(name)
    return f"{name} {importlib.metadata.version(name)}"


def check(path: str | os.PathLike[str], name: str, stream: int | None = None) -> None:
    """Raise unless this decoder is installed and this file plain; see `vfbench.video.chosen`."""
    _load(name)
    if reason := _special(path, stream):
        raise UserError(f"{os.fspath(path)}: {name} is not known to read it right: {reason}; use decoder='auto'")


def read(path: str | os.PathLike[str], wanted: FrameRange, name: str) -> UInt8[Tensor, "frames 3 height width"]:
    """The frames asked for, of a plain file: uint8 (T, 3, H, W). Raises `MissingData` unless the file has them all."""
    there = header(path).frames
    stop = there if wanted.stop is None else wanted.stop
    numbers = list(range(wanted.start, stop, wanted.stride))
    if stop > there or not numbers:
        raise unreadable(path, wanted, pyav.count(path), "the video ends there")
    reader = {"decord": _decord, "torchcodec": _torchcodec}[name]
    try:
        with memory.needed(str(path)):
            return reader(_load(name), os.path.abspath(path), numbers, there)  # noqa: PTH100  # keeps the links
    except memory.NoMemory:
        raise
    except Exception as error:  # each has its own
        raise unreadable(path, wanted, pyav.count(path), f"{name}: {str(error).splitlines()[0]}") from error


def _decord(module: ModuleType, path: str, numbers: list[int], there: int) -> Tensor:
    reader = module.VideoReader(path, num_threads=1)
    if len(reader) != there:
        raise RuntimeError(f"it counts {len(reader)} frames")
    return torch.from_numpy(reader.get_batch(numbers).asnumpy()).permute(0, 3, 1, 2)


def _torchcodec(module: ModuleType, path: str, numbers: list[int], there: int) -> Tensor:
    reader = module.VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="exact")
    if len(reader) != there:
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


def _special(path: str | os.PathLike[str], stream: int | None) -> str:
    """What is not plain in a file; empty for a plain one."""
    if os.fsencode(path).decode(errors="ignore") != os.fspath(path):
        return "its name is not UTF-8"
    with opened(path) as (container, video):
        codec = video.codec_context
        if stream is not None or len(container.streams.video) > 1:
            return "it has several video streams"
        if PLAIN.get(container.format.name) != codec.name:
            return f"it is {codec.codec.canonical_name} in {container.format.name}"
        if codec.pix_fmt != "yuv420p":
            return f"its pixels are {codec.pix_fmt}"
        if container.format.name == "avi":
            return "it has B-frames in an AVI" if codec.has_b_frames else ""
        first = next(container.decode(video), None)
        if first is None or matrix(first):
            return "it is shown turned, or not at all"
        container.seek(0)
        return _hidden([packet for packet in container.demux(video) if packet.size])


def _hidden(packets: Sequence[Packet[VideoStream]]) -> str:
    """Whether not all packets are shown, or some that follow a keyframe are shown before it."""
    if any(packet.is_discard for packet in packets):
        return "its container hides some frames"
    newest = None
    for packet in packets:
        newest = packet.pts if packet.is_keyframe else newest
        if newest is None or packet.pts is None or packet.pts < newest:
            return "it has open groups of pictures"
    return ""
