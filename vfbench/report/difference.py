"""Difference of two scores from their intervals, and the smallest difference that a test would find."""

from __future__ import annotations

import math
from statistics import NormalDist

from vfbench.interfaces import Comparison
from vfbench.report.result_parts import ScoreRecord
from vfbench.report.results import ALPHA

POWER = 0.8  # share of cases in which the smallest detectable difference is found
_Z_INTERVAL = NormalDist().inv_cdf(1 - ALPHA / 2)  # half-width of a 95 % interval in standard errors
_Z_POWER = NormalDist().inv_cdf(POWER)


def unpaired(a: ScoreRecord, b: ScoreRecord, shared_variance: float = 0.0) -> Comparison:
    """Score of A minus score of B, tested by their two 95 % intervals: A and B have no generated clip in common.

    On each side, the interval of the difference reaches as far as the root of the summed squares of the two arms that
    point there: +- 1.96 times the joint standard error where both intervals are symmetric, and within bounds for shares
    (Newcombe, Statistics in Medicine 17, 1998, method 10; Zou and Donner, Statistics in Medicine 27, 2008).
    `shared_variance` is the covariance of the scores that is due to common real clips; at 0 these count twice, and the
    interval is up to 1.4 times too wide. NaN where a score has no interval.
    """
    difference = a.value - b.value
    below = _arm(a.value - a.low, b.high - b.value, shared_variance)
    above = _arm(a.high - a.value, b.value - b.low, shared_variance)
    return Comparison(difference, difference - below, difference + above, _p_value(difference, below, above))


def _arm(first: float, second: float, shared_variance: float) -> float:
    length = math.hypot(first, second)  # unlike squares, it does not overflow
    if not shared_variance or not length:
        return length
    return length * math.sqrt(max(1 - 2 * _Z_INTERVAL**2 * shared_variance / length / length, 0.0))


def _p_value(difference: float, below: float, above: float) -> float:
    """Two-sided p-value that is below 0.05 where the interval excludes 0; `below` and `above` are its arms."""
    arm = below if difference > 0 else above
    if arm == 0:
        return float(difference == 0)
    return math.erfc(_Z_INTERVAL * abs(difference) / arm / math.sqrt(2))


def smallest_detectable(comparison: Comparison) -> float:
    """True difference that this test, at a level of 5 %, would find in 80 % of repeats with other clips.

    It is 2.8 standard errors of the difference: 1.96 for the level and 0.84 for the power.
    """
    error = (comparison.high - comparison.low) / (2 * _Z_INTERVAL)
    return (_Z_INTERVAL + _Z_POWER) * error
