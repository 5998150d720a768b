"""Folder: any folder of clips as a dataset, whatever layout `vfbench.folders` finds in it.

Where there are folders `train` and `test`, each is a split; else all clips are in `train`. A class level gives the
classes. No captions are known, so the caption of a clip is its class in words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from vfbench import folders
from vfbench.cut import Cut
from vfbench.errors import MissingData, UserError
from vfbench.folders import Found
from vfbench.interfaces import Clips, ClipShape, Dataset, Split
from vfbench.windows import Windows, frame_counts

SPLITS: tuple[Split, ...] = ("train", "test")
CLASS = "clip"  # of clips without a class


def build(
    *,
    root: str | None = None,
    frames: int = 16,
    height: int | None = None,
    width: int | None = None,
    stride: int = 1,
    drop_first: int = 0,
    start: str = "zero",
    geometry: str = "centre-crop",
    filter: str = "bilinear",
    antialias: bool = True,
    listing: str | None = None,
) -> Dataset:
    """The clips below `root`, `frames` frames `stride` apart, by default cropped to the centred square and resized.

    `height` and `width` are by default the short side of the first clip, or its own with geometry `native`; `listing`
    names the clips that count (see `vfbench.folders`). The other options are those of `vfbench.cut`; with start `every`
    or `chunks` the frames of every clip below `root` are counted first, once. Raises `MissingData` for a folder that is
    not given, holds no clips of one layout, or such as are too short to be cut, and `UserError` for an impossible
    option.
    """
    shape = ClipShape(frames, 1 if height is None else height, 1 if width is None else width)
    cut = Cut("folder", shape, stride, drop_first, start, geometry, filter, antialias)
    if not root:
        raise MissingData("folder: which one? Repeat your command with --data-root DIR")
    found, note = _splits(Path(root).expanduser(), listing)
    if height is None or width is None:
        tall, wide = folders.resolution(next(iter(found.values())))
        side = (tall, wide) if geometry == "native" else (min(tall, wide),) * 2
        cut = replace(cut, shape=ClipShape(frames, height or side[0], width or side[1]))
    return Folder(found, cut, note)


class Folder:
    """Found clips as a dataset; `note` says what stands in which split, and what was found besides."""

    name = "folder"

    def __init__(self, found: Mapping[Split, Found], cut: Cut, note: str) -> None:
        self.shape, self.stride, self.note = cut.shape, cut.stride, note
        self._found, self._cut = found, cut
        self._windows = {split: _windows(cut, side) for split, side in found.items()} if cut.several else {}
        groups = {entry.group or CLASS for side in found.values() for entry in side.entries}
        self.classes = tuple(sorted(groups, key=folders.natural))
        self.words = tuple(sorted({word for name in self.classes for word in folders.in_words(name).split()}))

    def size(self, split: Split) -> int:
        """How many clips the split holds."""
        parts: Mapping[Split, Sized] = self._windows or self._found
        return len(parts[split]) if split in parts else 0

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Clips:
        """The clips at `indices`, uint8 (B, T, 3, H, W), resized on the CPU so that no device changes a pixel.

        Raises `MissingData` naming the first clip that is damaged or too short, and IndexError.
        """
        clips = [self._clip(split, *self._place(split, index)) for index in indices]
        empty = torch.empty((0, self.shape.frames, 3, self.shape.height, self.shape.width), dtype=torch.uint8)
        return (torch.stack(clips) if clips else empty).to(device)

    def labels(self, split: Split, indices: Sequence[int]) -> list[int]:
        """The class of each clip, an index into `classes`."""
        numbers = self.videos(split, indices)
        return [self.classes.index(self._found[split].entries[number].group or CLASS) for number in numbers]

    def captions(self, split: Split, indices: Sequence[int]) -> list[str]:
        """The class of each clip in words: `apply eye makeup` for `ApplyEyeMakeup` or `apply_eye_makeup`."""
        return [folders.in_words(self.classes[label]) for label in self.labels(split, indices)]

    def names(self, split: Split) -> list[str]:
        """The path of each clip's video below the folder, or below that of its split."""
        entries = self._found[split].entries if split in self._found else ()
        return [entries[number].name for number in self.videos(split, range(self.size(split)))]

    def videos(self, split: Split, indices: Sequence[int]) -> list[int]:
        """The number of the video, frame folder or array clip that each clip is cut from."""
        return [self._place(split, index)[0] for index in indices]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the manifests of all clips, of all that cuts and scales them, and of the decoder.

        Read when first asked; what can escape is said by `vfbench.folders.manifest`.
        """
        digest = hashlib.sha256(self._cut.text().encode())
        for split, found in self._found.items():
            digest.update(f"\n{split} {folders.decoder(found)} {folders.manifest(found)}".encode())
        return digest.hexdigest()

    def _place(self, split: Split, index: int) -> tuple[int, int | None]:
        """The number of a clip's video, and its first frame where that is known before the video is read."""
        if not 0 <= index < self.size(split):
            raise IndexError(f"folder has {self.size(split)} {split} clips: no clip {index}")
        return self._windows[split][index] if self._windows else (index, None)

    def _clip(self, split: Split, number: int, first: int | None) -> UInt8[Tensor, "frames 3 height width"]:
        found, cut = self._found[split], self._cut
        start, drop_first = (cut.start, cut.drop_first) if first is None else ("zero", first)
        images = folders.clip(
            found, number, frames=cut.shape.frames, start=start, stride=cut.stride, drop_first=drop_first
        )
        return cut.fit(images, str(found.base / found.entries[number].name))


def _windows(cut: Cut, found: Found) -> Windows:
    names = [entry.name for entry in found.entries]
    if found.kind == "videos":
        return Windows(cut, names, frame_counts([entry.path for entry in found.entries]))
    return Windows(cut, names, [folders.count(found.kind, entry) for entry in found.entries])


def _splits(root: Path, listing: str | None) -> tuple[dict[Split, Found], str]:
    """The clips of each split that there is, and a note on them."""
    parts = [split for split in SPLITS if (root / split).is_dir()]
    if not parts:
        found = folders.detect(root, listing=listing)
        return _clips({"train": found}), "; ".join(["all clips are in split train", *found.notes])
    if listing:
        raise UserError(
            f"folder(listing={listing!r}): {root} has splits of its own ({', '.join(parts)}): "
            f"give one of these folders instead, such as --data-root {root / parts[0]}"
        )
    both = {split: folders.detect(root / split) for split in parts}
    beside = sorted(path.name for path in root.iterdir() if path.name not in SPLITS)
    notes = [f"beside {' and '.join(parts)}, not scored: {', '.join(beside)}"] if beside else []
    return _clips(both), "; ".join([*notes, *(f"{split}: {note}" for split in parts for note in both[split].notes)])


def _clips(found: dict[Split, Found]) -> dict[Split, Found]:
    for side in found.values():
        if side.kind == "features":
            raise MissingData(f"{side.root} holds features ({side.entries[0].path.name}), needed: clips")
    return found
