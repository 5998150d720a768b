"""Datasets read from disk: their names, inventories and videos."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from vfbench import plugins
from vfbench.clips import ClipFile
from vfbench.clips.inventory import Inventory
from vfbench.errors import UserError, unknown
from vfbench.interfaces import Split


def find_inventory(dataset: str, data_root: Path | str | None = None) -> Inventory:
    """Inventory of a dataset such as `ucf101` or `ucf101(split_list=2)`.

    Options that only change how clips are cut are ignored. Raises `UserError` for a dataset that is not read from disk
    or an unknown option, and `MissingData` with the steps to get a dataset that is not found.
    """
    spec = plugins.parse(dataset).merged({"root": str(data_root) if data_root else None})
    if not plugins.defines("dataset", spec.name, "find"):
        known = ", ".join(dataset_names())
        raise UserError(f"dataset {spec.name} is generated, so it has no files on disk: choose one of {known}")
    find_options = {"root", *plugins.options("dataset", spec.name, "find")}
    accepted = {**plugins.options("dataset", spec.name), **dict.fromkeys(find_options)}
    if option := next((option for option in spec.options if option not in accepted), None):
        raise unknown(f"option of dataset {spec.name}", option, accepted)
    options = {name: value for name, value in spec.options.items() if name in find_options}
    inventory: Inventory = plugins.plugin_function("dataset", spec.name, "find")(**options)
    return inventory


def dataset_names() -> list[str]:
    """Names of all datasets that are read from disk."""
    names = []
    for name in plugins.names("dataset"):
        with contextlib.suppress(UserError):  # skip a plug-in that cannot be imported
            names += [name] if plugins.defines("dataset", name, "find") else []
    return names


class SplitVideo(NamedTuple):
    """A video of a split, with its name in findings."""

    split: Split
    name: str
    entry: ClipFile


def list_videos(inventory: Inventory) -> list[SplitVideo]:
    """All videos, split by split. Where splits lie in different folders, names start with the folder's name."""
    several_folders = len({folder.base for folder in inventory.splits.values()}) > 1
    return [
        SplitVideo(split, f"{folder.base.name}/{entry.name}" if several_folders else entry.name, entry)
        for split, folder in inventory.splits.items()
        for entry in folder.entries
    ]
