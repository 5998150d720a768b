"""What lies below the folder of a dataset, found in one pass over names: videos, frame folders, and what is neither."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vfbench import folders
from vfbench.errors import MissingData
from vfbench.folders.scan import IGNORED, VIDEOS, codec, suffix

ARCHIVES = {
    ".rar": "unrar x {file} {folder}/",
    ".zip": "unzip {file} -d {folder}",
    ".7z": "7z x {file} -o{folder}",
    ".tar": "tar -xf {file} -C {folder}",
    ".tgz": "tar -xf {file} -C {folder}",
    ".gz": "tar -xf {file} -C {folder}",
}
SPLIT_LISTS = "ucftraintestlist"  # ignored among the videos, since it is read by itself
_LAST_NUMBER = re.compile(r"([0-9]+)\.[A-Za-z]+$")


class Frames(NamedTuple):
    """What the names in a frame folder tell: the codecs of its images, and whether their numbers leave some out."""

    codecs: frozenset[str]
    gaps: bool


@dataclass
class Tree:
    """Videos and frame folders below `root` by their names relative to it, and the names of all that is neither.

    `archives` are those among the files, and those of the dataset that lie above.
    """

    root: Path
    videos: list[str] = field(default_factory=list)
    frames: dict[str, Frames] = field(default_factory=dict)
    other: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    archives: list[Path] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What a reader must know of the files, whatever the dataset."""
        gaps = [name for name, frames in self.frames.items() if frames.gaps]
        ignored = sorted(name for name in self.ignored if name.lower() != SPLIT_LISTS)
        return [
            *([f"empty folders, no clips: {len(self.empty):,} ({folders.few(self.empty)})"] if self.empty else []),
            *([f"frame folders whose numbers leave some out: {len(gaps):,} ({folders.few(gaps)})"] if gaps else []),
            *([f"ignored: {folders.few(ignored)}"] if ignored else []),
        ]

    def unpack(self) -> str:
        """The archives, and the command that unpacks the first; empty without any."""
        if not self.archives:
            return ""
        first = self.archives[0]
        command = ARCHIVES[suffix(first.name)]
        quoted = {"file": shlex.quote(str(first)), "folder": shlex.quote(str(first.parent))}
        names = folders.few([path.name for path in self.archives])
        return f"{names} is not unpacked, or not to its end: {command.format(**quoted)}"


def look(places: Sequence[Path], names: Sequence[str]) -> Tree:
    """All names below the last of `places`, which the others lie above, in natural order whatever the disk's order.

    Hidden files, `__MACOSX` and split lists are not entered. Above, only archives count that have one of `names` in
    their name. Raises `MissingData` naming a folder that cannot be read, and a link to a folder above itself.
    """
    tree = Tree(places[-1])
    _enter(tree, tree.root, "", frozenset())
    tree.videos.sort(key=folders.natural)
    tree.frames = {name: tree.frames[name] for name in sorted(tree.frames, key=folders.natural)}
    for known in (tree.other, tree.empty):
        known.sort(key=folders.natural)
    inside = [tree.root / name for name in tree.other]
    above = [place / item.name for place in places[:-1] for item in listing(place) if named_after(item.name, names)]
    tree.archives = [path for path in (*inside, *sorted(above)) if suffix(path.name) in ARCHIVES]
    return tree


def named_after(name: str, names: Sequence[str]) -> bool:
    """Whether one of `names` is part of a name, whatever the case, `-` and `_`."""
    return any(plain(known) in plain(name) for known in names)


def plain(name: str) -> str:
    """A name without case, `-`, `_` and spaces: `ucf101` for `UCF-101`."""
    return re.sub("[-_ ]", "", name).lower()


def listing(folder: Path) -> list[os.DirEntry[str]]:
    """What stands in a folder; raises `MissingData` where it cannot be read."""
    try:
        with os.scandir(folder) as items:
            return list(items)
    except OSError as error:
        raise MissingData(f"{folder}: {error.strerror}; give a folder that you may read, or change its mode") from error


def is_folder(item: os.DirEntry[str]) -> bool:
    """Whether an item is a folder; raises `MissingData` naming a link that leads in a circle."""
    try:
        return item.is_dir()
    except OSError as error:
        raise MissingData(f"{item.path}: {error.strerror}; take it out") from error


def _enter(tree: Tree, folder: Path, name: str, above: frozenset[tuple[int, int]]) -> None:
    """Add what stands in a folder and below; `above` are the folders on the way to it, against links in a circle."""
    items = listing(folder)
    stat = folder.stat()
    if (here := (stat.st_dev, stat.st_ino)) in above:
        raise MissingData(f"{folder} links to a folder above itself: take the link out")
    prefix = f"{name}/" if name else ""
    images = []
    for item in items:
        if item.name.startswith(".") or item.name.lower() in IGNORED:
            tree.ignored[item.name] += 1
        elif is_folder(item):
            _enter(tree, folder / item.name, f"{prefix}{item.name}", above | {here})
        elif codec(item.name):
            images.append(item.name)
        else:
            (tree.videos if suffix(item.name) in VIDEOS else tree.other).append(f"{prefix}{item.name}")
    if images:
        tree.frames[name] = Frames(frozenset(map(codec, images)), _gaps(images))
    if name and not items:
        tree.empty.append(name)


def _gaps(images: Iterable[str]) -> bool:
    """Whether the numbers at the end of the names leave some out between the first and the last."""
    numbers = {int(found[1]) for image in images if (found := _LAST_NUMBER.search(image))}
    return bool(numbers) and max(numbers) - min(numbers) + 1 != len(numbers)
