"""Sky Time-lapse: 2,617 clips of moving clouds, cut from 1,108 videos of YouTube.

    root/{sky_train,sky_test}/<video>/<video>_<k>/<video>_frames_00000001.jpg      official: 640x360
    root/{sky_train,sky_test,train,test}/<video>_<k>/*.jpg                         as StyleGAN-V wants them
    root/{sky_train,sky_test,train,test}/[<video>/]<video>_<k>.mp4                 as videos

Xiong, Luo, Ma, Liu and Luo, "Learning to Generate Time-Lapse Videos Using Multi-Stage Dynamic Generative Adversarial
Networks" (CVPR 2018), https://github.com/weixiong-ur/mdgan; the counts are those of its read-me.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vfbench.clips import LIGHT, ClipFolder
from vfbench.clips.inventory import Inventory
from vfbench.clips.transform import ClipTransform
from vfbench.datasets._locate import places, ready
from vfbench.datasets._naming import Named, named, official, size
from vfbench.datasets._tree import look
from vfbench.datasets._video_dataset import Videos
from vfbench.interfaces import ClipShape, Dataset, Split
from vfbench.protocol.protocol import WORDLESS

NAME, TITLE = "sky_timelapse", "Sky Time-lapse"
CLASS = "sky_time_lapse"  # in words its caption
COUNTS: Mapping[Split, int] = {"train": 2392, "test": 225}  # clips of the official copy, which are 640x360
DOUBTFUL = "z6Yr7KDZhm0"  # https://github.com/Vchitect/Latte/issues/80
# Plumbing, as for UCF101.
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "sky_timelapse-smoke": {
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

HOW_TO_GET = """Get it once (29 GB packed; no licence is known, and the rights are those of YouTube's users):
  1. from https://github.com/weixiong-ur/mdgan follow the link to the dataset (Google Drive, file
     1xWLiU-MBGN7MrsFHQm4_yXmfHBsMbJQo); a mirror: https://huggingface.co/datasets/maxin-cn/SkyTimelapse
  2. unpack it in a folder DIR, so that DIR holds sky_timelapse/sky_train and sky_timelapse/sky_test
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
    short: str = "skip",
    decoder: str = "auto",
) -> Dataset:
    """Sky Time-lapse as clips of `frames` frames, `stride` apart, by default cropped to the centred square and resized.

    `root` is the dataset's folder or one above, without it VFBENCH_DATA is used. The dataset has clips of 2 frames:
    those too short are left out and counted in the note, or refused with `short` at `refuse`. `decoder` is that of
    `vfbench.video.decode`, the other options are those of `vfbench.clips.transform`. Raises `MissingData` with the way
    to get the dataset where it is not found, and `UserError` for an impossible option.
    """
    cut = ClipTransform(NAME, ClipShape(frames, height, width), stride, drop_first, start, geometry, filter, antialias)
    return Videos(find(root), cut, short=short, decoder=decoder)


def find(root: str | None = None) -> Inventory:
    """What stands of Sky Time-lapse below `root`, called `<video>/<video>_<k>` in every layout.

    Raises `MissingData` with the way to get the dataset where it is not found.
    """
    visited = places(root, TITLE, (NAME,), HOW_TO_GET)
    if made := ready(visited, NAME, origin):
        return replace(made, official=COUNTS)
    there = named(look(visited, (NAME,)), NAME, TITLE, lambda match: f"{match['id']}/{match[0]}", HOW_TO_GET)
    splits = there.splits(lambda name: CLASS)
    return Inventory(
        NAME,
        there.layout("folder of a video each"),
        _copy(there, splits),
        splits,
        (CLASS,),
        extra=there.strangers,
        origin=origin,
        notes=(*_notes(there, splits), *there.notes),
        depth=LIGHT,
        official=COUNTS,
    )


def origin(name: str) -> str:
    """The video of YouTube that a clip was cut from."""
    return name.partition("/")[0]


def _copy(there: Named, splits: Mapping[Split, ClipFolder]) -> str:
    """Which copy it is. Mirrors of the official one have its layout, so that they cannot be told from it."""
    seen = size(splits)
    if there.kind == "frames" and there.levels == {1} and seen == "640x360":
        return official(len(there), sum(COUNTS.values()))
    if there.kind == "frames" and there.levels == {0} and seen == "256x256":
        return "256 px frames, laid out as StyleGAN-V's"
    return f"unknown copy, {seen}"


def _notes(there: Named, splits: Mapping[Split, ClipFolder]) -> list[str]:
    """What a reader must know of the clips."""
    partial = [
        f"{len(found):,} of {COUNTS[split]:,} official {split} clips present"
        for split, found in splits.items()
        if len(found) != COUNTS[split]
    ]
    loose = ["no folder names a split: all clips are in train"] if "" in there.sides else []
    packed = [there.tree.unpack()] if partial and there.tree.archives else []
    doubtful = [entry.name for found in splits.values() for entry in found.entries if origin(entry.name) == DOUBTFUL]
    known = [f"{DOUBTFUL} is here ({len(doubtful)} clips), which others had to remove (Latte, issue 80)"]
    return [*partial, *loose, *packed, *(known if doubtful else [])]
