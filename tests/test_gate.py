"""Tests of the gate: rules, intervals, statuses, files for CI, baselines. Paired: test_compare.py."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import Command
from resultfiles import Record

from vfbench.errors import GateFailed, UserError
from vfbench.report import gate as gates
from vfbench.report import gate_files
from vfbench.report.gate import GateResult, Status, parse, require
from vfbench.report.results import NOT_COMPARABLE, Result, load

PROTOCOL: Record = {"id": "3f2a9c01be77", "name": "shapes", "comparable": True, "frames": 16}


def score(value: Any, half: float = 0.01, better: str = "lower") -> Record:
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


def fvd(value: Any, half: float = 0.01) -> Record:
    return result(fvd=score(value, half))


def inception(value: float) -> Record:
    return result(**{"is": score(value, 0.01, "higher")})


def passes(new: Record, old: Record, *rules: str) -> list[bool]:
    return [outcome.passed for outcome in gate(new, old, rules)]


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
def test_a_metric_where_lower_is_better_may_rise_by_the_rule(value: float, rule: str, passed: bool) -> None:
    assert passes(fvd(value), fvd(100.0), rule) == [passed]


@pytest.mark.parametrize(("value", "passed"), [(9.8, True), (9.6, False), (12.0, True)])
def test_a_metric_where_higher_is_better_may_fall_by_the_rule(value: float, passed: bool) -> None:
    assert passes(inception(value), inception(10.0), "is:-3%") == [passed]


def test_exactly_the_allowed_change_passes() -> None:
    assert 0.33 - 0.3 > 0.03  # floating-point error
    assert passes(fvd(0.33, 0.0), fvd(0.3, 0.0), "fvd:+0.03", "fvd:+10%", "fvd:+9%") == [True, True, False]


@pytest.mark.parametrize(
    ("new_half", "old_half", "failed"),
    [(1.0, 1.0, [0, 5, 10]), (9.0, 9.0, [0, 5]), (12.0, 9.0, [0]), (12.0, 12.0, [0]), (30.0, 1.0, []), (1.0, 30.0, [])],
)
def test_the_gate_fails_where_the_interval_of_the_change_lies_beyond_the_rule(
    new_half: float, old_half: float, failed: list[int]
) -> None:
    rules = {percent: f"fvd:+{percent}%" for percent in (0, 5, 10)}
    outcomes = dict(zip(rules, gate(fvd(120.0, new_half), fvd(100.0, old_half), [*rules.values()]), strict=True))
    assert [percent for percent, outcome in outcomes.items() if not outcome.passed] == failed
    half = math.hypot(new_half, old_half)
    for percent, outcome in outcomes.items():
        assert (outcome.low, outcome.high, outcome.allowed) == pytest.approx((20 - half, 20 + half, percent))
        assert outcome.detectable == pytest.approx(percent + 2.8016 / 1.95996 * half, rel=1e-4)
        assert outcome.test == "unpaired"


def test_a_nan_interval_does_not_excuse_a_change() -> None:
    assert passes(fvd(120.0, math.nan), fvd(100.0, math.nan), "fvd:+5%", "fvd:+30%") == [False, True]
    assert gate(fvd(120.0, math.nan), fvd(100.0), ["fvd:+5%"])[0].test == "none"


def test_percentages_of_negative_and_zero_baselines() -> None:
    assert passes(fvd(-1.0), fvd(-2.0), "fvd:+5%") == [False]
    assert passes(fvd(-1.95, 0.001), fvd(-2.0, 0.001), "fvd:+5%") == [True]
    assert passes(fvd(-3.0), fvd(-2.0), "fvd:+5%") == [True]
    assert ": REGRESSION" in str(gate(fvd(1.0), fvd(0.0), ["fvd:+5%"])[0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_a_score_that_is_not_finite_fails_on_either_side(bad: float | None) -> None:
    sides = ((fvd(bad), fvd(100.0), "the result: INCOMPLETE"), (fvd(100.0), fvd(bad), "the baseline: BASELINE_MISSING"))
    for new, old, ending in sides:
        outcome = gate(new, old, ["fvd:+1000%"])[0]
        assert not outcome.passed
        assert str(outcome).startswith("fvd ")
        assert str(outcome).endswith(ending)


def test_a_missing_score_fails_on_either_side() -> None:
    results = [*gate(result(), fvd(1.0), ["fvd:+5%"]), *gate(fvd(1.0), result(), ["fvd:+5%"])]
    assert [outcome.passed for outcome in results] == [False, False]
    assert ["the result" in str(results[0]), "the baseline" in str(results[1])] == [True, True]


def test_rules_may_be_repeated_or_separated_by_commas() -> None:
    old = result(fvd=score(100.0), **{"is": score(10.0, 0.01, "higher")})
    new = result(fvd=score(104.0), **{"is": score(9.0, 0.01, "higher")})
    results = gate(new, old, ["fvd:+5%, is:-3%", "fvd:+0.5"])
    assert [(each.metric, each.passed) for each in results] == [("fvd", True), ("is", False), ("fvd", False)]


@pytest.mark.parametrize(
    ("new", "rule", "line"),
    [
        (52.0, "fvd:+5%", "+25.9 % [+18.7, +33.1], allowed +5 %, detectable +15.3 %, unpaired: REGRESSION"),
        (40.0, "fvd:+5%", "-3.1 % [-10.3, +4.0], allowed +5 %, detectable +15.3 %, unpaired: PASS"),
        (41.3, "fvd:+0.5", "+0.0 [-3.0, +3.0], allowed +0.5, detectable +4.7, unpaired: WITHIN_NOISE"),
        (52.0, "fvd:+0.5", "+10.7 [+7.7, +13.7], allowed +0.5, detectable +4.7, unpaired: REGRESSION"),
    ],
)
def test_a_gate_result_prints_as_one_line(new: float, rule: str, line: str) -> None:
    assert str(gate(fvd(new, 2.1), fvd(41.3, 2.1), [rule])[0]) == f"fvd 41.3 -> {new}: {line}"


def test_a_fall_is_shown_with_its_sign_where_higher_is_better() -> None:
    old, new = (result(**{"is": score(value, 0.3, "higher")}) for value in (10.0, 9.0))
    line = "is 10.00 -> 9.00: -10.0 % [-14.2, -5.8], allowed -3 %, detectable -9.1 %, unpaired: REGRESSION"
    assert str(gate(new, old, ["is:-3%"])[0]) == line


@pytest.mark.parametrize("side", [0, 1])
def test_an_edited_result_is_refused_by_its_file(side: int, tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        Result.model_validate(fvd(100.0)).write(tmp_path / name / "results.json")
    new, old = load([tmp_path / "new", tmp_path / "old"])
    assert gates.gate(new, old, ["fvd:+5%"])[0].passed
    file = tmp_path / ("new", "old")[side] / "results.json"
    file.write_text(file.read_text().replace('"value": 100.0', '"value": 90.0'))
    new, old = load([tmp_path / "new", tmp_path / "old"])
    with pytest.raises(UserError, match=f"{file} was edited") as caught:
        gates.gate(new, old, ["fvd:+5%"])
    assert caught.value.exit_code == 2


def test_results_of_smoke_runs_are_marked() -> None:
    smoke = result(PROTOCOL | {"comparable": False}, fvd=score(1.0))
    assert str(gate(smoke, smoke, ["fvd:+5%"])[0]).endswith(f"({NOT_COMPARABLE}): PASS")


def test_different_protocols_are_refused_with_their_difference() -> None:
    other = result(PROTOCOL | {"id": "9a8b7c6d5e4f", "frames": 8}, fvd=score(1.0))
    with pytest.raises(UserError) as caught:
        gate(other, fvd(1.0), ["fvd:+5%"])
    for part in ("9a8b7c6d5e4f (runs/9a)", "3f2a9c01be77 (runs/3f)", "frames 8 vs 16"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'fwd'.*'fvd'"):
        gate(fvd(1.0), fvd(1.0), ["fwd:+5%"])


@pytest.mark.parametrize(
    ("run", "rule", "correct"), [(fvd(1.0), "fvd:-5%", "fvd:+5%"), (inception(9.0), "is:+0.25", "is:-0.25")]
)
def test_a_sign_in_the_better_direction_is_refused_with_the_correct_rule(run: Record, rule: str, correct: str) -> None:
    with pytest.raises(UserError, match="wrong sign") as caught:
        gate(run, run, [rule])
    assert f"'{rule}'" in str(caught.value)
    assert correct in str(caught.value)


@pytest.mark.parametrize(
    "rule", ["fvd", "fvd:5%", "fvd+5%", "fvd:+5pct", "fvd:+nan", "fvd:+1e999", ":+5%", "fvd:+-5", "%"]
)
def test_a_malformed_rule_is_refused_with_an_example(rule: str) -> None:
    with pytest.raises(UserError, match=r"gate rule: .*fvd:\+5%") as caught:
        parse([rule])
    assert f"'{rule}'" in str(caught.value)


@pytest.mark.parametrize("rules", [[], [""], [" , "]])
def test_a_gate_without_rules_is_refused(rules: list[str]) -> None:
    with pytest.raises(UserError, match=r"no rule.*fvd:\+5%"):
        gate(fvd(1.0), fvd(1.0), rules)


def test_require_names_failed_metrics_only() -> None:
    old = result(fvd=score(100.0), kvd=score(1.0))
    results = gate(result(fvd=score(120.0), kvd=score(1.0)), old, ["fvd:+5%,kvd:+5%,fvd:+1"])
    with pytest.raises(GateFailed) as caught:
        require(results)
    assert str(caught.value).startswith("the gate failed on fvd:\n  fvd 100.0")
    assert "kvd" not in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("new", "half", "rules", "status", "code"),
    [
        ({"fvd": 102.0}, 1.0, ["fvd:+5%"], Status.PASS, 0),
        ({"fvd": 90.0}, 1.0, ["fvd:+5%"], Status.IMPROVED, 0),
        ({"fvd": 104.0}, 9.0, ["fvd:+5%"], Status.WITHIN_NOISE, 0),
        ({"fvd": 110.0}, 80.0, ["fvd:+5%"], Status.UNDERPOWERED, 1),
        ({"fvd": 120.0}, 1.0, ["fvd:+5%"], Status.REGRESSION, 3),
        ({}, 1.0, ["fvd:+5%"], Status.INCOMPLETE, 1),
        ({"fvd": 100.0, "kvd": 1.0}, 1.0, ["kvd:+5%"], Status.BASELINE_MISSING, 4),
        ({"fvd": 120.0, "kvd": 1.0}, 1.0, ["kvd:+5%", "fvd:+5%"], Status.REGRESSION, 3),  # the most serious counts
        ({"fvd": 90.0, "kvd": 1.0}, 1.0, ["fvd:+5%", "kvd:+5%"], Status.BASELINE_MISSING, 4),
    ],
)
def test_each_status_has_its_exit_code(
    new: dict[str, float], half: float, rules: list[str], status: Status, code: int
) -> None:
    outcomes = gate(result(**{name: score(value, half) for name, value in new.items()}), fvd(100.0, half), rules)
    assert (gates.status_of(outcomes), status.exit_code) == (status, code)
    if code == 0:
        require(outcomes)
    else:
        with pytest.raises(UserError) as caught:
            require(outcomes)
        assert caught.value.exit_code == code


def test_a_gate_may_be_asked_to_see_small_changes() -> None:
    new, old = Result.model_validate(fvd(100.0, 5.0)), Result.model_validate(fvd(100.0, 5.0))
    statuses = [gates.gate(new, old, ["fvd:+5%"], detectable=percent)[0].status for percent in (20.0, 10.0)]
    assert statuses == [Status.WITHIN_NOISE, Status.UNDERPOWERED]
    for percent in (0.0, math.nan, math.inf):
        with pytest.raises(UserError, match="--detectable"):
            gates.gate(new, old, ["fvd:+5%"], detectable=percent)


# The command and its files.


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results `old`, `same`, `worse` and one of another protocol, outside any CI."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_EVENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    records = {"old": fvd(100.0), "same": fvd(100.0), "worse": fvd(120.0)}
    records["other"] = result(PROTOCOL | {"id": "9a8b7c6d5e4f"}, fvd=score(100.0))
    for name, content in records.items():
        Result.model_validate(content).write(tmp_path / f"{name}.json")
    return tmp_path


@pytest.mark.parametrize(
    ("new", "old", "status", "code", "kind"),
    [
        ("same", "old", "PASS", 0, ""),
        ("worse", "old", "REGRESSION", 3, "failure"),
        ("other", "old", "PROTOCOL_MISMATCH", 2, "error"),
        ("same", "none", "BASELINE_MISSING", 4, "error"),
    ],
)
def test_ci_gets_the_status_in_every_form(
    runs: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch, new: str, old: str, status: str, code: int, kind: str
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(runs / "summary.md"))
    files = (runs / f"{new}.json", "--baseline", runs / f"{old}.json")
    outcome = vfbench("gate", *files, "--rule", "fvd:+5%", "--junit", runs / "junit.xml", "--json")
    assert outcome.code == code
    assert json.loads(outcome.out)["status"] == status
    assert ("::error " in outcome.err) == (code != 0)
    assert status in (runs / "summary.md").read_text()
    suite = ElementTree.parse(runs / "junit.xml").getroot()
    assert (suite.get("failures"), suite.get("errors")) == (str(int(kind == "failure")), str(int(kind == "error")))
    (case,) = suite
    assert [each.get("type") for each in case if each.tag == kind] == ([status] if kind else [])


def test_a_summary_that_cannot_be_written_leaves_the_exit_code(
    runs: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(runs / "absent" / "summary.md"))
    outcome = vfbench("gate", runs / "worse.json", "--baseline", runs / "old.json", "--rule", "fvd:+5%")
    assert outcome.code == 3
    assert "GITHUB_STEP_SUMMARY" in outcome.err


def test_names_in_a_result_cannot_break_the_files_for_ci(runs: Path) -> None:
    name = "f]]><|\x1b[31m\n::error::"
    outcome = gates.GateResult(name, 1.0, 2.0, Status.REGRESSION, "x | y")
    suite = ElementTree.fromstring(gate_files.junit([outcome], Status.REGRESSION))
    assert suite[0].get("name") == "f]]><|\\x1b[31m\\n::error::"
    assert gate_files.markdown([outcome], Status.REGRESSION).count("\n") == 5
    assert "\\|" in gate_files.markdown([outcome], Status.REGRESSION)


def test_a_baseline_is_replaced_with_a_reason(runs: Path, vfbench: Command) -> None:
    update = ("gate", runs / "worse.json", "--baseline", runs / "old.json", "--update")
    assert vfbench(*update).code == 2
    outcome = vfbench(*update, "--reason", "a new sampler")
    assert outcome.code == 0
    assert load([runs / "old.json"])[0].scores["fvd"].value == 120.0
    (line,) = (runs / "old.history.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "a new sampler"
    assert vfbench("gate", runs / "worse.json", "--baseline", runs / "old.json", "--rule", "fvd:+5%").code == 0


def test_a_pull_request_cannot_replace_its_baseline(
    runs: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_EVENT_NAME", "pull_request_target")
    flags = ("--baseline", runs / "old.json", "--update", "--reason", "mine")
    assert vfbench("gate", runs / "worse.json", *flags).code == 2
    assert load([runs / "old.json"])[0].scores["fvd"].value == 100.0


def test_require_is_silent_when_all_pass() -> None:
    require(gate(fvd(100.0), fvd(100.0), ["fvd:+5%"]))
