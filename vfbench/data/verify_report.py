"""What was found of a dataset on disk, as text to read and as a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vfbench.clips import printable
from vfbench.clips.inventory import Inventory
from vfbench.data.findings import Finding
from vfbench.data.inspect_video import VideoInfo
from vfbench.data.sources import Item
from vfbench.interfaces import Split

ROWS = 8  # sizes and rates that a text shows
QUICK = "looked at names, headers and equal files; --full decodes every frame"


@dataclass(frozen=True)
class Report:
    """A dataset with what each of its videos shows, and with the findings, errors first."""

    inventory: Inventory
    items: tuple[Item, ...]
    seen: tuple[VideoInfo, ...]
    findings: tuple[Finding, ...]
    full: bool

    @property
    def root(self) -> Path:
        """The folder of the videos."""
        return next(iter(self.inventory.splits.values())).root

    @property
    def errors(self) -> int:
        """How many errors there are."""
        return sum(found.count for found in self.findings if found.level == "error")

    def text(self) -> str:
        """A table of what is there, then each finding with names and what mends it."""
        rows = "\n".join(f"{name:<8} {printable(line)}" for name, line in self._rows())
        return "\n\n".join([rows, *("\n".join(found.lines()) for found in self.findings), self._verdict()])

    def record(self) -> dict[str, Any]:
        """All of it for machines, every name included."""
        inventory = self.inventory
        return {
            "dataset": inventory.dataset,
            "root": str(self.root),
            "layout": inventory.layout,
            "copy": inventory.copy,
            "notes": list(inventory.notes),
            "full": self.full,
            "splits": {split: self._split(split) for split in inventory.splits},
            "frames": sum(one.frames for one in self.seen),
            "decoded": sum(one.decoded for one in self.seen) if self.full else None,
            "formats": [
                {"width": width, "height": height, "rate": rate, "videos": count}
                for (width, height, rate), count in self._formats().most_common()
            ],
            "errors": self.errors,
            "findings": [found.record() for found in self.findings],
        }

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "dataset", f"{self.inventory.dataset}: {self.inventory.layout}, copy: {self.inventory.copy}"
        yield "folder", str(self.root)
        for split in self.inventory.splits:
            yield split, self._said(split)
        frames = sorted(filter(None, ((one.decoded if self.full else one.frames) for one in self.seen)))
        if frames:
            middle = frames[len(frames) // 2]
            total = f"{sum(frames):,} {'decoded' if self.full else 'in all'}"
            yield "frames", f"{frames[0]:,} to {frames[-1]:,} a video, median {middle:,}, {total}"
        formats = self._formats().most_common()
        for (width, height, rate), count in formats[:ROWS]:
            yield "size", f"{width}x{height}" + (f" at {rate:g} frames/s" if rate else "") + f": {count:,}"
        if len(formats) > ROWS:
            yield "size", f"and {len(formats) - ROWS:,} more sizes and rates"
        yield from (("note", note) for note in self.inventory.notes)

    def _said(self, split: Split) -> str:
        told = self._split(split)
        of = f" of {told['listed']:,} listed" if told["listed"] else ""
        low, high = told["least_of_a_class"], told["most_of_a_class"]
        each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        classes = f", {told['classes']:,} classes of {each}" if told["classes"] > 1 else ""
        return f"{told['videos']:,}{of} videos{classes}"

    def _split(self, split: Split) -> dict[str, int]:
        """How many videos, of how many listed, in how many classes of which sizes."""
        classes = Counter(entry.group for entry in self.inventory.splits[split].entries)
        return {
            "videos": len(self.inventory.splits[split]),
            "listed": len(self.inventory.listed.get(split, ())),
            "classes": len(classes),
            "least_of_a_class": min(classes.values(), default=0),
            "most_of_a_class": max(classes.values(), default=0),
        }

    def _formats(self) -> Counter[tuple[int, int, float | None]]:
        """How many videos have which width, height and frames a second."""
        return Counter(
            (one.width, one.height, None if one.rate is None else round(one.rate, 2)) for one in self.seen if one.width
        )

    def _verdict(self) -> str:
        done = f"decoded {sum(one.decoded for one in self.seen):,} frames" if self.full else QUICK
        warned = sum(found.level == "warning" for found in self.findings)
        warnings = f"{warned} kind{'s' * (warned != 1)} of warnings" if warned else "no warnings"
        notes = ", but see the notes" * bool(self.inventory.notes)
        if self.errors:
            return f"NOT whole: {self.errors:,} error{'s' * (self.errors > 1)}, {warnings} ({done})"
        return f"no errors, {warnings}{notes} ({done})"
