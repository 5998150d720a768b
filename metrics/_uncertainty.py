"""How far a number can be trusted: standard errors by influence, jackknife and bootstrap, intervals, paired tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vfbench.interfaces import Comparison
from vfbench.metrics._two_sample import Labels, Statistic, count, members, totals

REPEATS = 200  # resamples: they give a standard error to 5 % (1 / sqrt(2 * 200))
NORMAL_95 = 1.96  # half width of a 95 % interval in standard errors


def around(value: float, error: float) -> tuple[float, float]:
    """The 95 % interval `value` -+ 1.96 standard errors."""
    return value - NORMAL_95 * error, value + NORMAL_95 * error


def compared(difference: float, error: float, *notes: str) -> Comparison:
    """A difference with its standard error as interval and two-sided p-value, both of the normal distribution.

    Where nothing varies (`error` 0), p is 1 for no difference and 0 for any.
    """
    surprise = abs(difference) / error if error > 0 else (math.inf if difference else 0.0)
    p_value = math.erfc(surprise / math.sqrt(2))
    return Comparison(difference, *around(difference, error), p_value, "; ".join(notes))


@dataclass(frozen=True, eq=False)
class Influence:
    """A statistic of two samples, and what each cluster of clips adds to it, to first order.

    `fake` (G,) and `real` (H,) are centred only up to a constant. Their sums of squares are the variance that the
    clusters bring, the two samples being independent. Influences of two models on the same requests and real clips
    are subtracted cluster by cluster, which is what makes a paired test. Hampel, J. American Statistical Association
    69, 1974; Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982, chapter 6.
    """

    value: float
    fake: Float[np.ndarray, " fakes"]
    real: Float[np.ndarray, " reals"]

    @property
    def error(self) -> float:
        """The standard error of `value` at this N."""
        return math.sqrt(_variance(self.fake) + _variance(self.real))

    def __sub__(self, other: Influence) -> Influence:
        return Influence(self.value - other.value, self.fake - other.fake, self.real - other.real)


def _variance(parts: Float[np.ndarray, " n"]) -> float:
    """That of a sum of independent parts, estimated from the spread between them."""
    return len(parts) * float(np.var(parts, ddof=1))


def of_rows(
    value: float,
    fake: Float[np.ndarray, " n"],
    real: Float[np.ndarray, " m"],
    fake_labels: Labels,
    real_labels: Labels,
) -> Influence:
    """From the influence of each clip: I(x_i) averages to 0, and the statistic moves by its mean."""
    return Influence(value, totals(fake, fake_labels) / len(fake), totals(real, real_labels) / len(real))


def of_leave_outs(value: float, fake: Float[np.ndarray, " g"], real: Float[np.ndarray, " h"]) -> Influence:
    """From the statistic without each cluster in turn: the delete-one-cluster jackknife."""
    return Influence(value, *((1 - 1 / len(left)) * (left.mean() - left) for left in (fake, real)))


def bootstrap_error(
    statistic: Statistic,
    arrays: Sequence[np.ndarray],
    labels: Sequence[Labels] | None = None,
    *,
    repeats: int = REPEATS,
    seed: int,
) -> float:
    """The standard deviation of `statistic(*arrays)` over resamples of the clusters of each array.

    Clusters are drawn with replacement, independently for each array, and bring all their rows; without `labels` each
    row is its own cluster. The same seed gives the same error. What is resampled together, such as two models on the
    same requests, is stacked into one array. Only the spread of the resamples is used, not their place: a resample
    holds about 63 % of the clips, the rest are duplicates, so its own value is biased.
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 6.
    """
    labels = [np.arange(len(array)) for array in arrays] if labels is None else labels
    rng = np.random.default_rng(seed)
    rows = [members(each) for each in labels]
    replicates = [
        statistic(*(array[_resample(rng, each)] for array, each in zip(arrays, rows, strict=True)))
        for _ in range(repeats)
    ]
    return float(np.std(replicates, ddof=1))


def _resample(rng: np.random.Generator, rows: Sequence[Int[np.ndarray, " _"]]) -> Int[np.ndarray, " _"]:
    """As many clusters as there are, drawn with replacement, their rows in random order."""
    drawn = rng.integers(len(rows), size=len(rows))
    return rng.permutation(np.concatenate([rows[cluster] for cluster in drawn]))


def blocks(labels: Labels, most: int, rng: np.random.Generator) -> Labels:
    """Whole clusters put together at random into at most `most` blocks of about equally many, numbered from 0."""
    order = rng.permutation(count(labels))
    assigned = np.empty(len(order), dtype=np.int64)
    for block, part in enumerate(np.array_split(order, min(most, len(order)))):
        assigned[part] = block
    return np.asarray(assigned[labels])
