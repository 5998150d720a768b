"""Uncertainty of scores: standard errors by influence function, jackknife and bootstrap, intervals, paired tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vfbench.interfaces import Comparison
from vfbench.metrics._two_sample import Labels, Statistic, cluster_rows, cluster_sums, num_clusters

NUM_RESAMPLES = 200  # relative error of the standard error: 5 %, 1 / sqrt(2 * 200)
NORMAL_95 = 1.96  # half-width of a 95 % interval in standard errors
# Influences are heavy-tailed above this kurtosis, that of |x|^2 for a Gaussian x in two dimensions. results/coverage.md
# shows what intervals cover if they are widened then.
HEAVY_KURTOSIS = 9.0
HEAVY_WIDENING = 1.5


def interval_95(value: float, error: float) -> tuple[float, float]:
    """95 % confidence interval: `value` +- 1.96 standard errors."""
    return value - NORMAL_95 * error, value + NORMAL_95 * error


def interval_of_share(value: float, error: float, clusters: int) -> tuple[float, float]:
    """95 % confidence interval of a share of clips: Wilson, J. American Statistical Association 22, 1927.

    It lies within 0..1, and has a width even for a share of 0 or 1. The number n of independent clips follows from
    `error`^2 = share (1 - share) / n; where `error` is 0, n is `clusters`.
    """
    n = value * (1 - value) / error**2 if error > 0 else clusters
    centre = (value + NORMAL_95**2 / (2 * n)) / (1 + NORMAL_95**2 / n)
    half = NORMAL_95 * math.sqrt(value * (1 - value) / n + (NORMAL_95 / (2 * n)) ** 2) / (1 + NORMAL_95**2 / n)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def comparison(difference: float, error: float, *notes: str) -> Comparison:
    """Interval and two-sided p-value of a difference, both from the normal distribution.

    With `error` 0, p is 1 for no difference and 0 for any other.
    """
    z = abs(difference) / error if error > 0 else (math.inf if difference else 0.0)
    p_value = math.erfc(z / math.sqrt(2))
    return Comparison(difference, *interval_95(difference, error), p_value, "; ".join(notes))


@dataclass(frozen=True, eq=False)
class Influence:
    """Statistic of two independent samples with the first-order influence of each cluster of clips.

    `fake` (G,) and `real` (H,) are defined up to a constant; their spread gives the variance of the statistic.
    Subtracting the influences of two models on the same requests and real clips, cluster by cluster, gives a paired
    test. Hampel, J. American Statistical Association 69, 1974; Efron, The Jackknife, the Bootstrap and Other
    Resampling Plans, 1982, chapter 6.
    """

    value: float
    fake: Float[np.ndarray, " fakes"]
    real: Float[np.ndarray, " reals"]

    @property
    def error(self) -> float:
        """Standard error of `value` at this N."""
        return math.sqrt(_variance_of_sum(self.fake) + _variance_of_sum(self.real))

    @property
    def kurtosis(self) -> float:
        """Kurtosis of the influences, 3 for normal ones: mean of both samples, weighted by their share of the variance.

        If it is high, few clips decide the value, and a sample without such clips has too small an `error`.
        """
        variances = _variance_of_sum(self.fake), _variance_of_sum(self.real)
        if not sum(variances) > 0:
            return 0.0
        weighted = (v * _kurtosis(parts) for v, parts in zip(variances, (self.fake, self.real), strict=True) if v > 0)
        return sum(weighted) / sum(variances)

    @property
    def heavy_tailed(self) -> bool:
        """True where `kurtosis` is above 9."""
        return self.kurtosis > HEAVY_KURTOSIS

    @property
    def widened_error(self) -> float:
        """Standard error of `value`; 1.5 times as large where the influences are heavy-tailed."""
        return self.error * (HEAVY_WIDENING if self.heavy_tailed else 1.0)

    def __sub__(self, other: Influence) -> Influence:
        return Influence(self.value - other.value, self.fake - other.fake, self.real - other.real)


def _variance_of_sum(parts: Float[np.ndarray, " n"]) -> float:
    """Variance of a sum of independent parts, estimated from the spread between them."""
    return len(parts) * float(np.var(parts, ddof=1))


def _kurtosis(parts: Float[np.ndarray, " n"]) -> float:
    """Fourth central moment over the squared variance; at most the number of parts."""
    deviations = (parts - parts.mean()) / parts.std()
    return float((deviations**4).mean())


def influence_from_rows(
    value: float,
    fake: Float[np.ndarray, " n"],
    real: Float[np.ndarray, " m"],
    fake_labels: Labels,
    real_labels: Labels,
) -> Influence:
    """Influence of clusters from that of each clip, I(x_i) with mean 0: sums over each cluster, divided by N."""
    return Influence(value, cluster_sums(fake, fake_labels) / len(fake), cluster_sums(real, real_labels) / len(real))


def influence_from_jackknife(value: float, fake: Float[np.ndarray, " g"], real: Float[np.ndarray, " h"]) -> Influence:
    """Delete-one-cluster jackknife: `fake` and `real` hold the statistic without each cluster in turn."""
    return Influence(value, *((1 - 1 / len(values)) * (values.mean() - values) for values in (fake, real)))


def bootstrap_error(
    statistic: Statistic,
    arrays: Sequence[np.ndarray],
    labels: Sequence[Labels] | None = None,
    *,
    repeats: int = NUM_RESAMPLES,
    seed: int,
) -> float:
    """Bootstrap standard error: standard deviation of `statistic(*arrays)` over resamples of the clusters.

    Clusters are drawn with replacement, independently for each array, with all their rows; without `labels` each row
    is a cluster. The same seed gives the same error. To resample two models on the same requests together, stack them
    into one array. Only the spread of the resamples is used, not their mean: a resample holds about 63 % of the
    clips, the rest are duplicates, so its value is biased.
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 6.
    """
    labels = [np.arange(len(array)) for array in arrays] if labels is None else labels
    rng = np.random.default_rng(seed)
    rows = [cluster_rows(each) for each in labels]
    replicates = [
        statistic(*(array[_resample(rng, each)] for array, each in zip(arrays, rows, strict=True)))
        for _ in range(repeats)
    ]
    return float(np.std(replicates, ddof=1))


def _resample(rng: np.random.Generator, rows: Sequence[Int[np.ndarray, " _"]]) -> Int[np.ndarray, " _"]:
    """Row indices of len(rows) clusters drawn with replacement, in random order."""
    drawn_clusters = rng.integers(len(rows), size=len(rows))
    return rng.permutation(np.concatenate([rows[cluster] for cluster in drawn_clusters]))


def assign_blocks(labels: Labels, max_blocks: int, rng: np.random.Generator) -> Labels:
    """Random assignment of clusters to at most `max_blocks` blocks of about equal size, numbered from 0."""
    order = rng.permutation(num_clusters(labels))
    assigned = np.empty(len(order), dtype=np.int64)
    for block, part in enumerate(np.array_split(order, min(max_blocks, len(order)))):
        assigned[part] = block
    return np.asarray(assigned[labels])
