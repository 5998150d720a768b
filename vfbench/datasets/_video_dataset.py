"""Base of all datasets of real videos: clips cut from the files that a dataset module finds."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import UInt8, UInt64
from torch import Tensor

from vfbench import video
from vfbench.clips import ClipFolder, class_caption, count_frames, first_few, measure_all, prepared, read_frames
from vfbench.clips.inventory import Inventory
from vfbench.clips.starts import WindowIndex, clip_starts, name_hash
from vfbench.clips.transform import Box, ClipTransform, Corner
from vfbench.datasets._options import SHORT_CHOICES
from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import Clips, Place, Split, derive_seed
from vfbench.protocol.protocol import HASHED_STARTS
from vfbench.utils import text
from vfbench.utils.device import available_cores
from vfbench.utils.prefetch import prefetch

CROPS = ("random", "centre")  # of training clips
_MEASURE_LOCK = threading.Lock()


class VideoDataset:
    """Dataset of the videos of an inventory, cut and resized by one transform; `note` has what a reader must know.

    By default each video gives one clip, whose start is a hash of the video's name. `short` is `refuse`, to raise for
    videos too short for a clip, or `skip`, to leave them out and count them in the note. `decoder` is one of
    `vfbench.video.DECODERS`. Raises `UserError` for another `short` or `decoder`, and for prepared videos of another
    size, geometry or decoder; `MissingData` for refused videos and damaged prepared shards.
    """

    def __init__(
        self, inventory: Inventory, transform: ClipTransform, *, short: str = "refuse", decoder: str = "auto"
    ) -> None:
        if short not in SHORT_CHOICES:
            raise UserError(f"{transform.dataset}(short={short!r}): short must be one of {', '.join(SHORT_CHOICES)}")
        if decoder not in video.DECODERS:
            raise unknown("decoder", decoder, video.DECODERS)
        if inventory.fitted:
            _require_same_preparation(inventory, transform, decoder)
            prepared.require_intact(next(iter(inventory.splits.values())).root)
        self.name, self.shape, self.stride = transform.dataset, transform.shape, transform.stride
        self.inventory, self.classes = inventory, inventory.classes
        self.words = tuple(sorted({word for name in self.classes for word in class_caption(name).split()}))
        self._transform, self._short, self._decoder = transform, short, decoder
        self._labels = {name: label for label, name in enumerate(self.classes)}
        self._folders: dict[Split, ClipFolder] = dict(inventory.splits)
        self._windows: dict[Split, WindowIndex | list[tuple[int, int, Box]]] = {}
        self._skipped: list[tuple[Split, str]] = []
        notes = [inventory.note]
        if transform.multi_clip or short == "skip":
            notes += [self._select_videos(split) for split in inventory.splits]
        self.note = "; ".join(filter(None, notes))

    def _select_videos(self, split: Split) -> str:
        """Keep the videos long enough for a clip, index their clips if there are several; returns a note on the rest.

        Raises `MissingData` for short videos with `short` at `refuse`.
        """
        folder, span = self._folders[split], self._transform.span
        counts = [count for count, _, _ in measure_all(folder.entries)]
        counted = list(zip(folder.entries, counts, strict=True))
        short = [f"{entry.name} ({count})" for entry, count in counted if count < span]
        note = (
            f"{len(short):,} of {len(counted):,} {split} videos have fewer frames than the {span} that a clip needs: "
            f"{first_few(short)}"
        )
        if short and self._short == "refuse":
            raise MissingData(f"{self.name}: {note}; say {self.name}(short='skip'), or ask for fewer frames")
        self._skipped += [(split, entry.name) for entry, count in counted if count < span]
        counted = [(entry, count) for entry, count in counted if count >= span]
        self._folders[split] = replace(folder, entries=tuple(entry for entry, _ in counted))
        if self._transform.multi_clip:
            names = [entry.name for entry, _ in counted]
            self._windows[split] = WindowIndex(self._transform, names, [count for _, count in counted])
        return f"left out: {note}" if short else ""

    def size(self, split: Split) -> int:
        """Number of clips in the split."""
        if split in self._windows:
            return len(self._windows[split])
        return len(self._folders[split]) if split in self._folders else 0

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Clips:
        """Clips at `indices`, uint8 (B, T, 3, H, W) on `device`, resized on the CPU so that pixels never depend on it.

        Reads with one thread per core. Raises `MissingData` naming the first clip that is cut off, damaged or too
        short, and IndexError.
        """
        windows = [self._window(split, index) for index in indices]
        workers = min(len(windows), available_cores())
        depth = 2 * workers + 1
        reads = prefetch(
            lambda i: self._read_clip(split, *windows[i]), range(len(windows)), workers=workers, depth=depth
        )
        with closing(reads):
            return self._stack(list(reads)).to(device)

    def draw(
        self, split: Split, indices: Sequence[int], seeds: Sequence[int], *, crop: str = "random", flip: bool = True
    ) -> Clips:
        """Random training clips, uint8 (B, T, 3, H, W), one from the video of each clip at `indices`, each with a seed.

        The start is random. `crop` is `random`, one of the usual size anywhere in the frame, or `centre`, the usual
        box. `flip` mirrors half of the clips. Prepared videos are cropped already. Raises `MissingData` naming a video
        that is damaged or too short, `UserError` for another `crop` or a random one of prepared videos, and IndexError.
        """
        if crop not in CROPS:
            raise UserError(f"crop={crop!r}: the crop of training clips must be one of {', '.join(CROPS)}")
        if crop == "random" and self.inventory.fitted:
            raise UserError(f"crop='random': {self.name} was prepared, and cropped: say crop='centre'")
        clips = [
            self._random_clip(split, self._window(split, index)[0], seed, crop, flip)
            for index, seed in zip(indices, seeds, strict=True)
        ]
        return self._stack(clips)

    def labels(self, split: Split, indices: Sequence[int]) -> list[int]:
        """Class of each clip, an index into `classes`."""
        numbers = self.videos(split, indices)
        return [self._labels[self._folders[split].entries[number].class_name] for number in numbers]

    def captions(self, split: Split, indices: Sequence[int]) -> list[str]:
        """Class of each clip in words: `apply eye makeup` for `ApplyEyeMakeup` or `apply_eye_makeup`."""
        return [class_caption(self.classes[label]) for label in self.labels(split, indices)]

    def names(self, split: Split) -> list[str]:
        """Name of each clip's video."""
        entries = self._folders[split].entries if split in self._folders else ()
        return [entries[number].name for number in self.videos(split, range(self.size(split)))]

    def videos(self, split: Split, indices: Sequence[int]) -> list[int]:
        """Number of each clip's video in the split."""
        return [self._window(split, index)[0] for index in indices]

    def keys(self, split: Split, seed: int) -> UInt64[np.ndarray, " clips"]:
        """Sort key of each clip: 64-bit hash of video name and seed, independent of the other videos."""
        if isinstance(windows := self._windows.get(split), WindowIndex):
            return windows.sort_keys(seed)
        return np.array([name_hash(name, seed) for name in self.names(split)], dtype=np.uint64)

    def places(self, split: Split, indices: Sequence[int], seed: int = 0) -> list[Place]:
        """Video, start, stride and crop of each clip at `indices`; random starts use `seed`, 0 for those of `clips`."""
        windows = [self._window(split, index) for index in indices]
        entries = [self._folders[split].entries[number] for number, _, _ in windows]
        places = []
        for entry, (_, start, box), (count, *size) in zip(entries, windows, measure_all(entries), strict=True):
            first = self._transform.clip_starts(entry.name, count, seed)[0] if start is None else start
            places.append(Place(split, entry.name, first, self.stride, box or self._transform.box(*size)))
        return places

    def clip_rate(self) -> float | None:
        """Frames of a clip per second, by the first video; None for frame folders and arrays."""
        entry = next(entry for folder in self._folders.values() for entry in folder.entries)
        rate = video.header(entry.path).rate if entry.kind == "videos" else entry.rate
        return rate / self.stride if rate else None

    def at(self, places: Sequence[Place]) -> VideoDataset:
        """View of the dataset whose clips are those at `places`, in their order.

        Raises `MissingData` naming videos that are absent, too short or too small, and `UserError` for another stride.
        """
        numbers = {
            (split, entry.name): number
            for split, folder in self._folders.items()
            for number, entry in enumerate(folder.entries)
        }
        missing = [f"{place.video} of {place.split}" for place in places if (place.split, place.video) not in numbers]
        if missing:
            root, names = next(iter(self._folders.values())).root, first_few(missing)
            raise MissingData(f"{len(missing):,} of {len(places):,} videos are not in {root}: {names}")
        if other := [place for place in places if place.stride != self.stride]:
            raise UserError(
                f"{self.name}: frames of {other[0].video} are {other[0].stride} apart in the list of clips, "
                f"{self.stride} here: say {self.name}(stride={other[0].stride})"
            )
        entries = [self._folders[place.split].entries[numbers[place.split, place.video]] for place in places]
        for place, size in zip(places, measure_all(entries), strict=True):
            self._require_inside(place, *size)
        view = copy.copy(self)
        view._windows = {split: [] for split in self._folders}
        for place in places:
            window = numbers[place.split, place.video], place.start, place.crop
            view._windows[place.split].append(window)  # type: ignore[union-attr]  # it is a list
        return view

    def _require_inside(self, place: Place, count: int, height: int, width: int) -> None:
        """Raise `MissingData` for a clip that exceeds its video of `count` frames of this height and width."""
        left, top, crop_width, crop_height = place.crop
        last = place.start + (self.shape.frames - 1) * place.stride
        if last >= count or left + crop_width > width or top + crop_height > height:
            raise MissingData(
                f"{self._folders[place.split].base / place.video} has {text.count(count, 'frame')} of "
                f"{width}x{height}, needs frames {place.start} to {last}, cropped to {crop_width}x{crop_height} at "
                f"({left}, {top}): take it out, say {self.name}(short='skip'), or correct the list of clips"
            )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the files, the transform, the skipped videos and the decoder; reads files on first access.

        `vfbench.clips.content_hash` says which changes it cannot detect.
        """
        digest = hashlib.sha256(self._transform.fingerprint().encode())
        for split, name in self._skipped:
            digest.update(f"\nwithout {split} {name}".encode(errors="surrogateescape"))
        for split in self.inventory.splits:
            digest.update(f"\n{split} {self.inventory.identity(split, self._decoder)}".encode())
        return digest.hexdigest()

    def _random_clip(
        self, split: Split, number: int, seed: int, crop: str, flip: bool
    ) -> UInt8[Tensor, "frames 3 height width"]:
        entry, (count, height, width) = self._folders[split].entries[number], self._measure_split(split)[number]
        length = {"frames": self.shape.frames, "stride": self.stride, "drop_first": self._transform.drop_first}
        if not (starts := clip_starts("every", entry.name, count, **length)):
            raise MissingData(
                f"{self._folders[split].base / entry.name} has {text.count(count, 'frame')}, fewer than the "
                f"{self._transform.span} that a clip needs: say {self.name}(short='skip'), or take it out"
            )
        if crop == "random":
            box, corner = self._transform.random_crop(height, width, seed)
        else:
            box, corner = self._transform.box(height, width), None
        start = starts[derive_seed(seed, 0, "start") % len(starts)]
        clip = self._read_clip(split, number, start, box, corner)
        return clip.flip(-1) if flip and derive_seed(seed, 0, "flip") % 2 else clip

    def _measure_split(self, split: Split) -> list[tuple[int, int, int]]:
        """Frames, height and width of every video of a split, measured once across all threads."""
        with _MEASURE_LOCK:
            if split not in self._measures:
                self._measures[split] = measure_all(self._folders[split].entries)
            return self._measures[split]

    @cached_property
    def _measures(self) -> dict[Split, list[tuple[int, int, int]]]:
        return {}

    def _window(self, split: Split, index: int) -> tuple[int, int | None, Box | None]:
        """Video number, first frame and crop box of a clip; None where the transform decides the first frame or box."""
        if not 0 <= index < self.size(split):
            raise IndexError(f"{self.name} has {self.size(split)} {split} clips: no clip {index}")
        if split not in self._windows:
            return index, None, None
        number, start, *box = self._windows[split][index]
        return number, start, box[0] if box else None

    def _read_clip(
        self, split: Split, number: int, start: int | None, box: Box | None, corner: Corner | None = None
    ) -> UInt8[Tensor, "frames 3 height width"]:
        folder, transform = self._folders[split], self._transform
        entry = folder.entries[number]
        if start is None:
            count = count_frames(entry) if transform.start in HASHED_STARTS else 0  # other starts ignore it
            (start,) = transform.clip_starts(entry.name, count)
        frames = range(start, start + transform.shape.frames * transform.stride, transform.stride)
        images = read_frames(entry, frames, root=folder.base, decoder=self._decoder)
        if entry.kind != "prepared":
            return transform.fit(images, str(folder.base / entry.name), box, corner)
        if box not in (None, transform.box(*entry.size)):
            raise UserError(f"{folder.base / entry.name} was prepared with another crop than {box}: give its own files")
        return images

    def _stack(self, clips: Sequence[UInt8[Tensor, "frames 3 height width"]]) -> Clips:
        if clips:
            return torch.stack(list(clips))
        return torch.empty((0, self.shape.frames, 3, self.shape.height, self.shape.width), dtype=torch.uint8)


def _require_same_preparation(inventory: Inventory, transform: ClipTransform, decoder: str) -> None:
    """Raise `UserError` for prepared videos of another size, geometry, filter or decoder than asked for."""
    root = next(iter(inventory.splits.values())).root
    if (inventory.fitted, inventory.decoder) != (transform.fitting, decoder):
        raise UserError(
            f"{root} was prepared as {inventory.fitted}, decoder {inventory.decoder}; asked for: {transform.fitting}, "
            f"decoder {decoder}; change the options of {transform.dataset}, or prepare another folder "
            "(python -m vfbench data prepare --help)"
        )
