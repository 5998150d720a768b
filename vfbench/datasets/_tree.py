"""What lies below the folder of a dataset, and which of its archives are there or above."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vfbench import clips
from vfbench.clips.scan import Scan, listing, scan, suffix

ARCHIVES = {
    ".rar": "unrar x {file} {folder}/",
    ".zip": "unzip {file} -d {folder}",
    ".7z": "7z x {file} -o{folder}",
    ".tar": "tar -xf {file} -C {folder}",
    ".tgz": "tar -xf {file} -C {folder}",
    ".gz": "tar -xf {file} -C {folder}",
}
SPLIT_LISTS = "ucftraintestlist"  # ignored among the videos, since it is read by itself


class Tree(NamedTuple):
    """What lies below the folder of a dataset, and the archives there; of those above it, the dataset's own."""

    there: Scan
    archives: Sequence[Path]

    @property
    def root(self) -> Path:
        """The folder."""
        return self.there.base

    @property
    def videos(self) -> list[str]:
        """The videos by their names below the folder."""
        return self.there.claimed["videos"]

    @property
    def frames(self) -> list[str]:
        """The frame folders, in the same way."""
        return self.there.claimed["frames"]

    def notes(self) -> list[str]:
        """What a reader must know of the files, whatever the dataset."""
        empty, gaps = self.there.empty, self.there.gaps
        ignored = [name for name in self.there.ignored if name.lower() != SPLIT_LISTS]
        return [
            *([f"empty folders, no clips: {len(empty):,} ({clips.few(empty)})"] if empty else []),
            *([f"frame folders whose numbers leave some out: {len(gaps):,} ({clips.few(gaps)})"] if gaps else []),
            *([f"ignored: {clips.few(ignored)}"] if ignored else []),
        ]

    def beside(self) -> str:
        """What is there besides videos and frame folders; empty if nothing is."""
        others = [*self.there.other, *self.there.claimed["arrays"]]
        return clips.few(others or list(self.there.ignored) or self.there.empty)

    def unpack(self) -> str:
        """The archives, and the command that unpacks the first; empty without any."""
        if not self.archives:
            return ""
        first = self.archives[0]
        command = ARCHIVES[suffix(first.name)]
        quoted = {"file": shlex.quote(str(first)), "folder": shlex.quote(str(first.parent))}
        names = clips.few([path.name for path in self.archives])
        return f"{names} is not unpacked, or not to its end: {command.format(**quoted)}"


def look(places: Sequence[Path], names: Sequence[str]) -> Tree:
    """All names below the last of `places`, which the others lie above, in natural order whatever the disk's order.

    Hidden files, `__MACOSX` and split lists are not entered. Above, only archives count that have one of `names` in
    their name. Raises `MissingData` naming a folder that cannot be read, and a link to a folder above itself.
    """
    there = scan(places[-1])
    inside = [there.base / name for name in there.other]
    above = [place / item.name for place in places[:-1] for item in listing(place) if named_after(item.name, names)]
    return Tree(there, [path for path in (*inside, *sorted(above)) if suffix(path.name) in ARCHIVES])


def named_after(name: str, names: Sequence[str]) -> bool:
    """Whether one of `names` is part of a name, whatever the case, `-` and `_`."""
    return any(plain(known) in plain(name) for known in names)


def plain(name: str) -> str:
    """A name without case, `-`, `_` and spaces: `ucf101` for `UCF-101`."""
    return re.sub("[-_ ]", "", name).lower()
