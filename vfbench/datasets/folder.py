"""Folder: any folder of clips as a dataset, whatever layout `vfbench.clips` finds in it.

Where there are folders `train` and `test`, each is a split; else all clips are in `train`. A class level gives the
classes. No captions are known, so the caption of a clip is its class in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vfbench import clips
from vfbench.clips import ClipFile, ClipFolder, prepared
from vfbench.clips.inventory import Inventory
from vfbench.clips.layout import TITLES
from vfbench.clips.transform import ClipTransform
from vfbench.datasets._video_dataset import Videos
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape, Dataset, Split

SPLITS: tuple[Split, ...] = ("train", "test")
CLASS = "clip"  # of clips without a class

HOW_TO_GET = "Repeat your command with --data-root DIR, any folder of videos, frame folders or .npy and .npz files"


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
    short: str = "refuse",
    decoder: str = "auto",
) -> Dataset:
    """The clips below `root`, `frames` frames `stride` apart, by default cropped to the centred square and resized.

    `height` and `width` are by default the short side of the first clip, or its own with geometry `native`; `listing`
    names the clips that count (see `vfbench.clips`). With `short` at `skip`, videos too short for a clip are left
    out. `decoder` is that of `vfbench.video.decode`, the other options are those of `vfbench.clips.transform`. Raises
    `MissingData`
    for a folder that is not given, holds no clips of one layout, or such as are too short to be cut, and `UserError`
    for an impossible option.
    """
    shape = ClipShape(frames, 1 if height is None else height, 1 if width is None else width)
    cut = ClipTransform("folder", shape, stride, drop_first, start, geometry, filter, antialias)
    inventory = find(root, listing=listing)
    if height is None or width is None:
        tall, wide = clips.resolution(next(iter(inventory.splits.values())))
        side = (tall, wide) if geometry == "native" else (min(tall, wide),) * 2
        cut = replace(cut, shape=ClipShape(frames, height or side[0], width or side[1]))
    return Videos(inventory, cut, short=short, decoder=decoder)


def find(root: str | None = None, *, listing: str | None = None) -> Inventory:
    """The clips below `root`; raises `MissingData` for a folder that is not given or holds no clips of one layout."""
    if not root:
        raise MissingData(f"folder: which one? {HOW_TO_GET}")
    place = Path(root).expanduser()
    if made := prepared.inventory(place, "folder", listing=listing):
        return made
    splits, note = _splits(place, listing)
    entries = [entry for side in splits.values() for entry in side.entries]
    classes = tuple(sorted({entry.group for entry in entries}, key=clips.natural))
    return Inventory("folder", _layout(splits), "a folder of clips", splits, classes, notes=(note,) if note else ())


def _layout(splits: Mapping[Split, ClipFolder]) -> str:
    """The layout in words, such as `train/test frame folders, by class`."""
    kinds = " and ".join(dict.fromkeys(TITLES[found.kind] for found in splits.values()))
    classed = any(entry.group != CLASS for found in splits.values() for entry in found.entries)
    return f"{'train/test ' * (len(splits) > 1)}{kinds}{', by class' * classed}"


def _splits(root: Path, listing: str | None) -> tuple[dict[Split, ClipFolder], str]:
    """The clips of each split that there is, and a note on them."""
    parts = [split for split in SPLITS if (root / split).is_dir()]
    if not parts:
        found = clips.detect(root, listing=listing)
        return _clips({"train": found}), "; ".join(["all clips are in split train", *found.notes])
    if listing:
        raise UserError(
            f"folder(listing={listing!r}): {root} has splits of its own ({', '.join(parts)}): "
            f"give one of these folders instead, such as --data-root {root / parts[0]}"
        )
    both = {split: clips.detect(root / split) for split in parts}
    beside = sorted(path.name for path in root.iterdir() if path.name not in SPLITS)
    notes = [f"beside {' and '.join(parts)}, not scored: {', '.join(beside)}"] if beside else []
    return _clips(both), "; ".join([*notes, *(f"{split}: {note}" for split in parts for note in both[split].notes)])


def _clips(found: dict[Split, ClipFolder]) -> dict[Split, ClipFolder]:
    for side in found.values():
        if side.kind == "features":
            raise MissingData(f"{side.root} holds features ({side.entries[0].path.name}), needed: clips")
    return {split: replace(side, entries=tuple(map(_classed, side.entries))) for split, side in found.items()}


def _classed(entry: ClipFile) -> ClipFile:
    return entry._replace(group=entry.group or CLASS)
