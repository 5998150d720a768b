"""Decode video files with PyAV, decord or torchcodec, and animated images with Pillow."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vfbench.errors import UserError, unknown
from vfbench.utils.options import DECODERS
from vfbench.video import animation, other_decoders, pyav
from vfbench.video.frame_range import FrameRange, in_groups, select
from vfbench.video.header import header
from vfbench.video.images import open_image
from vfbench.video.rotation import Pixels


def decode(
    path: str | os.PathLike[str],
    *,
    start: int = 0,
    frames: int | None = None,
    stride: int = 1,
    stream: int | None = None,
    decoder: str = "auto",
) -> UInt8[Tensor, "frames 3 height width"]:
    """Decode frames `start`, `start + stride`, ... of a video file, uint8 (T, 3, H, W), rotated by its display matrix.

    `frames` is the exact number of frames; None reads to the end. `stream` is a stream index of the file, by default
    its first video stream. `decoder` is one of `DECODERS`; see `choose_decoder`. Pixels are those of swscale's rgb24;
    decoders other than PyAV may differ by 2 of 255 levels. Memory is channels last until `contiguous` is called.

    Raises `MissingData` with the file's name and `declared N, decoded M` for too few frames, and for a file that is
    missing, empty, not a video, or damaged in the decoded part. That part starts at the first frame, or at a keyframe
    where `vfbench.video.pyav` can seek: earlier damage that changes none of the frames is ignored. `count_frames`
    detects all damage.
    """
    if start < 0 or stride < 1 or (frames is not None and frames < 1):
        raise ValueError(f"start={start}, frames={frames}, stride={stride}: start counts from 0, the others from 1")
    frame_range = FrameRange(start, frames, stride)
    name = choose_decoder(path, decoder, stream=stream)
    if name == "pillow":
        images = np.stack(list(_animated(path, frame_range)))
        return torch.from_numpy(images).permute(0, 3, 1, 2)
    if name == "pyav":
        return pyav.read(path, frame_range, stream)
    return other_decoders.read(path, frame_range, name)


def frame_groups(
    path: str | os.PathLike[str], *, group: int, decoder: str = "auto"
) -> Iterator[UInt8[Tensor, "_ 3 height width"]]:
    """Iterate over all frames of a video file in groups of `group`, each as from `decode`; the last may be smaller.

    PyAV opens and decodes the file once. Raises `MissingData` like `decode`, and before the last group where the number
    of decoded frames differs from the declared one.
    """
    declared, name = header(path).frames, choose_decoder(path, decoder)
    if name == "pillow":
        yield from in_groups(path, _animated(path, FrameRange()), declared, group)
        return
    if name == "pyav":
        yield from pyav.frame_groups(path, declared, group)
        return
    for first in range(0, declared, group):
        yield other_decoders.read(path, FrameRange(first, min(group, declared - first)), name)


def count_frames(path: str | os.PathLike[str], *, stream: int | None = None) -> int:
    """Count frames by decoding the file, because file headers are often wrong.

    Raises `MissingData` like `decode`. A truncated file may have fewer frames without any error.
    """
    if animation.is_animation(path):
        return sum(1 for _ in _animated(path, FrameRange()))
    return pyav.count_frames(path, stream)


def _animated(path: str | os.PathLike[str], frame_range: FrameRange) -> Iterator[Pixels]:
    """Frames of an animation; decoded while it is open, where errors of damage become `MissingData`."""
    with open_image(path) as image:
        yield from select(path, frame_range, animation.frames(image, os.fspath(path)))


def choose_decoder(path: str | os.PathLike[str], decoder: str = "auto", *, stream: int | None = None) -> str:
    """Name of the decoder for this file: `auto` is PyAV, and Pillow for animated images, on every machine.

    PyAV is the reference. With the seeking of `vfbench.video.pyav`, no other decoder is faster on the files it reads
    correctly (benchmarks/decode_speed.py). Another decoder reads only plain files, which it is known to read correctly.
    Raises `UserError` for an unknown decoder or a file that is not plain, and `BadEnvironment` with the install command
    where the decoder is missing.
    """
    if decoder not in DECODERS:
        raise unknown("decoder", decoder, DECODERS)
    if animation.is_animation(path):
        if decoder != "auto":
            raise UserError(f"{os.fspath(path)}: {decoder} reads no animated images; use decoder='auto'")
        return "pillow"
    if decoder in ("auto", "pyav"):
        return "pyav"
    other_decoders.require_plain(path, decoder, stream)
    return decoder


def decoder_version(name: str) -> str:
    """Name and version of a decoder and its libraries, for fingerprints.

    Raises `BadEnvironment` where the decoder is not installed.
    """
    if name == "pillow":
        return animation.version()
    if name not in DECODERS[1:]:
        raise unknown("decoder", name, DECODERS[1:])
    return pyav.version() if name == "pyav" else other_decoders.version(name)
