"""Previews of clips: animated WebP files and contact sheets as PNG."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vfbench.utils import escape
from vfbench.utils.files import atomic_path

GAP = 2  # pixels between the tiles of a grid
BACKGROUND, TEXT_GREY = 255, 40  # grey levels of background and captions
FONT_SIZE = 12
LONGEST_CAPTION = 300  # characters; the rest is cut off


def write_webp(
    path: str | os.PathLike[str], clips: UInt8[Tensor, "*batch frames 3 height width"], fps: int = 8, scale: int = 1
) -> None:
    """Write a clip (T, 3, H, W), or a grid of clips (B, T, 3, H, W), as a looping, lossless WebP.

    Each pixel is enlarged to `scale` x `scale`. WebP merges equal consecutive frames into a longer one. Raises
    `BadEnvironment` if the file cannot be written.
    """
    batch = clips.reshape(-1, *clips.shape[-4:])
    grid = _tile(_enlarge(batch, scale), columns=math.ceil(math.sqrt(len(batch))))
    first, *rest = [_image(frame) for frame in grid]
    ms = round(1000 / fps)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as file:
        # method=0 takes a thirtieth of the default's time, for files half as large again
        first.save(file, "WEBP", save_all=True, append_images=rest, duration=ms, loop=0, lossless=True, method=0)


def write_preview(
    folder: Path, clips: UInt8[Tensor, "rows frames 3 height width"], captions: Sequence[str] = ()
) -> None:
    """Write a contact sheet `sheet.png` and an animated `clips.webp` to a folder, narrow clips enlarged to 64 pixels.

    Raises the errors of `write_sheet`.
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
    """Write a contact sheet as PNG: one row per clip, up to `columns` evenly spread frames from first to last.

    Captions go below the rows. Raises ValueError unless there are as many captions as clips, or none, and
    `BadEnvironment` if the file cannot be written.
    """
    if captions and len(captions) != len(clips):
        raise ValueError(f"{len(captions)} captions for {len(clips)} clips")
    frame_numbers = torch.linspace(0, clips.shape[1] - 1, min(columns, clips.shape[1])).round().long()
    tiles = _enlarge(clips[:, frame_numbers.to(clips.device)], scale)
    rows = [_image(_tile(row.unsqueeze(1), columns=len(frame_numbers))[0]) for row in tiles]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as file:
        _stack(rows, captions).save(file, "PNG")


def _stack(rows: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Stack rows vertically with their captions; the sheet is at least as wide as the longest caption."""
    font = ImageFont.load_default(FONT_SIZE)
    captions = [escape.printable(text[:LONGEST_CAPTION]) for text in captions]
    widest = max((math.ceil(font.getlength(text)) for text in captions), default=0)
    pitch = rows[0].height + (2 * FONT_SIZE if captions else GAP)
    height = len(rows) * pitch - (FONT_SIZE // 2 if captions else GAP)
    sheet = Image.new("RGB", (max(rows[0].width, widest), height), (BACKGROUND,) * 3)
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        sheet.paste(row, (0, i * pitch))
        if captions:
            draw.text((0, i * pitch + row.height + GAP), captions[i], fill=(TEXT_GREY,) * 3, font=font)
    return sheet


def _tile(
    clips: UInt8[Tensor, "clips frames 3 height width"], columns: int
) -> UInt8[Tensor, "frames 3 grid_height grid_width"]:
    """Lay out clips in rows of `columns`, `GAP` pixels apart; unused tiles stay empty."""
    count, frames, _, height, width = clips.shape
    rows = math.ceil(count / columns)
    down, right = height + GAP, width + GAP
    grid = torch.full((frames, 3, rows * down - GAP, columns * right - GAP), BACKGROUND, dtype=torch.uint8)
    for i, clip in enumerate(clips):
        top, left = i // columns * down, i % columns * right
        grid[..., top : top + height, left : left + width] = clip
    return grid


def _enlarge(clips: UInt8[Tensor, "*batch 3 height width"], scale: int) -> UInt8[Tensor, "*batch 3 tall wide"]:
    return clips.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)


def _image(frame: UInt8[Tensor, "3 height width"]) -> Image.Image:
    return Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
