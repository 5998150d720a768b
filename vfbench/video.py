"""Video files and pixels: the only codec, and the only place where floats become bytes.

A clip is uint8 RGB (T, 3, H, W), as everywhere in vfbench. Frames come in the order in which the decoder gives them:
sorting by time stamp would shuffle the B-frames of AVI files. No frame is ever repeated or replaced by another.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vfbench.errors import MissingData, UserError
from vfbench.files import replacing
from vfbench.interfaces import Quantise

if TYPE_CHECKING:
    from av import VideoFrame

Pixels: TypeAlias = UInt8[np.ndarray, "_ _ 3"]

GAP = 2  # pixels between the tiles of a grid
PAPER, INK = 255, 40  # the grey levels of background and captions
FONT_SIZE = 12
UNKNOWN = (0, 0xFFFFFFFF)  # sizes in the head of an AVI whose writer could not go back to fill them in


def decoder() -> str:
    """Name and versions of the decoder, the part of a fingerprint that says how files became pixels."""
    import av

    libraries = (f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in ("libavcodec", "libswscale"))
    return f"pyav {av.__version__} ({', '.join(libraries)})"


def decode(
    path: str | os.PathLike[str],
    *,
    start: int = 0,
    frames: int | None = None,
    stride: int = 1,
    stream: int | None = None,
) -> UInt8[Tensor, "frames 3 height width"]:
    """Frames `start`, `start + stride`, ... of a video file, turned as its display matrix says: uint8 (T, 3, H, W).

    `frames` is exact: fewer raise `MissingData` with the file's name, as does a file that is missing, empty, damaged
    before the last frame asked for, or no video. None reads to the end. `stream` is a stream index of the file,
    by default its first video. The pixels are those of swscale's rgb24, the reference of every PyAV reader.
    """
    if start < 0 or stride < 1 or (frames is not None and frames < 1):
        raise ValueError(f"start={start}, frames={frames}, stride={stride}: start counts from 0, the others from 1")
    stop = None if frames is None else start + (frames - 1) * stride + 1
    need = f"{'all' if frames is None else frames} frames from {start}" + (f" at stride {stride}" * (stride > 1))
    taken, decoded = [], 0
    for frame in _frames(path, stream, need):
        if decoded >= start and (decoded - start) % stride == 0:
            taken.append(_pixels(frame))
        decoded += 1
        if decoded == stop:
            break
    if len(taken) < (frames or 1):
        raise _unreadable(path, need, decoded, "the video ends there")
    if len({image.shape for image in taken}) > 1:
        raise _unreadable(path, need, decoded, "the frame size changes within the video")
    return torch.from_numpy(np.stack(taken)).permute(0, 3, 1, 2).contiguous()


def check_whole(path: str | os.PathLike[str]) -> None:
    """Raise `MissingData` for an AVI shorter than its own RIFF header says: cut off, it decodes without any error.

    Other files pass, and so do AVIs whose writer left their size open.
    """
    try:
        with Path(path).open("rb") as file:
            head, size = file.read(8), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise MissingData(f"{os.fspath(path)}: {error.strerror}; get this file again") from error
    length = int.from_bytes(head[4:8], "little")
    if head[:4] == b"RIFF" and length not in UNKNOWN and size < length + 8:
        said = f"{os.fspath(path)}: cut off, {size:,} of {length + 8:,} bytes"
        raise MissingData(f"{said}; get this file again or take it out")


def count_frames(path: str | os.PathLike[str], *, stream: int | None = None) -> int:
    """How many frames the file decodes to, found by decoding: the counts in file headers are often wrong.

    Raises `MissingData` where `decode` would. A file that was cut off may just have fewer, without any error.
    """
    count = sum(1 for _ in _frames(path, stream, "all frames from 0"))
    if count == 0:
        raise _unreadable(path, "all frames from 0", 0, "the video holds no frame")
    return count


def _frames(path: str | os.PathLike[str], stream: int | None, need: str) -> Iterator[VideoFrame]:
    """Decode a stream from its beginning; `need` says in the error what the caller was after."""
    import av

    decoded = 0
    try:
        # As a URL of a file: a name with a colon would be taken for another protocol.
        with av.open(f"file:{os.fspath(path)}") as container:
            video = next((s for s in container.streams.video if stream in (None, s.index)), None)
            if video is None:
                raise _unreadable(path, need, 0, "no video stream" if stream is None else f"no video stream {stream}")
            for frame in container.decode(video):
                yield frame
                decoded += 1
    except av.error.FFmpegError as error:
        raise _unreadable(path, need, decoded, error.strerror or str(error)) from error


def _unreadable(path: str | os.PathLike[str], need: str, decoded: int, reason: str) -> MissingData:
    where = os.fspath(path)
    return MissingData(f"{where}: needs {need}, decoded {decoded} ({reason}); get this file again or take it out")


def _pixels(frame: VideoFrame) -> Pixels:
    """The frame as shown."""
    image = frame.to_ndarray(format="rgb24")
    side_data: Mapping[str, Any] = frame.side_data
    matrix = side_data.get("DISPLAYMATRIX")
    return image if matrix is None else _upright(image, struct.unpack("=9i", bytes(matrix)))


def _upright(image: Pixels, matrix: Sequence[int]) -> Pixels:
    """Apply a display matrix: x' = ax + cy, y' = bx + dy. Quarter turns and mirrors only; any other angle is left."""
    a, b, _, c, d, *_ = matrix
    if (a or d) and (b or c):
        return image
    if b or c:
        image, a, d = image.transpose(1, 0, 2), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def to_uint8(x: Float[Tensor, "*shape"], quantise: Quantise = "round") -> UInt8[Tensor, "*shape"]:
    """Floats in [0, 1] as bytes: round(255 x), clamped, a half going to the even byte; `truncate` cuts 255 x off.

    Rounding gives back the byte that a float came from; cutting off makes 63 of the 256 levels one too dark, and is
    there for the published protocols that do it.

    Raises TypeError for anything but floats, and ValueError for NaN or infinity, which are no colour.
    """
    if not x.is_floating_point():
        raise TypeError(f"to_uint8 takes floats in [0, 1], got {x.dtype}")
    if not torch.isfinite(x).all():
        raise ValueError(f"to_uint8 got NaN or infinity in a tensor of shape {tuple(x.shape)}")
    levels = (x.float() * 255).clamp(0, 255)
    return (levels.round() if quantise == "round" else levels).to(torch.uint8)


def write_webp(
    path: str | os.PathLike[str], clips: UInt8[Tensor, "*batch frames 3 height width"], fps: int = 8, scale: int = 1
) -> None:
    """Write a clip (T, 3, H, W), or clips (B, T, 3, H, W) side by side in a grid, as an endless animated WebP.

    Lossless, each pixel shown as `scale` x `scale`. WebP stores frames that do not differ as one longer frame.
    Raises `BadEnvironment` if the file cannot be written.
    """
    batch = clips.reshape(-1, *clips.shape[-4:])
    grid = _tile(_enlarge(batch, scale), columns=math.ceil(math.sqrt(len(batch))))
    first, *rest = [_image(frame) for frame in grid]
    ms = round(1000 / fps)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        first.save(file, "WEBP", save_all=True, append_images=rest, duration=ms, loop=0, lossless=True)


def write_sheet(
    path: str | os.PathLike[str],
    clips: UInt8[Tensor, "rows frames 3 height width"],
    *,
    captions: Sequence[str] = (),
    columns: int = 8,
    scale: int = 1,
) -> None:
    """Write a contact sheet as PNG: a clip a row, up to `columns` frames evenly spread from its first to its last.

    A caption stands under its row. Raises ValueError unless there are as many captions as clips, or none, and
    `BadEnvironment` if the file cannot be written.
    """
    if captions and len(captions) != len(clips):
        raise ValueError(f"{len(captions)} captions for {len(clips)} clips")
    chosen = torch.linspace(0, clips.shape[1] - 1, min(columns, clips.shape[1])).round().long()
    tiles = _enlarge(clips[:, chosen.to(clips.device)], scale)
    rows = [_image(_tile(row.unsqueeze(1), columns=len(chosen))[0]) for row in tiles]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        _stack(rows, captions).save(file, "PNG")


def _stack(rows: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Put rows below each other, each with its caption; the sheet grows to the width of the longest caption."""
    font = ImageFont.load_default(FONT_SIZE)
    widest = max((math.ceil(font.getlength(text)) for text in captions), default=0)
    pitch = rows[0].height + (2 * FONT_SIZE if captions else GAP)
    height = len(rows) * pitch - (FONT_SIZE // 2 if captions else GAP)
    sheet = Image.new("RGB", (max(rows[0].width, widest), height), (PAPER,) * 3)
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        sheet.paste(row, (0, i * pitch))
        if captions:
            draw.text((0, i * pitch + row.height + GAP), captions[i], fill=(INK,) * 3, font=font)
    return sheet


def _tile(
    clips: UInt8[Tensor, "clips frames 3 height width"], columns: int
) -> UInt8[Tensor, "frames 3 grid_height grid_width"]:
    """Lay clips out in rows of `columns`, thin lines between them; places left over stay empty."""
    count, frames, _, height, width = clips.shape
    rows = math.ceil(count / columns)
    down, right = height + GAP, width + GAP
    grid = torch.full((frames, 3, rows * down - GAP, columns * right - GAP), PAPER, dtype=torch.uint8)
    for i, clip in enumerate(clips):
        top, left = i // columns * down, i % columns * right
        grid[..., top : top + height, left : left + width] = clip
    return grid


def _enlarge(clips: UInt8[Tensor, "*batch 3 height width"], scale: int) -> UInt8[Tensor, "*batch 3 tall wide"]:
    return clips.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)


def _image(frame: UInt8[Tensor, "3 height width"]) -> Image.Image:
    return Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())


def checked(clips: UInt8[Tensor, "batch frames 3 height width"]) -> UInt8[Tensor, "batch frames 3 height width"]:
    """The same clips; refuses bytes that look like 0..1 floats cut to integers, the commonest range mistake.

    A score of such clips would be a number that means nothing (0.0149 instead of about 131 in one known case).
    """
    if clips.dtype != torch.uint8:
        raise TypeError(f"clips must be uint8 in 0..255, got {clips.dtype}: see vfbench.video.to_uint8")
    if clips.numel() and int(clips.max()) == 1:  # a black clip has no 1
        raise UserError("all bytes of these clips are 0 or 1: multiply floats in 0..1 by 255 (vfbench.video.to_uint8)")
    return clips
