"""Report of a dataset verification, as text and as a JSON record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vfbench.clips.inventory import Inventory
from vfbench.data.findings import Finding
from vfbench.data.inspect_video import VideoInfo
from vfbench.data.sources import SplitVideo
from vfbench.interfaces import Split
from vfbench.utils.escape import printable

FORMATS_SHOWN = 8  # sizes and rates in the text report
QUICK = "checked names, headers and equal files; --full decodes every frame"


@dataclass(frozen=True)
class VerifyReport:
    """A verified dataset: its videos, the inspection of each, and the findings, errors first."""

    inventory: Inventory
    videos: tuple[SplitVideo, ...]
    infos: tuple[VideoInfo, ...]
    findings: tuple[Finding, ...]
    full: bool

    @property
    def root(self) -> Path:
        """Folder of the videos."""
        return next(iter(self.inventory.splits.values())).root

    @property
    def errors(self) -> int:
        """Number of errors."""
        return sum(finding.count for finding in self.findings if finding.level == "error")

    def text(self) -> str:
        """Text report: a summary table, each finding with its mending step, and the verdict."""
        rows = "\n".join(f"{name:<8} {printable(line)}" for name, line in self._rows())
        return "\n\n".join([rows, *("\n".join(finding.lines()) for finding in self.findings), self._verdict()])

    def record(self) -> dict[str, Any]:
        """JSON record with every name."""
        inventory = self.inventory
        return {
            "dataset": inventory.dataset,
            "root": str(self.root),
            "layout": inventory.layout,
            "copy": inventory.copy,
            "notes": list(inventory.notes),
            "full": self.full,
            "splits": {split: self._split_counts(split) for split in inventory.splits},
            "frames": sum(info.frames for info in self.infos),
            "decoded": sum(info.decoded for info in self.infos) if self.full else None,
            "formats": [
                {"width": width, "height": height, "rate": rate, "videos": count}
                for (width, height, rate), count in self._formats().most_common()
            ],
            "errors": self.errors,
            "findings": [finding.record() for finding in self.findings],
        }

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "dataset", f"{self.inventory.dataset}: {self.inventory.layout}, copy: {self.inventory.copy}"
        yield "folder", str(self.root)
        for split in self.inventory.splits:
            yield split, self._split_line(split)
        frames = sorted(filter(None, ((info.decoded if self.full else info.frames) for info in self.infos)))
        if frames:
            median = frames[len(frames) // 2]
            total = f"{sum(frames):,} {'decoded' if self.full else 'in all'}"
            yield "frames", f"{frames[0]:,} to {frames[-1]:,} a video, median {median:,}, {total}"
        formats = self._formats().most_common()
        for (width, height, rate), count in formats[:FORMATS_SHOWN]:
            yield "size", f"{width}x{height}" + (f" at {rate:g} frames/s" if rate else "") + f": {count:,}"
        if len(formats) > FORMATS_SHOWN:
            yield "size", f"and {len(formats) - FORMATS_SHOWN:,} more sizes and rates"
        yield from (("note", note) for note in self.inventory.notes)

    def _split_line(self, split: Split) -> str:
        counts = self._split_counts(split)
        listed = f" of {counts['listed']:,} listed" if counts["listed"] else ""
        low, high = counts["least_of_a_class"], counts["most_of_a_class"]
        class_sizes = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        classes = f", {counts['classes']:,} classes of {class_sizes}" if counts["classes"] > 1 else ""
        return f"{counts['videos']:,}{listed} videos{classes}"

    def _split_counts(self, split: Split) -> dict[str, int]:
        """Number of videos, listed videos and classes of a split, and the least and most videos of a class."""
        classes = Counter(entry.class_name for entry in self.inventory.splits[split].entries)
        return {
            "videos": len(self.inventory.splits[split]),
            "listed": len(self.inventory.listed.get(split, ())),
            "classes": len(classes),
            "least_of_a_class": min(classes.values(), default=0),
            "most_of_a_class": max(classes.values(), default=0),
        }

    def _formats(self) -> Counter[tuple[int, int, float | None]]:
        """Number of videos by width, height and frames per second."""
        return Counter(
            (info.width, info.height, None if info.rate is None else round(info.rate, 2))
            for info in self.infos
            if info.width
        )

    def _verdict(self) -> str:
        checks = f"decoded {sum(info.decoded for info in self.infos):,} frames" if self.full else QUICK
        warning_kinds = sum(finding.level == "warning" for finding in self.findings)
        warnings = f"{warning_kinds} kind{'s' * (warning_kinds != 1)} of warnings" if warning_kinds else "no warnings"
        notes = ", but see the notes" * bool(self.inventory.notes)
        if self.errors:
            return f"NOT whole: {self.errors:,} error{'s' * (self.errors > 1)}, {warnings} ({checks})"
        return f"no errors, {warnings}{notes} ({checks})"
