"""Tests of `vfbench.report.difference`: unpaired tests from two intervals, and detectable differences."""

from __future__ import annotations

import math

import pytest

from vfbench.interfaces import Comparison
from vfbench.metrics._uncertainty import interval_of_share
from vfbench.report.difference import smallest_detectable, unpaired
from vfbench.report.result_parts import ScoreRecord


def record(value: float, low: float, high: float) -> ScoreRecord:
    return ScoreRecord(value=value, low=low, high=high, floor=0.0, n_real=8, n_fake=8, title="T", better="lower")


def test_symmetric_intervals_give_the_joint_standard_error() -> None:
    difference = unpaired(record(10.0, 7.0, 13.0), record(4.0, 0.0, 8.0))
    assert (difference.difference, difference.low, difference.high) == pytest.approx((6.0, 1.0, 11.0))
    assert difference.p_value == pytest.approx(math.erfc(6 / (5 / 1.959964) / math.sqrt(2)))


def test_shares_have_the_published_interval() -> None:
    """Newcombe, Statistics in Medicine 17, 1998, table II (a): 56 of 70 against 48 of 80, method 10."""
    first, second = (record(k / n, *interval_of_share(k / n, 0.0, n)) for k, n in ((56, 70), (48, 80)))
    difference = unpaired(first, second)
    assert (difference.low, difference.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize(("value", "significant"), [(5.1, True), (4.9, False), (-2.1, False), (-5.2, True)])
def test_p_is_below_5_percent_where_the_interval_excludes_0(value: float, significant: bool) -> None:
    difference = unpaired(record(value, value - 3, value + 4), record(0.0, -3.0, 4.0))
    assert (difference.p_value < 0.05) is significant
    assert (difference.low > 0 or difference.high < 0) is significant


def test_equal_scores_without_width_are_equal() -> None:
    assert unpaired(record(1.0, 1.0, 1.0), record(1.0, 1.0, 1.0)).p_value == 1
    assert unpaired(record(1.0, 1.0, 1.0), record(2.0, 2.0, 2.0)).p_value == 0


def test_the_smallest_detectable_difference_is_2_8_standard_errors() -> None:
    assert smallest_detectable(Comparison(7.0, 7.0 - 1.959964, 7.0 + 1.959964, 0.1)) == pytest.approx(1.96 + 0.84, 1e-3)
