"""Tables of results, and how they are shown: as Markdown, HTML, CSV, a pandas frame, or for a terminal."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vfbench.report.format import Cell
from vfbench.report.published import PublishedScore
from vfbench.report.results import NOT_COMPARABLE, Result
from vfbench.utils import escape

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group
    from rich.table import Table as RichTable


@dataclass(frozen=True, slots=True)
class Row:
    """A run, a reference row, the floor, chance or a published score.

    `mark` says why its numbers do not compare, and `source` where a published score was reported.
    """

    label: str
    kind: Literal["model", "reference", "floor", "chance", "published"]
    cells: tuple[Cell, ...]
    mark: str = ""
    source: str = ""

    @property
    def upright(self) -> bool:
        """True for the row of a model, whose label is not in italics."""
        return self.kind in ("model", "published")

    def begins_section(self, previous: Row | None) -> bool:
        """True where a rule stands above the row: below the models, and above what is published."""
        if previous is None or previous.kind == self.kind:
            return False
        return previous.kind == "model" or self.kind == "published"


@dataclass(frozen=True)
class Grid:
    """Header and rows, of as many cells as the header has entries after the first."""

    header: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table(Grid):
    """Content of a table for all renderers: models in the order given, reference rows, floor, published scores.

    `details` are shown below it: the parts of a metric, such as motion and shape, with the same rows.
    """

    caption: str
    notes: tuple[str, ...]
    records: tuple[Result, ...]
    details: tuple[Grid, ...] = ()
    published: tuple[PublishedScore, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """Scores at full precision, one row per model and metric; a score that a run lacks has no row."""
        return to_frame(self)

    def to_markdown(self, width: int = 100) -> str:
        """Pipe table, readable in a terminal too; caption and notes are folded at `width`."""
        return to_markdown(self, width)

    def to_latex(self) -> str:
        """LaTeX table with caption and notes, for the packages booktabs and siunitx."""
        from vfbench.report.latex import to_latex

        return to_latex(self)

    def to_bibtex(self) -> str:
        """BibTeX entries of the published scores, which `to_latex` cites; empty where the table shows none."""
        from vfbench.report.latex import to_bibtex

        return to_bibtex(self)

    def to_csv(self, *, wide: bool = False) -> str:
        """`to_frame` as CSV with a header; reading it restores the same numbers to the last bit.

        `wide` puts each model on one row, with the columns `<metric>`, `<metric>_low` and `<metric>_high`.
        """
        return to_csv(self, wide=wide)

    def to_html(self) -> str:
        """HTML table, with caption and notes."""
        return to_html(self)

    def _repr_html_(self) -> str:
        """HTML table, as a notebook shows it."""
        return to_html(self)


def to_frame(table: Table) -> pd.DataFrame:
    """Scores at full precision, one row per model and metric; a score that a run lacks has no row."""
    import pandas as pd

    pairs = zip(table.records, table.rows, strict=False)  # the floor row has no record
    rows = [{**score, "model": row.label} for record, row in pairs for score in record.score_rows()]
    if not table.published:
        return pd.DataFrame(rows)
    names = {score.title: name for record in table.records for name, score in record.scores.items()}
    published = [
        {
            **{"model": score.model, "dataset": score.dataset, "protocol": "published", "metric": names[score.metric]},
            **{"value": score.value, "n_fake": score.clips, "comparable": False},
            **{"reported_in": score.reported_in, "source_url": score.source_url, "confidence": score.confidence},
        }
        for score in table.published
    ]
    return pd.DataFrame([*rows, *published])


def to_csv(table: Table, *, wide: bool = False) -> str:
    """`to_frame` as CSV with a header; reading it restores the same numbers to the last bit."""
    frame = _wide(to_frame(table)) if wide else to_frame(table)
    texts = frame.select_dtypes(["object", "string"]).columns
    frame[texts] = frame[texts].map(lambda cell: escape.csv(cell) if isinstance(cell, str) else cell)
    return frame.to_csv(index=False, na_rep="nan", lineterminator="\n")


def _wide(frame: pd.DataFrame) -> pd.DataFrame:
    """Frame with one row per model: its scores with their intervals, in the order of the metrics."""
    keys = [name for name in ("model", "dataset", "protocol", "reported_in", "run_dir") if name in frame]
    frame = frame.fillna(dict.fromkeys(keys, ""))
    frame["repeat"] = frame.groupby([*keys, "metric"]).cumcount()  # one source may print a metric twice
    keys.append("repeat")
    scores = frame.pivot(index=keys, columns="metric", values=["value", "low", "high"])
    columns = [(bound, name) for name in frame.metric.unique() for bound in ("value", "low", "high")]
    scores = scores[columns]
    scores.columns = [name if bound == "value" else f"{name}_{bound}" for bound, name in columns]
    return frame[keys].drop_duplicates().merge(scores.reset_index(), on=keys).drop(columns="repeat")


def to_markdown(table: Table, width: int = 100) -> str:
    """Pipe table with aligned columns, readable in a terminal too; caption and notes below, folded at `width`."""
    notes = [f"- {_markdown_lines(note, width - 2, indent='  ')}" for note in table.notes]
    below = [_markdown_lines(table.caption, width), *([""] if notes else []), *notes]
    grids = [line for grid in (table, *table.details) for line in (*_markdown_grid(grid), "")]
    return "\n".join([*grids, *below]) + "\n"


def _markdown_lines(text: str, width: int, indent: str = "") -> str:
    """Text folded at a width, with an indent before every line but the first."""
    return f"\n{indent}".join(map(escape.markdown, textwrap.wrap(escape.printable(text), width)))


def _markdown_grid(table: Grid) -> list[str]:
    header = list(map(escape.markdown, table.header))
    grid = [header, *([_markdown_label(row), *map(_markdown_cell, row.cells)] for row in table.rows)]
    widths = [max(len(line[i]) for line in grid) for i in range(len(table.header))]
    lines = [
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |" for line in grid
    ]
    rule = "|" + "|".join([":" + "-" * (widths[0] + 1), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return [lines[0], rule, *lines[1:]]


def _markdown_label(row: Row) -> str:
    label, mark = escape.markdown(row.label), escape.markdown(row.mark)
    mark = mark.replace(NOT_COMPARABLE, f"**{NOT_COMPARABLE}**")
    label = label if row.upright else f"*{label}*"
    return f"{label} {mark}".rstrip()


def _markdown_cell(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.best else f"{cell.text}  "  # two blanks, as wide as the asterisks of bold


def to_html(table: Table) -> str:
    """HTML table with caption and notes; the best scores are bold."""
    notes = "".join(f"<li>{escape.html(note)}</li>" for note in table.notes)
    caption = f"<caption>{escape.html(table.caption)}</caption>"
    details = "".join(f"<table>{_html_grid(grid)}</table>" for grid in table.details)
    return f"<table>{caption}{_html_grid(table)}</table>{details}<ul>{notes}</ul>"


def _html_grid(grid: Grid) -> str:
    header = "".join(f"<th>{escape.html(text)}</th>" for text in grid.header)
    rows = "".join(f"<tr>{_html_label(row)}{''.join(map(_html_cell, row.cells))}</tr>" for row in grid.rows)
    return f"<thead><tr>{header}</tr></thead><tbody>{rows}</tbody>"


def _html_label(row: Row) -> str:
    label = escape.html(f"{row.label} {row.mark}".rstrip())
    return f"<th>{label if row.upright else f'<i>{label}</i>'}</th>"


def _html_cell(cell: Cell) -> str:
    text = escape.html(cell.text)
    return f"<td>{f'<b>{text}</b>' if cell.best else f'<u>{text}</u>' if cell.second else text}</td>"


def grid_width(table: Table) -> int:
    """Columns of a terminal that the table needs."""
    return max(
        sum(max(map(len, column)) + 2 for column in zip(*_texts(grid), strict=True)) for grid in (table, *table.details)
    )


def _texts(grid: Grid) -> list[tuple[str, ...]]:
    rows = ((_terminal_label(row), *(cell.text for cell in row.cells)) for row in grid.rows)
    return [tuple(map(escape.printable, grid.header)), *rows]


def _terminal_label(row: Row) -> str:
    return escape.printable(f"{row.label} {row.mark}".rstrip())


def to_rich(table: Table) -> Group:
    """Table for a terminal, with caption and notes folded at its width."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    notes = RichTable.grid(padding=(0, 1))
    for note in table.notes:
        notes.add_row("-", Text(escape.printable(note)))
    grids = [part for grid in (table, *table.details) for part in (_rich_grid(grid), Text())]
    return Group(*grids, Text(escape.printable(table.caption)), Text(), notes)


def _rich_grid(table: Grid) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, show_edge=False)
    for i, text in enumerate(table.header):
        grid.add_column(Text(escape.printable(text)), justify="right" if i else "left", no_wrap=i > 0, overflow="fold")
    for previous, row in zip((None, *table.rows), table.rows, strict=False):
        if row.begins_section(previous):
            grid.add_section()
        label = Text(_terminal_label(row), style="" if row.upright else "italic")
        grid.add_row(label, *(Text(cell.text, style="bold" if cell.best else "") for cell in row.cells))
    return grid
