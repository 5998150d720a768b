"""Render a `vfbench.report.table.Table` as Markdown, LaTeX, CSV or a pandas frame."""

from __future__ import annotations

import re
import textwrap

import pandas as pd

from vfbench.report.format import DASH, Cell
from vfbench.report.results import NOT_COMPARABLE
from vfbench.report.table import Row, Table

LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", '"': "''"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "[": "{[}", "]": "{]}"}
    | {"±": r"$\pm$", "†": r"\dag{}", "↓": r"$\downarrow$", "↑": r"$\uparrow$", DASH: "---"}
    | {"\N{MULTIPLICATION SIGN}": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$", "→": r"$\to$"}
)


def to_frame(table: Table) -> pd.DataFrame:
    """Scores at full precision, one row per model and metric; a score that a run lacks has no row."""
    rows = [
        {
            **{"model": row.label, "dataset": record.dataset, "protocol": record.protocol.id, "metric": name},
            **{"value": score.value, "low": score.low, "high": score.high, "floor": score.floor},
            **{"n_real": score.n_real, "n_fake": score.n_fake, "better": score.better},
            "comparable": record.protocol.comparable,
            "run_dir": record.run_dir,
        }
        for record, row in zip(table.records, table.rows, strict=False)  # the floor row has no record
        for name, score in record.scores.items()
    ]
    return pd.DataFrame(rows)


def to_csv(table: Table) -> str:
    """`to_frame` as CSV with a header; reading it restores the same numbers to the last bit."""
    return to_frame(table).to_csv(index=False, na_rep="nan", lineterminator="\n")


def to_markdown(table: Table) -> str:
    """Pipe table with aligned columns, readable in a terminal too; caption and notes below."""
    grid = [list(table.header), *([_markdown_label(row), *map(_markdown_cell, row.cells)] for row in table.rows)]
    widths = [max(len(line[i]) for line in grid) for i in range(len(table.header))]
    lines = [
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |" for line in grid
    ]
    rule = "|" + "|".join([":" + "-" * (widths[0] + 1), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    notes = [textwrap.fill(note, 100, initial_indent="- ", subsequent_indent="  ") for note in table.notes]
    below = ["", textwrap.fill(table.caption, 100), *([""] if notes else []), *notes]
    return "\n".join([lines[0], rule, *lines[1:], *below]) + "\n"


def _markdown_label(row: Row) -> str:
    label = row.label.replace("|", r"\|")
    mark = row.mark.replace(NOT_COMPARABLE, f"**{NOT_COMPARABLE}**")
    label = label if row.kind == "model" else f"*{label}*"
    return f"{label} {mark}".rstrip()


def _markdown_cell(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.best else f"{cell.text}  "  # two blanks, as wide as the asterisks of bold


def to_latex(table: Table) -> str:
    """Complete `table` environment for `booktabs`; reference rows and the floor stand below a rule."""
    lines = [" & ".join(["model", *(text.translate(LATEX) for text in table.header[1:])]) + r" \\", r"\midrule"]
    for previous, row in zip((None, *table.rows), table.rows, strict=False):
        if previous and previous.kind == "model" and row.kind != "model":
            lines.append(r"\midrule")
        lines.append(" & ".join([_latex_label(row), *map(_latex_cell, row.cells)]) + r" \\")
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\small\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{table.caption.translate(LATEX)}}}",
            rf"\begin{{tabular}}{{@{{}}l{'r' * (len(table.header) - 1)}@{{}}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par{{\footnotesize {note.translate(LATEX)}\par}}" for note in table.notes),
            r"\end{table}",
            "",
        ]
    )


def _latex_label(row: Row) -> str:
    label = row.label.translate(LATEX)
    label = label if row.kind == "model" else rf"\textit{{{label}}}"
    mark = row.mark.translate(LATEX).replace(NOT_COMPARABLE, rf"\textbf{{{NOT_COMPARABLE}}}")
    return f"{label} {mark}".rstrip()


def _latex_cell(cell: Cell) -> str:
    text = re.sub(r"(?<=[\d)])e(-?\d+)", r"$\\times 10^{\1}$", cell.text.translate(LATEX))
    text = re.sub(r"(?<![-{\w])-(?=\d)", "$-$", text)  # a minus sign, not a hyphen
    return rf"\textbf{{{text}}}" if cell.best else text
