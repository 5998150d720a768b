"""Completeness of a dataset by names alone: missing and extra videos against official lists and counts."""

from __future__ import annotations

from vfbench.clips.inventory import Inventory
from vfbench.data.findings import Example, Finding, make_findings
from vfbench.interfaces import Split

INCOMPLETE = ("missing", "partial", "lists")  # finding kinds mended by getting the rest of a dataset


def findings(inventory: Inventory) -> list[Finding]:
    """Differences between the videos on disk and the official lists or counts."""
    name = inventory.dataset
    missing = [Example(clip, f"in the {split} list") for split in inventory.listed for clip in inventory.missing(split)]
    wrong_lists = [example for split in inventory.listed for example in _wrong_list_length(inventory, split)]
    empty_classes = [example for split in inventory.splits for example in _empty_classes(inventory, split)]
    return [
        *make_findings("missing", missing, name=name),
        *make_findings("partial", _partial_copy(inventory), name=name),
        *make_findings("lists", wrong_lists, name=name),
        *make_findings("extra", [Example(clip) for clip in inventory.extra]),
        *make_findings("classes", empty_classes),
    ]


def incomplete(inventory: Inventory) -> bool:
    """True where videos or lines of the lists are known to be missing."""
    return any(finding.kind in INCOMPLETE for finding in findings(inventory))


def _partial_copy(inventory: Inventory) -> list[Example]:
    """Number of videos on disk, if below the official number. Empty with lists: these name each missing video.

    Counts all splits together, since without lists the splits need not be the official ones.
    """
    present = len({entry.name for folder in inventory.splits.values() for entry in folder.entries})
    total = sum(inventory.official.values())
    if inventory.listed or present >= total:
        return []
    return [Example(inventory.dataset, f"{present:,} of {total:,} videos")]


def _wrong_list_length(inventory: Inventory, split: Split) -> list[Example]:
    """List of a split, if it is empty or its length differs from the official one."""
    length = len(inventory.listed[split])
    official = inventory.official.get(split)
    if official not in (None, length):
        return [Example(f"the {split} list", f"{length:,} of {official:,} lines")]
    return [] if length else [Example(f"the {split} list", "empty")]


def _empty_classes(inventory: Inventory, split: Split) -> list[Example]:
    """Classes without a clip in a split. Empty for an empty split, and with lists: these name each missing clip."""
    classes = {entry.class_name for entry in inventory.splits[split].entries}
    if not classes or inventory.listed.get(split):
        return []
    return [Example(name, f"in {split}") for name in inventory.classes if name not in classes]
