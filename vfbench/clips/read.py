"""The frames of found clips: exactly those asked for, never repeated, never re-timed, never resized."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from PIL import features as pillow
from torch import Tensor

from vfbench import video
from vfbench.clips import arrays
from vfbench.clips.layout import ClipFile, ClipFolder
from vfbench.clips.scan import frame_files
from vfbench.clips.text import few
from vfbench.clips.transform import clip_starts
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Clips
from vfbench.protocol.protocol import ONE

STARTS = ONE  # a clip is read from one place


def clips(
    found: ClipFolder,
    indices: Sequence[int],
    *,
    frames: int,
    start: str = "zero",
    stride: int = 1,
    drop_first: int = 0,
) -> Clips:
    """The clips at `indices`, uint8 (B, T, 3, H, W), as `clip` reads each.

    Raises also `MissingData` naming a clip whose resolution is not that of the folder's first, and `UserError` where
    all bytes are 0 or 1, which are floats cut to integers.
    """
    height, width = resolution(found)
    taken = [clip(found, index, frames=frames, start=start, stride=stride, drop_first=drop_first) for index in indices]
    for index, images in zip(indices, taken, strict=True):
        if images.shape[-2:] != (height, width):
            other = f"{found.entries[index].name} has {images.shape[-1]}x{images.shape[-2]} pixels"
            raise MissingData(
                f"{found.root}: {other}, the first clip {found.entries[0].name} {width}x{height}: clips of one "
                "resolution are needed; bring them to one, or name those of one by --list FILE, of a dataset by "
                "folder(listing='FILE')"
            )
    batch = torch.stack(taken) if taken else torch.empty((0, frames, 3, height, width), dtype=torch.uint8)
    try:
        return video.checked(batch)
    except UserError as error:
        raise UserError(f"{found.root}, {few([found.entries[index].name for index in indices])}: {error}") from error


def clip(
    found: ClipFolder, index: int, *, frames: int, start: str = "zero", stride: int = 1, drop_first: int = 0
) -> UInt8[Tensor, "frames 3 height width"]:
    """One clip in its own resolution, uint8 (T, 3, H, W): `frames` frames, `stride` apart, in the order of the file.

    The first `drop_first` frames (such as those that the clip was conditioned on) never enter. `start` is `zero`, the
    first frame after them, or `hashed`, drawn from the clip's name (see `vfbench.clips.transform.clip_starts`). Raises
    `MissingData`
    naming a clip that is too short, damaged or no picture at all, `UserError` for options that make no sense, and
    IndexError.
    """
    _check_request(found, index, frames, start, stride, drop_first)
    entry = found.entries[index]
    there = count(entry) if start == "hashed" else 0  # `zero` needs no number
    (first,) = clip_starts(start, entry.name, there, frames=frames, stride=stride, drop_first=drop_first)
    return read(entry, range(first, first + frames * stride, stride), root=found.base).contiguous()


def read(
    entry: ClipFile, wanted: range, *, root: Path | None = None, decoder: str = "auto"
) -> UInt8[Tensor, "frames 3 height width"]:
    """The frames `wanted` of an entry in its own resolution, uint8 (T, 3, H, W); `decoder` reads a video file.

    They may lie in memory pixel by pixel, as decoders give them.
    Raises `MissingData` naming the entry below `root` where it is too short, damaged or no picture at all.
    """
    if entry.kind == "videos":
        video.check_whole(entry.path)
        return video.decode(entry.path, start=wanted.start, frames=len(wanted), stride=wanted.step, decoder=decoder)
    if (there := count(entry)) <= wanted[-1]:
        apart = f" at stride {wanted.step}" * (wanted.step > 1)
        raise MissingData(
            f"{root / entry.name if root else entry.path} has {there} frames, needs {len(wanted)} from "
            f"{wanted.start}{apart}: take it out or ask for fewer, since none is repeated"
        )
    if entry.kind == "frames":
        return _stills(entry, wanted)
    return _prepared(entry, wanted) if entry.kind == "prepared" else _row(entry, wanted)


def _check_request(found: ClipFolder, index: int, frames: int, start: str, stride: int, drop_first: int) -> None:
    for name, value, least in (("frames", frames, 1), ("stride", stride, 1), ("drop_first", drop_first, 0)):
        if value < least:
            raise UserError(f"{name}={value}: at least {least} is needed to read clips of {found.root}")
    if start not in STARTS:
        raise UserError(f"start={start!r}: clips of {found.root} start at one of {', '.join(STARTS)}")
    if not 0 <= index < len(found):
        raise IndexError(f"{found.root} has {len(found)} clips: no clip {index}")


def resolution(found: ClipFolder) -> tuple[int, int]:
    """Height and width of the first clip, as shown."""
    height, width = clip(found, 0, frames=1).shape[-2:]
    return height, width


def features(found: ClipFolder) -> Float[Tensor, "n dim"]:
    """All rows of feature files in the order of their entries; raises `UserError` where clips were found instead."""
    if found.kind != "features":
        raise UserError(f"{found.root} holds {found.kind}, not features: give a file of floats (N, D)")
    return torch.cat([arrays.features(path) for path in dict.fromkeys(entry.path for entry in found.entries)])


def decoder(found: ClipFolder, decoder: str = "auto") -> str:
    """Names and versions of what turns these files into pixels, for fingerprints."""
    if found.kind == "videos":
        used = sorted({video.chosen(entry.path, decoder) for entry in found.entries})
        return ", ".join(map(video.version, used))
    jpeg = pillow.version("libjpeg_turbo") or pillow.version("jpg")
    return f"pillow {PIL.__version__} (libjpeg {jpeg})" if found.kind == "frames" else "numpy"


def count(entry: ClipFile) -> int:
    """How many frames an entry has; of a video, how many its container says are shown (`vfbench.video.header`)."""
    return measure(entry)[0]


def measure(entry: ClipFile) -> tuple[int, int, int]:
    """Number of frames, height and width of an entry as shown, without decoding it.

    Raises `MissingData` naming what cannot be read, and `UserError` for features, which are no clips.
    """
    if entry.kind == "features":
        raise UserError(f"{entry.path} holds features, not clips: it has no frames to read")
    if entry.kind == "videos":
        video.check_whole(entry.path)
        header = video.header(entry.path)
        return header.frames, header.height, header.width
    if entry.kind == "frames":
        return _measure_stills(entry)
    if entry.kind == "prepared":
        return entry.frames, *entry.size
    _, frames, height, width, _ = arrays.rows(entry.path).shape
    return frames, height, width


def _measure_stills(entry: ClipFile) -> tuple[int, int, int]:
    files = frame_files(entry.path)
    if not files:
        raise MissingData(f"{entry.path} holds no image; get this clip again or take it out")
    height, width = _still(files[0]).shape[:2]
    return len(files), height, width


def _row(entry: ClipFile, wanted: range) -> UInt8[Tensor, "frames 3 height width"]:
    row = arrays.rows(entry.path)[entry.row, wanted.start : wanted.stop : wanted.step]
    return torch.from_numpy(np.array(row)).permute(0, 3, 1, 2).contiguous()


def _prepared(entry: ClipFile, wanted: range) -> UInt8[Tensor, "frames 3 height width"]:
    """Of a shard (N, 3, H, W), which holds one video's frames after another's."""
    first = entry.row + wanted.start
    last = entry.row + wanted[-1] + 1
    return torch.from_numpy(np.array(arrays.shard(entry.path)[first : last : wanted.step]))


def _stills(entry: ClipFile, wanted: range) -> UInt8[Tensor, "frames 3 height width"]:
    there = frame_files(entry.path)
    files = [there[i] for i in wanted]
    images = [_still(file) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            sizes = " and ".join(f"{one.shape[1]}x{one.shape[0]}" for one in (images[0], image))
            raise MissingData(f"{file}: the frame size changes within the clip, {sizes}; make this clip again")
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _still(file: Path) -> video.Pixels:
    """An image as 8-bit RGB; refuses what has no one meaning as such: depth, transparency, inks."""
    try:
        with Image.open(file) as image:
            deep = any(";16" in str(part[3]) for part in image.tile)  # Pillow would cut it to 8 bits
            image.load()
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                raise MissingData(f"{file} is transparent: save it again as RGB, over the background that is meant")
            if deep or image.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "1"):
                mode = f"{image.mode}{' of 16 bits' * deep}"
                raise MissingData(f"{file} is {mode}, needed: RGB or grey of 8 bits; save it again so")
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # whatever Pillow's readers raise for damage
        raise MissingData(f"{file}: no readable image ({error}); get this clip again or take it out") from error
