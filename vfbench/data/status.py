"""Where each dataset was looked for, what was found there, and how to get what is not here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vfbench import plugins
from vfbench.clips import printable
from vfbench.clips.inventory import Inventory
from vfbench.data import completeness as names
from vfbench.data import sources
from vfbench.errors import MissingData


def where(
    dataset: str | None = None, data_root: Path | str | None = None, origin: str = "--data-root"
) -> dict[str, Any]:
    """The state of each dataset that can be got somewhere, or of one, as a record by name.

    `origin` says where the folder was named. Of one that is here in part, how to get the rest is told if it is asked
    for by name. Raises `UserError` for a dataset that is unknown or not read from disk.
    """
    if dataset:
        return {dataset: _state(dataset, data_root, origin, rest=True)}
    return {name: _state(name, data_root, origin) for name in sources.names() if _steps(name)}


def text(states: dict[str, Any]) -> str:
    """The same as lines to read."""
    return "\n\n".join("\n".join(_lines(name, state)) for name, state in states.items())


def _state(name: str, data_root: Path | str | None, origin: str, *, rest: bool = False) -> dict[str, Any]:
    looked = _looked(name, data_root, origin)
    try:
        inventory = sources.inventory(name, data_root)
    except MissingData as error:
        # With the steps to get the dataset, which stand in the error already, unless it is about one file.
        return {"found": False, **looked, "why": str(error).partition("\n")[0], "how_to_get": _steps(name)}
    steps = _steps(name) if rest and names.incomplete(inventory) else ""
    return {"found": True, **looked, **_there(inventory), "how_to_get": steps}


def _looked(name: str, data_root: Path | str | None, origin: str) -> dict[str, str]:
    """The folder in which was looked, and where that was said."""
    options = plugins.parse(name).options
    said = [
        (str(data_root) if data_root else None, origin),
        (options.get("root"), "root"),
        (os.environ.get("VFBENCH_DATA"), "VFBENCH_DATA"),
    ]
    folder, by = next(((folder, by) for folder, by in said if folder), ("", ""))
    return {"looked_in": folder, "said_by": by}


def _there(inventory: Inventory) -> dict[str, Any]:
    splits = inventory.splits
    return {
        "folder": str(next(iter(splits.values())).root),
        "layout": inventory.layout,
        "copy": inventory.copy,
        "videos": {split: len(found) for split, found in splits.items()},
        "listed": {split: len(names) for split, names in inventory.listed.items()},
        "prepared": inventory.fitted,
        "note": inventory.note,
    }


def _lines(name: str, state: dict[str, Any]) -> Iterator[str]:
    place = f"{state['looked_in']} ({state['said_by']})" if state["looked_in"] else ""
    if not state["found"]:
        yield f"{name}: not found" + (f" in {printable(place)}" if place else ": no folder is named")
        yield f"  {printable(state['why'])}"
        yield from (f"  {line}" for line in state["how_to_get"].splitlines())
        return
    yield f"{name}: found in {printable(place)}"
    told = {
        "folder": state["folder"],
        "layout": state["layout"],
        "copy": state["copy"],
        "videos": ", ".join(
            f"{count:,}" + (f" of {state['listed'][split]:,}" if split in state["listed"] else "") + f" {split}"
            for split, count in state["videos"].items()
        ),
        "prepared": state["prepared"] or "no, read as it is",
        "note": state["note"],
    }
    yield from (f"  {key:<9} {printable(value)}" for key, value in told.items() if value)
    yield from (f"  {line}" for line in state["how_to_get"].splitlines())


def _steps(name: str) -> str:
    """How to get a dataset, its licence included; empty where it is not one to be got."""
    return getattr(plugins.module("dataset", plugins.parse(name).name), "HOW_TO_GET", "")
