"""Frames and features of detected clips: exact frame numbers, native resolution, no repeated or resampled frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL
import torch
from jaxtyping import Float, UInt8
from PIL import features as pillow
from safetensors import safe_open
from torch import Tensor

from vfbench import video
from vfbench.clips import arrays
from vfbench.clips.layout import ClipFile, ClipFolder
from vfbench.clips.scan import frame_files
from vfbench.clips.starts import clip_starts
from vfbench.clips.text import first_few
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Clips
from vfbench.protocol.protocol import HASHED_STARTS, ONE_CLIP_STARTS
from vfbench.utils import text
from vfbench.video.images import read_image

START_CHOICES = ONE_CLIP_STARTS


def read_clips(
    folder: ClipFolder,
    indices: Sequence[int],
    *,
    frames: int,
    start: str = "zero",
    stride: int = 1,
    drop_first: int = 0,
) -> Clips:
    """Read the clips at `indices`, uint8 (B, T, 3, H, W); options and errors as for `read_clip`.

    Also raises `MissingData` naming a clip whose resolution differs from that of the folder's first clip, and
    `UserError` where all bytes are 0 or 1 (floats in 0..1 cut to integers).
    """
    height, width = resolution(folder)
    images = [
        read_clip(folder, index, frames=frames, start=start, stride=stride, drop_first=drop_first) for index in indices
    ]
    for index, clip in zip(indices, images, strict=True):
        if clip.shape[-2:] != (height, width):
            raise MissingData(
                f"{folder.root}: {folder.entries[index].name} has {clip.shape[-1]}x{clip.shape[-2]} pixels, the first "
                f"clip {folder.entries[0].name} {width}x{height}: resize the clips to one resolution, or list those of "
                "one: --list FILE, or folder(listing='FILE') as a dataset"
            )
    batch = torch.stack(images) if images else torch.empty((0, frames, 3, height, width), dtype=torch.uint8)
    try:
        return video.require_byte_range(batch)
    except UserError as error:
        names = first_few([folder.entries[index].name for index in indices])
        raise UserError(f"{folder.root}, {names}: {error}") from error


def read_clip(
    folder: ClipFolder, index: int, *, frames: int, start: str = "zero", stride: int = 1, drop_first: int = 0
) -> UInt8[Tensor, "frames 3 height width"]:
    """Read one clip in native resolution, uint8 (T, 3, H, W): `frames` frames, `stride` apart, in file order.

    The first `drop_first` frames, such as conditioning frames, are skipped. `start` is `zero`, the next frame, or
    `hashed`, a position derived from the clip's name (`vfbench.clips.starts.clip_starts`). Raises `MissingData`
    naming a clip that is too short or unreadable, `UserError` for invalid options, and IndexError.
    """
    _check_request(folder, index, frames, start, stride, drop_first)
    entry = folder.entries[index]
    count = count_frames(entry) if start in HASHED_STARTS else 0  # `zero` does not use it
    (first,) = clip_starts(start, entry.name, count, frames=frames, stride=stride, drop_first=drop_first)
    return read_frames(entry, range(first, first + frames * stride, stride), root=folder.base).contiguous()


def read_frames(
    entry: ClipFile, numbers: range, *, root: Path | None = None, decoder: str = "auto"
) -> UInt8[Tensor, "frames 3 height width"]:
    """Read the frames `numbers` of an entry in native resolution, uint8 (T, 3, H, W), possibly channels last in memory.

    `decoder` is used for video files. Raises `MissingData` naming the entry below `root` where it is too short or
    unreadable.
    """
    if entry.kind == "videos":
        video.check_complete(entry.path)
        return video.decode(entry.path, start=numbers.start, frames=len(numbers), stride=numbers.step, decoder=decoder)
    if (count := count_frames(entry)) <= numbers[-1]:
        stride = f" at stride {numbers.step}" * (numbers.step > 1)
        raise MissingData(
            f"{root / entry.name if root else entry.path} has {text.count(count, 'frame')}, needs {len(numbers)} from "
            f"{numbers.start}{stride}: take it out or ask for fewer frames"
        )
    if entry.kind == "frames":
        return _image_frames(entry, numbers)
    return _shard_frames(entry, numbers) if entry.kind == "prepared" else _array_frames(entry, numbers)


def _check_request(folder: ClipFolder, index: int, frames: int, start: str, stride: int, drop_first: int) -> None:
    for name, value, least in (("frames", frames, 1), ("stride", stride, 1), ("drop_first", drop_first, 0)):
        if value < least:
            raise UserError(f"{name}={value}: at least {least} is needed to read clips of {folder.root}")
    if start not in START_CHOICES:
        raise UserError(f"start={start!r}: clips of {folder.root} start at one of {', '.join(START_CHOICES)}")
    if not 0 <= index < len(folder):
        raise IndexError(f"{folder.root} has {len(folder)} clips: no clip {index}")


def resolution(folder: ClipFolder) -> tuple[int, int]:
    """Height and width of the first clip, as displayed."""
    height, width = read_clip(folder, 0, frames=1).shape[-2:]
    return height, width


def read_features(folder: ClipFolder) -> Float[Tensor, "n dim"]:
    """Features of all files in the order of their entries, (N, D); raises `UserError` for a folder of clips."""
    if folder.kind != "features":
        raise UserError(f"{folder.root} holds {folder.kind}, not features: give a file of floats (N, D)")
    return torch.cat([_read_feature_file(path) for path in dict.fromkeys(entry.path for entry in folder.entries)])


def row_sources(folder: ClipFolder) -> list[tuple[Path, str, int]]:
    """The source of each row of features, equal for clips of one video where the file has `arrays.GROUPS`."""
    sources: list[tuple[Path, str, int]] = []
    for path in dict.fromkeys(entry.path for entry in folder.entries):
        file = arrays.examine(path)
        if file.grouped:
            with arrays.reading_errors(path), safe_open(path, framework="pt") as content:
                sources += [(path, "group", number) for number in content.get_tensor(arrays.GROUPS).tolist()]
        else:
            sources += [(path, "row", number) for number in range(file.shape[0])]
    return sources


def decoder_versions(folder: ClipFolder, decoder: str = "auto") -> str:
    """Names and versions of the libraries that decode these files; part of fingerprints."""
    if folder.kind == "videos":
        decoders = sorted({video.choose_decoder(entry.path, decoder) for entry in folder.entries})
        return ", ".join(map(video.decoder_version, decoders))
    jpeg = pillow.version("libjpeg_turbo") or pillow.version("jpg")
    return f"pillow {PIL.__version__} (libjpeg {jpeg})" if folder.kind == "frames" else "numpy"


def count_frames(entry: ClipFile) -> int:
    """Number of frames of an entry; for a video, the number its container declares (`vfbench.video.header`)."""
    return measure(entry)[0]


def measure(entry: ClipFile) -> tuple[int, int, int]:
    """Number of frames, height and width of an entry as displayed, without decoding the clip.

    Raises `MissingData` naming a file that cannot be read, and `UserError` for a file of features, which has no
    frames.
    """
    if entry.kind == "features":
        raise UserError(f"{entry.path} holds features, not clips: it has no frames to read")
    if entry.kind == "videos":
        video.check_complete(entry.path)
        header = video.header(entry.path)
        return header.frames, header.height, header.width
    if entry.kind == "frames":
        return _measure_images(entry)
    if entry.kind == "prepared":
        return entry.frames, *entry.size
    _, frames, height, width, _ = arrays.open_clips(entry.path).shape
    return frames, height, width


def _measure_images(entry: ClipFile) -> tuple[int, int, int]:
    files = frame_files(entry.path)
    if not files:
        raise MissingData(f"{entry.path} holds no image; get this clip again or take it out")
    height, width = read_image(files[0]).shape[:2]
    return len(files), height, width


def _array_frames(entry: ClipFile, numbers: range) -> UInt8[Tensor, "frames 3 height width"]:
    frames = arrays.open_clips(entry.path)[entry.row, numbers.start : numbers.stop : numbers.step]
    return torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).contiguous()


def _shard_frames(entry: ClipFile, numbers: range) -> UInt8[Tensor, "frames 3 height width"]:
    """Frames of a prepared video; `entry.row` is its first frame in the shard (N, 3, H, W)."""
    first = entry.row + numbers.start
    last = entry.row + numbers[-1] + 1
    return torch.from_numpy(np.array(arrays.open_shard(entry.path)[first : last : numbers.step]))


def _image_frames(entry: ClipFile, numbers: range) -> UInt8[Tensor, "frames 3 height width"]:
    all_files = frame_files(entry.path)
    files = [all_files[i] for i in numbers]
    images = [read_image(file) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            sizes = " and ".join(f"{each.shape[1]}x{each.shape[0]}" for each in (images[0], image))
            raise MissingData(f"{file}: the frame size changes within the clip, {sizes}; make this clip again")
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _read_feature_file(path: Path) -> Float[Tensor, "n dim"]:
    """Features of a file, (N, D) float32 or float64; raises `MissingData` naming the first row that is not finite."""
    file = arrays.examine(path)
    with arrays.reading_errors(path):
        if path.suffix.lower() == ".safetensors":
            with safe_open(path, framework="pt") as content:
                features: Tensor = content.get_tensor(file.name)
        else:
            features = torch.from_numpy(np.array(arrays.open_clips(path), dtype=file.dtype))
    features = features if features.dtype == torch.float64 else features.float()
    if bad := (~torch.isfinite(features)).any(dim=1).nonzero()[:, 0].tolist():
        raise MissingData(f"{path}: row {bad[0]} holds NaN or infinity ({len(bad)} such rows): extract these again")
    return features
