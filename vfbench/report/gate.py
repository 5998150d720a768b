"""Regression gate between a new result and its baseline.

    fvd:+5%    FVD may rise by 5 % of the baseline         is:-3%    IS may fall by 3 %
    fvd:+0.5   FVD may rise by 0.5                         several   fvd:+5%,is:-3%

A metric fails when it is worse than the rule allows and each value lies outside the other's 95 % interval, so that
chance alone does not fail it. A score that is missing or NaN always fails.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from vfbench.errors import GateFailed, UserError, unknown
from vfbench.interfaces import Better
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


@dataclass(frozen=True, slots=True)
class GateResult:
    """Outcome of one rule; `str()` gives the line to print."""

    metric: str
    baseline: float
    value: float
    passed: bool
    finding: str

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

    Raises `UserError` where the two have different protocols, or where a rule cannot be read, names a metric that
    neither result has, or has the sign of an improvement.
    """
    parsed = parse(rules)
    _require_same_protocol(result, baseline)
    scores = {**baseline.scores, **result.scores}
    for rule in parsed:
        if rule.metric not in scores:
            raise unknown("metric", rule.metric, scores)
        _require_worse_direction(rule, scores[rule.metric].better)
    smoke = "" if result.protocol.comparable else f" ({NOT_COMPARABLE})"
    return [_judge(rule, result.scores.get(rule.metric), baseline.scores.get(rule.metric), smoke) for rule in parsed]


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


def _judge(rule: Rule, new: ScoreRecord | None, old: ScoreRecord | None, smoke: str) -> GateResult:
    value, base = (score.value if score else math.nan for score in (new, old))
    if not (math.isfinite(value) and math.isfinite(base)):
        where = "the result" if not math.isfinite(value) else "the baseline"
        state = "no score" if (new if where == "the result" else old) is None else "a score that is not a finite number"
        return GateResult(rule.metric, base, value, False, f"has {state} in {where}{smoke}")
    worse = value - base if rule.sign == "+" else base - value
    allowed = rule.largest_worsening(base)
    # exactly the allowed amount passes, despite rounding errors
    beyond = worse > allowed and not math.isclose(worse, allowed, rel_tol=1e-9)
    chance = _in_interval(value, old) or _in_interval(base, new)
    finding = f"{_change(rule, base, value, old)}{', within the 95 % intervals' if beyond and chance else ''}{smoke}"
    return GateResult(rule.metric, base, value, not beyond or chance, finding)


def _in_interval(value: float, score: ScoreRecord | None) -> bool:
    """True where the value lies in the score's interval; a missing or NaN interval contains nothing."""
    return score is not None and score.low <= value <= score.high


def _change(rule: Rule, base: float, value: float, old: ScoreRecord | None) -> str:
    """`41.3 -> 52.0: worse by 25.9 %, allowed 5 %`, in the units of the rule."""
    half = (old.high - old.low) / 2 if old else 0.0
    before, after = rounded([base, value], half)
    worse = value - base if rule.sign == "+" else base - value
    if rule.percent and base != 0:
        size, allowed = f"{abs(worse / base) * 100:.1f} %", f"{rule.amount:g} %"
    else:
        size, allowed = rounded([abs(worse)])[0], f"{rule.largest_worsening(base):g}"
    direction = f"{'worse' if worse > 0 else 'better'} by {size}" if worse else "unchanged"
    return f"{before} -> {after}: {direction}, allowed {allowed}"


def require(outcomes: Sequence[GateResult]) -> None:
    """Raise `GateFailed` naming the metrics that failed, if any did."""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if failed:
        names = ", ".join(dict.fromkeys(outcome.metric for outcome in failed))
        lines = "\n".join(f"  {outcome}" for outcome in failed)
        hint = "if the change is intended, make the new run the baseline or loosen the rule"
        raise GateFailed(f"the gate failed on {names}:\n{lines}\n{hint}")
