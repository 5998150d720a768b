"""All files below a folder, sorted into the layouts that read them. Only names are read, never content."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

from vfbench.clips.arrays import ARRAY_SUFFIXES
from vfbench.clips.text import DIGITS_TO_ZERO, NUMBER, first_few, natural_key
from vfbench.errors import MissingData

Layout: TypeAlias = Literal["videos", "frames", "arrays"]

VIDEO_SUFFIXES = (
    *(".avi", ".mp4", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".ogv", ".3gp", ".y4m", ".gif", ".webp", ".apng"),
)
IMAGE_CODECS: Mapping[str, str] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
GENERATED = "generate.json"  # written by `vfbench generate` beside its folder `clips`
# In lower case; hidden names come on top. `clips.webp` is a preview that vfbench writes beside clips.
IGNORED_NAMES = ("__macosx", "ucftraintestlist", "thumbs.db", "desktop.ini", "clips.webp")


def suffix(name: str) -> str:
    """Suffix of a file name in lower case, such as `.png`."""
    _, dot, last = name.rpartition(".")
    return dot + last.lower()


def image_codec(name: str) -> str:
    """Codec of an image by its suffix, `png` or `jpeg`; empty for any other file."""
    return IMAGE_CODECS.get(suffix(name), "")


def frame_files(folder: Path) -> list[Path]:
    """Images of a frame folder in natural order; raises `MissingData` where the folder cannot be read."""
    names = [item.name for item in list_folder(folder) if image_codec(item.name) and not _ignored(item.name)]
    return [folder / name for name in sorted(names, key=natural_key)]


def strangers(images: Sequence[str]) -> list[str]:
    """Images named unlike most others, but for the numbers: `cover.png` among `0001.png`, `0002.png` and so on."""
    patterns = [NUMBER.sub("0", image.lower()) for image in images]
    usual, count = max(Counter(patterns).items(), key=lambda item: item[1], default=("", 0))
    if 2 * count <= len(images):  # names without numbers, or of two kinds
        return []
    return [image for image, pattern in zip(images, patterns, strict=True) if pattern != usual]


def first_gap(images: Sequence[str]) -> str:
    """The first two frames around a gap in the numbering, such as `4.png, then 6.png`.

    The number of a frame is the last one in its name; `strangers` are left aside. Empty without a gap, and where
    frames lack a number or share one.
    """
    others = set(strangers(images))
    images = [image for image in images if image not in others]
    numbered = {int(numbers[-1]): image for image in images if (numbers := NUMBER.findall(image))}
    if not images or len(numbered) < len(images) or max(numbered) - min(numbered) < len(numbered):
        return ""
    ordered = sorted(numbered)
    steps = [after - before for before, after in pairwise(ordered)]
    place = next((i for i, step in enumerate(steps) if step != min(steps)), None)
    return "" if place is None else f"{numbered[ordered[place]]}, then {numbered[ordered[place + 1]]}"


@dataclass
class Scan:
    """Files below `base`, as names relative to it, in natural order.

    `by_layout` holds video files, frame folders and array files. `codecs` are the image codecs of each frame folder,
    `unordered` the frame folders whose natural order differs from the lexicographic one, `gaps` those with gaps in the
    numbering, `other` the files that no layout reads, `ignored` the skipped names with their counts.
    """

    base: Path
    by_layout: dict[Layout, list[str]] = field(default_factory=lambda: {"videos": [], "frames": [], "arrays": []})
    codecs: dict[str, set[str]] = field(default_factory=dict)
    unordered: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Notes on files and folders that were not read."""
        notes = []
        if self.other:
            notes.append(f"not scored, no layout reads them: {first_few(self.other)}")
        if self.ignored:
            counted = [f"{name} ({n})" if n > 1 else name for name, n in self.ignored.items()]
            notes.append(f"ignored: {first_few(counted)}")
        if self.empty:
            notes.append(f"{len(self.empty):,} empty folder{'s' * (len(self.empty) > 1)}: {first_few(self.empty)}")
        return notes


def scan(path: Path) -> Scan:
    """Scan a folder and all below it, or a single file, in one pass; the result does not depend on the disk's order.

    Raises `MissingData` naming a folder that cannot be read, or a link to a folder above itself.
    """
    result = Scan(path.parent if path.is_file() else path)
    if path.is_file():
        _add_files(result, [path.name])
    else:
        _add_folder(result, path, "", frozenset())
    for names in (*result.by_layout.values(), result.unordered, result.gaps, result.other, result.empty):
        names.sort(key=natural_key)
    result.ignored = Counter({name: result.ignored[name] for name in sorted(result.ignored, key=natural_key)})
    return result


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder, in any order; raises `MissingData` where it cannot be read."""
    try:
        with os.scandir(folder) as items:
            return list(items)
    except OSError as error:
        raise MissingData(f"{folder}: {error.strerror}; give a folder or file of clips that can be read") from error


def is_folder(item: os.DirEntry[str]) -> bool:
    """True where an entry is a folder; raises `MissingData` naming a circular link."""
    try:
        return item.is_dir()
    except OSError as error:
        raise MissingData(f"{item.path}: {error.strerror}; take it out") from error


def _add_folder(result: Scan, folder: Path, name: str, above: frozenset[tuple[int, int]]) -> None:
    """Add a folder and all below it; `above` holds device and inode of its parents, to detect circular links."""
    entries = list_folder(folder)
    stat = folder.stat()
    if (inode := (stat.st_dev, stat.st_ino)) in above:
        raise MissingData(f"{folder} links to a folder above itself: take the link out")
    # Beside the clips that `vfbench generate` wrote lie the same clips again, to look at.
    only_clips = {GENERATED, "clips"} <= {item.name for item in entries}
    items = [item for item in entries if not _ignored(item.name) and (item.name == "clips" or not only_clips)]
    result.ignored.update({item.name for item in entries} - {item.name for item in items})
    if name and not items:
        result.empty.append(name)
    prefix = f"{name}/" if name else ""
    files: list[str] = []
    images: list[str] = []
    for item in items:
        if is_folder(item):
            _add_folder(result, folder / item.name, f"{prefix}{item.name}", above | {inode})
        else:
            (images if name and image_codec(item.name) else files).append(item.name)
    _add_files(result, [f"{prefix}{file}" for file in files])
    if images:
        _add_frames(result, name, images)


def _add_frames(result: Scan, name: str, images: Sequence[str]) -> None:
    """Add a frame folder. Datasets have millions of frames, so zero-padded names are not sorted to compare orders."""
    result.by_layout["frames"].append(name)
    result.codecs[name] = set(map(image_codec, images))
    result.gaps += [name] * bool(first_gap(images))
    padded = len({image.translate(DIGITS_TO_ZERO) for image in images}) == 1
    result.unordered += [name] * (not padded and sorted(images, key=natural_key) != sorted(images))


def _add_files(result: Scan, names: Iterable[str]) -> None:
    """Add files that are not frames."""
    for name in names:
        ending = suffix(name)
        layout: Layout | None = "videos" if ending in VIDEO_SUFFIXES else "arrays" if ending in ARRAY_SUFFIXES else None
        (result.by_layout[layout] if layout else result.other).append(name)


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED_NAMES
