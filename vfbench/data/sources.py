"""The datasets that are read from disk, by name: what a user's words and folders lead to."""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from vfbench import plugins
from vfbench.clips import ClipFile
from vfbench.clips.inventory import Inventory
from vfbench.errors import UserError, unknown
from vfbench.interfaces import Split


def inventory(dataset: str, data_root: Path | str | None = None) -> Inventory:
    """What stands on disk of a dataset such as `ucf101` or `ucf101(split_list=2)`.

    Options that only say how clips are cut make no difference here. Raises `UserError` for a dataset that is not read
    from disk or an option that it does not have, and `MissingData` with the way to get a dataset that is not there.
    """
    spec = plugins.parse(dataset).merged({"root": str(data_root) if data_root else None})
    module = plugins.module("dataset", spec.name)
    if not readable(module):
        known = ", ".join(names())
        raise UserError(f"dataset {spec.name} is made, not read from disk: there is nothing to verify; known: {known}")
    takes, cuts = (set(inspect.signature(function).parameters) for function in (module.find, module.build))
    for option in spec.options:
        if option not in takes | cuts:
            raise unknown(f"option of dataset {spec.name}", option, takes | cuts)
    found: Inventory = module.find(**{name: value for name, value in spec.options.items() if name in takes})
    return found


def names() -> list[str]:
    """The datasets that are read from disk."""
    found = []
    for name in plugins.names("dataset"):
        with contextlib.suppress(UserError):  # one that cannot be imported is nothing to the others
            found += [name] if readable(plugins.module("dataset", name)) else []
    return found


def readable(module: ModuleType) -> bool:
    """Whether a dataset's module finds files."""
    return hasattr(module, "find")


class Item(NamedTuple):
    """A video of a split, by the name that findings call it."""

    split: Split
    name: str
    entry: ClipFile


def items(inventory: Inventory) -> list[Item]:
    """All videos, split by split; where splits are folders of their own, names begin with the folder's."""
    apart = len({found.base for found in inventory.splits.values()}) > 1
    return [
        Item(split, f"{found.base.name}/{entry.name}" if apart else entry.name, entry)
        for split, found in inventory.splits.items()
        for entry in found.entries
    ]
