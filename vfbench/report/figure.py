"""A figure of a report: drawn once, written as SVG for the page and as PDF and PNG for a paper."""

from __future__ import annotations

import io
import itertools
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vfbench.report.result_parts import ScoreRecord
from vfbench.report.results import ARROWS, Result
from vfbench.utils import escape
from vfbench.utils.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#A6761D")
INK = "#010203"  # of text and axes; the page replaces it by its own colour, light or dark
GREY = "#8a8f98"  # of reference rows, floors and grids
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it is read aloud, searched and drawn in the page's font
    "text.parse_math": False,  # a dollar sign in a name is no formula
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
_PNG_DOTS = 200  # an inch
Draw = Callable[["Figure"], None]


@dataclass(frozen=True)
class Plot:
    """A plot on the page: file name without suffix, SVG to place in the page, and its content in words."""

    name: str
    svg: str
    text: str


def write(folder: Path, name: str, text: str, size: tuple[float, float], draw: Draw) -> Plot:
    """Draw a figure of `size` in inches, width and height, and write it to `folder` as SVG, PDF and PNG.

    Raises `BadEnvironment` where a file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font lacks: boxes, except in the SVG
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # else each format would find the layout anew, twice
        with atomic_path(folder / f"{name}.pdf") as path:
            figure.savefig(path, format="pdf", metadata={"CreationDate": None})
        with atomic_path(folder / f"{name}.png") as path:
            figure.savefig(path, format="png", dpi=_PNG_DOTS, facecolor="white")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    with atomic_path(folder / f"{name}.svg") as path:
        path.write_text(buffer.getvalue(), encoding="utf-8")
    return Plot(name, _inline(buffer.getvalue(), name), text)


def _inline(svg: str, name: str) -> str:
    """An SVG to place in a page: without a prologue, its ids unlike those of others, its ink that of the page."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)


def shown(text: str, length: int = 24) -> str:
    """A name in a plot: on one line, cut where it is long, and in the legend whatever it begins with."""
    text = escape.printable(text)
    text = f" {text}" if text.startswith("_") else text  # a legend leaves out what begins with an underscore
    return text if len(text) <= length else f"{text[: length - 1]}…"


class Look(NamedTuple):
    """Colour, marker, line and opacity of a run in every plot."""

    colour: str
    marker: str
    line: str
    opacity: float


def looks(records: Sequence[Result]) -> list[Look]:
    """The look of each run: models by colour, reference rows in grey by marker, line and opacity."""
    models = itertools.cycle([Look(colour, "o", "-", 1.0) for colour in COLOURS])
    references = itertools.cycle([Look(GREY, *each) for each in (("D", "--", 1.0), ("s", ":", 0.65), ("^", "-.", 0.4))])
    return [next(references) if record.reference else next(models) for record in records]


def panels(figure: Figure, count: int, columns: int, **options: Any) -> list[Axes]:
    """`count` axes in rows of `columns`; the rest of the last row stays empty."""
    axes = list(figure.subplots(-(-count // columns), columns, squeeze=False, **options).flat)
    for axis in axes[count:]:
        axis.set_visible(False)
    return axes[:count]


def grid(axis: Axes, which: Any) -> None:
    """Draw faint lines at the ticks of the axis `which`: x, y or both."""
    axis.grid(axis=which, color=GREY, alpha=0.25, linewidth=0.6)
    axis.set_axisbelow(True)


def log_scale(axis: Axes) -> None:
    """A logarithmic x axis with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())


def interval(score: ScoreRecord) -> tuple[float, float]:
    """Bounds of a score's interval; the value where there are none."""
    low, high = (bound if math.isfinite(bound) else score.value for bound in (score.low, score.high))
    return low, high


def title(score: ScoreRecord) -> str:
    """Title of a metric, and the direction of a good score."""
    return f"{shown(score.title)} {ARROWS[score.better]}"


def legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Legend above the figure, with each name once."""
    handles = {name: handle for axis in axes for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=5, frameon=False)


def slug(name: str) -> str:
    """A metric's name as part of a file name."""
    return "".join(char if char.isascii() and char.isalnum() else "-" for char in name)[:40]
