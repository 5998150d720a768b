"""Results side by side: from the `results.json` of runs to one table.

    paths -> load -> records -> build -> Table -> vfbench.render: Markdown, CSV, LaTeX

Numbers of different protocols, and of smoke runs, are refused together unless mixing is asked for, and then marked.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from vfbench import presets
from vfbench.errors import MissingData, UserError

Record: TypeAlias = dict[str, Any]  # one parsed results.json

STRANGER = "not comparable"
MAKE = "python -m vfbench run --model NAME --dataset NAME"
DASH = "—"
ARROWS = {"lower": "↓", "higher": "↑"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One number as a reader sees it; `best` is typeset bold."""

    text: str
    best: bool = False


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


def load(paths: Iterable[str | Path]) -> list[Record]:
    """Read results, each a `results.json` or a run folder that holds one; a path given twice is read once.

    Raises `MissingData` naming the file that is absent, damaged or of another schema.
    """
    files = (Path(path) / "results.json" if Path(path).is_dir() else Path(path) for path in paths)
    return [_read(file) for file in {file.resolve(): file for file in files}.values()]


def _read(file: Path) -> Record:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingData(f"no results at {file} ({error.strerror}): make them with `{MAKE}`") from error
    except ValueError as error:
        raise MissingData(f"{file} is not valid JSON ({error}): make it again with `{MAKE}`") from error
    if problem := _problem(record):
        raise MissingData(f"{file} is not a result that this vfbench reads: {problem}; make it again with `{MAKE}`")
    return {"run_dir": str(file.parent), **record}


def _problem(record: object) -> str:
    """What keeps a parsed file from being a record, or nothing."""
    if not isinstance(record, dict):
        return "not a JSON object"
    if record.get("schema") != 1:
        return f"schema {record.get('schema')!r}, expected 1"
    for key, kind in {"model": str, "dataset": str, "protocol": dict, "scores": dict}.items():
        if not isinstance(record.get(key), kind):
            return f"'{key}' is missing or not of type {kind.__name__}"
    if "id" not in record["protocol"]:
        return "its protocol has no 'id'"
    for name, score in record["scores"].items():
        if not isinstance(score, dict) or score.get("better") not in ARROWS:
            return f"score '{name}' does not say whether 'lower' or 'higher' is better"
        if absent := {"value", "low", "high", "floor", "n_real", "n_fake", "title"} - set(score):
            return f"score '{name}' has no '{min(absent)}'"
    return ""


def build(results: Sequence[Record], *, allow_mixed: bool = False) -> Table:
    """Put results side by side, one row each.

    Raises `UserError` when there is nothing to show, and when results of several protocols or smoke runs would
    meet; `allow_mixed` shows them all the same, marked and never as the best.
    """
    metrics: dict[str, Record] = {}
    for record in results:
        metrics |= {name: score for name, score in record["scores"].items() if name not in metrics}
    if not metrics:
        raise UserError(f"no results to show: give run folders that hold a results.json, made with `{MAKE}`")
    main = _main_protocol(results)
    if not allow_mixed and any(_mark(record, main) for record in results):
        raise _refusal(results, main)
    records = sorted(results, key=_is_reference)
    labels, marks = _labels(records), [_mark(record, main) for record in records]
    fair = [not _is_reference(record) and not mark for record, mark in zip(records, marks, strict=True)]
    finest = {name: _finest(records, name, fair) for name in metrics}
    floors = {name: _floors(records, name, finest[name]) for name in metrics}
    columns = [_column(records, name, fair, finest[name], floors[name]) for name in metrics]
    rows = [
        Row(label, "reference" if _is_reference(record) else "model", tuple(column[i] for column in columns), mark)
        for i, (record, label, mark) in enumerate(zip(records, labels, marks, strict=True))
    ]
    for protocol, mark in {record["protocol"]["id"]: mark for record, mark in zip(records, marks, strict=True)}.items():
        cells = tuple(Cell(floors[name].get(protocol) or DASH) for name in metrics)
        if any(cell.text != DASH for cell in cells):
            rows.append(Row("floor", "floor", cells, mark))
    return Table(
        header=("model", *(f"{score['title']} {ARROWS[score['better']]}" for score in metrics.values())),
        rows=tuple(rows),
        caption=_caption(records, main),
        notes=(
            *_mixing(records, labels, main),
            *_networks(main),
            *_limits(records, labels),
            *_remarks(records),
            *_notes(records, labels),
            *_costs(records, labels),
        ),
        records=tuple(records),
    )


def _is_reference(record: Record) -> bool:
    """Whether a row is a control: it shows what a metric can tell, and never wins."""
    return bool(record.get("reference"))


def _main_protocol(results: Sequence[Record]) -> Record:
    """The protocol most results share (the first on a tie); a smoke protocol only where there is no other."""
    protocols = [record["protocol"] for record in results]
    protocols = [protocol for protocol in protocols if protocol.get("comparable")] or protocols
    commonest = Counter(protocol["id"] for protocol in protocols).most_common(1)[0][0]
    return next(dict(protocol) for protocol in protocols if protocol["id"] == commonest)


def _mark(record: Record, main: Record) -> str:
    """Why a record may not stand unmarked beside those of the main protocol, or nothing."""
    if not record["protocol"].get("comparable"):
        return f"† {STRANGER}"
    return f"† {record['protocol']['id']}" if record["protocol"]["id"] != main["id"] else ""


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], limit: int = 4) -> str:
    """The first protocol fields in which two protocols differ, as `field ours vs theirs`, for a message."""
    mine, other = (dict(presets.flat({**presets.DEFAULTS, **protocol})) for protocol in (ours, theirs))
    keys = [key for key in {**mine, **other} if key not in ("id", "name", "comparable")]
    pairs = {key: (mine.get(key, "absent"), other.get(key, "absent")) for key in keys}
    found = [f"{key} {' vs '.join(pair)}" for key, pair in pairs.items() if pair[0] != pair[1]]
    more = [f"and {len(found) - limit} more"] if len(found) > limit else []
    return ", ".join(found[:limit] + more) or "no recorded field"


def _refusal(results: Sequence[Record], main: Record) -> UserError:
    lines = ["these results do not belong in one table:"]
    for protocol in {record["protocol"]["id"]: record["protocol"] for record in results}.values():
        runs = [str(r.get("run_dir", r["model"])) for r in results if r["protocol"]["id"] == protocol["id"]]
        mark = "" if protocol.get("comparable") else f", {STRANGER}"
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


def number(fields: Mapping[str, Any] | None, key: str = "value") -> float:
    """A field of a score as a float, NaN where it or the score is missing or is not a number."""
    value = (fields or {}).get(key)
    return float(value) if isinstance(value, (int, float)) else math.nan


def rounded(values: Sequence[float], spread: float = 0.0) -> list[str]:
    """Finite numbers with the digits that an uncertainty of `spread` supports, all on one power of ten.

    Two significant digits of the spread are kept; without a usable spread, three of the largest number.
    """
    size = max(abs(value) for value in values)
    if not (math.isfinite(spread) and spread > 0):
        spread = size / 10
    if size == 0 or spread == 0:
        return [f"{value:z.0f}" for value in values]
    magnitude = math.floor(math.log10(size))
    decimals = min(1 - math.floor(math.log10(spread)), 5 - magnitude)
    exponent = magnitude if decimals > 6 or magnitude > 6 else 0
    power = f"e{exponent}" if exponent else ""
    return [f"{value / 10.0**exponent:z.{max(0, decimals + exponent)}f}{power}" for value in values]


def _half(score: Mapping[str, Any] | None) -> float:
    """Half the width of a score's interval, 0 where there is no usable one."""
    half = (number(score, "high") - number(score, "low")) / 2
    return half if 0 < half < math.inf else 0.0


def _finest(records: Sequence[Record], name: str, fair: Sequence[bool]) -> float:
    """The narrowest interval of the models: no row of the column needs more digits than that one supports."""
    halves = [(_half(record["scores"].get(name)), may_win) for record, may_win in zip(records, fair, strict=True)]
    return min((half for half, may_win in halves if half and (may_win or not any(fair))), default=0.0)


def _floors(records: Sequence[Record], name: str, finest: float) -> dict[str, str]:
    """The floor that the rows of each protocol share, as text, or nothing where they differ in it or in N."""
    seen: dict[str, set[tuple[int, int, str]]] = {}
    for record in records:
        if score := record["scores"].get(name):
            found = (score["n_real"], score["n_fake"], _floor(score, finest))
            seen.setdefault(record["protocol"]["id"], set()).add(found)
    return {protocol: next(iter(found))[2] if len(found) == 1 else "" for protocol, found in seen.items()}


def _floor(score: Mapping[str, Any], finest: float) -> str:
    floor = number(score, "floor")
    return rounded([floor], finest)[0] if math.isfinite(floor) else DASH


def _show(score: Mapping[str, Any], finest: float) -> str:
    """`value ± half-width`, or `value [low, high]` where the interval is too lopsided for one half-width."""
    value, low, high, half = *(number(score, key) for key in ("value", "low", "high")), _half(score)
    if not math.isfinite(value):
        return "nan"
    if not half:
        return rounded([value], finest)[0]
    centre, arm, bottom, top = rounded([value, half, low, high], max(half, finest))
    lopsided = abs(high + low - 2 * value) > half / 2
    return f"{centre} [{bottom}, {top}]" if lopsided else f"{centre} ± {arm}"


def _column(
    records: Sequence[Record], name: str, fair: Sequence[bool], finest: float, floors: Mapping[str, str]
) -> list[Cell]:
    """One metric down the rows; the floor stands in a cell only where the rows of its protocol share none."""
    scores = [record["scores"].get(name) for record in records]
    contenders = [number(s) for s, may_win in zip(scores, fair, strict=True) if may_win and math.isfinite(number(s))]
    pick = max if any(score and score["better"] == "higher" for score in scores) else min
    best = pick(contenders) if len(contenders) > 1 else math.nan  # alone, a model is not the best of anything
    cells = []
    for record, score, may_win in zip(records, scores, fair, strict=True):
        text = _show(score, finest) if score else DASH
        own = f" (floor {_floor(score, finest)})" if score and not floors[record["protocol"]["id"]] else ""
        cells.append(Cell(text + own, may_win and number(score) == best))
    return cells


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


def _caption(records: Sequence[Record], main: Record) -> str:
    ours = [record for record in records if record["protocol"]["id"] == main["id"]]
    return (
        f"Dataset {ours[0]['dataset']}{_split(main)}, protocol {main['id']} ({main.get('name', '?')}), {_sizes(ours)}. "
        "Value ± half the width of its 95 % interval, or [low, high] where lopsided; "
        "floor: real clips against real clips at the same N; in italics: no model, for reference."
    )


def _split(protocol: Mapping[str, Any]) -> str:
    """Which clips are the real ones."""
    split = protocol.get("split")
    return f" ({'train and test' if split == 'both' else split})" if split else ""


def _networks(main: Record) -> list[str]:
    """Which networks made the features of a protocol, where it names more than a hash."""
    specs = [spec.partition(") ")[0].rstrip(")") + ")" for spec in main.get("extractors", {}).values() if "(" in spec]
    return [f"features by {', '.join(specs)}"] if specs else []


def _mixing(records: Sequence[Record], labels: Sequence[str], main: Record) -> list[str]:
    """What sets each row of another protocol apart."""
    return [
        f"† {label}: protocol {record['protocol']['id']} ({record['protocol'].get('name', '?')}), {_sizes([record])}; "
        f"differs from {main['id']} in {differences(record['protocol'], main)}"
        for record, label in zip(records, labels, strict=True)
        if record["protocol"]["id"] != main["id"]
    ]


def _remarks(records: Sequence[Record]) -> list[str]:
    """Each note that metrics attached to their scores, once, with the metrics it is about."""
    about: dict[str, dict[str, None]] = {}
    for score in (score for record in records for score in record["scores"].values() if score.get("note")):
        about.setdefault(score["note"], {})[score["title"]] = None
    return [f"{', '.join(titles)}: {note}" for note, titles in about.items()]


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


def _notes(records: Sequence[Record], labels: Sequence[str]) -> list[str]:
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
        elif not _is_reference(record) and 0 < flops < math.inf:
            text = f"{rounded([flops / 1e9])[0]} GFLOP in {cost.get('evaluations', '?')} network calls"
            spent.setdefault(text, []).append(label)
    texts = [f"{text} ({', '.join(names)})" for text, names in spent.items()]
    return [f"compute per clip: {'; '.join(texts)}"] if texts else []
