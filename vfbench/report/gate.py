"""Regression gate between a new result and its baseline.

    fvd:+5%    FVD may rise by 5 % of the baseline         is:-3%    IS may fall by 3 %
    fvd:+0.5   FVD may rise by 0.5                         several   fvd:+5%,is:-3%

A metric fails when the 95 % interval of its change lies wholly beyond what the rule allows: it is worse than allowed,
and chance alone does not explain that. The test is paired where both runs keep their features and answer the same
requests, as in `compare`; else the two intervals decide, which find only large changes. A score that is missing or NaN
always fails.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vfbench.errors import GateFailed, UserError, unknown
from vfbench.interfaces import Better
from vfbench.report.compare import ComparisonResult, compare_results
from vfbench.report.format import rounded
from vfbench.report.results import NOT_COMPARABLE, Result, ScoreRecord, describe_differences

EXAMPLES = "write METRIC:+AMOUNT or METRIC:-AMOUNT, e.g. fvd:+5% (of the baseline), fvd:+0.5 (absolute) or is:-3%"
RULE = re.compile(r"(?P<metric>[^\s:]+)\s*:\s*(?P<sign>[+-])(?P<amount>\d+(\.\d+)?(e-?\d{1,2})?)\s*(?P<percent>%?)")


@dataclass(frozen=True, slots=True)
class Rule:
    """Largest allowed worsening of one metric: `amount` in units of the score, or in percent of the baseline."""

    metric: str
    sign: str
    amount: float
    percent: bool

    def __str__(self) -> str:
        return f"{self.metric}:{self.sign}{self.amount:g}{'%' if self.percent else ''}"

    def largest_worsening(self, baseline: float) -> float:
        """Largest worsening that passes, in units of the score."""
        return self.amount / 100 * abs(baseline) if self.percent else self.amount

    def is_broken(self, baseline: float, low: float, high: float) -> bool:
        """True where a change of the score from `low` to `high` lies wholly beyond the rule."""
        least, allowed = low if self.sign == "+" else -high, self.largest_worsening(baseline)
        # exactly the allowed amount passes, despite rounding errors
        return least > allowed and not math.isclose(least, allowed, rel_tol=1e-9)


@dataclass(frozen=True, slots=True)
class GateResult:
    """Outcome of one rule; `str()` gives the line to print.

    In units of the score: `difference` is the change since the baseline, from `low` to `high` with 95 % confidence,
    `allowed` the change that the rule allows, and `detectable` the smallest true change that this gate would fail in
    80 % of repeats with other clips. NaN where not known. `test` is `paired`, `unpaired` or `none` (no interval: the
    values alone decide); `unpaired_because` says why it is not paired.
    """

    metric: str
    baseline: float
    value: float
    passed: bool
    finding: str
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    allowed: float = math.nan
    detectable: float = math.nan
    test: Literal["paired", "unpaired", "none"] = "none"
    unpaired_because: str = ""

    def __str__(self) -> str:
        return f"{self.metric} {self.finding}: {'pass' if self.passed else 'FAIL'}"


def parse(rules: Sequence[str]) -> list[Rule]:
    """Parse rules from texts, each one rule or several with commas; raises `UserError` showing how to write one."""
    texts = [text.strip() for rule in rules for text in rule.split(",") if text.strip()]
    if not texts:
        raise UserError(f"no rule is given: {EXAMPLES}")
    return [_parse_one(text) for text in texts]


def _parse_one(text: str) -> Rule:
    match = RULE.fullmatch(text)
    if not match:
        raise UserError(f"'{text}' is not a gate rule: {EXAMPLES}")
    return Rule(match["metric"], match["sign"], float(match["amount"]), bool(match["percent"]))


def gate(result: Result, baseline: Result, rules: Sequence[str]) -> list[GateResult]:
    """Check a result against its baseline, one outcome per rule, in the order of the rules.

    Raises `UserError` where one was edited or the two have different protocols, or where a rule cannot be read, names a
    metric that neither result has, or has the sign of an improvement; `MissingData` where features are damaged.
    """
    parsed = parse(rules)
    for record in (result, baseline):
        if record.integrity == "edited":
            raise UserError(record.edited_message)
    _require_same_protocol(result, baseline)
    scores = {**baseline.scores, **result.scores}
    for rule in parsed:
        if rule.metric not in scores:
            raise unknown("metric", rule.metric, scores)
        _require_worse_direction(rule, scores[rule.metric].better)
    names = [name for name in dict.fromkeys(rule.metric for rule in parsed) if _missing(name, result, baseline) is None]
    tests = compare_results(result, baseline, names, typed=names)
    smoke = "" if result.protocol.comparable else f" ({NOT_COMPARABLE})"
    return [_judge(rule, result, baseline, tests.get(rule.metric), smoke) for rule in parsed]


def _require_same_protocol(result: Result, baseline: Result) -> None:
    ours, theirs = result.protocol, baseline.protocol
    if ours.id != theirs.id:
        raise UserError(
            f"the result has protocol {ours.id} ({result.label}) and the baseline "
            f"{theirs.id} ({baseline.label}): they differ in {describe_differences(ours, theirs)}. "
            f"Repeat one of the runs under the protocol of the other"
        )


def _require_worse_direction(rule: Rule, better: Better) -> None:
    sign = "+" if better == "lower" else "-"
    if rule.sign != sign:
        corrected = Rule(rule.metric, sign, rule.amount, rule.percent)
        raise UserError(
            f"rule '{rule}' has the wrong sign: a rule allows a worse score, and for {rule.metric} {better} is better; "
            f"write {corrected}"
        )


def _missing(metric: str, result: Result, baseline: Result) -> str | None:
    """Reason why a metric cannot be judged; None where both results have a finite score."""
    for record, where in ((result, "the result"), (baseline, "the baseline")):
        score = record.scores.get(metric)
        if score is None or not math.isfinite(score.value):
            return f"has {'no score' if score is None else 'a score that is not a finite number'} in {where}"
    return None


def _judge(rule: Rule, result: Result, baseline: Result, test: ComparisonResult | None, smoke: str) -> GateResult:
    base, value = (score.value if (score := each.scores.get(rule.metric)) else math.nan for each in (baseline, result))
    if missing := _missing(rule.metric, result, baseline):
        return GateResult(rule.metric, base, value, False, f"{missing}{smoke}")
    sign = 1.0 if rule.sign == "+" else -1.0
    allowed = rule.largest_worsening(base)
    difference, low, high, detectable = value - base, math.nan, math.nan, math.nan
    if test:
        difference, low, high = test.comparison.difference, test.comparison.low, test.comparison.high
        detectable = sign * (allowed + test.smallest_detectable)
    bounds = (low, high) if test else (difference, difference)
    outcome = GateResult(
        metric=rule.metric,
        baseline=base,
        value=value,
        passed=not rule.is_broken(base, *bounds),
        finding="",
        difference=difference,
        low=low,
        high=high,
        allowed=sign * allowed,
        detectable=detectable,
        test="none" if test is None else "unpaired" if test.unpaired_because else "paired",
        unpaired_because=test.unpaired_because if test else "",
    )
    return replace(outcome, finding=_describe(rule, outcome, baseline.scores[rule.metric]) + smoke)


def _describe(rule: Rule, outcome: GateResult, old: ScoreRecord) -> str:
    """`41.3 -> 52.0: +25.9 % [+15.2, +36.6], allowed +5 %, detectable +20.3 %, paired`, in the units of the rule."""
    before, after = rounded([outcome.baseline, outcome.value], (old.high - old.low) / 2)
    percent = rule.percent and outcome.baseline != 0
    scale, unit = (100 / abs(outcome.baseline), " %") if percent else (1.0, "")
    allowed = f"{rule.sign}{rule.amount if percent else abs(outcome.allowed):g}{unit}"
    if outcome.test == "none":
        (change,) = _signed([outcome.difference * scale])
        return f"{before} -> {after}: {change}{unit}, allowed {allowed}, no interval"
    numbers = (outcome.difference, outcome.low, outcome.high, outcome.detectable)
    half_width = (outcome.high - outcome.low) / 2 * scale
    change, low, high, detectable = _signed([number * scale for number in numbers], half_width)
    interval = f"{change}{unit} [{low}, {high}]"
    return f"{before} -> {after}: {interval}, allowed {allowed}, detectable {detectable}{unit}, {outcome.test}"


def _signed(values: Sequence[float], spread: float = 0.0) -> list[str]:
    return [text if text.startswith("-") else f"+{text}" for text in rounded(values, spread)]


def require(outcomes: Sequence[GateResult]) -> None:
    """Raise `GateFailed` naming the metrics that failed, if any did."""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if failed:
        names = ", ".join(dict.fromkeys(outcome.metric for outcome in failed))
        lines = "\n".join(f"  {outcome}" for outcome in failed)
        hint = "if the change is intended, make the new run the baseline or loosen the rule"
        raise GateFailed(f"the gate failed on {names}:\n{lines}\n{hint}")
