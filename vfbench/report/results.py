"""The `results.json` of runs: read, checked, and told apart by their protocols."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from vfbench.errors import MissingData
from vfbench.protocol import presets

Record: TypeAlias = dict[str, Any]  # one parsed results.json

NOT_COMPARABLE = "not comparable"
MAKE = "python -m vfbench run --model NAME --dataset NAME"
ARROWS = {"lower": "↓", "higher": "↑"}


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


def is_reference(record: Record) -> bool:
    """Whether a row is a control: it shows what a metric can tell, and never wins."""
    return bool(record.get("reference"))


def number(fields: Mapping[str, Any] | None, key: str = "value") -> float:
    """A field of a score as a float, NaN where it or the score is missing or is not a number."""
    value = (fields or {}).get(key)
    return float(value) if isinstance(value, (int, float)) else math.nan


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], limit: int = 4) -> str:
    """The first protocol fields in which two protocols differ, as `field ours vs theirs`, for a message."""
    mine, other = (dict(presets.flat({**presets.DEFAULTS, **protocol})) for protocol in (ours, theirs))
    keys = [key for key in {**mine, **other} if key not in ("id", "name", "comparable")]
    pairs = {key: (mine.get(key, "absent"), other.get(key, "absent")) for key in keys}
    found = [f"{key} {' vs '.join(pair)}" for key, pair in pairs.items() if pair[0] != pair[1]]
    more = [f"and {len(found) - limit} more"] if len(found) > limit else []
    return ", ".join(found[:limit] + more) or "no recorded field"


SCORED = "scored.safetensors"  # what the scores of a run were made of
