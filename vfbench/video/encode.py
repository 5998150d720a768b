"""Clip files: lossless ones (H.264 in RGB, PNG frames, WebP, arrays) to score, and MP4 for any player to watch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vfbench.utils.files import atomic_path
from vfbench.video.contact_sheet import write_webp

# x264's look at later frames reads memory that it has not written: the same clip then gives other bytes now and then.
_NO_LOOKAHEAD = "mbtree=0:rc-lookahead=0"


def write_mp4(path: str | os.PathLike[str], clip: UInt8[Tensor, "frames 3 height width"], fps: int = 8) -> None:
    """Write a clip as lossless H.264 at `fps` frames per second, in RGB because YUV loses colours.

    Players based on FFmpeg show it (VLC, mpv, Chrome), some others do not: see `write_playable`. Raises
    `BadEnvironment` if the file cannot be written.
    """
    _write_h264(path, clip, Fraction(fps), "libx264rgb", "rgb24", {"qp": "0"})


def write_playable(path: str | os.PathLike[str], clip: UInt8[Tensor, "frames 3 height width"], fps: float = 8) -> None:
    """Write a clip as an MP4 that players and browsers play: H.264 in yuv420p, of even height and width.

    It is not lossless: for eyes, not for scores. An odd height or width gets its last row or column twice. Raises
    `BadEnvironment` if the file cannot be written.
    """
    height, width = clip.shape[-2:]
    even = F.pad(clip.float(), (0, width % 2, 0, height % 2), mode="replicate").to(clip.dtype)
    rate = Fraction(fps).limit_denominator(1001)
    _write_h264(path, even, rate, "libx264", "yuv420p", {"crf": "15", "x264-params": _NO_LOOKAHEAD})


def _write_h264(
    path: str | os.PathLike[str], clip: Tensor, rate: Fraction, codec: str, pixels: str, options: dict[str, str]
) -> None:
    import av

    height, width = clip.shape[-2:]
    # The index comes first: a browser plays while it loads. One thread, no date: the same clip gives the same file.
    faststart = {"movflags": "+faststart", "fflags": "+bitexact"}
    # As a URL of a file: a name with a colon would be taken for another protocol.
    with atomic_path(path) as file, av.open(f"file:{file}", "w", format="mp4", options=faststart) as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate, options=options))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.thread_count = 1
        for image in clip.permute(0, 2, 3, 1).contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_frames(folder: str | os.PathLike[str], clip: UInt8[Tensor, "frames 3 height width"]) -> None:
    """Write a clip as a folder of PNG files, `0000.png` and so on; raises `BadEnvironment` if one cannot be written."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(clip):
        with atomic_path(Path(folder) / f"{number:04}.png") as file:
            Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")


def write_array(path: str | os.PathLike[str], clip: UInt8[Tensor, "frames 3 height width"]) -> None:
    """Write a clip as a .npy file, uint8 (1, T, H, W, 3); raises `BadEnvironment` if it cannot be written."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, clip[None].permute(0, 1, 3, 4, 2).contiguous().numpy())


class Format(NamedTuple):
    """File format of clips: name template and writer. All formats are lossless.

    `name_template.format(index)` is the entry name in `vfbench.clips`. A format is not `exact` where it may
    store equal neighbours as one frame: it serves as a preview.
    """

    name_template: str
    write: Callable[[Path, Tensor], None]
    exact: bool = True


FORMATS: Mapping[str, Format] = {
    "mp4": Format("{:06}.mp4", write_mp4),
    "webp": Format("{:06}.webp", write_webp, exact=False),
    "npy": Format("{:06}.npy[0]", write_array),
    "png-folder": Format("{:06}", write_frames),
}
