"""What a score would be with infinitely many clips: its bias, which shrinks like 1 / N, taken off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from vfbench.metrics._two_sample import Labels, Statistic, count, members

SPLITS = 10  # random splits that are averaged
PARTS = (2, 4)  # each split cuts the samples into halves and into quarters
INDEPENDENT = 8 * max(PARTS)  # clusters in a sample, so that a quarter has eight


@dataclass(frozen=True)
class Limit:
    """`value` is the statistic at infinite N, `noise` the standard error that the random splits bring to it."""

    value: float
    noise: float

    def error(self, sampling: float) -> float:
        """The standard error of `value`, given that of the statistic at this N."""
        return math.hypot(sampling, self.noise)


def missing(clips: int, *labels: Labels) -> list[str]:
    """Why there is no limit, in a note: fewer than so many `clips` in a sample, or too few clusters; often nothing."""
    least, clusters = min(len(each) for each in labels), min(count(each) for each in labels)
    if least < clips:
        return [f"no limit: that takes N >= {clips}"]
    return [] if clusters >= INDEPENDENT else [f"no limit: that takes {INDEPENDENT} independent clips"]


def limit(
    value: float,
    statistic: Statistic,
    arrays: Sequence[np.ndarray],
    labels: Sequence[Labels],
    *,
    splits: int = SPLITS,
    seed: int,
) -> Limit:
    """The limit of `value` = `statistic(*arrays)` as all samples grow together, their sizes in the same ratio.

    A smooth statistic of independent clips has the expectation V + b/n + c/m + smaller terms. All samples are cut at
    random into halves, and again into quarters, part against part: where n and m are both divided by t, the terms are
    multiplied by t. The parabola through the value (t = 1) and the means over halves (2) and quarters (4) is read at
    t = 0. The parts of a split are disjoint and make up the sample, so whatever is linear in the clips is the same in
    their mean as in the whole, and the extrapolation adds no noise to it: to first order the limit has the standard
    error of the value. Whole clusters are cut, so that 1 / N counts clusters.

    Chong and Forsyth, arXiv 1911.07023, fit a line in 1 / N to 15 random subsets of the generated clips alone. A line
    leaves the curvature in the limit, and thinning one side leaves the bias of the other.
    """
    rng = np.random.default_rng(seed)
    rows = [members(each) for each in labels]
    means = [[_mean(statistic, arrays, rows, parts, rng) for parts in PARTS] for _ in range(splits)]
    whole, *weights = _weights((1, *PARTS))
    found = whole * value + np.array(means) @ np.array(weights)
    return Limit(float(found.mean()), float(found.std(ddof=1) / math.sqrt(splits)))


def _mean(
    statistic: Statistic,
    arrays: Sequence[np.ndarray],
    rows: Sequence[Sequence[Int[np.ndarray, " _"]]],
    parts: int,
    rng: np.random.Generator,
) -> float:
    """The mean of the statistic over one random cut of every sample into as many parts."""
    cuts = zip(*(_cut(each, parts, rng) for each in rows), strict=True)
    samples = ([array[part] for array, part in zip(arrays, drawn, strict=True)] for drawn in cuts)
    return float(np.mean([statistic(*sample) for sample in samples]))


def _cut(rows: Sequence[Int[np.ndarray, " _"]], parts: int, rng: np.random.Generator) -> list[Int[np.ndarray, " _"]]:
    order = rng.permutation(len(rows))
    return [np.concatenate([rows[cluster] for cluster in part]) for part in np.array_split(order, parts)]


def _weights(at: Sequence[int]) -> list[float]:
    """Those by which values at the points `at` give the value at 0 of the polynomial through them (Lagrange)."""
    return [math.prod(-other / (t - other) for other in at if other != t) for t in at]
