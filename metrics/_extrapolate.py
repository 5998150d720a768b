"""Extrapolation of a score to infinitely many clips: removes the bias of order 1 / N."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from vfbench.metrics._two_sample import Labels, Statistic, cluster_rows, num_clusters

NUM_SPLITS = 10  # random splits to average over
NUM_PARTS = (2, 4)  # each split gives halves and quarters
MIN_CLUSTERS = 8 * max(NUM_PARTS)  # per sample, so that a quarter has eight


@dataclass(frozen=True)
class Limit:
    """Statistic at infinite N; `noise` is the standard error due to the random splits."""

    value: float
    noise: float

    def error(self, sampling: float) -> float:
        """Standard error of `value`, given that of the statistic at this N."""
        return math.hypot(sampling, self.noise)


def no_limit_notes(min_clips: int, *labels: Labels) -> list[str]:
    """Note if a sample is too small to extrapolate: fewer than `min_clips` clips or `MIN_CLUSTERS` clusters."""
    if min(map(len, labels)) < min_clips:
        return [f"no value at infinite N: that takes N >= {min_clips}"]
    return (
        []
        if min(map(num_clusters, labels)) >= MIN_CLUSTERS
        else [f"no value at infinite N: that takes {MIN_CLUSTERS} independent clips"]
    )


def limit(
    value: float,
    statistic: Statistic,
    arrays: Sequence[np.ndarray],
    labels: Sequence[Labels],
    *,
    splits: int = NUM_SPLITS,
    seed: int,
) -> Limit:
    """Limit of `value` = `statistic(*arrays)` as all samples grow in the same ratio.

    A smooth statistic of independent clips has the expectation V + b/n + c/m + smaller terms. All samples are split at
    random into halves, and again into quarters, and part i is compared with part i: dividing n and m by t multiplies
    the terms by t. The limit is the value at t = 0 of the parabola through the value (t = 1) and the means over halves
    (t = 2) and quarters (t = 4). The parts of a split are disjoint and make up the sample, so the mean over parts of
    any term linear in the clips equals that term of the whole sample. The extrapolation adds no noise to it: to first
    order the limit has the standard error of the value. Clusters are never split, so 1 / N counts clusters.

    Chong and Forsyth, arXiv 1911.07023, fit a line in 1 / N to 15 random subsets of the generated clips alone. A line
    leaves the curvature in the limit, and subsampling one side leaves the bias of the other.
    """
    rng = np.random.default_rng(seed)
    rows = [cluster_rows(each) for each in labels]
    means = [[_mean_over_parts(statistic, arrays, rows, parts, rng) for parts in NUM_PARTS] for _ in range(splits)]
    full_weight, *weights = _lagrange_weights((1, *NUM_PARTS))
    limits = full_weight * value + np.array(means) @ np.array(weights)
    return Limit(float(limits.mean()), float(limits.std(ddof=1) / math.sqrt(splits)))


def _mean_over_parts(
    statistic: Statistic,
    arrays: Sequence[np.ndarray],
    rows: Sequence[Sequence[Int[np.ndarray, " _"]]],
    parts: int,
    rng: np.random.Generator,
) -> float:
    """Mean of the statistic over one random split of every sample into `parts` parts."""
    splits = zip(*(_random_parts(each, parts, rng) for each in rows), strict=True)
    samples = ([array[part] for array, part in zip(arrays, indices, strict=True)] for indices in splits)
    return float(np.mean([statistic(*sample) for sample in samples]))


def _random_parts(
    rows: Sequence[Int[np.ndarray, " _"]], parts: int, rng: np.random.Generator
) -> list[Int[np.ndarray, " _"]]:
    order = rng.permutation(len(rows))
    return [np.concatenate([rows[cluster] for cluster in part]) for part in np.array_split(order, parts)]


def _lagrange_weights(points: Sequence[int]) -> list[float]:
    """Lagrange weights for polynomial extrapolation from `points` to 0."""
    return [math.prod(-other / (t - other) for other in points if other != t) for t in points]
