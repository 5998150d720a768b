"""Test between models A and B by every metric: paired where both answer the same requests, else unpaired.

A paired test needs the same requests, and the features that both runs keep. With other requests, the two intervals are
compared, without the variation due to the real clips that both share; without features, as they are.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from vfbench.errors import UserError, unknown
from vfbench.interfaces import Better, Comparison
from vfbench.report import comparison_cache, difference
from vfbench.report.format import rounded
from vfbench.report.result_parts import ScoreRecord
from vfbench.report.results import ALPHA, SCORED_FILE, Result, describe_differences, load
from vfbench.utils import console, escape

NO_PAIRED_TEST = "the metric has no paired test"
INTERVALS = "intervals"  # key of the unpaired tests kept beside a run


@dataclass(frozen=True)
class ComparisonResult:
    """Difference A - B in one metric; `str()` gives the line to print.

    `unpaired_because` says why the test is unpaired; it is empty for a paired test.
    """

    title: str
    better: Better
    comparison: Comparison
    unpaired_because: str = ""

    @property
    def winner(self) -> str:
        """`A` or `B`; empty where chance explains the difference."""
        if not self.comparison.p_value < ALPHA:
            return ""
        return "A" if (self.comparison.difference < 0) == (self.better == "lower") else "B"

    @property
    def smallest_detectable(self) -> float:
        """True difference that this test would find in 80 % of repeats with other clips, in units of the score."""
        return difference.smallest_detectable(self.comparison)

    def __str__(self) -> str:
        comparison = self.comparison
        half_width = (comparison.high - comparison.low) / 2
        values = rounded([comparison.difference, comparison.low, comparison.high], half_width)
        outcome = f"{self.winner} is better" if self.winner else "no difference beyond chance"
        remarks = "; ".join(filter(None, ["unpaired" if self.unpaired_because else "", comparison.note]))
        note = f" ({remarks})" if remarks else ""
        interval = f"{values[0]} [{values[1]}, {values[2]}]"
        return f"{escape.printable(self.title)}: A - B = {interval}, p = {comparison.p_value:.2g}: {outcome}{note}"


def compare(a: Path, b: Path, metrics: Sequence[str] = ()) -> list[ComparisonResult]:
    """Compare the results in `a` and `b`, each a run folder or a file, by `metrics`, by default all shared ones.

    The test is paired where both answer the same requests and keep their features, else unpaired. Warns of a result
    that was edited. Raises `UserError` where the protocols differ, and `MissingData` where features are damaged or the
    real clips differ.
    """
    (first,), (second,) = load([a]), load([b])
    _require_same_protocol(first, second)
    for record in (first, second):
        if record.integrity == "edited":
            console.warn(record.edited_message)
    shared = [name for name in first.scores if name in second.scores]
    for name in metrics:
        if name not in shared:
            raise unknown("metric that both runs have", name, shared)
    results = compare_results(first, second, metrics or shared, typed=metrics)
    if untested := [name for name in metrics if name not in results]:
        raise UserError(f"{', '.join(untested)} has no interval in one of the results: compare by another metric")
    unpaired = {name: each.comparison for name, each in results.items() if each.unpaired_because}
    if unpaired and first.run_id and second.run_id:
        mirrored = {name: comparison_cache.negated(each) for name, each in unpaired.items()}
        for record, other_id, tests in ((first, second.run_id, unpaired), (second, first.run_id, mirrored)):
            if record.folder:
                comparison_cache.write(record.folder, other_id, tests, INTERVALS)
    return list(results.values())


def compare_results(
    a: Result, b: Result, names: Sequence[str], *, typed: Collection[str] = ()
) -> dict[str, ComparisonResult]:
    """Test A against B by the metrics `names`, which both have; a score without an interval is left out.

    `typed` are names that the user gave, whose modules may be imported: others of a third party raise `UserError`.
    Raises `MissingData` where features are damaged or the real clips differ.
    """
    reason, paired, shared = _why_unpaired(a, b), dict[str, Comparison](), dict[str, float]()
    if a.folder and b.folder and not _without_features(a, b):
        from vfbench.report import feature_tests  # imports torch

        if reason:
            shared = feature_tests.shared_variances(a, a.folder, b, b.folder, names, typed)
        else:
            paired = feature_tests.paired_tests(a, a.folder, b, b.folder, names, typed)
    results = {}
    for name in names:
        unpaired = difference.unpaired(a.scores[name], b.scores[name], shared.get(name, 0.0))
        comparison = paired.get(name) or unpaired
        if math.isfinite(comparison.high - comparison.low):
            because = "" if name in paired else reason or NO_PAIRED_TEST
            results[name] = _result(a.scores[name], comparison, because)
    return results


def _result(score: ScoreRecord, comparison: Comparison, unpaired_because: str) -> ComparisonResult:
    return ComparisonResult(score.title, score.better, comparison, unpaired_because)


def _require_same_protocol(a: Result, b: Result) -> None:
    if a.protocol.id != b.protocol.id:
        raise UserError(
            f"the runs have different protocols, {a.protocol.id} and {b.protocol.id}: they differ in "
            f"{describe_differences(a.protocol, b.protocol)}; A is {a.source}, B is {b.source}"
        )


def _why_unpaired(a: Result, b: Result) -> str:
    """Reason why the clips of two results of one protocol cannot be paired, and the mending flag; else empty."""
    if a.seed is None and b.seed is None and not _same_prompts(a, b):
        return "clips made elsewhere are paired by their prompts: score both folders with the same --prompts"
    if a.seed != b.seed:
        seeds = ["made elsewhere" if record.seed is None else f"of seed {record.seed}" for record in (a, b)]
        return f"A is {seeds[0]}, B {seeds[1]}, so their clips answer different requests; runs of one --seed are paired"
    if missing := _without_features(a, b):
        return f"{missing[0].source} has no {SCORED_FILE} beside it; a run folder has one"
    return ""


def _without_features(a: Result, b: Result) -> list[Result]:
    return [record for record in (a, b) if not record.has_features()]


def _same_prompts(a: Result, b: Result) -> bool:
    """True where two folders of clips scored by `score` have the same prompts in the same order."""
    hash_a, hash_b = (record.fake.captions if record.fake else None for record in (a, b))
    return hash_a is not None and hash_a == hash_b
