"""Is a dataset on disk what it should be? Every file is looked at, and whatever is wrong is named with what mends it.

Quickly: names against the official lists, headers, cut-off files, wrong counts, short clips, copies, what two splits
share. Fully: every frame decoded besides, on all cores, and when each is shown. A file that fails stops no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vfbench import plugins
from vfbench.clips import prepared
from vfbench.clips.inventory import Inventory, require_outside
from vfbench.data import completeness, duplicates, sources
from vfbench.data.findings import KINDS, Example, Finding, finding
from vfbench.data.inspect_video import VideoInfo, look_at
from vfbench.data.sources import Item, items
from vfbench.data.verify_report import Report
from vfbench.errors import MissingData, UserError
from vfbench.utils import files
from vfbench.utils.files import write_json

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
        require_outside(output, inventory, data_root, plugins.parse(dataset).options.get("root"))
        files.require_writable(output.parent)
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
        *completeness.findings(inventory),
        *_troubles(there, seen),
        *(_shards(inventory) if full else []),
        *_short(there, seen, frames),
        *finding("gaps", [Example(item.name, one.gap) for item, one in zip(there, seen, strict=True) if one.gap]),
        *finding("rate", [Example(item.name, one.uneven) for item, one in zip(there, seen, strict=True) if one.uneven]),
        *duplicates.findings(there, seen, inventory),
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


def _troubles(there: Sequence[Item], seen: Sequence[VideoInfo]) -> list[Finding]:
    wrong = [(item, one.trouble) for item, one in zip(there, seen, strict=True) if one.trouble]
    kinds = {trouble.kind for _, trouble in wrong}
    return [
        found
        for kind in kinds
        for found in finding(
            kind, [Example(item.name, trouble.detail) for item, trouble in wrong if trouble.kind == kind]
        )
    ]


def _shards(inventory: Inventory) -> list[Finding]:
    """The shards of a prepared folder whose bytes are no more what was written."""
    roots = {found.root for found in inventory.splits.values() if found.kind == "prepared"}
    return finding("damaged", [Example(fault) for root in sorted(roots) for fault in prepared.damaged(root)])


def _short(there: Sequence[Item], seen: Sequence[VideoInfo], frames: int) -> list[Finding]:
    """Videos that are whole, and have fewer frames than a clip needs."""
    short = [
        Example(item.name, f"{one.frames:,}")
        for item, one in zip(there, seen, strict=True)
        if one.trouble is None and one.frames < frames
    ]
    return finding("short", short, frames=frames)


def _sizes(there: Sequence[Item], seen: Sequence[VideoInfo]) -> list[Finding]:
    """Videos of another size than most; where no size is that of more than half, all of them by their size."""
    sizes: dict[str, list[Item]] = {}
    for item, one in zip(there, seen, strict=True):
        if one.width:
            sizes.setdefault(f"{one.width}x{one.height}", []).append(item)
    ordered = sorted(sizes.items(), key=lambda size: -len(size[1]))
    if len(ordered) < 2:
        return []
    if len(ordered[0][1]) * 2 > sum(map(len, sizes.values())):
        usual = ordered[0][0]
        others = {id(item): size for size, items in sizes.items() if size != usual for item in items}
        return finding("resolution", [Example(item.name, others[id(item)]) for item in there if id(item) in others])
    return finding("several", [_of_one_size(size, [item.name for item in items]) for size, items in ordered])


def _of_one_size(size: str, called: Sequence[str]) -> Example:
    return Example(size, f"{len(called):,}, such as {called[0]}", tuple(called))
