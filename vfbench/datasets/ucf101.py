"""UCF101: 13,320 real clips of 101 human actions, in every layout met in the wild.

    root/UCF-101/<Class>/v_<Class>_g01_c01.avi              official; with ucfTrainTestlist beside it or inside
    root/{train,test}/<Class>/v_<Class>_g01_c01.avi         as VideoGPT and TATS want them
    root/v_<Class>_g01_c01.avi                              flat
    root/[<Class>/]v_<Class>_g01_c01/000000.jpg             as frames, as for StyleGAN-V and Latte

The official lists, where they are, tell splits and labels. In every layout a clip has the name that they give it.
Soomro, Zamir and Shah, "UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild" (2012).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vfbench import clips
from vfbench.clips import LIGHT, ClipFolder
from vfbench.clips.inventory import Inventory
from vfbench.clips.scan import suffix
from vfbench.clips.transform import ClipTransform
from vfbench.datasets._locate import places, ready
from vfbench.datasets._naming import Named, in_order, named, official, size
from vfbench.datasets._tree import look
from vfbench.datasets._ucf101_lists import (
    ARCHIVE,
    CLASS_LIST,
    CLASSES,
    LISTS,
    PAGE,
    find_lists,
    official_lengths,
    official_name,
    read_classes,
    read_list,
)
from vfbench.datasets._video_dataset import Videos
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape, Dataset, Split
from vfbench.protocol.protocol import WORDLESS

NAME, TITLE = "ucf101", "UCF101"
VIDEOS, CLIPS, SIZE = "UCF-101", 13320, "320x240"  # of the official copy
SPLITS: tuple[Split, ...] = ("train", "test")
# Plumbing on real video: the judge of Moving Shapes stands in for I3D and C3D. Real clips are taken from both splits,
# so that a handful of files is enough.
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "ucf101-smoke": {
        "comparable": False,
        "split": "both",
        "start": "hashed",
        "geometry": "centre-crop",
        "filter": "bilinear",
        "antialias": True,
        "n_real": 16,
        "measures": WORDLESS,
    }
}

HOW_TO_GET = f"""Get it once (7 GB; for research use):
  1. from {PAGE} download UCF101.rar and {ARCHIVE}
  2. unpack both in one folder DIR: unrar x UCF101.rar DIR/ && unzip {ARCHIVE} -d DIR
     so that DIR holds {VIDEOS}/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi and {LISTS}/{CLASS_LIST}
  3. repeat your command with --data-root DIR, or set VFBENCH_DATA=DIR"""


def build(
    *,
    root: str | None = None,
    frames: int = 16,
    height: int = 64,
    width: int = 64,
    stride: int = 1,
    drop_first: int = 0,
    start: str = "hashed",
    geometry: str = "centre-crop",
    filter: str = "bilinear",
    antialias: bool = True,
    split_list: int = 1,
    short: str = "refuse",
    decoder: str = "auto",
) -> Dataset:
    """UCF101 as clips of `frames` frames, `stride` apart, by default cropped to the centred square and resized.

    `root` is the dataset's folder or one above, without it VFBENCH_DATA is used. `split_list` is 1, 2 or 3; with
    `short` at `skip`, videos too short for a clip are left out. `decoder` is that of `vfbench.video.decode`, the other
    options are those of `vfbench.clips.transform`. Raises `MissingData` with the way to get the dataset where it is
    not found, or naming videos that are too short, and `UserError` for an impossible option.
    """
    cut = ClipTransform(NAME, ClipShape(frames, height, width), stride, drop_first, start, geometry, filter, antialias)
    return Videos(find(root, split_list=split_list), cut, short=short, decoder=decoder)


def find(root: str | None = None, *, split_list: int = 1) -> Inventory:
    """What stands of UCF101 below `root`, by the names of the official lists in every layout and whatever their case.

    Raises `MissingData` with the way to get the dataset where it is not found, and `UserError` for a list that there
    is not.
    """
    if split_list not in (1, 2, 3):
        raise UserError(f"ucf101(split_list={split_list}): UCF101 has split lists 1, 2 and 3, try ucf101(split_list=1)")
    visited = places(root, TITLE, (NAME,), HOW_TO_GET)
    if made := ready(visited, NAME, origin, split_list=split_list):
        return replace(made, official=official_lengths(made.classes, split_list))
    there = named(look(visited, (NAME,)), NAME, TITLE, lambda match: official_name(*match.groups()), HOW_TO_GET)
    lists = find_lists(visited)
    return _listed(there, lists, split_list) if lists else _unlisted(there, split_list)


def origin(name: str) -> str:
    """The recording that a clip was cut from: its name up to the group, `ApplyEyeMakeup/v_ApplyEyeMakeup_g01`."""
    return name.rpartition("_c")[0]


def _listed(there: Named, lists: Path, split_list: int) -> Inventory:
    """The videos that the official lists name; the others are extra."""
    classes = read_classes(lists / CLASS_LIST)
    listed = {split: tuple(read_list(lists / f"{split}list{split_list:02}.txt", classes)) for split in SPLITS}
    splits = {split: there.found(_chosen(there, split, names), _group) for split, names in listed.items()}
    known = {name.lower() for names in listed.values() for name in names}
    names = in_order(there.paths("train"))
    if not (count := sum(map(len, splits.values()))):
        there_is = f"{there.tree.root} holds {clips.few(names)}"
        raise MissingData(f"{TITLE}: {there_is}, none of which {lists} names.\n{HOW_TO_GET}")
    extra = (*(name for name in names if name.lower() not in known), *there.strangers)
    inside = there.tree.root.resolve() in (lists.resolve(), *lists.resolve().parents)
    notes = [*_leaked(there), *_gone(splits, classes), *_packed(there, count, len(known)), *there.notes]
    return Inventory(
        NAME,
        f"{_layout(there)}, lists {'inside' if inside else 'beside'}",
        _copy(there, splits),
        splits,
        classes,
        listed,
        extra,
        origin,
        tuple(notes),
        LIGHT,
        leaked=tuple(there.leaked),
        official=official_lengths(classes, split_list),
    )


def _chosen(there: Named, split: Split, names: Iterable[str]) -> dict[str, str]:
    """The paths of the listed videos that are there, by their names, in an order that is that of no list."""
    on_disk = {name.lower(): where for name, where in there.paths(split).items()}
    return {name: on_disk[name.lower()] for name in in_order(names) if name.lower() in on_disk}


def _unlisted(there: Named, split_list: int) -> Inventory:
    """The videos as the folders have them: splits by folders `train` and `test`, classes by names."""
    splits = there.splits(_group)
    groups = {entry.group for found in splits.values() for entry in found.entries}
    classes = CLASSES if groups <= set(CLASSES) else tuple(in_order(groups))
    sides = "as the folders have them" if len(there.sides) > 1 or "" not in there.sides else "all in train"
    notes = [f"no {LISTS} found, so splits are no official ones: {sides}", *_gone(splits, classes)]
    notes += [*_packed(there, sum(map(len, splits.values())), CLIPS), *there.notes]
    return Inventory(
        NAME,
        f"{_layout(there)}, no lists",
        _copy(there, splits),
        splits,
        classes,
        extra=there.strangers,
        origin=origin,
        notes=tuple(notes),
        depth=LIGHT,
        official=official_lengths(classes, split_list),
    )


def _group(name: str) -> str:
    """The class of a clip by its official name."""
    return name.partition("/")[0]


def _layout(there: Named) -> str:
    """The layout in words, such as `official avi tree`."""
    if there.kind == "videos" and there.levels == {1} and set(there.sides) == {""} and _suffixes(there) == {".avi"}:
        return "official avi tree"
    return there.layout("class tree")


def _suffixes(there: Named) -> set[str]:
    return {suffix(where) for side in there.sides.values() for where in side.values()}


def _copy(there: Named, splits: Mapping[Split, ClipFolder]) -> str:
    """Which copy it is: the official clips are avi files of 320x240, however they are sorted into folders."""
    seen = size(splits)
    if there.kind == "videos" and _suffixes(there) == {".avi"} and seen == SIZE:
        return official(sum(map(len, splits.values())), CLIPS)
    return f"unknown copy, {seen}"


def _leaked(there: Named) -> list[str]:
    """The note on videos that the folders have in both splits."""
    names = there.leaked
    return [f"in folders of both splits, used as listed: {len(names):,} ({clips.few(names)})"] if names else []


def _gone(splits: Mapping[Split, ClipFolder], classes: tuple[str, ...]) -> list[str]:
    """The note on classes of which there is no clip."""
    groups = {entry.group for found in splits.values() for entry in found.entries}
    gone = [name for name in classes if name not in groups]
    return [f"no clips of {len(gone)} of {len(classes)} classes: {clips.few(gone)}"] if gone else []


def _packed(there: Named, count: int, total: int) -> list[str]:
    """The note on an archive of a copy that is not whole."""
    return [there.tree.unpack()] if there.tree.archives and count < total else []
