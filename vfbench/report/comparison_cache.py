"""Tests of a run against others, kept beside it in `comparisons.json`: by id of the other run and by metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vfbench.errors import BadEnvironment, MissingData
from vfbench.interfaces import Comparison
from vfbench.utils import console, files

COMPARED_FILE = "comparisons.json"


def p_values(folder: Path) -> dict[str, dict[str, float]]:
    """p-values of the tests that `vfbench compare` keeps beside a run, by run id and metric."""
    return {
        run_id: {name: entry["p_value"] for name, entry in entries.items()} for run_id, entries in _read(folder).items()
    }


def read(folder: Path, other_id: str, key: str) -> dict[str, Comparison]:
    """Tests against another run, by metric; only those made from the features and by the code that `key` stands for."""
    entries = _read(folder).get(other_id, {})
    return {name: _comparison(entry) for name, entry in entries.items() if entry["key"] == key}


def write(folder: Path, other_id: str, comparisons: Mapping[str, Comparison], key: str) -> None:
    """Add tests against another run. A table prints a score in bold only where they show a difference."""
    stored, path = _read(folder), folder / COMPARED_FILE
    entries = {name: {**asdict(each), "key": key} for name, each in comparisons.items() if _is_finite(each)}
    try:
        files.write_json(path, {**stored, other_id: {**stored.get(other_id, {}), **entries}})
    except (OSError, BadEnvironment) as error:  # a folder of somebody else, for example
        console.detail(f"the comparison is not kept in {path}: {error}")


def negated(comparison: Comparison) -> Comparison:
    """The test of B - A, from that of A - B."""
    return Comparison(-comparison.difference, -comparison.high, -comparison.low, comparison.p_value, comparison.note)


def _read(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    try:
        stored = files.read_json(folder / COMPARED_FILE)
    except MissingData:  # none yet, or damaged: the next comparison writes it anew
        return {}
    runs = {run_id: entries for run_id, entries in stored.items() if isinstance(entries, dict)}
    return {
        run_id: {name: entry for name, entry in entries.items() if _is_valid(entry)} for run_id, entries in runs.items()
    }


def _comparison(entry: Mapping[str, Any]) -> Comparison:
    return Comparison(*(entry[name] for name in ("difference", "low", "high", "p_value", "note")))


def _is_valid(entry: object) -> bool:
    """True for an entry that `write` wrote."""
    if not isinstance(entry, dict) or not {"key", "note"} <= entry.keys():
        return False
    numbers = [entry.get(name) for name in ("difference", "low", "high", "p_value")]
    return all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)


def _is_finite(comparison: Comparison) -> bool:
    return all(map(math.isfinite, (comparison.difference, comparison.low, comparison.high, comparison.p_value)))
