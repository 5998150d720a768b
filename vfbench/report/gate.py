"""Regression gate between a new result and its baseline.

    fvd:+5%    FVD may rise by 5 % of the baseline         is:-3%    IS may fall by 3 %
    fvd:+0.5   FVD may rise by 0.5                         several   fvd:+5%,is:-3%

Each rule ends in a `Status`. A metric is a regression when the 95 % interval of its change lies wholly beyond what the
rule allows: it is worse than allowed, and chance alone does not explain that. The test is paired where both runs keep
their features and answer the same requests, as in `compare`; else the two intervals decide, which find only large
changes. A score that is missing or NaN never passes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from vfbench.errors import GateFailed, Incomplete, MissingData, UserError, unknown
from vfbench.interfaces import Better
from vfbench.report.compare import ComparisonResult, compare_results
from vfbench.report.format import rounded
from vfbench.report.result_parts import ScoreRecord
from vfbench.report.results import NOT_COMPARABLE, Result, describe_differences

EXAMPLES = "write METRIC:+AMOUNT or METRIC:-AMOUNT, e.g. fvd:+5% (of the baseline), fvd:+0.5 (absolute) or is:-3%"
RULE = re.compile(r"(?P<metric>[^\s:]+)\s*:\s*(?P<sign>[+-])(?P<amount>\d+(\.\d+)?(e-?\d{1,2})?)\s*(?P<percent>%?)")


class Status(StrEnum):
    """Outcome of a rule, or of the whole gate: the first of these that a rule has, in this order."""

    PROTOCOL_MISMATCH = "PROTOCOL_MISMATCH"  # the two have different protocols: nothing is compared
    REGRESSION = "REGRESSION"  # worse than the rule allows, beyond chance
    BASELINE_MISSING = "BASELINE_MISSING"  # no baseline, or no finite score in it
    INCOMPLETE = "INCOMPLETE"  # no finite score in the result
    UNDERPOWERED = "UNDERPOWERED"  # even a change as large as `--detectable` would go unseen
    WITHIN_NOISE = "WITHIN_NOISE"  # the interval reaches beyond the rule, and not wholly: no regression is shown
    PASS = "PASS"  # noqa: S105  # the whole interval is within the rule
    IMPROVED = "IMPROVED"  # better than the baseline, beyond chance

    @property
    def exit_code(self) -> int:
        """0 for a pass, else the code with which the gate exits."""
        return {"PROTOCOL_MISMATCH": 2, "REGRESSION": 3, "BASELINE_MISSING": 4, "INCOMPLETE": 1, "UNDERPOWERED": 1}.get(
            self.value, 0
        )


DETECTABLE = 100.0  # percent of the baseline: a gate that would not see a score double guards nothing


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
    status: Status
    finding: str
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    allowed: float = math.nan
    detectable: float = math.nan
    test: Literal["paired", "unpaired", "none"] = "none"
    unpaired_because: str = ""

    @property
    def passed(self) -> bool:
        """True for a status with exit code 0."""
        return self.status.exit_code == 0

    def __str__(self) -> str:
        return f"{self.metric} {self.finding}: {self.status.value}"


class ProtocolMismatch(UserError):
    """A result and its baseline have different protocols."""


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


def gate(result: Result, baseline: Result, rules: Sequence[str], *, detectable: float = DETECTABLE) -> list[GateResult]:
    """Check a result against its baseline, one outcome per rule, in the order of the rules.

    A rule that would find only changes above `detectable` percent of the baseline is `UNDERPOWERED`. Raises
    `ProtocolMismatch` where the two have different protocols, `UserError` for a percentage that is not above 0, where
    one was edited or a rule cannot be read, names a metric that neither result has, or has the sign of an improvement,
    and `MissingData` where features are damaged.
    """
    if not 0 < detectable < math.inf:
        raise UserError(f"--detectable {detectable:g}: choose a percentage above 0")
    parsed = parse(rules)
    for record in (result, baseline):
        if record.integrity == "edited" or record.imported:
            raise UserError(record.imported_message or record.edited_message)
    require_same_protocol(result, baseline)
    scores = {**baseline.scores, **result.scores}
    for rule in parsed:
        if rule.metric not in scores:
            raise unknown("metric", rule.metric, scores)
        _require_worse_direction(rule, scores[rule.metric].better)
    names = [name for name in dict.fromkeys(rule.metric for rule in parsed) if _missing(name, result, baseline) is None]
    tests = compare_results(result, baseline, names, typed=names)
    smoke = "" if result.protocol.comparable else f" ({NOT_COMPARABLE})"
    return [_judge(rule, result, baseline, tests.get(rule.metric), smoke, detectable) for rule in parsed]


def require_same_protocol(result: Result, baseline: Result) -> None:
    """Raise `ProtocolMismatch` where a result and its baseline have different protocols."""
    ours, theirs = result.protocol, baseline.protocol
    if ours.id != theirs.id:
        raise ProtocolMismatch(
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


def _missing(metric: str, result: Result, baseline: Result) -> tuple[Status, str] | None:
    """Status and reason where a metric cannot be judged; None where both results have a finite score."""
    sides = ((result, Status.INCOMPLETE, "the result"), (baseline, Status.BASELINE_MISSING, "the baseline"))
    for record, status, where in sides:
        score = record.scores.get(metric)
        if score is None or not math.isfinite(score.value):
            return status, f"has {'no score' if score is None else 'a score that is not a finite number'} in {where}"
    return None


def _judge(
    rule: Rule, result: Result, baseline: Result, test: ComparisonResult | None, smoke: str, limit: float
) -> GateResult:
    base, value = (score.value if (score := each.scores.get(rule.metric)) else math.nan for each in (baseline, result))
    if missing := _missing(rule.metric, result, baseline):
        status, reason = missing
        return GateResult(rule.metric, base, value, status, f"{reason}{smoke}")
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
        status=_status(rule, base, *bounds, detectable=detectable, limit=limit),
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


def _status(rule: Rule, base: float, low: float, high: float, *, detectable: float, limit: float) -> Status:
    """Status for a change from `low` to `high` with 95 % confidence, in units of the score."""
    if rule.is_broken(base, low, high):
        return Status.REGRESSION
    best, worst = (low, high) if rule.sign == "+" else (-high, -low)  # of the worsening
    if low < high and worst < 0:
        return Status.IMPROVED
    if base and abs(detectable) > limit / 100 * abs(base):  # not where it is NaN: there is no interval
        return Status.UNDERPOWERED
    allowed = rule.largest_worsening(base)
    within = worst <= allowed or math.isclose(worst, allowed, rel_tol=1e-9) or not best <= worst
    return Status.PASS if within else Status.WITHIN_NOISE


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


def status_of(outcomes: Sequence[GateResult]) -> Status:
    """Status of the whole gate: the most serious of its rules'."""
    return min((outcome.status for outcome in outcomes), key=list(Status).index)


def require(outcomes: Sequence[GateResult]) -> None:
    """Raise the error of the most serious status, naming each rule that does not pass; none where all pass."""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if not failed:
        return
    status = status_of(failed)
    names = ", ".join(dict.fromkeys(outcome.metric for outcome in failed))
    lines = "\n".join(f"  {outcome}" for outcome in failed)
    kinds: dict[int, tuple[type[UserError], str]] = {
        3: (GateFailed, "if the change is intended, make the new run the baseline (--update) or loosen the rule"),
        4: (MissingData, "make a baseline that has these scores, with --update"),
        1: (Incomplete, "score the missing metrics, generate more clips (--num-samples), or raise --detectable"),
    }
    kind, hint = kinds[status.exit_code]
    raise kind(f"the gate failed on {names}:\n{lines}\n{hint}")
