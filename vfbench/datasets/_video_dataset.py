"""Real videos as a dataset: what the readers of all real datasets share. A reader finds the files, this cuts them."""

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

from vfbench import clips as folders
from vfbench import video
from vfbench.clips import ClipFolder, prepared
from vfbench.clips.inventory import Inventory
from vfbench.clips.transform import Box, ClipTransform, WindowIndex, clip_starts, name_hash
from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import Clips, Place, Split, derive_seed
from vfbench.utils.device import cores
from vfbench.utils.prefetch import ahead

SHORT = ("refuse", "skip")
CROPS = ("random", "centre")  # of training clips
_LOOKING = threading.Lock()


class Videos:
    """The videos of an inventory as clips of one cut; `note` says what a reader must know of them.

    By default each video gives one clip, which begins where a hash of its name says. With `short` at `skip`, videos
    without room for a clip are left out, and counted in the note; else they are refused, naming them. `decoder` reads
    video files: see `vfbench.video.decode`.
    """

    def __init__(
        self, inventory: Inventory, cut: ClipTransform, *, short: str = "refuse", decoder: str = "auto"
    ) -> None:
        if short not in SHORT:
            raise UserError(f"{cut.dataset}(short={short!r}): short must be one of {', '.join(SHORT)}")
        if decoder not in video.DECODERS:
            raise unknown("decoder", decoder, video.DECODERS)
        if inventory.fitted:
            _require_fitted(inventory, cut, decoder)
            prepared.require_whole(next(iter(inventory.splits.values())).root)
        self.name, self.shape, self.stride = cut.dataset, cut.shape, cut.stride
        self.inventory, self.classes = inventory, inventory.classes
        self.words = tuple(sorted({word for name in self.classes for word in folders.in_words(name).split()}))
        self._cut, self._short, self._decoder = cut, short, decoder
        self._labels = {name: label for label, name in enumerate(self.classes)}
        self._found: dict[Split, ClipFolder] = dict(inventory.splits)
        self._windows: dict[Split, WindowIndex | list[tuple[int, int, Box]]] = {}
        self._left_out: list[tuple[Split, str]] = []
        notes = [inventory.note]
        if cut.several or short == "skip":
            notes += [self._lay_out(split) for split in inventory.splits]
        self.note = "; ".join(filter(None, notes))

    def _lay_out(self, split: Split) -> str:
        """Keep the videos with room for a clip, find the windows if there are several; the note on those left out."""
        found = self._found[split]
        there = list(zip(found.entries, (count for count, _, _ in folders.measures(found.entries)), strict=True))
        short = [f"{entry.name} ({count})" for entry, count in there if count < self._cut.span]
        said = (
            f"{len(short):,} of {len(there):,} {split} videos have fewer frames than the {self._cut.span} that a clip "
            f"needs: {folders.few(short)}"
        )
        if short and self._short == "refuse":
            raise MissingData(f"{self.name}: {said}; take them out or ask for fewer, since none is repeated")
        self._left_out += [(split, entry.name) for entry, count in there if count < self._cut.span]
        there = [(entry, count) for entry, count in there if count >= self._cut.span]
        self._found[split] = replace(found, entries=tuple(entry for entry, _ in there))
        if self._cut.several:
            counts = [count for _, count in there]
            self._windows[split] = WindowIndex(self._cut, [entry.name for entry, _ in there], counts)
        return f"left out: {said}" if short else ""

    def size(self, split: Split) -> int:
        """How many clips the split holds."""
        if split in self._windows:
            return len(self._windows[split])
        return len(self._found[split]) if split in self._found else 0

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Clips:
        """The clips at `indices`, uint8 (B, T, 3, H, W), resized on the CPU so that no device changes a pixel.

        They are read by as many threads as there are cores. Raises `MissingData` naming the first clip that is cut off,
        damaged or too short, and IndexError.
        """
        rows = [self._at(split, index) for index in indices]
        workers = min(len(rows), cores())
        with closing(
            ahead(lambda row: self._clip(split, *rows[row]), range(len(rows)), workers=workers, depth=2 * workers + 1)
        ) as made:
            clips = list(made)
        empty = torch.empty((0, self.shape.frames, 3, self.shape.height, self.shape.width), dtype=torch.uint8)
        return (torch.stack(clips) if clips else empty).to(device)

    def draw(
        self, split: Split, indices: Sequence[int], seeds: Sequence[int], *, crop: str = "random", flip: bool = True
    ) -> Clips:
        """Training clips from the videos of the clips at `indices`, uint8 (B, T, 3, H, W), each drawn by its own seed.

        A clip begins at any place with room for it and shows any part of the picture that is as large as the usual box,
        or that box itself with `crop` at `centre`; with `flip`, half of the clips are mirrored. What was prepared has
        lost what stood around its box. Raises `MissingData` naming a video that is damaged or too short, `UserError`
        for another `crop`, or one at random of what was prepared, and IndexError.
        """
        if crop not in CROPS:
            raise UserError(f"crop={crop!r}: the crop of training clips must be one of {', '.join(CROPS)}")
        if crop == "random" and self.inventory.fitted:
            raise UserError(f"crop='random': {self.name} was prepared, and cropped: say crop='centre'")
        clips = [
            self._drawn(split, self._at(split, index)[0], seed, crop, flip)
            for index, seed in zip(indices, seeds, strict=True)
        ]
        empty = torch.empty((0, self.shape.frames, 3, self.shape.height, self.shape.width), dtype=torch.uint8)
        return torch.stack(clips) if clips else empty

    def labels(self, split: Split, indices: Sequence[int]) -> list[int]:
        """The class of each clip, an index into `classes`."""
        return [self._labels[self._found[split].entries[number].group] for number in self.videos(split, indices)]

    def captions(self, split: Split, indices: Sequence[int]) -> list[str]:
        """The class of each clip in words: `apply eye makeup` for `ApplyEyeMakeup` or `apply_eye_makeup`."""
        return [folders.in_words(self.classes[label]) for label in self.labels(split, indices)]

    def names(self, split: Split) -> list[str]:
        """The name of each clip's video."""
        entries = self._found[split].entries if split in self._found else ()
        return [entries[number].name for number in self.videos(split, range(self.size(split)))]

    def videos(self, split: Split, indices: Sequence[int]) -> list[int]:
        """The number of the video that each clip is cut from."""
        return [self._at(split, index)[0] for index in indices]

    def keys(self, split: Split, seed: int) -> UInt64[np.ndarray, " clips"]:
        """What each clip is drawn by: 64 bits of its video's name and the seed, whatever other videos there are."""
        if isinstance(windows := self._windows.get(split), WindowIndex):
            return windows.keys(seed)
        return np.array([name_hash(name, seed) for name in self.names(split)], dtype=np.uint64)

    def places(self, split: Split, indices: Sequence[int], seed: int = 0) -> list[Place]:
        """Where the clips at `indices` come from; a start that is drawn is drawn by the seed, 0 for `clips`."""
        rows = [self._at(split, index) for index in indices]
        entries = [self._found[split].entries[number] for number, _, _ in rows]
        found = []
        for entry, (_, start, box), (count, *size) in zip(entries, rows, folders.measures(entries), strict=True):
            first = self._cut.clip_starts(entry.name, count, seed)[0] if start is None else start
            found.append(Place(split, entry.name, first, self.stride, box or self._cut.box(*size)))
        return found

    def at(self, places: Sequence[Place]) -> Videos:
        """The same videos, of which each split has the clips at these places, in their order.

        Raises `MissingData` naming videos that are not here, or shorter or smaller than their clip, and `UserError` for
        frames that are otherwise apart.
        """
        numbers = {
            (split, entry.name): number
            for split, side in self._found.items()
            for number, entry in enumerate(side.entries)
        }
        if gone := [f"{place.video} of {place.split}" for place in places if (place.split, place.video) not in numbers]:
            where = next(iter(self._found.values())).root
            raise MissingData(f"{len(gone):,} of {len(places):,} videos are not in {where}: {folders.few(gone)}")
        if other := [place for place in places if place.stride != self.stride]:
            raise UserError(
                f"{self.name}: frames of {other[0].video} are {other[0].stride} apart in the list of clips, "
                f"{self.stride} here: say {self.name}(stride={other[0].stride})"
            )
        entries = [self._found[place.split].entries[numbers[place.split, place.video]] for place in places]
        for place, size in zip(places, folders.measures(entries), strict=True):
            self._require_within(place, *size)
        view = copy.copy(self)
        view._windows = {split: [] for split in self._found}
        for place in places:
            window = numbers[place.split, place.video], place.start, place.crop
            view._windows[place.split].append(window)  # type: ignore[union-attr]  # it is a list
        return view

    def _require_within(self, place: Place, count: int, height: int, width: int) -> None:
        left, top, wide, tall = place.crop
        last = place.start + (self.shape.frames - 1) * place.stride
        if last >= count or left + wide > width or top + tall > height:
            raise MissingData(
                f"{self._found[place.split].base / place.video} has {count} frames of {width}x{height}, needs frames "
                f"{place.start} to {last}, cropped to {wide}x{tall} at ({left}, {top}): take it out, say "
                f"{self.name}(short='skip'), or mend the list of clips"
            )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the files, of all that cuts and scales them, and of the decoder. Read when first asked.

        What can escape is said by `vfbench.clips.manifest`.
        """
        digest = hashlib.sha256(self._cut.text().encode())
        for split, name in self._left_out:
            digest.update(f"\nwithout {split} {name}".encode(errors="surrogateescape"))
        for split in self.inventory.splits:
            digest.update(f"\n{split} {self.inventory.identity(split, self._decoder)}".encode())
        return digest.hexdigest()

    def _drawn(
        self, split: Split, number: int, seed: int, crop: str, flip: bool
    ) -> UInt8[Tensor, "frames 3 height width"]:
        entry, (count, height, width) = self._found[split].entries[number], self._measured(split)[number]
        length = {"frames": self.shape.frames, "stride": self.stride, "drop_first": self._cut.drop_first}
        if not (places := clip_starts("every", entry.name, count, **length)):
            raise MissingData(
                f"{self._found[split].base / entry.name} has {count} frames, fewer than the {self._cut.span} that a "
                f"clip needs: say {self.name}(short='skip'), or take it out, since none is repeated"
            )
        left, top, *sides = self._cut.box(height, width)
        if crop == "random":
            left = derive_seed(seed, 0, "left") % (width - sides[0] + 1)
            top = derive_seed(seed, 0, "top") % (height - sides[1] + 1)
        start = places[derive_seed(seed, 0, "start") % len(places)]
        clip = self._clip(split, number, start, (left, top, sides[0], sides[1]))
        return clip.flip(-1) if flip and derive_seed(seed, 0, "flip") % 2 else clip

    def _measured(self, split: Split) -> list[tuple[int, int, int]]:
        """Frames, height and width of every video of a split; they are looked up once, whichever thread is first."""
        with _LOOKING:
            if split not in self._sizes:
                self._sizes[split] = folders.measures(self._found[split].entries)
            return self._sizes[split]

    @cached_property
    def _sizes(self) -> dict[Split, list[tuple[int, int, int]]]:
        return {}

    def _at(self, split: Split, index: int) -> tuple[int, int | None, Box | None]:
        """The number of a clip's video, its first frame and its box, as far as they are settled."""
        if not 0 <= index < self.size(split):
            raise IndexError(f"{self.name} has {self.size(split)} {split} clips: no clip {index}")
        if split not in self._windows:
            return index, None, None
        number, start, *box = self._windows[split][index]
        return number, start, box[0] if box else None

    def _clip(
        self, split: Split, number: int, start: int | None, box: Box | None
    ) -> UInt8[Tensor, "frames 3 height width"]:
        found, cut = self._found[split], self._cut
        entry = found.entries[number]
        if start is None:
            there = folders.count(entry) if cut.start == "hashed" else 0
            (start,) = cut.clip_starts(entry.name, there)
        wanted = range(start, start + cut.shape.frames * cut.stride, cut.stride)
        images = folders.read(entry, wanted, root=found.base, decoder=self._decoder)
        if entry.kind != "prepared":
            return cut.fit(images, str(found.base / entry.name), box)
        if box not in (None, cut.box(*entry.size)):
            raise UserError(f"{found.base / entry.name} was prepared with another crop than {box}: read its own files")
        return images


def _require_fitted(inventory: Inventory, cut: ClipTransform, decoder: str) -> None:
    """Raise `UserError` where prepared videos are asked for otherwise than they are."""
    where = next(iter(inventory.splits.values())).root
    there, asked = (inventory.fitted, inventory.decoder), (cut.fitting, decoder)
    if there != asked:
        said = [", decoder ".join(each) for each in (there, asked)]
        raise UserError(
            f"{where} was prepared as {said[0]}; asked for: {said[1]}; say so in the options of {cut.dataset}, or "
            "prepare another folder (python -m vfbench data prepare --help)"
        )
