"""Sky Time-lapse: 2,617 clips of moving clouds, cut from 1,108 YouTube videos.

    root/{sky_train,sky_test}/<video>/<video>_<k>/<video>_frames_00000001.jpg      official: 640x360
    root/{sky_train,sky_test,train,test}/<video>_<k>/*.jpg                         as StyleGAN-V reads them
    root/{sky_train,sky_test,train,test}/[<video>/]<video>_<k>.mp4                 as videos

Xiong, Luo, Ma, Liu and Luo, "Learning to Generate Time-Lapse Videos Using Multi-Stage Dynamic Generative Adversarial
Networks" (CVPR 2018), https://github.com/weixiong-ur/mdgan; the counts are those of its read-me.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vfbench.clips import LIGHT_HASH, ClipFolder
from vfbench.clips.inventory import Inventory
from vfbench.datasets import _options
from vfbench.datasets._locate import find_prepared, search_folders
from vfbench.datasets._naming import NamedVideos, find_named, frame_size, official_copy
from vfbench.datasets._tree import scan_tree
from vfbench.interfaces import ClipShape, Dataset, Split
from vfbench.protocol.protocol import JUDGE_MEASURES

NAME, TITLE = "sky_timelapse", "Sky Time-lapse"
CLASS = "sky_time_lapse"  # the only class; in words, the caption
COUNTS: Mapping[Split, int] = {"train": 2392, "test": 225}  # clips of the official copy, which are 640x360
REMOVED_VIDEO = "z6Yr7KDZhm0"  # removed by others: https://github.com/Vchitect/Latte/issues/80
# Smoke test on real video, as for UCF101.
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "sky_timelapse-smoke": {
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

HOW_TO_GET = """Get it once (29 GB packed; no licence is known, and the rights are those of YouTube's users):
  1. from https://github.com/weixiong-ur/mdgan follow the link to the dataset (Google Drive, file
     1xWLiU-MBGN7MrsFHQm4_yXmfHBsMbJQo); a mirror: https://huggingface.co/datasets/maxin-cn/SkyTimelapse
  2. unpack it in a folder DIR, so that DIR holds sky_timelapse/sky_train and sky_timelapse/sky_test
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
    short: _options.Short = "skip",
    decoder: _options.Decoder = "auto",
) -> Dataset:
    """Sky Time-lapse as clips of `frames` frames, `stride` apart, by default cropped to the centred square and resized.

    `root` is the dataset's folder or one above it, by default VFBENCH_DATA. Some clips have only 2 frames: `short` is
    `skip`, to leave out and count those too short, or `refuse`. `decoder` is that of `vfbench.video.decode`, the other
    options are those of `vfbench.clips.transform`. Raises `MissingData` with the steps to get the dataset where it is
    not found, and `UserError` for an impossible option.
    """
    from vfbench.clips.transform import ClipTransform
    from vfbench.datasets._video_dataset import VideoDataset

    shape = ClipShape(frames, height, width)
    transform = ClipTransform(NAME, shape, stride, drop_first, start, geometry, filter, antialias)
    return VideoDataset(find(root), transform, short=short, decoder=decoder)


def find(root: str | None = None) -> Inventory:
    """Inventory of the copy below `root`, with names `<video>/<video>_<k>` in every layout.

    Raises `MissingData` with the steps to get the dataset where it is not found.
    """
    folders = search_folders(root, TITLE, (NAME,), HOW_TO_GET)
    if inventory := find_prepared(folders, NAME, origin):
        return replace(inventory, official=COUNTS)
    tree = scan_tree(folders, (NAME,))
    videos = find_named(tree, NAME, TITLE, lambda match: f"{match['id']}/{match[0]}", HOW_TO_GET)
    splits = videos.splits(lambda name: CLASS)
    return Inventory(
        NAME,
        videos.describe_layout("folder of a video each"),
        _describe_copy(videos, splits),
        splits,
        (CLASS,),
        extra=videos.unrecognised,
        origin=origin,
        notes=(*_notes(videos, splits), *videos.notes),
        hash_depth=LIGHT_HASH,
        official=COUNTS,
    )


def origin(name: str) -> str:
    """YouTube video that a clip was cut from."""
    return name.partition("/")[0]


def _describe_copy(videos: NamedVideos, splits: Mapping[Split, ClipFolder]) -> str:
    """Copy of the dataset, by layout and frame size. Mirrors of the official copy count as official."""
    size = frame_size(splits)
    if videos.kind == "frames" and videos.depths == {1} and size == "640x360":
        return official_copy(len(videos), sum(COUNTS.values()))
    if videos.kind == "frames" and videos.depths == {0} and size == "256x256":
        return "256 px frames, laid out as StyleGAN-V's"
    return f"unknown copy, {size}"


def _notes(videos: NamedVideos, splits: Mapping[Split, ClipFolder]) -> list[str]:
    """Notes on incomplete splits, missing split folders, archives to unpack and a video that others removed."""
    partial = [
        f"{len(folder):,} of {COUNTS[split]:,} official {split} clips present"
        for split, folder in splits.items()
        if len(folder) != COUNTS[split]
    ]
    no_split = ["no folder names a split: all clips are in train"] if "" in videos.by_folder else []
    unpack = [videos.tree.unpack_hint()] if partial and videos.tree.archives else []
    removed = [
        entry.name for folder in splits.values() for entry in folder.entries if origin(entry.name) == REMOVED_VIDEO
    ]
    note = f"{REMOVED_VIDEO} is here ({len(removed)} clips), which others had to remove (Latte, issue 80)"
    return [*partial, *no_split, *unpack, *([note] if removed else [])]
