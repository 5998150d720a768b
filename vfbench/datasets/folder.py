"""Dataset of any folder of clips, in every layout that `vfbench.clips` detects.

Folders `train` and `test`, where present, are the splits; else all clips are in `train`. The classes are the names of
the folders that hold clips, if all lie equally deep. The caption of a clip is its class in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from vfbench import clips
from vfbench.clips import ClipFile, ClipFolder, prepared
from vfbench.clips.inventory import Inventory
from vfbench.clips.layout import KIND_NAMES
from vfbench.datasets import _options
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape, Dataset, Split

SPLITS: tuple[Split, ...] = ("train", "test")
NO_CLASS = "clip"  # class of clips outside class folders

HOW_TO_GET = "Repeat your command with --data-root DIR, any folder of videos, frame folders or .npy and .npz files"


def build(
    *,
    root: Annotated[str | None, "Folder of the clips."] = None,
    frames: _options.Frames = 16,
    height: Annotated[int | None, "Height of a clip in pixels; by default from the first clip."] = None,
    width: Annotated[int | None, "Width of a clip in pixels; by default from the first clip."] = None,
    stride: _options.Stride = 1,
    drop_first: _options.DropFirst = 0,
    start: _options.Start = "zero",
    geometry: _options.Geometry = "centre-crop",
    filter: _options.Filter = "bilinear",
    antialias: _options.Antialias = True,
    listing: Annotated[str | None, "File that names the clips to use."] = None,
    short: _options.Short = "refuse",
    decoder: _options.Decoder = "auto",
) -> Dataset:
    """Clips below `root` of `frames` frames, `stride` apart, by default cropped to the centred square and resized.

    `height` and `width` default to the short side of the first clip, or to its own sides with geometry `native`.
    `listing` is a file that names the clips to use (`vfbench.clips.layout`). `short` is `refuse` or `skip`, for videos
    too short for a clip. `decoder` is that of `vfbench.video.decode`, the other options are those of
    `vfbench.clips.transform`. Raises `MissingData` without a folder, for a folder without clips of one layout and for
    short clips, and `UserError` for an impossible option.
    """
    from vfbench.clips.transform import ClipTransform
    from vfbench.datasets._video_dataset import VideoDataset

    shape = ClipShape(frames, 1 if height is None else height, 1 if width is None else width)
    transform = ClipTransform("folder", shape, stride, drop_first, start, geometry, filter, antialias)
    inventory = find(root, listing=listing)
    if height is None or width is None:
        first_height, first_width = clips.resolution(next(iter(inventory.splits.values())))
        short_side = min(first_height, first_width)
        size = (first_height, first_width) if geometry == "native" else (short_side, short_side)
        transform = replace(transform, shape=ClipShape(frames, height or size[0], width or size[1]))
    return VideoDataset(inventory, transform, short=short, decoder=decoder)


def find(root: str | None = None, *, listing: str | None = None) -> Inventory:
    """Inventory of the clips below `root`; raises `MissingData` without a folder or without clips of one layout."""
    if not root:
        raise MissingData(f"folder: no folder given. {HOW_TO_GET}")
    folder = prepared.local_root(root)
    if inventory := prepared.read_inventory(folder, "folder", listing=listing):
        return inventory
    splits, note = _find_splits(folder, listing)
    entries = [entry for split_folder in splits.values() for entry in split_folder.entries]
    classes = tuple(sorted({entry.class_name for entry in entries}, key=clips.natural_key))
    notes = (note,) if note else ()
    return Inventory("folder", _describe_layout(splits), "a folder of clips", splits, classes, notes=notes)


def _describe_layout(splits: Mapping[Split, ClipFolder]) -> str:
    """The layout, such as `train/test frame folders, by class`."""
    kinds = " and ".join(dict.fromkeys(KIND_NAMES[folder.kind] for folder in splits.values()))
    has_classes = any(entry.class_name != NO_CLASS for folder in splits.values() for entry in folder.entries)
    return f"{'train/test ' * (len(splits) > 1)}{kinds}{', by class' * has_classes}"


def _find_splits(root: Path, listing: str | None) -> tuple[dict[Split, ClipFolder], str]:
    """Clips of each split, and a note on them."""
    names = [split for split in SPLITS if (root / split).is_dir()]
    if not names:
        folder = clips.detect(root, listing=listing)
        return _with_classes({"train": folder}), "; ".join(["all clips are in split train", *folder.notes])
    if listing:
        raise UserError(
            f"folder(listing={listing!r}): {root} has split folders ({', '.join(names)}): "
            f"give one of these instead, such as --data-root {root / names[0]}"
        )
    splits = {split: clips.detect(root / split) for split in names}
    others = sorted(path.name for path in root.iterdir() if path.name not in SPLITS)
    notes = [f"beside {' and '.join(names)}, not scored: {', '.join(others)}"] if others else []
    notes += [f"{split}: {note}" for split in names for note in splits[split].notes]
    return _with_classes(splits), "; ".join(notes)


def _with_classes(splits: dict[Split, ClipFolder]) -> dict[Split, ClipFolder]:
    """Give each clip without a class `NO_CLASS`; raises `MissingData` for feature files."""
    for folder in splits.values():
        if folder.kind == "features":
            raise MissingData(f"{folder.root} holds features ({folder.entries[0].path.name}), needed: clips")
    return {split: replace(folder, entries=tuple(map(_with_class, folder.entries))) for split, folder in splits.items()}


def _with_class(entry: ClipFile) -> ClipFile:
    return entry._replace(class_name=entry.class_name or NO_CLASS)
