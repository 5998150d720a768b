"""Clips as pictures to look at: animated WebP, and contact sheets as PNG."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vfbench.utils.files import replacing

GAP = 2  # pixels between the tiles of a grid
PAPER, INK = 255, 40  # the grey levels of background and captions
FONT_SIZE = 12


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


def write_preview(
    folder: Path, clips: UInt8[Tensor, "rows frames 3 height width"], captions: Sequence[str] = ()
) -> None:
    """Write `sheet.png` and the moving `clips.webp` of a few clips to a folder, small clips enlarged to 64 pixels.

    Raises what `write_sheet` raises.
    """
    scale = max(1, 64 // clips.shape[-1])
    write_sheet(folder / "sheet.png", clips, captions=captions, scale=scale)
    write_webp(folder / "clips.webp", clips, scale=2 * scale)


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
