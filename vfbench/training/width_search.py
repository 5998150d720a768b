"""The widths of a model among its options: found at any depth, and searched until the model costs what it should."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

LARGEST = 16.0  # times as wide as the preset, and the smallest that part of it: another preset would be meant
LEEWAY = 0.25  # of a width: how far a single one may be moved from its proportion
UNIT = 8  # group norms have eight groups, and kernels like multiples of eight

Widths: TypeAlias = tuple[int, ...]
Place: TypeAlias = tuple[str | int, ...]  # of a width: the names and numbers on the way to it


def steps(options: Mapping[str, Any], path: Place = ()) -> dict[Place, int]:
    """Where widths stand, and the numbers they must be multiples of."""
    found: dict[Place, int] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= steps(value, (*path, name))
        elif name == "channels":
            found |= {(*path, name, i): UNIT for i in range(len(value))}
        elif name == "width":
            found[*path, name] = UNIT * options.get("heads", 1)
        elif name == "hidden":
            found[*path, name] = UNIT
    return found


def at(options: Any, path: Place) -> Any:
    """What stands at a place."""
    return functools.reduce(lambda node, key: node[key], path, options)


def changed(options: Mapping[str, Any], widths: Mapping[Place, int]) -> dict[str, Any]:
    """A copy of the options with other widths."""
    copied = copy.deepcopy(dict(options))
    for path, width in widths.items():
        at(copied, path[:-1])[path[-1]] = width
    return copied


def nearest(
    before: Mapping[Place, int], steps: Mapping[Place, int], error: Callable[[Widths], float], enough: float
) -> Widths:
    """The widths of almost no error: as they are, else all by one factor, else single ones step by step.

    `before` are those of the preset, `steps` what each must be a multiple of. `error` grows with every width and is 0
    at what is wanted; one of at most `enough`, of either sign, ends the search. Where none is found, the nearest.
    """

    def scaled(factor: float) -> Widths:
        return tuple(max(round(factor * width / steps[path]), 1) * steps[path] for path, width in before.items())

    def distance(widths: Widths) -> float:
        return abs(error(widths))

    best = tuple(before.values())
    if distance(best) <= enough:
        return best
    low, high = 1 / LARGEST, LARGEST
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if error(scaled(middle)) > 0 else (middle, high)
    best = min(scaled(low), scaled(high), key=distance)
    if low == 1 / LARGEST or high == LARGEST:  # what is wanted lies beyond, and single steps will not get there
        return best
    proportion = [low * width for width in before.values()]
    while distance(best) > enough:
        nearer = min(_neighbours(best, proportion, list(steps.values())), key=distance, default=best)
        if distance(nearer) >= distance(best):
            break
        best = nearer
    return best


def _neighbours(widths: Widths, proportion: Sequence[float], steps: Sequence[int]) -> Iterator[Widths]:
    """Each width one step up and down, as far as it stays near its proportion."""
    for i, step in enumerate(steps):
        for width in (widths[i] - step, widths[i] + step):
            if width > 0 and abs(width / proportion[i] - 1) <= LEEWAY:
                yield (*widths[:i], width, *widths[i + 1 :])
