"""Tests of `vfbench.report.format`: digits, bold type and intervals in table cells."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from resultfiles import OTHER, Record, best, build, inception, record, score

from vfbench.interfaces import Comparison
from vfbench.report import comparison_cache
from vfbench.report.format import rounded


def test_best_follows_the_direction_and_skips_reference_rows() -> None:
    runs = [record("real", 0.1, extra={"is": inception(7.9)}), record("vdm", 52, extra={"is": inception(6.9)})]
    table = build([*runs, record("dit", 41, extra={"is": inception(6.6)})])
    assert table.header == ("model", "FVD ↓", "IS ↑")
    assert (best(table, 0), best(table, 1)) == (["dit"], ["vdm"])


@pytest.mark.parametrize(
    ("values", "p_value", "bold"),
    [
        ([41.3, 50], None, ["a"]),
        ([41.3, 41.3, 50], None, []),
        ([41.3, 45.2], None, []),  # the intervals, 2 to each side, overlap
        ([41.3, 45.4], None, ["a"]),
        ([41.3, 45.2], 0.049, ["a"]),
        ([41.3, 50], 0.051, []),
    ],
)
def test_only_a_difference_beyond_chance_is_bold(
    values: list[float], p_value: float | None, bold: list[str], tmp_path: Path
) -> None:
    runs = [record(name, fvd, run=name) for name, fvd in zip("abc", values, strict=False)]
    runs[0]["run_dir"] = str(tmp_path)
    if p_value is None:
        (tmp_path / "comparisons.json").write_text("{")  # a damaged file is no test
    else:
        comparison_cache.write(tmp_path, "b", {"fvd": Comparison(-1.0, -2.0, 0.0, p_value)}, "key")
    assert [name[:1] if name[:1] in "bc" else "a" for name in best(build([*runs, record("real", 41.3)]))] == bold


def test_a_single_model_or_nan_is_not_best() -> None:
    assert best(build([record("a"), record("real", 0.1)])) == []
    assert best(build([record("a", math.nan), record("b", 60), record("c", 50)])) == ["c"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (score(41.32, 2.13), "41.3 ± 2.1"),
        (score(1234.5, 88.0), "1234 ± 88"),
        (score(0.01234, 0.00112), "0.0123 ± 0.0011"),
        (score(-0.0004, 0.0011), "-0.0004 ± 0.0011"),
        (score(1.234e-7, 1.1e-8), "1.23e-7 ± 0.11e-7"),
        (score(41.32, low=39.0, high=49.0), "41.3 [39.0, 49.0]"),
        (score(41.32, 1e-9), "41.3200 ± 0.0000"),
        (score(41.32, 0.0), "41.3"),
        (score(41.32, low=None, high=None), "41.3"),
        (score(41.32, math.inf), "41.3"),
        (score(0.0, 0.0), "0"),
        (score(math.nan), "nan"),
        (score(0.0) | {"value": None}, "nan"),
    ],
)
def test_digits_follow_the_interval(value: Record, text: str) -> None:
    table = build([record("vdm") | {"scores": {"fvd": value}}])
    assert table.rows[0].cells[0].text == text


def test_reference_rows_and_floor_have_no_more_digits_than_the_models() -> None:
    real = record("real") | {"scores": {"fvd": score(0.123456, 0.000789)}}
    table = build([record("vdm"), real])
    assert [row.cells[0].text for row in table.rows] == ["41.3 ± 2.0", "0.1 ± 0.0", "2.1"]


def test_rounded_has_no_negative_zero() -> None:
    assert rounded([-0.001, 4.0], 2.0) == ["0.0", "4.0"]


def test_a_metric_missing_in_a_row_is_a_dash() -> None:
    table = build([record("a"), record("b", extra={"is": inception(6.9)})])
    assert [row.cells[1].text for row in table.rows] == ["—", "6.90 ± 0.12", "7.90"]


def test_one_floor_row_where_rows_share_n_else_a_floor_in_each_cell() -> None:
    shared = build([record("a"), record("b")])
    assert shared.rows[-1].cells[0].text == "2.1"
    separate = build([record("a"), record("b") | {"scores": {"fvd": score(52, n_fake=64, floor=5.0)}}])
    assert [row.cells[0].text for row in separate.rows] == ["41.3 ± 2.0 (floor 2.1)", "52.0 ± 2.0 (floor 5.0)"]
    fewer = build([record("a"), record("b") | {"scores": {"fvd": score(52, n_fake=64)}}])
    assert [row.kind for row in fewer.rows] == ["model", "model"]


def test_each_protocol_has_its_own_floor_row() -> None:
    other = record("b", protocol=OTHER) | {"scores": {"fvd": score(52, n_fake=64, floor=5.0)}}
    table = build([record("a"), other], allow_mixed=True)
    assert [(row.mark, row.cells[0].text) for row in table.rows[2:]] == [("", "2.1"), ("† 9a8b7c6d5e4f", "5.0")]
