"""Drift of recipes as a table, a data frame, JSON or a plot; `vfbench.report.drift` computes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vfbench.errors import BadEnvironment
from vfbench.report.compare import ComparisonResult
from vfbench.report.format import DASH, Cell, rounded
from vfbench.report.render import Row, Table
from vfbench.report.results import ARROWS
from vfbench.report.similarity import PairScores
from vfbench.utils import escape, files
from vfbench.utils.text import count

if TYPE_CHECKING:
    import pandas as pd

CAPTION = (
    "Each clip of a row against the clip of {reference} that answers the same request. Mean ± half the width of its "
    "95 % interval over clips. FVD: score of the row minus that of {reference}, with the 95 % interval of the paired "
    "test. Speed-up: seconds of a clip of {reference} over those of the row."
)


@dataclass(frozen=True)
class DriftRow:
    """Closeness of one recipe to the reference, over the pairs of clips that answer one request.

    `requests` has the key of each pair, and each of `measures` a value for it. `fvd` is the paired test of the row
    minus the reference, and `speed_up` the ratio of the seconds of a clip; None where `notes` say why.
    """

    name: str
    folder: Path
    requests: tuple[str, ...]
    equal: int
    measures: Mapping[str, PairScores]
    fvd: ComparisonResult | None
    speed_up: float | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Means, intervals and the values of all pairs, as JSON values."""
        measures = {
            name: {"mean": _finite(each.value), "half_width": _finite(each.half_width), "missing": each.missing}
            for name, each in self.measures.items()
        }
        test = self.fvd.comparison if self.fvd else None
        fvd = {name: getattr(test, name) for name in ("difference", "low", "high", "p_value")} if test else None
        clips = [{"request": request, **values} for request, values in self._clips()]
        return {
            **{"name": self.name, "folder": str(self.folder), "equal": self.equal, "measures": measures},
            **{"fvd": fvd, "speed_up": self.speed_up, "notes": list(self.notes), "clips": clips},
        }

    def _clips(self) -> list[tuple[str, dict[str, float]]]:
        columns = {name: each.values for name, each in self.measures.items() if each.values}
        return [
            (request, {name: values[i] for name, values in columns.items()}) for i, request in enumerate(self.requests)
        ]


@dataclass(frozen=True)
class Drift:
    """Drift of one or several recipes from a reference recipe."""

    reference: str
    rows: tuple[DriftRow, ...]

    @cached_property
    def table(self) -> Table:
        """One row per recipe, with the reasons of empty cells as notes."""
        measures = self.rows[0].measures.values()
        titles = [f"{each.title} {ARROWS[each.better]}" for each in measures]
        return Table(
            header=("recipe", *titles, "FVD difference ↓", "speed-up ↑"),
            rows=tuple(Row(row.name, "model", tuple(map(Cell, _texts(row)))) for row in self.rows),
            caption=CAPTION.format(reference=self.reference),
            notes=tuple(f"{row.name}: {note}" for row in self.rows for note in _notes(row)),
            records=(),
        )

    def to_markdown(self, width: int = 100) -> str:
        """Pipe table with caption and notes."""
        return self.table.to_markdown(width)

    def to_frame(self) -> pd.DataFrame:
        """Values clip by clip at full precision, one row per recipe and request."""
        import pandas as pd

        return pd.DataFrame(
            [{"recipe": row.name, "request": key, **values} for row in self.rows for key, values in row._clips()]
        )

    def to_csv(self) -> str:
        """`to_frame` as CSV with a header."""
        frame = self.to_frame()
        frame[["recipe", "request"]] = frame[["recipe", "request"]].map(escape.csv)
        return frame.to_csv(index=False, na_rep="nan", lineterminator="\n")

    def to_json(self) -> dict[str, Any]:
        """The drift as JSON values."""
        return {"reference": self.reference, "rows": [row.to_json() for row in self.rows]}

    def _repr_html_(self) -> str:
        """HTML table, as a notebook shows it."""
        return self.table._repr_html_()

    def plot(self, path: Path | str) -> Path:
        """Write a picture of PSNR against speed-up and of the PSNR of all clips; its suffix chooses the format.

        Raises `BadEnvironment` without matplotlib.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise BadEnvironment("a plot needs matplotlib: pip install matplotlib") from error
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        speed, spread = figure.subplots(1, 2)
        for row in self.rows:
            psnr, name = row.measures["psnr"], _plain(row.name)
            if row.speed_up is not None:
                arm = None if math.isnan(psnr.half_width) else psnr.half_width
                speed.errorbar([row.speed_up], [psnr.value], yerr=arm, fmt="o", capsize=3, label=name)
            ordered = sorted(psnr.values)
            spread.plot(
                ordered, [(i + 1) / len(ordered) for i in range(len(ordered))], drawstyle="steps-post", label=name
            )
        reference = _plain(self.reference)
        speed.set(xlabel=f"speed-up over {reference}", ylabel="PSNR in dB, mean of clips")
        spread.set(xlabel=f"PSNR in dB against {reference}", ylabel="share of clips at or below")
        for axes in (speed, spread):
            axes.legend(fontsize="small") if axes.get_legend_handles_labels()[0] else None
            axes.grid(alpha=0.3)
        with files.atomic_path(Path(path)) as file:
            figure.savefig(file, format=Path(path).suffix.removeprefix(".") or "png", dpi=150)
        return Path(path)


def _texts(row: DriftRow) -> list[str]:
    """Cells of a row: the measures, FVD, and the speed-up."""
    texts = []
    for each in row.measures.values():
        spread = 0.0 if math.isnan(each.half_width) else each.half_width
        numbers = rounded([each.value, spread], spread)
        texts.append((" ± ".join(numbers) if spread else numbers[0]) if each.values else DASH)
    if row.fvd is None:
        texts.append(DASH)
    else:
        test = row.fvd.comparison
        value, low, high = rounded([test.difference, test.low, test.high], (test.high - test.low) / 2)
        texts.append(f"{value} [{low}, {high}]")
    return [*texts, DASH if row.speed_up is None else f"{row.speed_up:.2f}"]


def _notes(row: DriftRow) -> list[str]:
    """Notes of a row: its pairs, what its cells lack and why."""
    pairs = count(len(row.requests), "pair") + " of clips"
    equal = f"{row.equal:,} of them identical" if row.equal else ""
    missing = [f"no {each.title}: {each.missing}" for each in row.measures.values() if each.missing]
    test = [f"FVD: p = {row.fvd.comparison.p_value:.2g}"] if row.fvd else []
    return [", ".join(filter(None, [pairs, equal])), *test, *missing, *row.notes]


def _plain(text: str) -> str:
    """Text that matplotlib typesets as it is: a dollar sign would begin a formula."""
    return escape.printable(text).replace("$", r"\$")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
