"""Is a dataset on disk what it should be? Every file is looked at, and whatever is wrong is named with what mends it.

Quickly: names against the official lists, headers, cut-off files, short clips, copies, what two splits share. Fully:
every frame decoded besides, on all cores. A file that fails stops no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vfbench import prepared, store
from vfbench.data import duplicates, sources
from vfbench.data.findings import KINDS, Case, Finding, finding
from vfbench.data.items import Item, items
from vfbench.data.looking import Seen, look_at
from vfbench.data.report import Report
from vfbench.errors import MissingData, UserError
from vfbench.files import write_json
from vfbench.interfaces import Split
from vfbench.inventory import Inventory

FRAMES = 16  # of a clip, in most protocols


def verify(
    dataset: str,
    data_root: Path | str | None = None,
    *,
    full: bool = False,
    frames: int = FRAMES,
    output: Path | None = None,
) -> Report:
    """Look at all files of a dataset, such as `ucf101(split_list=2)`; `full` decodes every frame.

    Videos with fewer than `frames` frames are named, and the record is written to `output`. Raises `MissingData` with
    the way to get a dataset that is not found at all, `UserError` for one that is unknown or an output among its files,
    and `BadEnvironment` where that cannot be written.
    """
    if frames < 1:
        raise UserError(f"--frames {frames}: a clip has at least 1 frame")
    inventory = sources.inventory(dataset, data_root)
    if output:
        sources.outside(output, inventory)
        store.require_writable(output.parent)
    report = examine(inventory, full=full, frames=frames)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, report.record())
    return report


def examine(inventory: Inventory, *, full: bool = False, frames: int = FRAMES) -> Report:
    """The same of what was found already."""
    there = items(inventory)
    seen = look_at([item.entry for item in there], full=full)
    found = [
        *_names(inventory),
        *_troubles(there, seen),
        *(_shards(inventory) if full else []),
        *_short(there, seen, frames),
        *finding("gaps", [Case(item.name, one.gap) for item, one in zip(there, seen, strict=True) if one.gap]),
        *duplicates.findings(there, seen, inventory.origin),
        *_sizes(there, seen),
    ]
    return Report(inventory, tuple(there), tuple(seen), tuple(sorted(found, key=_order)), full)


def require(report: Report) -> None:
    """Raise `MissingData` with a summary where a dataset has errors; warnings pass."""
    errors = [f"{found.count:,} {found.title}" for found in report.findings if found.level == "error"]
    if errors:
        raise MissingData(f"{report.inventory.dataset} in {report.root}: {'; '.join(errors)}")


def _order(found: Finding) -> int:
    return list(KINDS).index(found.kind)


def _names(inventory: Inventory) -> list[Finding]:
    """What the lists name and the disk does not hold, and the other way round."""
    missing = [Case(name, f"in the {split} list") for split in inventory.listed for name in inventory.missing(split)]
    return [
        *finding("missing", missing, name=inventory.dataset),
        *finding("extra", [Case(name) for name in inventory.extra]),
        *finding("classes", [case for split in inventory.splits for case in _bare(inventory, split)]),
    ]


def _bare(inventory: Inventory, split: Split) -> list[Case]:
    """The classes without a clip in a split that has any; where lists name each clip, these are missing already."""
    there = {entry.group for entry in inventory.splits[split].entries}
    if not there or inventory.listed.get(split):
        return []
    return [Case(name, f"in {split}") for name in inventory.classes if name not in there]


def _troubles(there: Sequence[Item], seen: Sequence[Seen]) -> list[Finding]:
    wrong = [(item, one.trouble) for item, one in zip(there, seen, strict=True) if one.trouble]
    kinds = {trouble.kind for _, trouble in wrong}
    return [
        found
        for kind in kinds
        for found in finding(kind, [Case(item.name, trouble.detail) for item, trouble in wrong if trouble.kind == kind])
    ]


def _shards(inventory: Inventory) -> list[Finding]:
    """The shards of a prepared folder whose bytes are no more what was written."""
    roots = {found.root for found in inventory.splits.values() if found.kind == "prepared"}
    return finding("damaged", [Case(fault) for root in sorted(roots) for fault in prepared.damaged(root)])


def _short(there: Sequence[Item], seen: Sequence[Seen], frames: int) -> list[Finding]:
    """Videos that are whole, and have fewer frames than a clip needs."""
    short = [
        Case(item.name, f"{one.frames:,}")
        for item, one in zip(there, seen, strict=True)
        if one.trouble is None and one.frames < frames
    ]
    return finding("short", short, frames=frames)


def _sizes(there: Sequence[Item], seen: Sequence[Seen]) -> list[Finding]:
    sizes = Counter((one.width, one.height) for one in seen if one.width)
    if len(sizes) < 2:
        return []
    (usual, _), *_ = sizes.most_common(1)
    others = [
        Case(item.name, f"{one.width}x{one.height}")
        for item, one in zip(there, seen, strict=True)
        if one.width and (one.width, one.height) != usual
    ]
    return finding("resolution", others)
