"""TaiChi-HD: 3,334 clips of people doing tai chi, cut from 280 YouTube videos.

    root/[train,test/]<video>#<start>#<end>.mp4              as videos
    root/[train,test/]<video>#<start>#<end>.mp4/0000000.png  as frames, in a folder named like the video
    root/taichi-metadata.csv                                 the official list of names and splits, here or above

Siarohin, Lathuilière, Tulyakov, Ricci and Sebe, "First Order Motion Model for Image Animation" (NeurIPS 2019), whose
repository has the list: https://github.com/AliaksandrSiarohin/first-order-model (data/taichi-loading).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from vfbench import clips
from vfbench.clips import LIGHT_HASH, ClipFolder
from vfbench.clips.inventory import Inventory
from vfbench.datasets import _options
from vfbench.datasets._locate import find_prepared, search_folders
from vfbench.datasets._naming import NamedVideos, find_named, frame_size, natural_order
from vfbench.datasets._tree import scan_tree
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape, Dataset, Split
from vfbench.protocol.protocol import JUDGE_MEASURES

NAME, TITLE = "taichi_hd", "TaiChi-HD"
CLASS = "tai_chi"  # the only class; in words, the caption
METADATA, COLUMNS = "taichi-metadata.csv", ("video_id", "start", "end", "fps", "partition")
COUNTS: Mapping[Split, int] = {"train": 3049, "test": 285}  # clips of the official list
# Smoke test on real video, as for UCF101. Each video gives consecutive clips, so two videos are enough.
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "taichi_hd-smoke": {
        "comparable": False,
        "split": "both",
        "start": "chunks",
        "geometry": "centre-crop",
        "filter": "bilinear",
        "antialias": True,
        "n_real": 16,
        "measures": JUDGE_MEASURES,
    }
}

HOW_TO_GET = """Get it once. Its authors hand out the list of what to cut from YouTube, where many videos are gone:
  1. from https://github.com/AliaksandrSiarohin/first-order-model take data/taichi-loading, with taichi-metadata.csv
  2. in that folder run python load_videos.py as its read-me says, which downloads, cuts and crops what is still there;
     or take a mirror of frames: https://huggingface.co/datasets/maxin-cn/Taichi-HD (96 GB)
  3. put taichi-metadata.csv beside the clips in a folder DIR, which then holds train/<video>#<start>#<end>.mp4
  4. repeat your command with --data-root DIR, or set VFBENCH_DATA=DIR
No licence is known, and the rights are those of YouTube's users. Scores depend on which clips are left."""


class ClipMetadata(NamedTuple):
    """Split of a clip and frames per second of its source video, from the official list."""

    split: Split
    rate: float


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
    short: _options.Short = "refuse",
    decoder: _options.Decoder = "auto",
) -> Dataset:
    """TaiChi-HD as clips of `frames` frames, `stride` apart, by default cropped to the centred square and resized.

    `root` is the dataset's folder or one above it, by default VFBENCH_DATA. `short` is `refuse` or `skip`, for videos
    too short for a clip. `decoder` is that of `vfbench.video.decode`, the other options are those of
    `vfbench.clips.transform`. Raises `MissingData` with the steps to get the dataset where it is not found, and
    `UserError` for an impossible option.
    """
    from vfbench.clips.transform import ClipTransform
    from vfbench.datasets._video_dataset import VideoDataset

    shape = ClipShape(frames, height, width)
    transform = ClipTransform(NAME, shape, stride, drop_first, start, geometry, filter, antialias)
    return VideoDataset(find(root), transform, short=short, decoder=decoder)


def find(root: str | None = None) -> Inventory:
    """Inventory of the copy below `root`, with names `<video>#<start>#<end>.mp4` in every layout.

    Splits are those of folders `train` and `test`, or else of the official list. Raises `MissingData` with the steps to
    get the dataset where it is not found, and for a damaged list.
    """
    folders = search_folders(root, TITLE, (NAME, "taichi"), HOW_TO_GET)
    if inventory := find_prepared(folders, NAME, origin):
        return replace(inventory, official=COUNTS)
    tree = scan_tree(folders, ("taichi",))
    videos = find_named(tree, NAME, TITLE, lambda match: official_name(*match.groups()), HOW_TO_GET)
    path = _find_metadata(folders)
    metadata = read_metadata(path) if path else {}
    splits = videos.splits(lambda name: CLASS, {name: clip.split for name, clip in metadata.items()})
    names = {entry.name for folder in splits.values() for entry in folder.entries}
    return Inventory(
        NAME,
        f"{videos.describe_layout('nested folder')}, {'with the official list' if metadata else 'no official list'}",
        f"cut from YouTube, {len(names):,} of {sum(COUNTS.values()):,} clips, {frame_size(splits)}",
        splits,
        (CLASS,),
        {split: tuple(name for name, clip in metadata.items() if clip.split == split) for split in COUNTS if metadata},
        (*natural_order(name for name in names if metadata and name not in metadata), *videos.unrecognised),
        origin,
        (*_notes(videos, splits, metadata), *videos.notes),
        LIGHT_HASH,
        official=COUNTS,
    )


def origin(name: str) -> str:
    """YouTube video that a clip was cut from."""
    return name.partition("#")[0]


def official_name(video: str, start: str | int, end: str | int) -> str:
    """File name of a clip, `<video>#<start>#<end>.mp4`, with first and last frame in six digits."""
    return f"{video}#{int(start):06}#{int(end):06}.mp4"


def read_metadata(path: Path) -> dict[str, ClipMetadata]:
    """The official list by clip name; raises `MissingData` naming the first line that is malformed."""
    metadata = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            if missing := [column for column in COLUMNS if column not in (table.fieldnames or ())]:
                raise ValueError(f"no column {', '.join(missing)}")
            for number, row in enumerate(table, 2):
                if row["partition"] not in COUNTS:
                    raise ValueError(f"line {number}: partition {row['partition']!r}")
                name = official_name(row["video_id"], row["start"], row["end"])
                metadata[name] = ClipMetadata(row["partition"], float(row["fps"]))  # type: ignore[arg-type]  # checked
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise MissingData(
            f"{path}: is not the official list ({error!s} after {len(metadata):,} clips); get it again.\n{HOW_TO_GET}"
        ) from error
    return metadata


def _find_metadata(folders: Sequence[Path]) -> Path | None:
    """The official list in one of the folders, or in the two above the first."""
    outermost = folders[0].absolute()
    candidates = (folder / METADATA for folder in (*reversed(folders), *outermost.parents[:2]))
    return next((path for path in candidates if path.is_file()), None)


def _notes(videos: NamedVideos, splits: Mapping[Split, ClipFolder], metadata: Mapping[str, ClipMetadata]) -> list[str]:
    """Notes on unofficial splits, a missing list, archives to unpack and a changed frame rate."""
    split_of = {entry.name: split for split, folder in splits.items() for entry in folder.entries}
    moved = [name for name, split in split_of.items() if name in metadata and metadata[name].split != split]
    notes = [f"in another split than the official: {len(moved):,} ({clips.first_few(moved)})"] if moved else []
    if not metadata:
        notes += [f"no {METADATA} found: which clips are missing is not known"]
        if "" in videos.by_folder:
            notes += ["no folder names a split: all clips are in train"]
    if videos.tree.archives and len(split_of) < sum(COUNTS.values()):
        notes += [videos.tree.unpack_hint()]
    return [*notes, *_frame_rate_note(splits, metadata)]


def _frame_rate_note(splits: Mapping[Split, ClipFolder], metadata: Mapping[str, ClipMetadata]) -> Iterable[str]:
    """Note on a first video whose frame rate differs from its source by over 1 %: a stride then spans another time."""
    entry = next((folder.entries[0] for folder in splits.values() if folder.entries), None)
    if entry is None or entry.kind != "videos" or entry.name not in metadata:
        return
    from vfbench import video

    try:
        rate = video.header(entry.path).rate
    except UserError:  # reading or verifying the clip reports it
        return
    source_rate = metadata[entry.name].rate
    if rate and abs(rate / source_rate - 1) > 0.01:
        yield f"{entry.name} has {rate:g} frames a second, its source had {source_rate:g}"
