"""Format the numbers of a table: no more digits than the intervals support, the best value marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vfbench.report.result_parts import ScoreRecord
from vfbench.report.results import ALPHA, Result

DASH = "—"


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of one cell; `best` is typeset bold, `second` underlined where the format can.

    `value` is the number behind the text, NaN where there is none.
    """

    text: str
    best: bool = False
    second: bool = False
    value: float = math.nan


class Column(NamedTuple):
    """Cells of one metric, and the floor of each protocol as text, empty where its rows share none."""

    cells: list[Cell]
    floors: Mapping[str, str]


def column(records: Sequence[Result], name: str, eligible: Sequence[bool], *, intervals: bool = True) -> Column:
    """Cells of metric `name`; only `eligible` rows may be the best, and they determine the number of digits.

    The best is bold where it differs from every other eligible row beyond chance; then the second best is underlined
    where it differs from all but the best. A cell shows its own floor where the rows of its protocol differ in floor or
    number of clips.
    """
    finest = _finest(records, name, eligible)
    floors = _floors(records, name, finest)
    scores = [record.scores.get(name) for record in records]
    best, second = _best_two(records, name, eligible)
    cells = []
    for record, score in zip(records, scores, strict=True):
        text = (_format_score(score, finest) if intervals else _format_value(score, finest)) if score else DASH
        own_floor = f" (floor {_format_floor(score, finest)})" if score and not floors[record.protocol.id] else ""
        value = score.value if score else math.nan
        cells.append(Cell(text + own_floor, record is best, record is second, value))
    return Column(cells, floors)


def rounded(values: Sequence[float], spread: float = 0.0) -> list[str]:
    """Numbers as text with the digits that an uncertainty of `spread` supports, all with one exponent.

    Two significant digits of the spread are kept; without a usable spread, three of the largest number.
    """
    size = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if not (math.isfinite(spread) and spread > 0):
        spread = size / 10
    if size == 0 or spread == 0:
        return [f"{value:z.0f}" for value in values]
    magnitude = math.floor(math.log10(size))
    decimals = min(1 - math.floor(math.log10(spread)), 5 - magnitude)
    exponent = magnitude if decimals > 6 or magnitude > 6 else 0
    power = f"e{exponent}" if exponent else ""
    return [f"{value / 10.0**exponent:z.{max(0, decimals + exponent)}f}{power}" for value in values]


def _half_width(score: ScoreRecord | None) -> float:
    """Half the width of a score's interval, 0 where it has none that is finite and positive."""
    half = (score.high - score.low) / 2 if score else 0.0
    return half if 0 < half < math.inf else 0.0


def _finest(records: Sequence[Result], name: str, eligible: Sequence[bool]) -> float:
    """Smallest half-width of the eligible rows: no row of the column needs more digits than it supports."""
    widths = [(_half_width(record.scores.get(name)), wins) for record, wins in zip(records, eligible, strict=True)]
    return min((width for width, wins in widths if width and (wins or not any(eligible))), default=0.0)


def _floors(records: Sequence[Result], name: str, finest: float) -> dict[str, str]:
    """Floor shared by the rows of each protocol, as text; empty where they differ in floor or N."""
    floors: dict[str, set[tuple[int, int, str]]] = {}
    for record in records:
        if score := record.scores.get(name):
            floor = (score.n_real, score.n_fake, _format_floor(score, finest))
            floors.setdefault(record.protocol.id, set()).add(floor)
    return {protocol: next(iter(group))[2] if len(group) == 1 else "" for protocol, group in floors.items()}


def _format_floor(score: ScoreRecord, finest: float) -> str:
    return rounded([score.floor], finest)[0] if math.isfinite(score.floor) else DASH


def _best_two(records: Sequence[Result], name: str, eligible: Sequence[bool]) -> tuple[Result | None, Result | None]:
    """Best and second best of the eligible rows, each better than all below it beyond chance; else None."""
    rivals = [record for record, can_win in zip(records, eligible, strict=True) if can_win and name in record.scores]
    rivals = [record for record in rivals if math.isfinite(record.scores[name].value)]
    best = _best(rivals, name)
    return best, _best([record for record in rivals if record is not best], name) if best else None


def _best(rivals: Sequence[Result], name: str) -> Result | None:
    """Rival that is better than every other beyond chance; None where there is none."""
    if len(rivals) < 2:
        return None
    sign = -1 if rivals[0].scores[name].better == "higher" else 1
    best = min(rivals, key=lambda record: sign * record.scores[name].value)
    return best if all(_differ(best, record, name) for record in rivals if record is not best) else None


def _differ(a: Result, b: Result, name: str) -> bool:
    """True where two scores differ beyond chance: by their test if `compare` has made one, else by their intervals."""
    for p_value in (a.p_value(b, name), b.p_value(a, name)):  # one folder may be read-only
        if p_value is not None:
            return p_value < ALPHA
    return a.scores[name].high < b.scores[name].low or b.scores[name].high < a.scores[name].low


def _format_value(score: ScoreRecord, finest: float) -> str:
    return rounded([score.value], finest)[0] if math.isfinite(score.value) else "nan"


def _format_score(score: ScoreRecord, finest: float) -> str:
    """`value ± half-width`, or `value [low, high]` where the interval is too lopsided for one half-width."""
    value, low, high, half = score.value, score.low, score.high, _half_width(score)
    if not math.isfinite(value) or not half:
        return _format_value(score, finest)
    centre, arm, bottom, top = rounded([value, half, low, high], max(half, finest))
    lopsided = abs(high + low - 2 * value) > half / 2
    return f"{centre} [{bottom}, {top}]" if lopsided else f"{centre} ± {arm}"
