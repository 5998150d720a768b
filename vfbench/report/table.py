"""Tables of results: from the `results.json` of runs to one table.

    paths -> load -> records -> build -> Table -> vfbench.report.render: Markdown, CSV, LaTeX

Results of different protocols, or of smoke runs, share a table only with `allow_mixed`, and are then marked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from vfbench.errors import UserError
from vfbench.report import footnotes
from vfbench.report.format import DASH, Cell, Column, column, rounded
from vfbench.report.published import Published
from vfbench.report.published_rows import published_rows
from vfbench.report.render import Grid, Row, Table
from vfbench.report.result_parts import ProtocolRecord, ScoreRecord
from vfbench.report.results import ARROWS, NOT_COMPARABLE, RUN_COMMAND, Result, describe_differences
from vfbench.utils import escape


def build(results: Sequence[Result], *, allow_mixed: bool = False, published: Published = "none") -> Table:
    """Put results side by side, one row each, and below them what is `published` on their dataset.

    Raises `UserError` where there is no score, and where protocols differ or a run is a smoke run; with `allow_mixed`
    such rows are shown with a mark, and never as the best. So are results that were edited.
    """
    metrics = _metrics(results)
    whole = {name: score for name, score in metrics.items() if score.part_of not in metrics}
    main = _main_protocol(results)
    if not allow_mixed and any(_protocol_mark(record, main) for record in results):
        raise _mixed_error(results, main)
    records = sorted(results, key=lambda record: record.reference)
    labels, marks = _labels(records), [_mark(record, main) for record in records]
    eligible = [not record.reference and not mark for record, mark in zip(records, marks, strict=True)]
    columns = [column(records, name, eligible) for name in whole]
    parts = {name: {part: each for part, each in metrics.items() if each.part_of == name} for name in whole}
    others = published_rows(records, whole, main, published)
    details = [
        _details(name, scores, records, main, labels, marks, eligible) for name, scores in parts.items() if scores
    ]
    return Table(
        header=_header("model", whole),
        rows=(*_rows(records, labels, marks, columns), *_floor_rows(records, main, columns), *others.rows),
        caption=footnotes.caption(records, main),
        notes=(*footnotes.notes(records, labels, main), *others.notes),
        records=tuple(records),
        details=(*details, *others.reproduced),
        published=others.scores,
    )


def _header(first: str, metrics: Mapping[str, ScoreRecord]) -> tuple[str, ...]:
    return (first, *(f"{score.title} {ARROWS[score.better]}" for score in metrics.values()))


def _details(
    name: str,
    scores: Mapping[str, ScoreRecord],
    records: Sequence[Result],
    main: ProtocolRecord,
    labels: Sequence[str],
    marks: Sequence[str],
    eligible: Sequence[bool],
) -> Grid:
    """Grid of the parts of a metric, without intervals, and with the values of clips made at random."""
    columns = [column(records, part, eligible, intervals=False) for part in scores]
    chances = [DASH if score.chance is None else rounded([score.chance], 0.1)[0] for score in scores.values()]
    rows = (*_rows(records, labels, marks, columns), *_floor_rows(records, main, columns))
    return Grid(_header(name, scores), (*rows, Row("chance", "chance", tuple(map(_number_cell, chances)))))


def _metrics(results: Sequence[Result]) -> Mapping[str, ScoreRecord]:
    """Metrics of all results in order of appearance, each with its first score."""
    scores: dict[str, ScoreRecord] = {}
    for record in results:
        scores |= {name: score for name, score in record.scores.items() if name not in scores}
    if not scores:
        raise UserError(f"no results to show: give run folders that hold a results.json, made with `{RUN_COMMAND}`")
    return scores


def _rows(
    records: Sequence[Result], labels: Sequence[str], marks: Sequence[str], columns: Sequence[Column]
) -> list[Row]:
    return [
        Row(label, "reference" if record.reference else "model", tuple(column.cells[i] for column in columns), mark)
        for i, (record, label, mark) in enumerate(zip(records, labels, marks, strict=True))
    ]


def _floor_rows(records: Sequence[Result], main: ProtocolRecord, columns: Sequence[Column]) -> list[Row]:
    """One row for each protocol whose rows share a floor in some metric."""
    rows = []
    for protocol, mark in {record.protocol.id: _protocol_mark(record, main) for record in records}.items():
        floors = [column.floors.get(protocol) or DASH for column in columns]
        if any(text != DASH for text in floors):
            rows.append(Row("floor", "floor", tuple(map(_number_cell, floors)), mark))
    return rows


def _number_cell(text: str) -> Cell:
    """Cell of a number that is known by its text."""
    return Cell(text, value=math.nan if text == DASH else float(text))


def _main_protocol(results: Sequence[Result]) -> ProtocolRecord:
    """Most common protocol of the results, the first on a tie; a smoke protocol only where there is no other."""
    protocols = [record.protocol for record in results]
    protocols = [protocol for protocol in protocols if protocol.comparable] or protocols
    most_common = Counter(protocol.id for protocol in protocols).most_common(1)[0][0]
    return next(protocol for protocol in protocols if protocol.id == most_common)


def _mark(record: Result, main: ProtocolRecord) -> str:
    """Marks of a record of another protocol or whose file was edited; empty for the others."""
    edited = footnotes.EDITED_MARK if record.integrity == "edited" else ""
    return f"{_protocol_mark(record, main)} {edited}".strip()


def _protocol_mark(record: Result, main: ProtocolRecord) -> str:
    """Mark of a record that does not compare with those of the main protocol; empty where it does."""
    if record.imported:
        return f"{footnotes.UNVERIFIED_MARK} unverified"
    if not record.protocol.comparable:
        return f"† {NOT_COMPARABLE}"
    return f"† {record.protocol.id}" if record.protocol.id != main.id else ""


def _mixed_error(results: Sequence[Result], main: ProtocolRecord) -> UserError:
    lines = ["these results do not compare:"]
    for protocol in {record.protocol.id: record.protocol for record in results}.values():
        runs = [record.label for record in results if record.protocol.id == protocol.id]
        mark = "" if protocol.comparable else f", {NOT_COMPARABLE}"
        lines.append(f"  protocol {protocol.id} ({protocol.name}{mark}): {', '.join(runs)}")
        if protocol.id != main.id:
            lines.append(f"    differs from {main.id} in {describe_differences(protocol, main)}")
    lines.append("repeat them under one full protocol, or show them together, marked, with --allow-mixed")
    return UserError("\n".join(map(escape.printable, lines)))


def _labels(records: Sequence[Result]) -> list[str]:
    """Model names; equal ones are distinguished by specification, then preset, then run id."""
    labels = [record.model for record in records]
    extensions: list[Callable[[Result, str], str]] = [
        lambda record, label: record.model_spec or label,
        lambda record, label: f"{label} {record.preset}".rstrip(),
        lambda record, label: f"{label}, run {record.run_id or '?'}",
    ]
    for extend in extensions:
        counts = Counter(labels)
        labels = [extend(r, x) if counts[x] > 1 else x for r, x in zip(records, labels, strict=True)]
    return labels
