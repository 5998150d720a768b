"""The gate stops what is worse than allowed and more than chance, and whatever it cannot judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from resultfiles import Record

from vfbench.errors import GateFailed, UserError
from vfbench.report import gate as gates
from vfbench.report.gate import GateResult, parse, require
from vfbench.report.results import NOT_COMPARABLE, Result

PROTOCOL: Record = {"id": "3f2a9c01be77", "name": "shapes", "comparable": True, "frames": 16}


def score(value: Any, half: float = 0.1, better: str = "lower") -> Record:
    low, high = (math.nan, math.nan) if value is None else (value - half, value + half)
    counts = {"floor": 0.0, "n_real": 8, "n_fake": 8}
    return {"value": value, "low": low, "high": high, **counts, "title": "T", "better": better}


def result(protocol: Record = PROTOCOL, **scores: Record) -> Record:
    return {
        **{"model": "vdm", "dataset": "shapes", "protocol": protocol, "scores": scores},
        "run_dir": f"runs/{protocol['id'][:2]}",
    }


def gate(new: Record, old: Record, rules: Sequence[str]) -> list[GateResult]:
    return gates.gate(Result.model_validate(new), Result.model_validate(old), rules)


def fvd(value: Any, half: float = 0.1) -> Record:
    return result(fvd=score(value, half))


def inception(value: float) -> Record:
    return result(**{"is": score(value, 0.01, "higher")})


def passes(new: Record, old: Record, *rules: str) -> list[bool]:
    return [verdict.passed for verdict in gate(new, old, rules)]


@pytest.mark.parametrize(
    ("value", "rule", "passed"),
    [
        (104.0, "fvd:+5%", True),
        (106.0, "fvd:+5%", False),
        (100.4, "fvd:+0.5", True),
        (100.6, "fvd:+0.5", False),
        (50.0, "fvd:+0%", True),
        (100.0, "fvd:+0", True),
        (101.0, "fvd:+1e-3", False),
    ],
)
def test_lower_is_better_may_rise_by_the_rule(value: float, rule: str, passed: bool) -> None:
    assert passes(fvd(value), fvd(100.0), rule) == [passed]


@pytest.mark.parametrize(("value", "passed"), [(9.8, True), (9.6, False), (12.0, True)])
def test_higher_is_better_may_fall_by_the_rule(value: float, passed: bool) -> None:
    assert passes(inception(value), inception(10.0), "is:-3%") == [passed]


def test_exactly_the_allowed_amount_passes() -> None:
    assert 0.33 - 0.3 > 0.03  # in binary it is a little more
    assert passes(fvd(0.33, 0.001), fvd(0.3, 0.001), "fvd:+0.03", "fvd:+10%") == [True, True]


@pytest.mark.parametrize(
    ("new_half", "old_half", "passed"), [(1.0, 1.0, False), (30.0, 1.0, True), (1.0, 30.0, True), (12.0, 12.0, False)]
)
def test_it_fails_only_outside_both_intervals(new_half: float, old_half: float, passed: bool) -> None:
    verdict = gate(fvd(120.0, new_half), fvd(100.0, old_half), ["fvd:+5%"])[0]
    assert verdict.passed is passed
    assert ("within the 95 % intervals" in str(verdict)) is passed


def test_an_interval_that_is_nan_excuses_nothing() -> None:
    assert passes(fvd(120.0, math.nan), fvd(100.0, math.nan), "fvd:+5%") == [False]


def test_a_percentage_of_a_negative_or_zero_baseline_is_still_worse_upwards() -> None:
    assert passes(fvd(-1.0), fvd(-2.0), "fvd:+5%") == [False]
    assert passes(fvd(-1.95, 0.001), fvd(-2.0, 0.001), "fvd:+5%") == [True]
    assert passes(fvd(-3.0), fvd(-2.0), "fvd:+5%") == [True]
    assert str(gate(fvd(1.0), fvd(0.0), ["fvd:+5%"])[0]).endswith("worse by 1.00, allowed 0: FAIL")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_a_score_that_is_no_number_fails_on_either_side(bad: float | None) -> None:
    for new, old, where in ((fvd(bad), fvd(100.0), "the result"), (fvd(100.0), fvd(bad), "the baseline")):
        verdict = gate(new, old, ["fvd:+1000%"])[0]
        assert not verdict.passed
        assert str(verdict) == f"fvd has a score that is not a finite number in {where}: FAIL"


def test_a_missing_score_fails_on_either_side() -> None:
    verdicts = [*gate(result(), fvd(1.0), ["fvd:+5%"]), *gate(fvd(1.0), result(), ["fvd:+5%"])]
    assert list(map(str, verdicts)) == [
        "fvd has no score in the result: FAIL",
        "fvd has no score in the baseline: FAIL",
    ]


def test_rules_come_repeated_or_with_commas_and_each_gets_a_verdict() -> None:
    old = result(fvd=score(100.0), **{"is": score(10.0, 0.01, "higher")})
    new = result(fvd=score(104.0), **{"is": score(9.0, 0.01, "higher")})
    verdicts = gate(new, old, ["fvd:+5%, is:-3%", "fvd:+0.5"])
    assert [(v.metric, v.passed) for v in verdicts] == [("fvd", True), ("is", False), ("fvd", False)]


@pytest.mark.parametrize(
    ("new", "rule", "line"),
    [
        (52.0, "fvd:+5%", "fvd 41.3 -> 52.0: worse by 25.9 %, allowed 5 %: FAIL"),
        (40.0, "fvd:+5%", "fvd 41.3 -> 40.0: better by 3.1 %, allowed 5 %: pass"),
        (41.3, "fvd:+0.5", "fvd 41.3 -> 41.3: unchanged, allowed 0.5: pass"),
        (52.0, "fvd:+0.5", "fvd 41.3 -> 52.0: worse by 10.7, allowed 0.5: FAIL"),
    ],
)
def test_a_verdict_prints_as_one_line(new: float, rule: str, line: str) -> None:
    assert str(gate(fvd(new, 2.1), fvd(41.3, 2.1), [rule])[0]) == line


def test_smoke_results_are_judged_but_say_so() -> None:
    smoke = result(PROTOCOL | {"comparable": False}, fvd=score(1.0))
    assert str(gate(smoke, smoke, ["fvd:+5%"])[0]).endswith(f"({NOT_COMPARABLE}): pass")


def test_different_protocols_are_refused_with_both_ids_and_the_difference() -> None:
    other = result(PROTOCOL | {"id": "9a8b7c6d5e4f", "frames": 8}, fvd=score(1.0))
    with pytest.raises(UserError) as caught:
        gate(other, fvd(1.0), ["fvd:+5%"])
    for part in ("9a8b7c6d5e4f (runs/9a)", "3f2a9c01be77 (runs/3f)", "frames 8 vs 16"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no metric called 'fwd': did you mean 'fvd'"):
        gate(fvd(1.0), fvd(1.0), ["fwd:+5%"])


@pytest.mark.parametrize(
    ("run", "rule", "right"), [(fvd(1.0), "fvd:-5%", "fvd:+5%"), (inception(9.0), "is:+0.25", "is:-0.25")]
)
def test_a_sign_in_the_better_direction_is_refused_with_the_right_rule(run: Record, rule: str, right: str) -> None:
    with pytest.raises(UserError, match="wrong sign") as caught:
        gate(run, run, [rule])
    assert f"'{rule}'" in str(caught.value)
    assert str(caught.value).endswith(f"write {right}")


@pytest.mark.parametrize(
    "rule", ["fvd", "fvd:5%", "fvd+5%", "fvd:+5pct", "fvd:+nan", "fvd:+1e999", ":+5%", "fvd:+-5", "%"]
)
def test_a_malformed_rule_is_refused_with_an_example(rule: str) -> None:
    with pytest.raises(UserError, match=r"is not a gate rule: .*fvd:\+5%") as caught:
        parse([rule])
    assert f"'{rule}'" in str(caught.value)


@pytest.mark.parametrize("rules", [[], [""], [" , "]])
def test_a_gate_without_rules_is_refused(rules: list[str]) -> None:
    with pytest.raises(UserError, match=r"no rule.*fvd:\+5%"):
        gate(fvd(1.0), fvd(1.0), rules)


def test_require_names_only_what_failed() -> None:
    old = result(fvd=score(100.0), kvd=score(1.0))
    verdicts = gate(result(fvd=score(120.0), kvd=score(1.0)), old, ["fvd:+5%,kvd:+5%,fvd:+1"])
    with pytest.raises(GateFailed) as caught:
        require(verdicts)
    assert str(caught.value).startswith("the gate failed on fvd:\n  fvd 100.0")
    assert "kvd" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_require_is_silent_when_all_pass() -> None:
    require(gate(fvd(100.0), fvd(100.0), ["fvd:+5%"]))
