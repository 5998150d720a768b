"""Content of a report's page, made from results: table, plots, clips and facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vfbench.report import cost_plots, facts, gallery, plots
from vfbench.report.facts import ProtocolFacts, RunFacts
from vfbench.report.figure import Plot
from vfbench.report.gallery import Gallery, Recall, RecallRun
from vfbench.report.render import Table
from vfbench.report.results import Result

if TYPE_CHECKING:
    from vfbench.report.clip_numbers import ClipNumbers
    from vfbench.report.examples import Group

SECTIONS = {
    "warnings": "Warnings",
    "table": "Table",
    "intervals": "Intervals",
    "parts": "Attributes and classes",
    "cost": "Score against cost",
    "sizes": "Score against number of clips",
    "damage": "Scores of known damage",
    "clips": "Clips side by side",
    "examples": "Nearest real clips, best and worst",
    "vote": "Blind vote",
    "protocol": "Protocol",
    "runs": "Runs, cost and environment",
}
PLOTTED = ("intervals", "parts", "cost", "sizes", "damage")  # sections of plots alone


@dataclass(frozen=True)
class Page:
    """Content of a report."""

    title: str
    version: str
    warnings: Sequence[str]
    table: Table
    plots: Mapping[str, Sequence[Plot]]  # by the section that shows them
    gallery: Gallery
    examples: Sequence[Group]
    protocols: Sequence[ProtocolFacts]
    runs: Sequence[RunFacts]

    @property
    def sections(self) -> dict[str, str]:
        """Heading of each section that has a content, by its anchor."""
        voted = [column for column in self.gallery.columns if column.kind == "model"]
        present = {
            **{name: bool(self.plots.get(name)) for name in PLOTTED},
            "warnings": bool(self.warnings),
            "examples": bool(self.examples or self.plots.get("examples")),
            "vote": len(voted) > 1,
        }
        return {anchor: text for anchor, text in SECTIONS.items() if present.get(anchor, True)}


def make(
    table: Table, damaged: Sequence[Result], folder: Path, recall: RecallRun, num_clips: int, version: str
) -> Page:
    """Content of the page for the results in `table`; clips and plots are written below `folder`.

    `damaged` are results of real clips at known damage.
    """
    records, labels = table.records, [row.label for row in table.rows[: len(table.records)]]
    numbers, same = _clip_numbers(records), gallery.same_requests(records)
    recalled, reason = gallery.recall_any([records[row] for row in same], recall)
    clips = gallery.build(records, labels, same, folder, num_clips, recalled, numbers)
    if clips.columns and reason:
        clips = replace(clips, notes=(*clips.notes, reason))
    by_section = _plots(folder / "plots", records, labels, damaged)
    of_clips = _clip_plots(folder / "plots", records, labels, numbers, same, recalled)
    return Page(
        title=f"{records[0].dataset}: {', '.join(labels)}",
        version=version,
        warnings=facts.warnings(records, labels),
        table=table,
        plots={name: [*by_section.get(name, []), *of_clips.get(name, [])] for name in SECTIONS},
        gallery=clips,
        examples=_examples(clips, numbers, folder, recalled),
        protocols=facts.protocols(records),
        runs=facts.runs(records, labels),
    )


def _clip_numbers(records: Sequence[Result]) -> dict[int, ClipNumbers]:
    """Numbers about single clips of the runs that keep their features, by row."""
    rows = _with_features(records)
    if not rows:
        return {}
    from vfbench.report.clip_numbers import clip_numbers  # imports torch

    return {row: numbers for row in rows if (numbers := clip_numbers(records[row]))}


def _with_features(records: Sequence[Result]) -> list[int]:
    return [row for row, record in enumerate(records) if record.has_features()]


def _plots(
    folder: Path, records: Sequence[Result], labels: Sequence[str], damaged: Sequence[Result]
) -> dict[str, list[Plot]]:
    """Plots of results alone, by section."""
    ladder = plots.ladder(folder, damaged, records, labels)
    return {
        "intervals": [plots.forest(folder, records, labels)],
        "parts": plots.parts(folder, records, labels),
        "cost": cost_plots.costs(folder, records, labels),
        "sizes": cost_plots.sizes(folder, records, labels, _fewer(records)),
        "damage": [ladder] if ladder else [],
    }


def _fewer(records: Sequence[Result]) -> cost_plots.Fewer:
    """Values of a part of the clips of each model that keeps its features, by row."""
    rows = [row for row in _with_features(records) if not records[row].reference]
    if not rows:
        return {}
    from vfbench.report.fewer_clips import values_at  # imports torch

    biased = [name for name, score in plots.whole_metrics(records).items() if score.slope]
    return {row: values_at(records[row], biased) for row in rows}


def _clip_plots(
    folder: Path,
    records: Sequence[Result],
    labels: Sequence[str],
    numbers: Mapping[int, ClipNumbers],
    same: Sequence[int],
    recalled: Recall | None,
) -> dict[str, list[Plot]]:
    """Plots of numbers about single clips, by section."""
    if not numbers:
        return {}
    from vfbench.report import clip_plots  # imports torch

    of_requests = {row: each for row, each in numbers.items() if row in same}
    classes = clip_plots.by_class(folder, records, labels, of_requests, recalled.classes) if recalled else None
    return {
        "parts": [classes] if classes else [],
        "examples": [clip_plots.distances(folder, records, labels, numbers)],
    }


def _examples(clips: Gallery, numbers: Mapping[int, ClipNumbers], folder: Path, recalled: Recall | None) -> list[Group]:
    if not (clips.requests and numbers):
        return []
    from vfbench.report import examples  # imports torch

    return examples.groups(clips, numbers, folder, recalled)
