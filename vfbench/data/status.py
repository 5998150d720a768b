"""Status of each dataset: the folder searched, the copy found there, and the steps to get a missing one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vfbench import plugins
from vfbench.clips.inventory import Inventory
from vfbench.data import completeness, sources
from vfbench.errors import MissingData
from vfbench.utils.escape import printable


@dataclass(frozen=True)
class DatasetState:
    """Folder searched for a dataset, the copy found there (None where it is missing), and the steps to get it."""

    looked_in: str
    said_by: str  # flag, option or variable that named the folder
    inventory: Inventory | None
    reason: str  # of a missing dataset
    how_to_get: str

    def to_json(self) -> dict[str, Any]:
        """The state as JSON values."""
        searched = {"looked_in": self.looked_in, "said_by": self.said_by}
        if self.inventory is None:
            return {"found": False, **searched, "why": self.reason, "how_to_get": self.how_to_get}
        inventory, splits = self.inventory, self.inventory.splits
        return {
            "found": True,
            **searched,
            "folder": str(next(iter(splits.values())).root),
            "layout": inventory.layout,
            "copy": inventory.copy,
            "videos": {split: len(folder) for split, folder in splits.items()},
            "listed": {split: len(names) for split, names in inventory.listed.items()},
            "prepared": inventory.fitted,
            "note": inventory.note,
            "how_to_get": self.how_to_get,
        }


def dataset_states(
    dataset: str | None = None, data_root: Path | str | None = None, root_origin: str = "--data-root"
) -> dict[str, DatasetState]:
    """State of one dataset, or of each that has steps to get it, by name.

    `root_origin` names the flag or file that gave `data_root`. A dataset asked for by name and found in part also gets
    the steps for the rest. Raises `UserError` for a dataset that is unknown or not read from disk.
    """
    if dataset:
        return {dataset: _state(dataset, data_root, root_origin, partial_steps=True)}
    return {name: _state(name, data_root, root_origin) for name in sources.dataset_names() if _steps(name)}


def format_states(states: Mapping[str, DatasetState]) -> str:
    """Text report of the states of datasets."""
    return "\n\n".join("\n".join(_lines(name, state)) for name, state in states.items())


def _state(name: str, data_root: Path | str | None, root_origin: str, *, partial_steps: bool = False) -> DatasetState:
    searched = _searched_folder(name, data_root, root_origin)
    try:
        inventory = sources.find_inventory(name, data_root)
    except MissingData as error:
        # Only the first line: the error itself ends with the steps, unless it is about one file.
        return DatasetState(*searched, None, str(error).partition("\n")[0], _steps(name))
    steps = _steps(name) if partial_steps and completeness.incomplete(inventory) else ""
    return DatasetState(*searched, inventory, "", steps)


def _searched_folder(name: str, data_root: Path | str | None, root_origin: str) -> tuple[str, str]:
    """The folder searched for a dataset, and the flag, option or variable that named it."""
    candidates = [
        (str(data_root) if data_root else None, root_origin),
        (plugins.parse(name).options.get("root"), "root"),
        (os.environ.get("VFBENCH_DATA"), "VFBENCH_DATA"),
    ]
    folder, origin = next(((folder, origin) for folder, origin in candidates if folder), ("", ""))
    return folder, origin


def _lines(name: str, state: DatasetState) -> Iterator[str]:
    searched = f"{state.looked_in} ({state.said_by})" if state.looked_in else ""
    if state.inventory is None:
        yield f"{name}: not found" + (f" in {printable(searched)}" if searched else ": no folder is named")
        yield f"  {printable(state.reason)}"
        yield from (f"  {line}" for line in state.how_to_get.splitlines())
        return
    yield f"{name}: found in {printable(searched)}"
    inventory = state.inventory
    listed = {split: f" of {len(names):,}" for split, names in inventory.listed.items()}
    rows = {
        "folder": str(next(iter(inventory.splits.values())).root),
        "layout": inventory.layout,
        "copy": inventory.copy,
        "videos": ", ".join(
            f"{len(folder):,}{listed.get(split, '')} {split}" for split, folder in inventory.splits.items()
        ),
        "prepared": inventory.fitted or "no, the original files",
        "note": inventory.note,
    }
    yield from (f"  {key:<9} {printable(value)}" for key, value in rows.items() if value)
    yield from (f"  {line}" for line in state.how_to_get.splitlines())


def _steps(name: str) -> str:
    """Steps to get a dataset, with its licence; empty for one that cannot be downloaded."""
    return plugins.constants("dataset", plugins.parse(name).name).how_to_get
