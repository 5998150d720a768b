"""The videos of a known dataset, told by their names in whatever layout they lie."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from vfbench import clips
from vfbench.clips import ClipFile, ClipFolder
from vfbench.clips.scan import VIDEOS, suffix
from vfbench.datasets._tree import Tree
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Split

# How the files or frame folders of each dataset are called, without the suffix. An id of YouTube has 11 characters.
NAMES = {
    "ucf101": re.compile(r"v_(?P<action>[A-Za-z]+)_g(?P<group>[0-9]{2})_c(?P<clip>[0-9]{2})", re.IGNORECASE),
    "taichi_hd": re.compile(r"(?P<id>[A-Za-z0-9_-]{11})#(?P<start>[0-9]+)#(?P<end>[0-9]+)"),
    "sky_timelapse": re.compile(r"(?P<id>[A-Za-z0-9_-]{11})_(?P<part>[0-9]+)"),
}
SIDES: Mapping[str, Split] = {"train": "train", "test": "test", "sky_train": "train", "sky_test": "test"}
TRIES = 3  # files that are opened to see their size, should the first be damaged
Kind: TypeAlias = Literal["videos", "frames"]
Side: TypeAlias = Literal["train", "test", ""]  # the split whose folder a video stands in, empty for none


@dataclass(frozen=True)
class Named:
    """Videos by the split whose folder they stand in (empty: in none) and their name in the dataset.

    The values are paths relative to the root; `strangers` are videos and frame folders of other names.
    """

    tree: Tree
    kind: Kind
    sides: Mapping[Side, Mapping[str, str]]
    strangers: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.sides.values()))

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the files."""
        others = f"not read, named otherwise: {len(self.strangers):,} ({clips.few(self.strangers)})"
        return [*([others] if self.strangers else []), *self.tree.notes()]

    @property
    def leaked(self) -> list[str]:
        """The names of the videos that stand in the folders of two splits, in natural order."""
        return in_order(self.sides.get("train", {}).keys() & self.sides.get("test", {}).keys())

    def paths(self, split: Split) -> dict[str, str]:
        """The path of every video by its name, of one in the folders of two splits that in the folder of `split`.

        Raises `MissingData` naming a video that stands both in such a folder and outside.
        """
        found = dict(self.sides.get("", {}))
        for side in sorted(self.sides.keys() - {""}, key=lambda side: side == split):
            if twice := next(iter(self.sides.get("", {}).keys() & self.sides[side].keys()), ""):
                raise self._twice(twice, found[twice], self.sides[side][twice])
            found |= self.sides[side]
        return found

    def _twice(self, name: str, *paths: str) -> MissingData:
        return MissingData(f"{self.tree.root} holds {name} twice, {' and '.join(paths)}: keep one")

    def layout(self, classed: str) -> str:
        """The layout in words; `classed` says what one folder between root and videos makes of it."""
        sides = "/".join(side for side in ("train", "test") if side in self.sides)
        frames = {0: "frame folders, one level", 1: "frame folders, two levels"}
        videos = {0: "flat folder of videos", 1: f"{classed} of videos"}
        known, more = (
            (frames, "frame folders, more levels") if self.kind == "frames" else (videos, "nested folders of videos")
        )
        return f"{sides} {known.get(max(self.levels), more)}".strip()

    @property
    def levels(self) -> set[int]:
        """How many folders lie above a video or frame folder, besides the root and those named after a split."""
        paths = {where.rpartition("/")[0] for side in self.sides.values() for where in side.values()}
        return {sum(part.lower() not in SIDES for part in path.split("/") if part) for path in paths}

    def found(self, videos: Mapping[str, str], group: Callable[[str], str]) -> ClipFolder:
        """Videos of one split, of the class that `group` tells from each name."""
        root = self.tree.root
        return ClipFolder(
            root,
            self.kind,
            tuple(ClipFile(name, root / where, 0, group(name), self.kind) for name, where in videos.items()),
        )

    def splits(
        self, group: Callable[[str], str], official: Mapping[str, Split] | None = None
    ) -> dict[Split, ClipFolder]:
        """The videos of each split in natural order of their names.

        Those in the folder of no split are where `official` has them, or else for training. Raises `MissingData` naming
        a video that stands both in such a folder and outside.
        """
        sides: dict[Split, dict[str, str]] = {split: {**self.sides.get(split, {})} for split in ("train", "test")}
        for name, where in self.sides.get("", {}).items():
            side = sides[(official or {}).get(name, "train")]
            if name in side:
                raise self._twice(name, side[name], where)
            side[name] = where
        ordered = {split: {name: side[name] for name in in_order(side)} for split, side in sides.items()}
        return {split: self.found(side, group) for split, side in ordered.items()}


def named(tree: Tree, dataset: str, title: str, call: Callable[[re.Match[str]], str], how: str) -> Named:
    """The videos of a tree that are called as those of the dataset; `call` makes the name in the dataset of a match.

    Raises `MissingData` where there are none, saying what is there instead and `how` to get the dataset; naming a video
    that is there twice; and where videos and frame folders, or png and jpeg images, lie side by side.
    """
    kinds: dict[Kind, Iterable[str]] = {"videos": tree.videos, "frames": tree.frames}
    called = {
        where: (kind, match)
        for kind, names in kinds.items()
        for where in names
        if (match := NAMES[dataset].fullmatch(stem(where)))
    }
    there: dict[Kind, dict[Side, dict[str, str]]] = {}
    for where, (kind, match) in called.items():
        side = there.setdefault(kind, {}).setdefault(_side(tree, where), {})
        if (name := call(match)) in side:
            raise MissingData(f"{title}: {tree.root} holds {name} twice, {side[name]} and {where}: keep one")
        side[name] = where
    if not there:
        raise MissingData(f"{title}: " + (_another(tree) or f"{_instead(tree)}.\n{how}"))
    if len(there) > 1:
        firsts = " and ".join(f"{kind} ({_first(sides)})" for kind, sides in there.items())
        raise MissingData(f"{title}: {tree.root} holds {firsts}: which are meant? Give a folder with one kind")
    kind, sides = next(iter(there.items()))
    strangers = tuple(where for names in kinds.values() for where in names if where not in called)
    return _one_codec(Named(tree, kind, sides, strangers), title)


def stem(where: str) -> str:
    """The last part of a path without the suffix of a video, which frame folders have as well."""
    last = where.rpartition("/")[2]
    return last.rpartition(".")[0] if suffix(last) in VIDEOS else last


def in_order(names: Iterable[str]) -> list[str]:
    """Names in natural order."""
    return sorted(names, key=clips.natural)


def size(splits: Mapping[Split, ClipFolder]) -> str:
    """Width and height of the first video that can be read, as `320x240`; of three none: `no readable file`."""
    entries = [entry for found in splits.values() for entry in found.entries[:TRIES]]
    for entry in entries[:TRIES]:
        try:
            _, height, width = clips.measure(entry)
        except UserError:  # whoever reads or verifies the clip names it
            continue
        return f"{width}x{height}"
    return "no readable file"


def official(there: int, total: int) -> str:
    """How much of the official copy is there: `official`, or `official, partial (5 of 13,320)`."""
    return "official" if there == total else f"official, partial ({there:,} of {total:,})"


def _side(tree: Tree, where: str) -> Side:
    """The split that the nearest folder above a video is named after, that of the tree included."""
    parts = [tree.root.absolute().name, *where.split("/")[:-1]]
    return next((SIDES[part.lower()] for part in reversed(parts) if part.lower() in SIDES), "")


def _first(sides: Mapping[Side, Mapping[str, str]]) -> str:
    return next(iter(next(iter(sides.values())).values()))


def _one_codec(found: Named, title: str) -> Named:
    """Refuse frame folders that mix codecs."""
    codecs = found.tree.there.codecs if found.kind == "frames" else {}
    for where in (where for side in found.sides.values() for where in side.values()):
        if len(codecs.get(where, ())) > 1:
            place = found.tree.root / where
            raise MissingData(f"{title}: {place} holds png and jpeg images: which are the frames? Keep one kind")
    return found


def _another(tree: Tree) -> str:
    """Which known dataset a folder holds, and what to do about it; empty for none."""
    for other, pattern in NAMES.items():
        if like := next((where for where in (*tree.videos, *tree.frames) if pattern.fullmatch(stem(where))), ""):
            return f"{tree.root} holds {other} ({like}): name that dataset, or give another --data-root"
    return ""


def _instead(tree: Tree) -> str:
    """What a folder without videos of a known dataset holds."""
    there = [*tree.videos, *tree.frames]
    if tree.archives:
        return f"{tree.root} holds no clip of the dataset; {tree.unpack()}"
    if there:
        return f"{tree.root} holds no clip named as those of the dataset, but {clips.few(there)}"
    return f"{tree.root} holds no clips ({tree.beside() or 'it is empty'})"
