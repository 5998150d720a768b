"""Verification of a dataset on disk: checks every file, and names each fault with the step that mends it.

Quick mode compares names with the official lists and checks headers, cut-off files, frame counts, short clips, copies
and content shared by two splits. Full mode also decodes every frame, on all cores, and checks the time stamps. A faulty
file never stops the check of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vfbench import plugins
from vfbench.clips import prepared
from vfbench.clips.inventory import Inventory, require_outside
from vfbench.data import completeness, duplicates, sources
from vfbench.data.findings import KINDS, Example, Finding, make_findings
from vfbench.data.inspect_video import VideoInfo, inspect_entries
from vfbench.data.sources import SplitVideo, list_videos
from vfbench.data.verify_report import VerifyReport
from vfbench.errors import MissingData, UserError
from vfbench.utils import files, store
from vfbench.utils.files import write_json

FRAMES = 16  # clip length of most protocols


def verify(
    dataset: str,
    data_root: Path | str | None = None,
    *,
    full: bool = False,
    frames: int = FRAMES,
    output: Path | None = None,
) -> VerifyReport:
    """Check all files of a dataset, such as `ucf101(split_list=2)`; `full` decodes every frame.

    Videos with fewer than `frames` frames are reported as short. Writes the JSON record to `output`. Raises
    `MissingData` with the steps to get a dataset that is not found, `UserError` for an unknown dataset or an output in
    the dataset's folder, and `BadEnvironment` where the output cannot be written.
    """
    if frames < 1:
        raise UserError(f"--frames {frames}: a clip has at least 1 frame")
    store.require_local("--output", output)
    inventory = sources.find_inventory(dataset, data_root)
    if output:
        require_outside(output, inventory, data_root, plugins.parse(dataset).options.get("root"))
        files.require_writable(output.parent)
    report = verify_inventory(inventory, full=full, frames=frames)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, report.record())
    return report


def verify_inventory(inventory: Inventory, *, full: bool = False, frames: int = FRAMES) -> VerifyReport:
    """Check all files of an inventory; `full` decodes every frame, `frames` is the clip length that must fit."""
    videos = list_videos(inventory)
    infos = inspect_entries([video.entry for video in videos], full=full)
    inspected = list(zip(videos, infos, strict=True))
    findings = [
        *completeness.findings(inventory),
        *_problems(videos, infos),
        *(_damaged_shards(inventory) if full else []),
        *_short_videos(videos, infos, frames),
        *make_findings("gaps", [Example(video.name, info.gap) for video, info in inspected if info.gap]),
        *make_findings("strangers", [Example(video.name, info.stranger) for video, info in inspected if info.stranger]),
        *make_findings("rate", [Example(video.name, info.uneven) for video, info in inspected if info.uneven]),
        *duplicates.findings(videos, infos, inventory),
        *_unusual_sizes(videos, infos),
    ]
    return VerifyReport(inventory, tuple(videos), tuple(infos), tuple(sorted(findings, key=_order)), full)


def require_no_errors(report: VerifyReport) -> None:
    """Raise `MissingData` with a summary where a dataset has errors; warnings pass."""
    errors = [f"{finding.count:,} {finding.title}" for finding in report.findings if finding.level == "error"]
    if errors:
        raise MissingData(f"{report.inventory.dataset} in {report.root}: {'; '.join(errors)}")


def _order(finding: Finding) -> int:
    return list(KINDS).index(finding.kind)


def _problems(videos: Sequence[SplitVideo], infos: Sequence[VideoInfo]) -> list[Finding]:
    faulty = [(video, info.problem) for video, info in zip(videos, infos, strict=True) if info.problem]
    by_kind: dict[str, list[Example]] = {}
    for video, problem in faulty:
        by_kind.setdefault(problem.kind, []).append(Example(video.name, problem.detail))
    return [finding for kind, examples in by_kind.items() for finding in make_findings(kind, examples)]


def _damaged_shards(inventory: Inventory) -> list[Finding]:
    """Shards of a prepared folder whose bytes changed since they were written."""
    roots = {folder.root for folder in inventory.splits.values() if folder.kind == "prepared"}
    return make_findings(
        "damaged", [Example(fault) for root in sorted(roots) for fault in prepared.damaged_shards(root)]
    )


def _short_videos(videos: Sequence[SplitVideo], infos: Sequence[VideoInfo], frames: int) -> list[Finding]:
    """Undamaged videos with fewer than `frames` frames."""
    short = [
        Example(video.name, f"{info.frames:,}")
        for video, info in zip(videos, infos, strict=True)
        if info.problem is None and info.frames < frames
    ]
    return make_findings("short", short, frames=frames)


def _unusual_sizes(videos: Sequence[SplitVideo], infos: Sequence[VideoInfo]) -> list[Finding]:
    """Videos of another size than the majority; without a majority, all videos grouped by size."""
    by_size: dict[str, list[SplitVideo]] = {}
    for video, info in zip(videos, infos, strict=True):
        if info.width:
            by_size.setdefault(f"{info.width}x{info.height}", []).append(video)
    ordered = sorted(by_size.items(), key=lambda pair: -len(pair[1]))
    if len(ordered) < 2:
        return []
    if len(ordered[0][1]) * 2 > sum(map(len, by_size.values())):
        majority = ordered[0][0]
        others = {id(video): size for size, group in by_size.items() if size != majority for video in group}
        unusual = [Example(video.name, others[id(video)]) for video in videos if id(video) in others]
        return make_findings("resolution", unusual)
    return make_findings("several", [_size_example(size, [video.name for video in group]) for size, group in ordered])


def _size_example(size: str, names: Sequence[str]) -> Example:
    return Example(size, f"{len(names):,}, such as {names[0]}", tuple(names))
