"""Status of each dataset: the folder searched, the copy found there, and the steps to get a missing one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vfbench import plugins
from vfbench.clips import printable
from vfbench.clips.inventory import Inventory
from vfbench.data import completeness, sources
from vfbench.errors import MissingData


def dataset_states(
    dataset: str | None = None, data_root: Path | str | None = None, root_origin: str = "--data-root"
) -> dict[str, Any]:
    """JSON record of one dataset, or of each that has steps to get it, by name.

    `root_origin` names the flag or file that gave `data_root`. A dataset asked for by name and found in part also gets
    the steps for the rest. Raises `UserError` for a dataset that is unknown or not read from disk.
    """
    if dataset:
        return {dataset: _state(dataset, data_root, root_origin, partial_steps=True)}
    return {name: _state(name, data_root, root_origin) for name in sources.dataset_names() if _steps(name)}


def format_states(states: dict[str, Any]) -> str:
    """Text report of the records of `dataset_states`."""
    return "\n\n".join("\n".join(_lines(name, state)) for name, state in states.items())


def _state(name: str, data_root: Path | str | None, root_origin: str, *, partial_steps: bool = False) -> dict[str, Any]:
    searched = _searched_folder(name, data_root, root_origin)
    try:
        inventory = sources.find_inventory(name, data_root)
    except MissingData as error:
        # Only the first line: the error itself ends with the steps, unless it is about one file.
        return {"found": False, **searched, "why": str(error).partition("\n")[0], "how_to_get": _steps(name)}
    steps = _steps(name) if partial_steps and completeness.incomplete(inventory) else ""
    return {"found": True, **searched, **_inventory_record(inventory), "how_to_get": steps}


def _searched_folder(name: str, data_root: Path | str | None, root_origin: str) -> dict[str, str]:
    """The folder searched for a dataset, and the flag, option or variable that named it."""
    candidates = [
        (str(data_root) if data_root else None, root_origin),
        (plugins.parse(name).options.get("root"), "root"),
        (os.environ.get("VFBENCH_DATA"), "VFBENCH_DATA"),
    ]
    folder, origin = next(((folder, origin) for folder, origin in candidates if folder), ("", ""))
    return {"looked_in": folder, "said_by": origin}


def _inventory_record(inventory: Inventory) -> dict[str, Any]:
    splits = inventory.splits
    return {
        "folder": str(next(iter(splits.values())).root),
        "layout": inventory.layout,
        "copy": inventory.copy,
        "videos": {split: len(folder) for split, folder in splits.items()},
        "listed": {split: len(names) for split, names in inventory.listed.items()},
        "prepared": inventory.fitted,
        "note": inventory.note,
    }


def _lines(name: str, state: dict[str, Any]) -> Iterator[str]:
    searched = f"{state['looked_in']} ({state['said_by']})" if state["looked_in"] else ""
    if not state["found"]:
        yield f"{name}: not found" + (f" in {printable(searched)}" if searched else ": no folder is named")
        yield f"  {printable(state['why'])}"
        yield from (f"  {line}" for line in state["how_to_get"].splitlines())
        return
    yield f"{name}: found in {printable(searched)}"
    rows = {
        "folder": state["folder"],
        "layout": state["layout"],
        "copy": state["copy"],
        "videos": ", ".join(
            f"{count:,}" + (f" of {state['listed'][split]:,}" if split in state["listed"] else "") + f" {split}"
            for split, count in state["videos"].items()
        ),
        "prepared": state["prepared"] or "no, the original files",
        "note": state["note"],
    }
    yield from (f"  {key:<9} {printable(value)}" for key, value in rows.items() if value)
    yield from (f"  {line}" for line in state["how_to_get"].splitlines())


def _steps(name: str) -> str:
    """Steps to get a dataset, with its licence; empty for one that cannot be downloaded."""
    return plugins.constants("dataset", plugins.parse(name).name).how_to_get
