"""The numbers of a table as a reader sees them: no more digits than the intervals support, and which is the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vfbench.report.results import Record, number

DASH = "—"


@dataclass(frozen=True, slots=True)
class Cell:
    """One number as a reader sees it; `best` is typeset bold."""

    text: str
    best: bool = False


class Column(NamedTuple):
    """One metric down the rows, and the floor of each protocol as text: nothing where its rows share none."""

    cells: list[Cell]
    floors: Mapping[str, str]


def column(records: Sequence[Record], name: str, fair: Sequence[bool]) -> Column:
    """The cells of metric `name`; only rows that are `fair` may be the best, and they choose the digits.

    A floor stands in a cell where the rows of its protocol differ in it, or in the number of clips.
    """
    finest = _finest(records, name, fair)
    floors = _floors(records, name, finest)
    scores = [record["scores"].get(name) for record in records]
    best = _best(scores, fair)
    cells = []
    for record, score, may_win in zip(records, scores, fair, strict=True):
        text = _show(score, finest) if score else DASH
        own = f" (floor {_floor(score, finest)})" if score and not floors[record["protocol"]["id"]] else ""
        cells.append(Cell(text + own, may_win and number(score) == best))
    return Column(cells, floors)


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


def _best(scores: Sequence[Record | None], fair: Sequence[bool]) -> float:
    """The best value, NaN where no two compete: alone, a model is not the best of anything."""
    contenders = [number(s) for s, may_win in zip(scores, fair, strict=True) if may_win and math.isfinite(number(s))]
    pick = max if any(score and score["better"] == "higher" for score in scores) else min
    return pick(contenders) if len(contenders) > 1 else math.nan


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
