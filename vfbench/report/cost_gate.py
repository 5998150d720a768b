"""Speed and memory rules of the gate: a result against the median of earlier runs of its cohort.

    seconds:+10%+0.05    seconds per clip may rise by 10 %, and by 0.05 s: both must be exceeded to break the rule
    memory:+20%+100      peak memory may rise by 20 %, and by 100 MB

The cohort of a result are the runs of the same model, preset and protocol on the same hardware, with the same number of
threads and versions of Python, torch and torchvision: seconds of another machine say nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from vfbench.errors import UserError
from vfbench.report import gate as quality
from vfbench.report.format import rounded
from vfbench.report.gate import GateResult, Status
from vfbench.report.result_parts import Cost
from vfbench.report.results import RESULT_FILE, Result, load

WINDOW = 5  # latest runs of the cohort, of which the median is taken
EXAMPLES = "write seconds:+10%+0.05 (s per clip) or memory:+20%+100 (MB)"
# Fields of an `Environment` in which the runs of a cohort are equal.
COHORT_FIELDS = ("device", "threads", "system", "python", "torch", "torchvision")
_RULE = re.compile(r"(?P<cost>[a-z]+):\+(?P<percent>[0-9]+(?:\.[0-9]+)?)%\+(?P<amount>[0-9]+(?:\.[0-9]+)?)")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A cost of a run, in a unit."""

    unit: str
    of: Callable[[Cost], float]


QUANTITIES = {
    "seconds": Quantity("s per clip", lambda cost: cost.seconds_per_clip),
    "memory": Quantity("MB", lambda cost: cost.peak_memory_bytes / 1e6),
}


@dataclass(frozen=True, slots=True)
class CostRule:
    """Largest rise of a cost that passes: the larger of `percent` of the median and `amount` in its unit."""

    cost: str
    percent: float
    amount: float

    def allowed(self, reference: float) -> float:
        """Largest rise above the reference, in the unit of the cost."""
        return max(self.percent / 100 * reference, self.amount)


def is_cost_rule(text: str) -> bool:
    """True for a rule about a cost, that is one that begins with its name."""
    return text.strip().partition(":")[0] in QUANTITIES


def parse(text: str) -> CostRule:
    """Rule from its text; raises `UserError` showing how to write one."""
    match = _RULE.fullmatch(text.replace(" ", ""))
    if not match:
        raise UserError(f"'{text}' is not a cost rule: {EXAMPLES}; both amounts are needed")
    return CostRule(match["cost"], float(match["percent"]), float(match["amount"]))


def gate(
    result: Result, baseline: Result, rules: Sequence[str], history: Sequence[Result] = (), *, detectable: float = 100.0
) -> list[GateResult]:
    """Check a result against its baseline, and its costs against earlier runs: one outcome per rule.

    See `vfbench.report.gate.gate` for rules on scores and for errors, and `gate_costs` for rules on costs.
    """
    texts = [text.strip() for rule in rules for text in rule.split(",") if text.strip()]
    costs = [text for text in texts if is_cost_rule(text)]
    scores = [text for text in texts if not is_cost_rule(text)]
    outcomes = gate_costs(result, history, costs)
    return [*(quality.gate(result, baseline, scores, detectable=detectable) if scores or not costs else []), *outcomes]


def gate_costs(result: Result, history: Sequence[Result], rules: Sequence[str]) -> list[GateResult]:
    """Check the costs of a result against the latest runs of its cohort in `history`, one outcome per rule.

    A rule is `BASELINE_MISSING` where no run of the history is of the cohort, and `INCOMPLETE` where the result has no
    such cost. Raises `UserError` for a rule that cannot be read.
    """
    parsed = [parse(rule) for rule in rules]
    others = [run for run in history if run.run_dir != result.run_dir and cohort(run) == cohort(result)]
    return [_judge(rule, result, others[-WINDOW:]) for rule in parsed]


def cohort(result: Result) -> tuple[str, ...]:
    """Recipe, protocol, hardware and versions of a result: costs of equal cohorts compare."""
    machine = result.environment.model_dump() if result.environment else {}
    fields = (str(machine.get(name, "")) for name in COHORT_FIELDS)
    return (result.model_spec or result.model, result.preset, result.protocol.id, *fields)


def load_history(paths: Sequence[Path]) -> list[Result]:
    """Results in files, run folders, and folders of run folders, oldest first."""
    files = [file for path in paths for file in (sorted(path.rglob(RESULT_FILE)) if path.is_dir() else [path])]
    results = load(files)  # raises where one is missing
    return sorted(results, key=lambda result: result.modified)


def _judge(rule: CostRule, result: Result, cohort_runs: Sequence[Result]) -> GateResult:
    quantity = QUANTITIES[rule.cost]
    value = quantity.of(result.cost) if result.cost else math.nan
    earlier = [quantity.of(run.cost) for run in cohort_runs if run.cost]
    earlier = [each for each in earlier if math.isfinite(each) and each > 0]
    reference = median(earlier) if earlier else math.nan
    if not (math.isfinite(value) and value > 0):
        finding = "has no finite value in the result"
        return GateResult(rule.cost, reference, value, Status.INCOMPLETE, finding)
    if not earlier:
        finding = "has no earlier run of the same model, protocol, hardware and versions; give some by --history"
        return GateResult(rule.cost, reference, value, Status.BASELINE_MISSING, finding)
    rise, allowed = value - reference, rule.allowed(reference)
    status = Status.REGRESSION if rise > allowed else Status.IMPROVED if -rise > allowed else Status.PASS
    before, after, limit = rounded([reference, value, allowed], reference / 10)
    runs = f"{len(earlier)} run" + ("s" if len(earlier) > 1 else "")
    finding = f"{before} (median of {runs}) -> {after} {quantity.unit}, allowed +{limit}"
    return GateResult(rule.cost, reference, value, status, finding, difference=rise, allowed=allowed)
