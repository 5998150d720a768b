"""The regression gate: may a new result replace its baseline?

    fvd:+5%    FVD may rise by 5 % of the baseline         is:-3%    IS may fall by 3 %
    fvd:+0.5   FVD may rise by 0.5                         several   fvd:+5%,is:-3%

A metric fails when it is worse than the rule allows and each value lies outside the other's 95 % interval: a
difference that the intervals do not tell from chance stops nobody. A score that is missing or NaN always fails.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vfbench.errors import GateFailed, UserError, unknown
from vfbench.report.format import rounded
from vfbench.report.results import NOT_COMPARABLE, Record, differences, number

EXAMPLES = "write METRIC:+AMOUNT or METRIC:-AMOUNT, e.g. fvd:+5% (of the baseline), fvd:+0.5 (absolute) or is:-3%"
RULE = re.compile(r"(?P<metric>[^\s:]+)\s*:\s*(?P<sign>[+-])(?P<amount>\d+(\.\d+)?(e-?\d{1,2})?)\s*(?P<percent>%?)")


@dataclass(frozen=True, slots=True)
class Rule:
    """How much worse than the baseline one metric may be: `amount` of the score, or percent of the baseline."""

    metric: str
    sign: str
    amount: float
    percent: bool

    def __str__(self) -> str:
        return f"{self.metric}:{self.sign}{self.amount:g}{'%' if self.percent else ''}"

    def allowed(self, baseline: float) -> float:
        """The largest worsening that passes, in units of the score."""
        return self.amount / 100 * abs(baseline) if self.percent else self.amount


@dataclass(frozen=True, slots=True)
class GateResult:
    """What one rule says about one metric; `str(verdict)` is the line to print."""

    metric: str
    baseline: float
    value: float
    passed: bool
    finding: str

    def __str__(self) -> str:
        return f"{self.metric} {self.finding}: {'pass' if self.passed else 'FAIL'}"


def parse(rules: Sequence[str]) -> list[Rule]:
    """Rules from their texts, each one rule or several with commas; raises `UserError` showing how to write one."""
    texts = [text.strip() for rule in rules for text in rule.split(",") if text.strip()]
    if not texts:
        raise UserError(f"the gate has no rule: {EXAMPLES}")
    return [_parse_one(text) for text in texts]


def _parse_one(text: str) -> Rule:
    match = RULE.fullmatch(text)
    if not match:
        raise UserError(f"'{text}' is not a gate rule: {EXAMPLES}")
    return Rule(match["metric"], match["sign"], float(match["amount"]), bool(match["percent"]))


def gate(result: Record, baseline: Record, rules: Sequence[str]) -> list[GateResult]:
    """Judge a result against its baseline, one verdict a rule, in the order of the rules.

    Raises `UserError` when the two have different protocols, when a rule cannot be read, names a metric that
    neither result has, or points in the direction in which the metric gets better.
    """
    parsed = parse(rules)
    _require_same_protocol(result, baseline)
    scores = {**baseline["scores"], **result["scores"]}
    for rule in parsed:
        if rule.metric not in scores:
            raise unknown("metric", rule.metric, scores)
        _require_worse_direction(rule, scores[rule.metric]["better"])
    smoke = "" if result["protocol"].get("comparable") else f" ({NOT_COMPARABLE})"
    return [
        _judge(rule, result["scores"].get(rule.metric), baseline["scores"].get(rule.metric), smoke) for rule in parsed
    ]


def _require_same_protocol(result: Record, baseline: Record) -> None:
    ours, theirs = result["protocol"], baseline["protocol"]
    if ours["id"] != theirs["id"]:
        raise UserError(
            f"the result has protocol {ours['id']} ({result.get('run_dir', result['model'])}) and the baseline "
            f"{theirs['id']} ({baseline.get('run_dir', baseline['model'])}): their numbers do not compare; they differ "
            f"in {differences(ours, theirs)}. Run one of them again under the protocol of the other"
        )


def _require_worse_direction(rule: Rule, better: str) -> None:
    sign, worse = ("+", "higher") if better == "lower" else ("-", "lower")
    if rule.sign != sign:
        right = Rule(rule.metric, sign, rule.amount, rule.percent)
        raise UserError(
            f"rule '{rule}' has the wrong sign: for {rule.metric} {better} is better, and a rule says how much worse, "
            f"that is {worse}, it may be; write {right}"
        )


def _judge(rule: Rule, new: Mapping[str, Any] | None, old: Mapping[str, Any] | None, smoke: str) -> GateResult:
    value, base = number(new), number(old)
    if not (math.isfinite(value) and math.isfinite(base)):
        where = "the result" if not math.isfinite(value) else "the baseline"
        state = "no score" if (new if where == "the result" else old) is None else "a score that is not a finite number"
        return GateResult(rule.metric, base, value, False, f"has {state} in {where}{smoke}")
    worse = value - base if rule.sign == "+" else base - value
    allowed = rule.allowed(base)
    # exactly the allowed amount passes, whatever binary fractions make of it
    beyond = worse > allowed and not math.isclose(worse, allowed, rel_tol=1e-9)
    chance = _within(value, old) or _within(base, new)
    finding = f"{_change(rule, base, value, old)}{', within the 95 % intervals' if beyond and chance else ''}{smoke}"
    return GateResult(rule.metric, base, value, not beyond or chance, finding)


def _within(value: float, score: Mapping[str, Any] | None) -> bool:
    """Whether a value lies in a score's interval; an interval that is missing or NaN holds nothing."""
    return number(score, "low") <= value <= number(score, "high")


def _change(rule: Rule, base: float, value: float, old: Mapping[str, Any] | None) -> str:
    """`41.3 -> 52.0: worse by 25.9 %, allowed 5 %`, in the units of the rule."""
    half = (number(old, "high") - number(old, "low")) / 2
    before, after = rounded([base, value], half)
    worse = value - base if rule.sign == "+" else base - value
    if rule.percent and base != 0:
        size, allowed = f"{abs(worse / base) * 100:.1f} %", f"{rule.amount:g} %"
    else:
        size, allowed = rounded([abs(worse)])[0], f"{rule.allowed(base):g}"
    direction = f"{'worse' if worse > 0 else 'better'} by {size}" if worse else "unchanged"
    return f"{before} -> {after}: {direction}, allowed {allowed}"


def require(verdicts: Sequence[GateResult]) -> None:
    """Raise `GateFailed` naming the metrics that failed, if any did."""
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if failed:
        names = ", ".join(dict.fromkeys(verdict.metric for verdict in failed))
        lines = "\n".join(f"  {verdict}" for verdict in failed)
        mend = "if the change is meant, make the new run the baseline or loosen the rule"
        raise GateFailed(f"the gate failed on {names}:\n{lines}\n{mend}")
