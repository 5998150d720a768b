"""TaiChi-HD: 3,334 clips of people doing tai chi, cut from 280 videos of YouTube.

    root/[train,test/]<video>#<start>#<end>.mp4              as videos
    root/[train,test/]<video>#<start>#<end>.mp4/0000000.png  as frames: each folder is called as the video would be
    root/taichi-metadata.csv                                 the official list, there or above: names and splits

Siarohin, Lathuilière, Tulyakov, Ricci and Sebe, "First Order Motion Model for Image Animation" (NeurIPS 2019), whose
repository has the list: https://github.com/AliaksandrSiarohin/first-order-model (data/taichi-loading).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from vfbench import clips, video
from vfbench.clips import LIGHT, ClipFolder
from vfbench.clips.inventory import Inventory
from vfbench.clips.transform import ClipTransform
from vfbench.datasets._locate import places, ready
from vfbench.datasets._naming import Named, in_order, named, size
from vfbench.datasets._tree import look
from vfbench.datasets._video_dataset import Videos
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape, Dataset, Split
from vfbench.protocol.protocol import WORDLESS

NAME, TITLE = "taichi_hd", "TaiChi-HD"
CLASS = "tai_chi"  # in words its caption
METADATA, COLUMNS = "taichi-metadata.csv", ("video_id", "start", "end", "fps", "partition")
COUNTS: Mapping[Split, int] = {"train": 3049, "test": 285}  # clips of the official list
# Plumbing, as for UCF101. Clips follow each other through a video, so that two videos are enough.
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "taichi_hd-smoke": {
        "comparable": False,
        "split": "both",
        "start": "chunks",
        "geometry": "centre-crop",
        "filter": "bilinear",
        "antialias": True,
        "n_real": 16,
        "measures": WORDLESS,
    }
}

HOW_TO_GET = """Get it once. Its authors hand out the list of what to cut from YouTube, where many videos are gone:
  1. from https://github.com/AliaksandrSiarohin/first-order-model take data/taichi-loading, with taichi-metadata.csv
  2. in that folder run python load_videos.py as its read-me says, which downloads, cuts and crops what is still there;
     or take a mirror of frames: https://huggingface.co/datasets/maxin-cn/Taichi-HD (96 GB)
  3. put taichi-metadata.csv beside the clips in a folder DIR, which then holds train/<video>#<start>#<end>.mp4
  4. repeat your command with --data-root DIR, or set VFBENCH_DATA=DIR
No licence is known, and the rights are those of YouTube's users. Scores depend on which clips are left."""


class Row(NamedTuple):
    """What the official list says of a clip: its split, and the frames a second of its source."""

    split: Split
    rate: float


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
    short: str = "refuse",
    decoder: str = "auto",
) -> Dataset:
    """TaiChi-HD as clips of `frames` frames, `stride` apart, by default cropped to the centred square and resized.

    `root` is the dataset's folder or one above, without it VFBENCH_DATA is used. With `short` at `skip`, clips without
    room are left out. `decoder` is that of `vfbench.video.decode`, the other options are those of
    `vfbench.clips.transform`. Raises
    `MissingData` with the way to get the dataset where it is not found, and `UserError` for an impossible option.
    """
    cut = ClipTransform(NAME, ClipShape(frames, height, width), stride, drop_first, start, geometry, filter, antialias)
    return Videos(find(root), cut, short=short, decoder=decoder)


def find(root: str | None = None) -> Inventory:
    """What stands of TaiChi-HD below `root`, called `<video>#<start>#<end>.mp4` in every layout.

    Splits are those of folders `train` and `test`, else those of the official list. Raises `MissingData` with the way
    to get the dataset where it is not found, and naming what is wrong with the list.
    """
    visited = places(root, TITLE, (NAME, "taichi"), HOW_TO_GET)
    if made := ready(visited, NAME, origin):
        return replace(made, official=COUNTS)
    tree = look(visited, ("taichi",))
    there = named(tree, NAME, TITLE, lambda match: official_name(*match.groups()), HOW_TO_GET)
    listing = _find_metadata(visited)
    rows = read_metadata(listing) if listing else {}
    splits = there.splits(lambda name: CLASS, {name: row.split for name, row in rows.items()})
    names = {entry.name for found in splits.values() for entry in found.entries}
    return Inventory(
        NAME,
        f"{there.layout('nested folder')}, {'with the official list' if rows else 'no official list'}",
        f"cut from YouTube, {len(names):,} of {sum(COUNTS.values()):,} clips, {size(splits)}",
        splits,
        (CLASS,),
        {split: tuple(name for name, row in rows.items() if row.split == split) for split in COUNTS if rows},
        (*in_order(name for name in names if rows and name not in rows), *there.strangers),
        origin,
        (*_notes(there, splits, rows), *there.notes),
        LIGHT,
        official=COUNTS,
    )


def origin(name: str) -> str:
    """The video of YouTube that a clip was cut from."""
    return name.partition("#")[0]


def official_name(video: str, start: str | int, end: str | int) -> str:
    """A clip as files are called: the numbers of its first and last frame have six digits."""
    return f"{video}#{int(start):06}#{int(end):06}.mp4"


def read_metadata(path: Path) -> dict[str, Row]:
    """The official list by the names of the clips; raises `MissingData` naming the line that is not as it should be."""
    rows = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            if lost := [column for column in COLUMNS if column not in (table.fieldnames or ())]:
                raise ValueError(f"no column {', '.join(lost)}")
            for number, row in enumerate(table, 2):
                if row["partition"] not in COUNTS:
                    raise ValueError(f"line {number}: partition {row['partition']!r}")
                name = official_name(row["video_id"], row["start"], row["end"])
                rows[name] = Row(row["partition"], float(row["fps"]))  # type: ignore[arg-type]  # checked above
    except (OSError, TypeError, ValueError, csv.Error) as error:
        said = f"{path}: is not the official list ({error!s} after {len(rows):,} clips)"
        raise MissingData(f"{said}; get it again.\n{HOW_TO_GET}") from error
    return rows


def _find_metadata(visited: Sequence[Path]) -> Path | None:
    """The official list in one of the folders, or up to two above."""
    outer = visited[0].absolute()
    candidates = (place / METADATA for place in (*reversed(visited), *outer.parents[:2]))
    return next((path for path in candidates if path.is_file()), None)


def _notes(there: Named, splits: Mapping[Split, ClipFolder], rows: Mapping[str, Row]) -> list[str]:
    """What a reader must know of the clips."""
    placed = {entry.name: split for split, found in splits.items() for entry in found.entries}
    moved = [name for name, split in placed.items() if name in rows and rows[name].split != split]
    notes = [f"in another split than the official: {len(moved):,} ({clips.few(moved)})"] if moved else []
    if not rows:
        notes += [f"no {METADATA} found: which clips are missing is not known"]
        if "" in there.sides:
            notes += ["no folder names a split: all clips are in train"]
    if there.tree.archives and len(placed) < sum(COUNTS.values()):
        notes += [there.tree.unpack()]
    return [*notes, *_rate(splits, rows)]


def _rate(splits: Mapping[Split, ClipFolder], rows: Mapping[str, Row]) -> Iterable[str]:
    """The note on a first video that plays at another rate than its source did: a stride then spans another time."""
    entry = next((found.entries[0] for found in splits.values() if found.entries), None)
    if entry is None or entry.kind != "videos" or entry.name not in rows:
        return
    try:
        rate = video.header(entry.path).rate
    except UserError:  # whoever reads or verifies the clip names it
        return
    if rate and abs(rate / rows[entry.name].rate - 1) > 0.01:
        yield f"{entry.name} says {rate:g} frames a second, its source had {rows[entry.name].rate:g}"
