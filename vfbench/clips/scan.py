"""Every file below a folder, sorted into the layout that would read it. Only names are looked at."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

from vfbench.clips.arrays import SUFFIXES
from vfbench.clips.text import _NUMBER, _ONE_DIGIT, few, natural
from vfbench.errors import MissingData

Layout: TypeAlias = Literal["videos", "frames", "arrays"]

VIDEOS = (
    *(".avi", ".mp4", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".ogv", ".3gp", ".y4m", ".gif"),
)
IMAGES: Mapping[str, str] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
IGNORED = ("__macosx", "ucftraintestlist", "thumbs.db", "desktop.ini")  # in lower case; and whatever is hidden


def suffix(name: str) -> str:
    """The suffix of a name in lower case, such as `.png`."""
    _, dot, last = name.rpartition(".")
    return dot + last.lower()


def codec(name: str) -> str:
    """The codec of an image by its name; empty if it is none."""
    return IMAGES.get(suffix(name), "")


def frame_files(folder: Path) -> list[Path]:
    """The images of a frame folder in natural order; raises `MissingData` where it cannot be read."""
    names = [item.name for item in listing(folder) if codec(item.name) and not _passed_over(item.name)]
    return [folder / name for name in sorted(names, key=natural)]


def gap(images: Sequence[str]) -> str:
    """The first two frames that are further apart than others by the last number in their names: `4.png, then 6.png`.

    Empty where there are none, and where not every frame has a number of its own: its names then tell nothing.
    """
    numbered = {int(found[-1]): image for image in images if (found := _NUMBER.findall(image))}
    if not images or len(numbered) < len(images) or max(numbered) - min(numbered) < len(numbered):
        return ""
    ordered = sorted(numbered)
    steps = [after - before for before, after in pairwise(ordered)]
    place = next((i for i, step in enumerate(steps) if step != min(steps)), None)
    return "" if place is None else f"{numbered[ordered[place]]}, then {numbered[ordered[place + 1]]}"


@dataclass
class Scan:
    """What lies below `base`, by its name relative to it, in natural order.

    `codecs` are those of the images of each frame folder, `unordered` the frame folders whose natural order is not the
    order by characters, `gaps` those whose numbers leave some out, and `other` the files that no layout reads.
    """

    base: Path
    claimed: dict[Layout, list[str]] = field(default_factory=lambda: {"videos": [], "frames": [], "arrays": []})
    codecs: dict[str, set[str]] = field(default_factory=dict)
    unordered: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What was not read."""
        told = []
        if self.other:
            told.append(f"not scored, no layout reads them: {few(self.other)}")
        if self.ignored:
            told.append(f"ignored: {few([f'{name} ({n})' if n > 1 else name for name, n in self.ignored.items()])}")
        if self.empty:
            told.append(f"{len(self.empty):,} empty folder{'s' * (len(self.empty) > 1)}: {few(self.empty)}")
        return told


def scan(place: Path) -> Scan:
    """All files below a folder, or the single file, in one pass and in an order that is not the disk's.

    Raises `MissingData` naming a folder that cannot be read, and a link to a folder above itself.
    """
    found = Scan(place.parent if place.is_file() else place)
    if place.is_file():
        _sort(found, [place.name])
    else:
        _walk(found, place, "", frozenset())
    for names in (*found.claimed.values(), found.unordered, found.gaps, found.other, found.empty):
        names.sort(key=natural)
    found.ignored = Counter({name: found.ignored[name] for name in sorted(found.ignored, key=natural)})
    return found


def listing(folder: Path) -> list[os.DirEntry[str]]:
    """What stands in a folder, in any order; raises `MissingData` where it cannot be read."""
    try:
        with os.scandir(folder) as items:
            return list(items)
    except OSError as error:
        raise MissingData(f"{folder}: {error.strerror}; give a folder or file of clips that can be read") from error


def is_folder(item: os.DirEntry[str]) -> bool:
    """Whether an item is a folder; raises `MissingData` naming a link that leads in a circle."""
    try:
        return item.is_dir()
    except OSError as error:
        raise MissingData(f"{item.path}: {error.strerror}; take it out") from error


def _walk(found: Scan, folder: Path, name: str, above: frozenset[tuple[int, int]]) -> None:
    """Add what stands in a folder and below; `above` are the folders on the way to it, against links in a circle."""
    there = listing(folder)
    stat = folder.stat()
    if (here := (stat.st_dev, stat.st_ino)) in above:
        raise MissingData(f"{folder} links to a folder above itself: take the link out")
    found.ignored.update(item.name for item in there if _passed_over(item.name))
    items = [item for item in there if not _passed_over(item.name)]
    if name and not items:
        found.empty.append(name)
    prefix = f"{name}/" if name else ""
    files: list[str] = []
    images: list[str] = []
    for item in items:
        if is_folder(item):
            _walk(found, folder / item.name, f"{prefix}{item.name}", above | {here})
        else:
            (images if name and codec(item.name) else files).append(item.name)
    _sort(found, [f"{prefix}{file}" for file in files])
    if images:
        _add_frames(found, name, images)


def _add_frames(found: Scan, name: str, images: Sequence[str]) -> None:
    """Add a frame folder. Datasets have millions of frames, so that these are not sorted without need."""
    found.claimed["frames"].append(name)
    found.codecs[name] = set(map(codec, images))
    found.gaps += [name] * bool(gap(images))
    padded = len({image.translate(_ONE_DIGIT) for image in images}) == 1  # numbers of one length, in equal names
    found.unordered += [name] * (not padded and sorted(images, key=natural) != sorted(images))


def _sort(found: Scan, names: Iterable[str]) -> None:
    """Add files that are no frames."""
    for name in names:
        layout: Layout | None = "videos" if suffix(name) in VIDEOS else "arrays" if suffix(name) in SUFFIXES else None
        (found.claimed[layout] if layout else found.other).append(name)


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED
