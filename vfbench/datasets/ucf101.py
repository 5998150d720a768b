"""UCF101: 13,320 real clips of 101 human actions, in all common layouts.

    root/UCF-101/<Class>/v_<Class>_g01_c01.avi              official; with ucfTrainTestlist beside it or inside
    root/{train,test}/<Class>/v_<Class>_g01_c01.avi         as VideoGPT and TATS read them
    root/v_<Class>_g01_c01.avi                              flat
    root/[<Class>/]v_<Class>_g01_c01/000000.jpg             as frames, as for StyleGAN-V and Latte

The official lists, where present, define splits and labels. Clips have their official names in every layout.
Soomro, Zamir and Shah, "UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild" (2012).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from vfbench import clips
from vfbench.clips import LIGHT_HASH, ClipFolder
from vfbench.clips.inventory import Inventory
from vfbench.clips.scan import suffix
from vfbench.datasets import _options
from vfbench.datasets._locate import find_prepared, search_folders
from vfbench.datasets._naming import NamedVideos, find_named, frame_size, natural_order, official_copy
from vfbench.datasets._tree import scan_tree
from vfbench.datasets._ucf101_lists import (
    CLASS_LIST,
    CLASSES,
    DOWNLOAD_PAGE,
    LISTS_ARCHIVE,
    LISTS_FOLDER,
    find_lists,
    official_lengths,
    official_name,
    read_classes,
    read_list,
)
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape, Dataset, Split
from vfbench.protocol.protocol import JUDGE_MEASURES

NAME, TITLE = "ucf101", "UCF101"
VIDEO_FOLDER, TOTAL_CLIPS, FRAME_SIZE = "UCF-101", 13320, "320x240"  # of the official copy
SPLITS: tuple[Split, ...] = ("train", "test")
SPLIT_LISTS = (1, 2, 3)
# Smoke test on real video: the judge of Moving Shapes stands in for I3D and C3D. Real clips come from both splits, so a
# handful of files is enough.
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "ucf101-smoke": {
        "comparable": False,
        "split": "both",
        "start": "hashed",
        "geometry": "centre-crop",
        "filter": "bilinear",
        "antialias": True,
        "n_real": 16,
        "measures": JUDGE_MEASURES,
    }
}

HOW_TO_GET = f"""Get it once (7 GB; for research use):
  1. from {DOWNLOAD_PAGE} download UCF101.rar and {LISTS_ARCHIVE}
  2. unpack both in one folder DIR: unrar x UCF101.rar DIR/ && unzip {LISTS_ARCHIVE} -d DIR
     so that DIR holds {VIDEO_FOLDER}/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi and {LISTS_FOLDER}/{CLASS_LIST}
  3. repeat your command with --data-root DIR, or set VFBENCH_DATA=DIR"""


def build(
    *,
    root: _options.Root = None,
    frames: _options.Frames = 16,
    height: _options.Height = 64,
    width: _options.Width = 64,
    stride: _options.Stride = 1,
    drop_first: _options.DropFirst = 0,
    start: _options.Start = "hashed",
    geometry: _options.Geometry = "centre-crop",
    filter: _options.Filter = "bilinear",
    antialias: _options.Antialias = True,
    split_list: Annotated[int, SPLIT_LISTS, "Number of the official split list."] = 1,
    short: _options.Short = "refuse",
    decoder: _options.Decoder = "auto",
) -> Dataset:
    """UCF101 as clips of `frames` frames, `stride` apart, by default cropped to the centred square and resized.

    `root` is the dataset's folder or one above it, by default VFBENCH_DATA. `split_list` is 1, 2 or 3. `short` is
    `refuse` or `skip`, for videos too short for a clip. `decoder` is that of `vfbench.video.decode`, the other options
    are those of `vfbench.clips.transform`. Raises `MissingData` with the steps to get the dataset where it is not
    found, or naming videos that are too short, and `UserError` for an impossible option.
    """
    from vfbench.clips.transform import ClipTransform
    from vfbench.datasets._video_dataset import VideoDataset

    shape = ClipShape(frames, height, width)
    transform = ClipTransform(NAME, shape, stride, drop_first, start, geometry, filter, antialias)
    return VideoDataset(find(root, split_list=split_list), transform, short=short, decoder=decoder)


def find(root: str | None = None, *, split_list: int = 1) -> Inventory:
    """Inventory of the copy below `root`, with official clip names in every layout; case is ignored.

    Raises `MissingData` with the steps to get the dataset where it is not found, and `UserError` for another
    `split_list` than 1, 2 or 3.
    """
    if split_list not in SPLIT_LISTS:
        raise UserError(f"ucf101(split_list={split_list}): UCF101 has split lists 1, 2 and 3, try ucf101(split_list=1)")
    folders = search_folders(root, TITLE, (NAME,), HOW_TO_GET)
    if inventory := find_prepared(folders, NAME, origin, split_list=split_list):
        return replace(inventory, official=official_lengths(inventory.classes, split_list))
    tree = scan_tree(folders, (NAME,))
    videos = find_named(tree, NAME, TITLE, lambda match: official_name(*match.groups()), HOW_TO_GET)
    lists = find_lists(folders)
    return _listed_inventory(videos, lists, split_list) if lists else _unlisted_inventory(videos, split_list)


def origin(name: str) -> str:
    """Recording that a clip was cut from: its name up to the group, `ApplyEyeMakeup/v_ApplyEyeMakeup_g01`."""
    return name.rpartition("_c")[0]


def _listed_inventory(videos: NamedVideos, lists: Path, split_list: int) -> Inventory:
    """Inventory by the official lists; videos in no list are extra."""
    classes = read_classes(lists / CLASS_LIST)
    listed = {split: tuple(read_list(lists / f"{split}list{split_list:02}.txt", classes)) for split in SPLITS}
    paths = {split: _listed_paths(videos, split, names) for split, names in listed.items()}
    splits = {split: videos.clip_folder(paths[split], _class_of) for split in SPLITS}
    lower_names = {name.lower() for names in listed.values() for name in names}
    names = natural_order(videos.paths("train"))
    root = videos.tree.root
    if not (count := sum(map(len, splits.values()))):
        raise MissingData(f"{TITLE}: {root} holds {clips.first_few(names)}, none of which {lists} names.\n{HOW_TO_GET}")
    extra = (*(name for name in names if name.lower() not in lower_names), *videos.unrecognised)
    inside = root.resolve() in (lists.resolve(), *lists.resolve().parents)
    notes = [*_leak_note(videos), *_empty_classes_note(splits, classes)]
    notes += [*_unpack_note(videos, count, len(lower_names)), *videos.notes]
    return Inventory(
        NAME,
        f"{_describe_layout(videos)}, lists {'inside' if inside else 'beside'}",
        _describe_copy(videos, splits),
        splits,
        classes,
        listed,
        extra,
        origin,
        tuple(notes),
        LIGHT_HASH,
        leaked=tuple(videos.leaked),
        official=official_lengths(classes, split_list),
    )


def _listed_paths(videos: NamedVideos, split: Split, names: Iterable[str]) -> dict[str, str]:
    """Paths of the listed videos on disk by name, in natural order, independent of the order of the list."""
    on_disk = {name.lower(): path for name, path in videos.paths(split).items()}
    return {name: on_disk[name.lower()] for name in natural_order(name for name in names if name.lower() in on_disk)}


def _unlisted_inventory(videos: NamedVideos, split_list: int) -> Inventory:
    """Inventory without lists: splits by folders `train` and `test`, classes by names."""
    splits = videos.splits(_class_of)
    present = {entry.class_name for folder in splits.values() for entry in folder.entries}
    classes = CLASSES if present <= set(CLASSES) else tuple(natural_order(present))
    has_split_folders = len(videos.by_folder) > 1 or "" not in videos.by_folder
    rule = "as the folders have them" if has_split_folders else "all in train"
    notes = [f"no {LISTS_FOLDER} found, so the splits are not official: {rule}", *_empty_classes_note(splits, classes)]
    notes += [*_unpack_note(videos, sum(map(len, splits.values())), TOTAL_CLIPS), *videos.notes]
    return Inventory(
        NAME,
        f"{_describe_layout(videos)}, no lists",
        _describe_copy(videos, splits),
        splits,
        classes,
        extra=videos.unrecognised,
        origin=origin,
        notes=tuple(notes),
        hash_depth=LIGHT_HASH,
        official=official_lengths(classes, split_list),
    )


def _class_of(name: str) -> str:
    """Class of a clip by its official name."""
    return name.partition("/")[0]


def _describe_layout(videos: NamedVideos) -> str:
    """The layout, such as `official avi tree`."""
    has_avi = videos.kind == "videos" and _suffixes(videos) == {".avi"}
    if has_avi and videos.depths == {1} and set(videos.by_folder) == {""}:
        return "official avi tree"
    return videos.describe_layout("class tree")


def _suffixes(videos: NamedVideos) -> set[str]:
    return {suffix(path) for paths in videos.by_folder.values() for path in paths.values()}


def _describe_copy(videos: NamedVideos, splits: Mapping[Split, ClipFolder]) -> str:
    """Copy of the dataset: avi files of 320x240 are official, in any folder layout."""
    size = frame_size(splits)
    if videos.kind == "videos" and _suffixes(videos) == {".avi"} and size == FRAME_SIZE:
        return official_copy(sum(map(len, splits.values())), TOTAL_CLIPS)
    return f"unknown copy, {size}"


def _leak_note(videos: NamedVideos) -> list[str]:
    """Note on videos in the folders of both splits, or nothing."""
    names = videos.leaked
    return [f"in folders of both splits, used as listed: {len(names):,} ({clips.first_few(names)})"] if names else []


def _empty_classes_note(splits: Mapping[Split, ClipFolder], classes: tuple[str, ...]) -> list[str]:
    """Note on classes without a clip, or nothing."""
    present = {entry.class_name for folder in splits.values() for entry in folder.entries}
    empty = [name for name in classes if name not in present]
    return [f"no clips of {len(empty)} of {len(classes)} classes: {clips.first_few(empty)}"] if empty else []


def _unpack_note(videos: NamedVideos, count: int, total: int) -> list[str]:
    """Command that unpacks the archive of an incomplete copy, or nothing."""
    return [videos.tree.unpack_hint()] if videos.tree.archives and count < total else []
