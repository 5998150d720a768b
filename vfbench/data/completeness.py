"""What names alone tell: whether all videos are there that the official lists, or counts, say there should be."""

from __future__ import annotations

from vfbench.clips.inventory import Inventory
from vfbench.data.findings import Example, Finding, finding
from vfbench.interfaces import Split

INCOMPLETE = ("missing", "partial", "lists")  # mended by getting the rest of a dataset


def findings(inventory: Inventory) -> list[Finding]:
    """What the lists or the official copy have and the disk does not hold, and the other way round."""
    name = inventory.dataset
    missing = [Example(clip, f"in the {split} list") for split in inventory.listed for clip in inventory.missing(split)]
    return [
        *finding("missing", missing, name=name),
        *finding("partial", _partial(inventory), name=name),
        *finding("lists", [case for split in inventory.listed for case in _cut_off(inventory, split)], name=name),
        *finding("extra", [Example(clip) for clip in inventory.extra]),
        *finding("classes", [case for split in inventory.splits for case in _bare(inventory, split)]),
    ]


def incomplete(inventory: Inventory) -> bool:
    """Whether some of a dataset, or of its lists, is known not to be there."""
    return any(found.kind in INCOMPLETE for found in findings(inventory))


def _partial(inventory: Inventory) -> list[Example]:
    """How many of the official videos there are, if not all; where lists name each, these are missing already.

    Without lists the splits need not be the official ones, so that all are counted together.
    """
    there = len({entry.name for found in inventory.splits.values() for entry in found.entries})
    whole = sum(inventory.official.values())
    return [] if inventory.listed or there >= whole else [Example(inventory.dataset, f"{there:,} of {whole:,} videos")]


def _cut_off(inventory: Inventory, split: Split) -> list[Example]:
    """The list of a split that names fewer or more clips than the official one, or none at all."""
    named = len(inventory.listed[split])
    known = inventory.official.get(split)
    if known not in (None, named):
        return [Example(f"the {split} list", f"{named:,} of {known:,} lines")]
    return [] if named else [Example(f"the {split} list", "empty")]


def _bare(inventory: Inventory, split: Split) -> list[Example]:
    """The classes without a clip in a split that has any; where lists name each clip, these are missing already."""
    there = {entry.group for entry in inventory.splits[split].entries}
    if not there or inventory.listed.get(split):
        return []
    return [Example(name, f"in {split}") for name in inventory.classes if name not in there]
