"""Which decoder reads a video file, and what it reads."""

from __future__ import annotations

import os
from collections.abc import Iterator

from jaxtyping import UInt8
from torch import Tensor

from vfbench.errors import unknown
from vfbench.video import other_decoders, pyav
from vfbench.video.frame_range import FrameRange
from vfbench.video.header import header

DECODERS = ("auto", "pyav", *other_decoders.NAMES)


def decode(
    path: str | os.PathLike[str],
    *,
    start: int = 0,
    frames: int | None = None,
    stride: int = 1,
    stream: int | None = None,
    decoder: str = "auto",
) -> UInt8[Tensor, "frames 3 height width"]:
    """Frames `start`, `start + stride`, ... of a video file, turned as its display matrix says: uint8 (T, 3, H, W).

    `frames` is exact: fewer raise `MissingData` with the file's name and `declared N, decoded M`, as does a file that
    is missing, empty, no video, or damaged where it is decoded: from its beginning up to the last frame asked for, or
    from a keyframe on where decoding may begin there (`vfbench.video.pyav`), which passes over damage before it that
    changes none of these frames; `count_frames` finds all. None reads to the end. `stream` is a stream index of the
    file, by default its first video. `decoder` is one of `DECODERS`; see `chosen`. The pixels are those of swscale's
    rgb24, the reference of every PyAV reader; others may differ by 2 of 255 levels. They lie in memory as they come,
    channels last: `contiguous` puts them into the order of their axes.
    """
    if start < 0 or stride < 1 or (frames is not None and frames < 1):
        raise ValueError(f"start={start}, frames={frames}, stride={stride}: start counts from 0, the others from 1")
    wanted = FrameRange(start, frames, stride)
    if (name := chosen(path, decoder, stream=stream)) == "pyav":
        return pyav.read(path, wanted, stream)
    return other_decoders.read(path, wanted, name)


def frames(
    path: str | os.PathLike[str], *, group: int, decoder: str = "auto"
) -> Iterator[UInt8[Tensor, "_ 3 height width"]]:
    """All frames of a video file in groups of `group`, as `decode` gives them; the last group may be smaller.

    The reference decodes the file once, from one opening. Raises `MissingData` where `decode` would, and before the
    last group where the file has another number of frames than it declares, more or fewer.
    """
    declared, name = header(path).frames, chosen(path, decoder)
    if name == "pyav":
        yield from pyav.groups(path, declared, group)
        return
    for first in range(0, declared, group):
        yield other_decoders.read(path, FrameRange(first, min(group, declared - first)), name)


def count_frames(path: str | os.PathLike[str], *, stream: int | None = None) -> int:
    """How many frames the file decodes to, found by decoding: the counts in file headers are often wrong.

    Raises `MissingData` where `decode` would. A file that was cut off may just have fewer, without any error.
    """
    return pyav.count(path, stream)


def chosen(path: str | os.PathLike[str], decoder: str = "auto", *, stream: int | None = None) -> str:
    """The name of the decoder that reads this file: `auto` is PyAV for every file, on every machine.

    It is the reference, and with the jumps of `vfbench.video.pyav` no other is faster where it is right
    (benchmarks/decode_speed.py). A decoder asked for by name is used for plain files, which it is known to read right.
    Raises `UserError` naming what is not plain in a file, or a decoder that does not exist, and `BadEnvironment` with
    the mending command where the decoder is not installed.
    """
    if decoder not in DECODERS:
        raise unknown("decoder", decoder, DECODERS)
    if decoder in ("auto", "pyav"):
        return "pyav"
    other_decoders.check(path, decoder, stream)
    return decoder


def version(name: str) -> str:
    """Name and versions of a decoder, the part of a fingerprint that says how files became pixels.

    Raises `BadEnvironment` where it is not installed.
    """
    if name not in DECODERS[1:]:
        raise unknown("decoder", name, DECODERS[1:])
    return pyav.version() if name == "pyav" else other_decoders.version(name)
