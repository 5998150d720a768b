"""The videos of an inventory one after another, each with a name that no other has."""

from __future__ import annotations

from typing import NamedTuple

from vfbench.folders import Entry
from vfbench.interfaces import Split
from vfbench.inventory import Inventory


class Item(NamedTuple):
    """A video of a split, by the name that findings call it."""

    split: Split
    name: str
    entry: Entry


def items(inventory: Inventory) -> list[Item]:
    """All videos, split by split; where splits are folders of their own, names begin with the folder's."""
    apart = len({found.base for found in inventory.splits.values()}) > 1
    return [
        Item(split, f"{found.base.name}/{entry.name}" if apart else entry.name, entry)
        for split, found in inventory.splits.items()
        for entry in found.entries
    ]
