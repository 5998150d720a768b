"""Scan of a dataset's folder: its videos, frame folders and archives, and archives in the folders above."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vfbench import clips
from vfbench.clips.scan import Scan, list_folder, scan, suffix

UNPACK_COMMANDS = {
    ".rar": "unrar x {file} {folder}/",
    ".zip": "unzip {file} -d {folder}",
    ".7z": "7z x {file} -o{folder}",
    ".tar": "tar -xf {file} -C {folder}",
    ".tgz": "tar -xf {file} -C {folder}",
    ".gz": "tar -xf {file} -C {folder}",
}
SPLIT_LISTS = "ucftraintestlist"  # folder of UCF101 lists in lower case; ignored among videos, read by its own module


class DatasetTree(NamedTuple):
    """Scan of a dataset's folder, with the archives in it and the dataset's archives in the folders above."""

    scan: Scan
    archives: Sequence[Path]

    @property
    def root(self) -> Path:
        """The dataset's folder."""
        return self.scan.base

    @property
    def videos(self) -> list[str]:
        """Video files, as paths relative to `root`."""
        return self.scan.by_layout["videos"]

    @property
    def frames(self) -> list[str]:
        """Frame folders, as paths relative to `root`."""
        return self.scan.by_layout["frames"]

    def notes(self) -> list[str]:
        """Notes on empty folders, gaps in frame numbers and ignored files."""
        empty, gaps = self.scan.empty, self.scan.gaps
        ignored = [name for name in self.scan.ignored if name.lower() != SPLIT_LISTS]
        return [
            *([f"empty folders, no clips: {len(empty):,} ({clips.first_few(empty)})"] if empty else []),
            *([f"frame folders with gaps in their numbers: {len(gaps):,} ({clips.first_few(gaps)})"] if gaps else []),
            *([f"ignored: {clips.first_few(ignored)}"] if ignored else []),
        ]

    def describe_others(self) -> str:
        """First names of files other than videos and frame folders; empty for none."""
        others = [*self.scan.other, *self.scan.by_layout["arrays"]]
        return clips.first_few(others or list(self.scan.ignored) or self.scan.empty)

    def unpack_hint(self) -> str:
        """Archives found in the folder and the command that unpacks the first; empty where there are none."""
        if not self.archives:
            return ""
        first = self.archives[0]
        command = UNPACK_COMMANDS[suffix(first.name)]
        paths = {"file": shlex.quote(str(first)), "folder": shlex.quote(str(first.parent))}
        names = clips.first_few([path.name for path in self.archives])
        return f"{names} is not unpacked, or only in part: {command.format(**paths)}"


def scan_tree(folders: Sequence[Path], names: Sequence[str]) -> DatasetTree:
    """Scan the last of `folders`, in natural order; the folders before it lie above it.

    Skips hidden files, `__MACOSX` and split lists. In the folders above, only archives with one of `names` in their
    file name count. Raises `MissingData` for an unreadable folder, and for a link to a folder above itself.
    """
    tree = scan(folders[-1])
    inside = [tree.base / name for name in tree.other]
    above = [
        folder / item.name
        for folder in folders[:-1]
        for item in list_folder(folder)
        if any(normalise(name) in normalise(item.name) for name in names)
    ]
    return DatasetTree(tree, [path for path in (*inside, *sorted(above)) if suffix(path.name) in UNPACK_COMMANDS])


def normalise(name: str) -> str:
    """A name in lower case without `-`, `_` and spaces: `ucf101` for `UCF-101`."""
    return re.sub("[-_ ]", "", name).lower()
