"""Results side by side: from the `results.json` of runs to one table.

    paths -> load -> records -> build -> Table -> vfbench.report.render: Markdown, CSV, LaTeX

Numbers of different protocols, and of smoke runs, are refused together unless mixing is asked for, and then marked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vfbench.errors import UserError
from vfbench.report import footnotes as notes
from vfbench.report import format as cells
from vfbench.report.format import DASH, Cell, Column
from vfbench.report.results import ARROWS, MAKE, NOT_COMPARABLE, Record, differences, is_reference, load

__all__ = ["Record", "Row", "Table", "build", "load"]


@dataclass(frozen=True, slots=True)
class Row:
    """One run, one reference row, or the floor; `mark` says why its numbers do not compare with the others."""

    label: str
    kind: Literal["model", "reference", "floor"]
    cells: tuple[Cell, ...]
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """What every renderer prints: models in the order given, then reference rows, then the floor."""

    header: tuple[str, ...]
    rows: tuple[Row, ...]
    caption: str
    notes: tuple[str, ...]
    records: tuple[Record, ...]


def build(results: Sequence[Record], *, allow_mixed: bool = False) -> Table:
    """Put results side by side, one row each.

    Raises `UserError` when there is nothing to show, and when results of several protocols or smoke runs would
    meet; `allow_mixed` shows them all the same, marked and never as the best.
    """
    metrics = _metrics(results)
    main = _main_protocol(results)
    if not allow_mixed and any(_mark(record, main) for record in results):
        raise _refusal(results, main)
    records = sorted(results, key=is_reference)
    labels, marks = _labels(records), [_mark(record, main) for record in records]
    fair = [not is_reference(record) and not mark for record, mark in zip(records, marks, strict=True)]
    columns = [cells.column(records, name, fair) for name in metrics]
    return Table(
        header=("model", *(f"{score['title']} {ARROWS[score['better']]}" for score in metrics.values())),
        rows=(*_rows(records, labels, marks, columns), *_floor_rows(records, marks, columns)),
        caption=notes.caption(records, main),
        notes=notes.notes(records, labels, main),
        records=tuple(records),
    )


def _metrics(results: Sequence[Record]) -> Mapping[str, Record]:
    """The metrics of all results in the order in which they come, each with the first score there is of it."""
    found: dict[str, Record] = {}
    for record in results:
        found |= {name: score for name, score in record["scores"].items() if name not in found}
    if not found:
        raise UserError(f"no results to show: give run folders that hold a results.json, made with `{MAKE}`")
    return found


def _rows(
    records: Sequence[Record], labels: Sequence[str], marks: Sequence[str], columns: Sequence[Column]
) -> list[Row]:
    return [
        Row(label, "reference" if is_reference(record) else "model", tuple(one.cells[i] for one in columns), mark)
        for i, (record, label, mark) in enumerate(zip(records, labels, marks, strict=True))
    ]


def _floor_rows(records: Sequence[Record], marks: Sequence[str], columns: Sequence[Column]) -> list[Row]:
    """A row for each protocol of which some metric has one floor."""
    rows = []
    for protocol, mark in {record["protocol"]["id"]: mark for record, mark in zip(records, marks, strict=True)}.items():
        floors = [column.floors.get(protocol) or DASH for column in columns]
        if any(text != DASH for text in floors):
            rows.append(Row("floor", "floor", tuple(map(Cell, floors)), mark))
    return rows


def _main_protocol(results: Sequence[Record]) -> Record:
    """The protocol most results share (the first on a tie); a smoke protocol only where there is no other."""
    protocols = [record["protocol"] for record in results]
    protocols = [protocol for protocol in protocols if protocol.get("comparable")] or protocols
    commonest = Counter(protocol["id"] for protocol in protocols).most_common(1)[0][0]
    return next(dict(protocol) for protocol in protocols if protocol["id"] == commonest)


def _mark(record: Record, main: Record) -> str:
    """Why a record may not stand unmarked beside those of the main protocol, or nothing."""
    if not record["protocol"].get("comparable"):
        return f"† {NOT_COMPARABLE}"
    return f"† {record['protocol']['id']}" if record["protocol"]["id"] != main["id"] else ""


def _refusal(results: Sequence[Record], main: Record) -> UserError:
    lines = ["these results do not belong in one table:"]
    for protocol in {record["protocol"]["id"]: record["protocol"] for record in results}.values():
        runs = [str(r.get("run_dir", r["model"])) for r in results if r["protocol"]["id"] == protocol["id"]]
        mark = "" if protocol.get("comparable") else f", {NOT_COMPARABLE}"
        lines.append(f"  protocol {protocol['id']} ({protocol.get('name', '?')}{mark}): {', '.join(runs)}")
        if protocol["id"] != main["id"]:
            lines.append(f"    differs from {main['id']} in {differences(protocol, main)}")
    lines.append("run them again under one full protocol, or show them all the same, marked, with --allow-mixed")
    return UserError("\n".join(lines))


def _labels(records: Sequence[Record]) -> list[str]:
    """Model names; where two are the same, what tells them apart: specification, then preset, then the run's id."""
    labels = [str(record["model"]) for record in records]
    longer: list[Callable[[Record, str], str]] = [
        lambda record, label: str(record.get("model_spec", label)),
        lambda record, label: f"{label} {preset}" if (preset := record.get("preset")) else label,
        lambda record, label: f"{label}, run {record.get('run_id', '?')}",
    ]
    for tell in longer:
        counts = Counter(labels)
        labels = [tell(r, x) if counts[x] > 1 else x for r, x in zip(records, labels, strict=True)]
    return labels
