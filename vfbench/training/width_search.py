"""Search for network widths that give a model a wanted cost; finds widths at any depth of the model's options."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

MAX_SCALE = 16.0  # largest factor on all widths, and the inverse of the smallest; beyond it choose another preset
MAX_DEVIATION = 0.25  # of a single width from the common factor, relative
WIDTH_MULTIPLE = 8  # group norms have eight groups, and kernels are faster with multiples of eight

Widths: TypeAlias = tuple[int, ...]
OptionPath: TypeAlias = tuple[str | int, ...]  # keys and list indices that lead to a width


def width_multiples(options: Mapping[str, Any], path: OptionPath = ()) -> dict[OptionPath, int]:
    """Path of each width (`channels`, `width`, `hidden`), with the number that the width must be a multiple of."""
    multiples: dict[OptionPath, int] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            multiples |= width_multiples(value, (*path, name))
        elif name == "channels":
            multiples |= {(*path, name, i): WIDTH_MULTIPLE for i in range(len(value))}
        elif name == "width":
            multiples[*path, name] = WIDTH_MULTIPLE * options.get("heads", 1)
        elif name == "hidden":
            multiples[*path, name] = WIDTH_MULTIPLE
    return multiples


def get_option(options: Any, path: OptionPath) -> Any:
    """Value at a path in nested options."""
    return functools.reduce(lambda node, key: node[key], path, options)


def with_widths(options: Mapping[str, Any], widths: Mapping[OptionPath, int]) -> dict[str, Any]:
    """Copy of the options with the widths at these paths replaced."""
    copied = copy.deepcopy(dict(options))
    for path, width in widths.items():
        get_option(copied, path[:-1])[path[-1]] = width
    return copied


def search(
    before: Mapping[OptionPath, int],
    multiples: Mapping[OptionPath, int],
    error: Callable[[Widths], float],
    tolerance: float,
) -> Widths:
    """Widths whose absolute error is at most `tolerance`, or the nearest ones found.

    Tries the preset's widths `before`, then all scaled by one factor (bisection), then single widths step by step.
    `multiples` as in `width_multiples`. `error` increases with every width and is 0 at the target cost.
    """

    def scaled(factor: float) -> Widths:
        steps = ((width, multiples[path]) for path, width in before.items())
        return tuple(max(round(factor * width / step), 1) * step for width, step in steps)

    def distance(widths: Widths) -> float:
        return abs(error(widths))

    best = tuple(before.values())
    if distance(best) <= tolerance:
        return best
    low, high = 1 / MAX_SCALE, MAX_SCALE
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if error(scaled(middle)) > 0 else (middle, high)
    best = min(scaled(low), scaled(high), key=distance)
    if low == 1 / MAX_SCALE or high == MAX_SCALE:  # the target is out of range, beyond the reach of single steps
        return best
    proportional = [low * width for width in before.values()]
    while distance(best) > tolerance:
        nearer = min(_neighbours(best, proportional, list(multiples.values())), key=distance, default=best)
        if distance(nearer) >= distance(best):
            break
        best = nearer
    return best


def _neighbours(widths: Widths, proportional: Sequence[float], multiples: Sequence[int]) -> Iterator[Widths]:
    """Widths with one of them a step up or down, at most `MAX_DEVIATION` from its proportional value."""
    for i, step in enumerate(multiples):
        for width in (widths[i] - step, widths[i] + step):
            if width > 0 and abs(width / proportional[i] - 1) <= MAX_DEVIATION:
                yield (*widths[:i], width, *widths[i + 1 :])
