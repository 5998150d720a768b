"""Plots of the scores of a report: intervals, parts of a metric, known damage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vfbench import plugins
from vfbench.errors import UserError
from vfbench.report.figure import (
    GREY,
    INK,
    Look,
    Plot,
    grid,
    interval,
    legend,
    looks,
    panels,
    shown,
    slug,
    title,
    write,
)
from vfbench.report.result_parts import ScoreRecord
from vfbench.report.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONTROL = "corrupted"  # model of real clips with known damage


def whole_metrics(records: Sequence[Result]) -> dict[str, ScoreRecord]:
    """Metrics that are no part of another one, each with its first score."""
    metrics: dict[str, ScoreRecord] = {}
    for record in records:
        metrics |= {name: score for name, score in record.scores.items() if name not in metrics}
    return {name: score for name, score in metrics.items() if score.part_of not in metrics}


def forest(folder: Path, records: Sequence[Result], labels: Sequence[str]) -> Plot:
    """Value and 95 % interval of every whole metric and run, with the floor as a dashed line."""
    metrics, styles = whole_metrics(records), looks(records)
    columns = min(3, len(metrics))

    def draw(figure: Figure) -> None:
        axes = panels(figure, len(metrics), columns, sharey=True)
        for axis, (name, first) in zip(axes, metrics.items(), strict=True):
            _intervals(axis, [record.scores.get(name) for record in records], styles)
            axis.set_yticks(range(len(records)), list(map(shown, labels)))
            axis.set_ylim(len(records) - 0.5, -0.5)
            axis.set_title(title(first), loc="left")

    text = "Value and 95 % interval of each metric. Dashed: the floor, what real clips get at the same N."
    rows = math.ceil(len(metrics) / columns)
    return write(folder, "intervals", text, (3.3 * columns + 0.8, rows * (0.24 * len(records) + 0.8)), draw)


def _intervals(axis: Axes, scores: Sequence[ScoreRecord | None], styles: Sequence[Look]) -> None:
    """Points with intervals, one a row, and a line at each floor."""
    for row, (score, look) in enumerate(zip(scores, styles, strict=True)):
        if score is not None and math.isfinite(score.value):
            axis.plot(interval(score), [row, row], color=look.colour, linewidth=1.8, solid_capstyle="butt")
            axis.plot([score.value], [row], look.marker, color=look.colour, markersize=4.5)
    for floor in {score.floor for score in scores if score and math.isfinite(score.floor)}:
        axis.axvline(floor, color=GREY, linestyle="--", linewidth=1)
    grid(axis, "x")
    axis.tick_params(axis="y", length=0)


def parts(folder: Path, records: Sequence[Result], labels: Sequence[str]) -> list[Plot]:
    """Bars of the parts of each metric that has some, such as the attributes of Moving Shapes, with 95 % intervals."""
    groups: dict[str, dict[str, ScoreRecord]] = {}
    for record in records:
        for name, score in record.scores.items():
            if score.part_of:
                groups.setdefault(score.part_of, {}).setdefault(name, score)
    return [_bars(folder, whole, scores, records, labels) for whole, scores in groups.items()]


def _bars(
    folder: Path, whole: str, scores: Mapping[str, ScoreRecord], records: Sequence[Result], labels: Sequence[str]
) -> Plot:
    styles, width = looks(records), 0.8 / len(records)

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for number, (record, label, look) in enumerate(zip(records, labels, styles, strict=True)):
            left = [x - 0.4 + (number + 0.5) * width for x in range(len(scores))]
            own = [record.scores.get(name) for name in scores]
            values = [score.value if score else math.nan for score in own]
            axis.bar(left, values, width * 0.9, color=look.colour, alpha=look.opacity, label=shown(label))
            for x, score in zip(left, own, strict=True):
                if score and math.isfinite(score.value):
                    axis.plot([x, x], interval(score), color=INK, linewidth=0.8)
        for x, score in enumerate(scores.values()):
            if score.chance is not None and math.isfinite(score.chance):
                axis.plot([x - 0.45, x + 0.45], [score.chance] * 2, color=GREY, linestyle=":", linewidth=1.5)
        axis.set_xticks(range(len(scores)), list(map(title, scores.values())))
        grid(axis, "y")
        legend(figure, [axis])

    text = f"Parts of {shown(whole)} with 95 % intervals. Dotted: clips made at random."
    return write(folder, f"parts-{len(scores)}-{slug(whole)}", text, (10.5, 3.2), draw)


def ladder(folder: Path, damaged: Sequence[Result], records: Sequence[Result], labels: Sequence[str]) -> Plot | None:
    """Every whole metric of real clips at known damage, with a line at the score of each model; None without any."""
    steps: dict[str, list[tuple[float, Result]]] = {}
    for record in damaged:
        kind, strength = damage(record) or ("", math.nan)
        steps.setdefault(kind, []).append((strength, record))
    metrics = whole_metrics(damaged)
    if not metrics:
        return None
    models = [(record, label) for record, label in zip(records, labels, strict=True) if not record.reference]
    tints = [look.colour for look in looks([record for record, _ in models])]

    def draw(figure: Figure) -> None:
        axes = panels(figure, len(metrics) * len(steps), len(steps), sharey="row")
        for number, axis in enumerate(axes):
            name, first = list(metrics.items())[number // len(steps)]
            kind = list(steps)[number % len(steps)]
            pairs = [
                (x, record.scores[name]) for x, record in sorted(steps[kind], key=_strength) if name in record.scores
            ]
            axis.plot([x for x, _ in pairs], [score.value for _, score in pairs], "o-", color=GREY, markersize=3.5)
            for x, score in pairs:
                axis.plot([x, x], interval(score), color=GREY, linewidth=1)
            for (record, label), tint in zip(models, tints, strict=True):
                if name in record.scores:
                    axis.axhline(record.scores[name].value, color=tint, linewidth=1.2, label=shown(label))
            grid(axis, "both")
            if number < len(steps):
                axis.set_title(shown(kind.replace("_", " ")), loc="left")
            if number % len(steps) == 0:
                axis.set_ylabel(title(first))
        legend(figure, axes)

    text = "Real clips at known damage, from weak to strong: what a score of that size means. Lines: the models."
    return write(folder, "damage", text, (2.1 * len(steps) + 1, 1.7 * len(metrics) + 0.6), draw)


def _strength(pair: tuple[float, Result]) -> float:
    return pair[0]


def damage(record: Result) -> tuple[str, float] | None:
    """Kind and strength of the damage of a result of `vfbench sensitivity`; None for any other result."""
    if record.model != CONTROL:
        return None
    try:
        options = plugins.parse(record.model_spec).options
        return str(options["kind"]), float(options["strength"])
    except (UserError, KeyError, TypeError, ValueError):
        return None
