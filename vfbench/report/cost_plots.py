"""Plots of the scores of a report against what they cost: seconds, FLOPs, network calls, number of clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vfbench.report.figure import (
    GREY,
    Plot,
    grid,
    interval,
    legend,
    log_scale,
    looks,
    panels,
    shown,
    slug,
    title,
    write,
)
from vfbench.report.plots import whole_metrics
from vfbench.report.result_parts import Cost, ScoreRecord
from vfbench.report.results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = ("seconds a clip", "GFLOP a clip", "network calls a clip")
Fewer = Mapping[int, Mapping[str, Sequence[tuple[int, float]]]]  # by row and metric: number of clips, and value


def costs(folder: Path, records: Sequence[Result], labels: Sequence[str]) -> list[Plot]:
    """Each whole metric against seconds, FLOPs and network calls of a clip; empty where no run has a cost.

    Runs of one model are joined by a line.
    """
    if not any(math.isfinite(cost) and cost > 0 for record in records for cost in _costs(record.cost)):
        return []
    return [
        _cost_plot(folder, number, name, first, records, labels)
        for number, (name, first) in enumerate(whole_metrics(records).items())
    ]


def _costs(cost: Cost | None) -> tuple[float, float, float]:
    """Seconds, GFLOP and network calls of a clip; NaN where not known."""
    if cost is None:
        return math.nan, math.nan, math.nan
    return cost.seconds_per_clip, cost.flops_per_clip / 1e9, float(cost.evaluations or math.nan)


def _cost_plot(
    folder: Path, number: int, name: str, first: ScoreRecord, records: Sequence[Result], labels: Sequence[str]
) -> Plot:
    rows = [
        (record.model, shown(label), record.scores[name], _costs(record.cost), look.colour)
        for record, label, look in zip(records, labels, looks(records), strict=True)
        if name in record.scores and not record.reference and math.isfinite(record.scores[name].value)
    ]

    def draw(figure: Figure) -> None:
        axes = panels(figure, len(COSTS), len(COSTS), sharey=True)
        for column, axis in enumerate(axes):
            series: dict[str, list[tuple[float, float]]] = {}
            for model, label, score, values, tint in rows:
                if values[column] > 0 and math.isfinite(values[column]):
                    axis.plot([values[column]] * 2, interval(score), color=tint, linewidth=1.5)
                    axis.plot([values[column]], [score.value], "o", color=tint, markersize=5, label=label)
                    series.setdefault(model, []).append((values[column], score.value))
            for points in series.values():
                axis.plot(*zip(*sorted(points), strict=True), color=GREY, linewidth=0.8, zorder=0)
            log_scale(axis)
            axis.set_xlabel(COSTS[column])
            grid(axis, "both")
        axes[0].set_ylabel(title(first))
        legend(figure, axes)

    text = f"{shown(first.title)} against seconds, FLOPs and network calls of a clip, with 95 % intervals."
    return write(folder, f"cost-{number}-{slug(name)}", text, (10.5, 3.0), draw)


def sizes(folder: Path, records: Sequence[Result], labels: Sequence[str], fewer: Fewer) -> list[Plot]:
    """Every metric that depends on the number of clips, against it, with its value at infinite N; models only.

    `fewer` are values of a part of the clips. The line to infinite N is limit + slope / N, as the run's score has them.
    """
    rows = [row for row, record in enumerate(records) if not record.reference]
    biased = {
        name: first
        for name, first in whole_metrics(records).items()
        if any(_extrapolates(records[row].scores.get(name)) for row in rows)
    }
    return [_size_plot(folder, name, first, records, labels, rows, fewer) for name, first in biased.items()]


def _extrapolates(score: ScoreRecord | None) -> bool:
    return bool(score and score.slope and score.limit is not None and math.isfinite(score.limit + score.slope))


def _size_plot(
    folder: Path,
    name: str,
    first: ScoreRecord,
    records: Sequence[Result],
    labels: Sequence[str],
    rows: Sequence[int],
    fewer: Fewer,
) -> Plot:
    styles, counts = looks(records), set[int]()

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for row in rows:
            score = records[row].scores.get(name)
            if score is None or not math.isfinite(score.value):
                continue
            measured = [*fewer.get(row, {}).get(name, []), (score.n_fake, score.value)]
            counts.update(count for count, _ in measured)
            shares, tint = [1 / count for count, _ in measured], styles[row].colour
            axis.plot(shares, [value for _, value in measured], "o-", color=tint, ms=4, lw=1, label=shown(labels[row]))
            axis.plot([shares[-1]] * 2, interval(score), color=tint, linewidth=1.5)
            if _extrapolates(score) and score.limit is not None:
                axis.plot([0, shares[-1]], [score.limit, score.value], "--", color=tint, linewidth=1)
                half = 1.96 * (score.limit_error or 0.0)
                axis.plot([0, 0], [score.limit - half, score.limit + half], color=tint, linewidth=4, alpha=0.5)
        axis.set_xticks([0, *(1 / count for count in counts)], ["∞", *(f"{count:,}" for count in counts)])
        axis.set_xlabel("generated clips N, at equal steps of 1 / N")
        axis.set_ylabel(title(first))
        legend(figure, [axis])
        grid(axis, "both")

    text = (
        f"{shown(first.title)} against the number of clips: measured at N and, where features are kept, for a part of "
        "the clips; dashed to infinite N, with the 95 % interval there. Scores of different N compare only there."
    )
    return write(folder, f"clips-{slug(name)}", text, (8.5, 3.4), draw)
