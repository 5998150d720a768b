"""What stands below a table: of what data and protocol it is, and what sets its rows apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vfbench.report.format import rounded
from vfbench.report.results import Record, differences, is_reference, number


def caption(records: Sequence[Record], main: Record) -> str:
    """Dataset, protocol and numbers of clips of the rows of the `main` protocol, and how to read a cell."""
    ours = [record for record in records if record["protocol"]["id"] == main["id"]]
    return (
        f"Dataset {ours[0]['dataset']}{_split(main)}, protocol {main['id']} ({main.get('name', '?')}), {_sizes(ours)}. "
        "Value ± half the width of its 95 % interval, or [low, high] where lopsided; "
        "floor: real clips against real clips at the same N; in italics: no model, for reference."
    )


def notes(records: Sequence[Record], labels: Sequence[str], main: Record) -> tuple[str, ...]:
    """All that a reader must know of the rows, which are called by their `labels`, one sentence each."""
    return (
        *_mixing(records, labels, main),
        *_networks(main),
        *_limits(records, labels),
        *_remarks(records),
        *_of_runs(records, labels),
        *_costs(records, labels),
    )


def _sizes(records: Sequence[Record]) -> str:
    """How many clips the scores were made from, metric by metric only where they differ."""
    counts: dict[str, dict[str, None]] = {}
    for score in (score for record in records for score in record["scores"].values()):
        size = f"{score['n_real']} real against {score['n_fake']} generated clips"
        counts.setdefault(score["title"], {})[size] = None
    sizes = {title: " or ".join(found) for title, found in counts.items()}
    if len(set(sizes.values())) == 1:
        return next(iter(sizes.values()))
    return ", ".join(f"{title} {size}" for title, size in sizes.items())


def _split(protocol: Mapping[str, Any]) -> str:
    """Which clips are the real ones."""
    split = protocol.get("split")
    return f" ({'train and test' if split == 'both' else split})" if split else ""


def _mixing(records: Sequence[Record], labels: Sequence[str], main: Record) -> list[str]:
    """What sets each row of another protocol apart."""
    return [
        f"† {label}: protocol {record['protocol']['id']} ({record['protocol'].get('name', '?')}), {_sizes([record])}; "
        f"differs from {main['id']} in {differences(record['protocol'], main)}"
        for record, label in zip(records, labels, strict=True)
        if record["protocol"]["id"] != main["id"]
    ]


def _networks(main: Record) -> list[str]:
    """Which networks made the features of a protocol, where it names more than a hash."""
    specs = [spec.partition(") ")[0].rstrip(")") + ")" for spec in main.get("extractors", {}).values() if "(" in spec]
    return [f"features by {', '.join(specs)}"] if specs else []


def _limits(records: Sequence[Record], labels: Sequence[str]) -> list[str]:
    """What the scores that depend on N come to at infinite N, with 95 % intervals: the bias apart from the value."""
    found: dict[str, list[str]] = {}
    for record, label in zip(records, labels, strict=True):
        for score in record["scores"].values():
            limit, half, slope = (number(score, key) for key in ("limit", "limit_error", "slope"))
            if slope and math.isfinite(limit + half):  # without a slope it is the value itself
                text = " ± ".join(rounded([limit, 1.96 * half], 1.96 * half))
                found.setdefault(score["title"], []).append(f"{label} {text}")
    return [f"{title} at infinite N: {', '.join(texts)}" for title, texts in found.items()]


def _remarks(records: Sequence[Record]) -> list[str]:
    """Each note that metrics attached to their scores, once, with the metrics it is about."""
    about: dict[str, dict[str, None]] = {}
    for score in (score for record in records for score in record["scores"].values() if score.get("note")):
        about.setdefault(score["note"], {})[score["title"]] = None
    return [f"{', '.join(titles)}: {note}" for note, titles in about.items()]


def _of_runs(records: Sequence[Record], labels: Sequence[str]) -> list[str]:
    """What each run has to say of its clips and networks, once."""
    about: dict[str, list[str]] = {}
    for record, label in zip(records, labels, strict=True):
        if note := record.get("note"):
            about.setdefault(note, []).append(label)
    return [f"{', '.join(names)}: {note}" for note, names in about.items()]


def _costs(records: Sequence[Record], labels: Sequence[str]) -> list[str]:
    """The compute each model spends on a clip: a comparison is fair only at equal compute."""
    spent: dict[str, list[str]] = {}
    for record, label in zip(records, labels, strict=True):
        cost = record.get("cost") or {}
        flops = number(cost, "flops_per_clip")
        if record.get("cost", {}) is None:  # clips that others made
            spent.setdefault("unknown", []).append(label)
        elif not is_reference(record) and 0 < flops < math.inf:
            text = f"{rounded([flops / 1e9])[0]} GFLOP in {cost.get('evaluations', '?')} network calls"
            spent.setdefault(text, []).append(label)
    texts = [f"{text} ({', '.join(names)})" for text, names in spent.items()]
    return [f"compute per clip: {'; '.join(texts)}"] if texts else []
