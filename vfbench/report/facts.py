"""Facts about runs in words: warnings, protocols, cost, weights, data and environment, for a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vfbench.protocol import presets
from vfbench.report.format import DASH, rounded
from vfbench.report.result_parts import ProtocolRecord
from vfbench.report.results import NOT_COMPARABLE, Result


@dataclass(frozen=True)
class ProtocolFacts:
    """All fields of a protocol as text."""

    id: str
    name: str
    comparable: bool
    fields: Mapping[str, str]


@dataclass(frozen=True)
class RunFacts:
    """Facts of a run besides its scores, by name; every run has the same names."""

    label: str
    facts: Mapping[str, str]


def warnings(records: Sequence[Result], labels: Sequence[str]) -> list[str]:
    """One line for each thing that a reader must know before believing a number."""
    lines = []
    if len({record.protocol.id for record in records}) > 1:
        lines.append("Rows of different protocols stand in one table (--allow-mixed): those marked † do not compare.")
    for record, label in zip(records, labels, strict=True):
        if record.integrity == "edited":
            lines.append(f"{label}: {record.edited_message}")
        if not record.protocol.comparable:
            lines.append(f"{label}: {NOT_COMPARABLE}, by its protocol {record.protocol.id} ({record.protocol.name})")
        lost = [score.title for score in record.scores.values() if not math.isfinite(score.value)]
        if lost:
            lines.append(f"{label}: {', '.join(lost)} is not a number: repeat the run")
        if record.note:
            lines.append(f"{label}: {record.note}")
    return lines


def protocols(records: Sequence[Result]) -> list[ProtocolFacts]:
    """Every protocol of the results once, in their order."""
    by_id = {record.protocol.id: record.protocol for record in records}
    return [_protocol(protocol) for protocol in by_id.values()]


def _protocol(protocol: ProtocolRecord) -> ProtocolFacts:
    fields = dict(presets.flatten(protocol.to_json()))
    shown = {name: str(value) for name, value in fields.items() if name not in ("id", "name", "comparable")}
    return ProtocolFacts(protocol.id, protocol.name, protocol.comparable, shown)


def runs(records: Sequence[Result], labels: Sequence[str]) -> list[RunFacts]:
    """Model, weights, data, cost and environment of every run; a dash where a run does not say."""
    columns = [_run(record) for record in records]
    names = dict.fromkeys(name for column in columns for name in column)
    return [
        RunFacts(label, {name: column.get(name) or DASH for name in names})
        for label, column in zip(labels, columns, strict=True)
    ]


def _run(record: Result) -> dict[str, str]:
    data, environment = record.data, record.environment
    return {
        "model": record.model_spec or record.model,
        "preset": record.preset,
        "sampling": ", ".join(f"{name} {value}" for name, value in record.sampling.items()),
        "weights (SHA-256)": record.weights[:16],
        "run": record.run_id[:16],
        "folder": record.run_dir,
        "result": record.integrity,
        "seed": "" if record.seed is None else str(record.seed),
        "dataset": record.dataset,
        "real clips": f"{data.clips:,} of {data.videos:,} videos, {data.layout}, {data.copy_}" if data else "",
        "manifest (SHA-256)": data.manifest[:16] if data else "",
        **_cost(record),
        **({name: str(value) for name, value in environment.model_dump().items()} if environment else {}),
    }


def _cost(record: Result) -> dict[str, str]:
    cost = record.cost
    if cost is None:  # clips made elsewhere
        return {}
    return {
        "parameters": f"{cost.parameters:,}",
        "network calls a clip": "" if cost.evaluations is None else f"{cost.evaluations:,}",
        "GFLOP a clip": _number(cost.flops_per_clip / 1e9),
        "seconds a clip": _number(cost.seconds_per_clip),
        "peak memory": f"{cost.peak_memory_bytes / 1e6:,.0f} MB" if cost.peak_memory_bytes else "",
    }


def _number(value: Any) -> str:
    return rounded([value])[0] if math.isfinite(value) else ""
