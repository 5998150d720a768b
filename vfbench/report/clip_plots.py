"""Plots of a report from the features of single clips: distance to real clips, and fit to the caption by class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vfbench.report.clip_numbers import ClipNumbers
from vfbench.report.figure import GREY, INK, Plot, grid, looks, shown, write
from vfbench.report.results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 120  # in one plot


def distances(
    folder: Path, records: Sequence[Result], labels: Sequence[str], numbers: Mapping[int, ClipNumbers]
) -> Plot:
    """Share of clips within a distance of a real clip, by run; `numbers` are by row.

    Runs whose distances are in other features than those of the first are left out: their scale is another.
    """
    first = next(iter(numbers.values()))
    between = first.between_real.numpy()

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for row, look in enumerate(looks(records)):
            if row in numbers and numbers[row].source == first.source:
                values = np.sort(numbers[row].distances[:, 0].numpy())
                shares = np.arange(1, len(values) + 1) / len(values)
                axis.step(values, shares, look.line, where="post", color=look.colour, label=shown(labels[row]))
        values = np.sort(between[np.isfinite(between)])
        axis.step(values, np.arange(1, len(values) + 1) / len(values), color=INK, linewidth=1, label="real to real")
        axis.set_xlabel(f"distance to the nearest real clip ({first.source})")
        axis.set_ylabel("share of clips")
        axis.set_ylim(0, 1.02)
        axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        grid(axis, "both")

    text = (
        "Share of clips within a distance of their nearest real clip. A curve left of that between real clips hints at "
        "copies of real clips."
    )
    return write(folder, "nearest-real", text, (7.5, 3.2), draw)


def by_class(
    folder: Path,
    records: Sequence[Result],
    labels: Sequence[str],
    numbers: Mapping[int, ClipNumbers],
    classes: Sequence[str],
) -> Plot | None:
    """Mean fit to the caption of the clips of each class and run; None without features or classes."""
    names = sorted(set(classes) - {""})[:MOST_CLASSES]
    rows = [row for row in range(len(records)) if row in numbers and len(numbers[row].fit)]
    if not names or not rows:
        return None
    styles = looks(records)

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for number, row in enumerate(rows):
            fit = numbers[row].fit.numpy()
            shift = (number - (len(rows) - 1) / 2) * 0.6 / len(rows)
            groups = [fit[[i for i in range(len(fit)) if classes[i] == name]] for name in names]
            means = [group.mean() if len(group) else math.nan for group in groups]
            errors = [1.96 * group.std(ddof=1) / math.sqrt(len(group)) if len(group) > 2 else 0.0 for group in groups]
            places = [position + shift for position in range(len(names))]
            look, label = styles[row], shown(labels[row])
            axis.errorbar(
                means, places, xerr=errors, fmt=look.marker, color=look.colour, label=label, ms=3.5, elinewidth=0.7
            )
        axis.set_yticks(range(len(names)), [shown(name, 34) for name in names])
        axis.set_ylim(len(names) - 0.4, -0.6)
        for position in range(1, len(names)):
            axis.axhline(position - 0.5, color=GREY, alpha=0.25, linewidth=0.6)
        axis.set_xlabel("similarity of a clip to its caption, mean of the class")
        figure.legend(loc="outside upper left", ncols=min(5, len(rows)), frameon=False)

    text = "Fit to the caption by class, with 95 % intervals where a class has more than two clips."
    return write(folder, "classes", text, (9.5, 0.24 * len(names) + 1.0), draw)
