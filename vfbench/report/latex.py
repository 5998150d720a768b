"""Tables of results as LaTeX, with the sources of published scores as BibTeX.

The tables use the packages booktabs and siunitx. The best score is bold and the second best is underlined, each only
where it is better than the scores below it beyond chance. Intervals are small.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vfbench.report.format import Cell
from vfbench.report.render import Grid, Row, Table
from vfbench.report.results import NOT_COMPARABLE
from vfbench.utils import escape

PREAMBLE = r"% needs \usepackage{booktabs,siunitx}"
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e-?[0-9]+)?")
_CELL = re.compile(r"(?P<value>\S+)(?P<interval> ± \S+| \[\S+ \S+\])?(?P<rest>.*)", re.DOTALL)
_ARXIV = re.compile(r"(?<![0-9])[0-9]{4}\.[0-9]{4,5}(?![0-9])")


def to_latex(table: Table) -> str:
    """Complete `table` environment; reference rows, the floor and published scores stand below rules.

    Published scores cite the entries of `to_bibtex`.
    """
    keys = citation_keys(table)
    details = [line for detail in table.details for line in (r"\par\medskip", *_grid(detail, keys))]
    return "\n".join(
        [
            PREAMBLE,
            r"\begin{table}",
            r"\centering\small\setlength{\tabcolsep}{4pt}\sisetup{detect-all}",
            rf"\caption{{{escape.latex(table.caption)}}}",
            *_grid(table, keys),
            *details,
            *(rf"\par{{\footnotesize {escape.latex(note)}\par}}" for note in table.notes),
            r"\end{table}",
            "",
        ]
    )


def to_bibtex(table: Table) -> str:
    """One BibTeX entry for each source of the published scores in a table; empty where it shows none."""
    entries = []
    for source, key in citation_keys(table).items():
        score = next(score for score in table.published if score.reported_in == source)
        arxiv = _ARXIV.search(f"{score.source_url} {source}")
        fields = {
            "title": f"{{{escape.latex(source)}}}",
            "year": str(score.year or ""),
            "eprint": arxiv[0] if arxiv else "",
            "archiveprefix": "arXiv" if arxiv else "",
            "howpublished": rf"\url{{{score.source_url}}}" if score.source_url else "",
            "note": "source of the scores, not the title of a paper",
        }
        lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items() if value)
        entries.append(f"@misc{{{key},\n{lines}}}\n")
    return "\n".join(entries)


def citation_keys(table: Table) -> Mapping[str, str]:
    """BibTeX key of each source of the published scores: `latte-2401.03048`, or `latte-2` where that is taken."""
    keys: dict[str, str] = {}
    for score in table.published:
        if score.reported_in in keys:
            continue
        arxiv = _ARXIV.search(f"{score.source_url} {score.reported_in}")
        words = re.findall(r"[a-z]+", score.reported_in.lower())[:2] or ["source"]
        key = stem = "-".join([words[0], arxiv[0]] if arxiv else words)
        number = 1
        while key in keys.values():
            number += 1
            key = f"{stem}-{number}"
        keys[score.reported_in] = key
    return keys


def _grid(grid: Grid, keys: Mapping[str, str]) -> list[str]:
    lines = [" & ".join(escape.latex(text) for text in grid.header) + r" \\", r"\midrule"]
    for previous, row in zip((None, *grid.rows), grid.rows, strict=False):
        if row.begins_section(previous):
            lines.append(r"\midrule")
        lines.append(" & ".join([_label(row, keys), *map(_cell, row.cells)]) + r" \\")
    columns = "r" * (len(grid.header) - 1)
    begin = rf"\begin{{tabular}}{{@{{}}l{columns}@{{}}}}"
    return [begin, r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"]


def _label(row: Row, keys: Mapping[str, str]) -> str:
    label = escape.latex(row.label)
    label = label if row.upright else rf"\textit{{{label}}}"
    mark = escape.latex(row.mark).replace(NOT_COMPARABLE, rf"\textbf{{{NOT_COMPARABLE}}}")
    citation = rf"~\cite{{{keys[row.source]}}}" if row.source in keys else ""
    return f"{label} {mark}".rstrip() + citation


def _cell(cell: Cell) -> str:
    """A cell: the value, bold or underlined, then its interval and its own floor, small."""
    match = _CELL.fullmatch(cell.text)
    if match is None or not _NUMBER.fullmatch(match["value"]):
        return escape.latex(cell.text)
    value, interval = _numbers(match["value"]), (match["interval"] or "") + match["rest"]
    value = rf"\textbf{{{value}}}" if cell.best else rf"\underline{{{value}}}" if cell.second else value
    return rf"{value}{{\scriptsize{_numbers(interval)}}}" if interval else value


def _numbers(text: str) -> str:
    """Text with its numbers as siunitx typesets them."""
    words = re.split(r"(-?[0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?)", text)
    return "".join(rf"\num{{{word}}}" if i % 2 else escape.latex(word) for i, word in enumerate(words))
