"""Location of a dataset: the folder given by the user, or a child of it named after the dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from vfbench.clips import prepared
from vfbench.clips.inventory import Inventory
from vfbench.clips.scan import is_folder, list_folder
from vfbench.datasets._tree import normalise
from vfbench.errors import MissingData

MAX_NESTING = 3  # such chains come from an archive unpacked into a folder of its own name


def search_folders(root: str | None, title: str, names: Sequence[str], how: str) -> list[Path]:
    """Folders from `root` down to the dataset's own, each a child of the one before.

    `root`, or else VFBENCH_DATA, is the dataset's folder or holds a child with one of `names`; the first name found
    wins, and case, `-` and `_` are ignored. Raises `MissingData` with the steps `how` to get the dataset where no
    folder is given or it cannot be read, and naming the children where several match a name.
    """
    start = root or os.environ.get("VFBENCH_DATA")
    if not start:
        raise MissingData(f"{title}: no --data-root given and VFBENCH_DATA not set.\n{how}")
    folder = prepared.local_root(start)
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise MissingData(f"{title}: {folder}: {error.strerror}; give a folder that you may read.\n{how}") from error
    folders = [folder]
    while len(folders) <= MAX_NESTING and (child := _dataset_child(folders[-1], title, names)):
        folders.append(child)
    return folders


def find_prepared(
    folders: Sequence[Path], dataset: str, origin: Callable[[str], str], **options: object
) -> Inventory | None:
    """Inventory of the dataset prepared by `vfbench data prepare` in the first of the folders that has one, or None."""
    inventories = (prepared.read_inventory(folder, dataset, origin=origin, **options) for folder in folders)
    return next(filter(None, inventories), None)


def _dataset_child(folder: Path, title: str, names: Sequence[str]) -> Path | None:
    """Child folder with one of the dataset's names, or None."""
    children: dict[str, list[Path]] = {}
    for item in list_folder(folder):
        if normalise(item.name) in map(normalise, names) and is_folder(item):
            children.setdefault(normalise(item.name), []).append(folder / item.name)
    for name in names:
        if len(matches := sorted(children.get(normalise(name), []))) > 1:
            candidates = " and ".join(map(str, matches))
            raise MissingData(f"{title}: {candidates} match; choose one, such as --data-root {matches[0]}")
        if matches:
            return matches[0]
    return None
