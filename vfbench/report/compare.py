"""Paired test between models A and B on the same requests and the same real clips, from two run folders.

Two runs of one protocol and seed share much of their random variation, which cancels in the difference: the test is
more sensitive than a look at two intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import torch
from torch import Tensor

from vfbench import plugins
from vfbench.errors import BadEnvironment, MissingData, UserError, unknown
from vfbench.interfaces import Better, Comparison, Groups, PairedMetric
from vfbench.report.format import rounded
from vfbench.report.results import (
    ALPHA,
    COMPARED_FILE,
    SCORED_FILE,
    ProtocolRecord,
    Result,
    describe_differences,
    load,
    stored_p_values,
)
from vfbench.utils import console, files
from vfbench.utils.tensor_files import read_tensors


@dataclass(frozen=True)
class PairedResult:
    """Difference A - B in one metric; `str()` gives the line to print."""

    title: str
    better: Better
    comparison: Comparison

    @property
    def winner(self) -> str:
        """`A` or `B`; empty where chance explains the difference."""
        if not self.comparison.p_value < ALPHA:
            return ""
        return "A" if (self.comparison.difference < 0) == (self.better == "lower") else "B"

    def __str__(self) -> str:
        comparison = self.comparison
        half_width = (comparison.high - comparison.low) / 2
        difference, low, high = rounded([comparison.difference, comparison.low, comparison.high], half_width)
        outcome = f"{self.winner} is better" if self.winner else "no difference beyond chance"
        note = f" ({comparison.note})" if comparison.note else ""
        return f"{self.title}: A - B = {difference} [{low}, {high}], p = {comparison.p_value:.2g}: {outcome}{note}"


def compare(a: Path, b: Path, metrics: Sequence[str] = ()) -> list[PairedResult]:
    """Compare the runs in the folders `a` and `b` by `metrics`, by default all shared ones that have a paired test.

    Raises `UserError` where the runs differ in protocol or seed, or a metric has no paired test, and `MissingData`
    where a folder lacks the features behind its scores.
    """
    first, second = load([a, b]) if Path(a).resolve() != Path(b).resolve() else load([a]) * 2
    _require_paired(first, second)
    features_a, features_b = _read_features(Path(a), first), _read_features(Path(b), second)
    shared_real = [key for key in features_a if key.startswith("real.") and key in features_b]
    if differing := [key for key in shared_real if not torch.equal(features_a[key], features_b[key])]:
        raise MissingData(f"{a} and {b} were scored against different real clips ({differing[0]}): repeat both runs")
    shared = [name for name in first.scores if name in second.scores]
    for name in metrics:
        if name not in shared:
            raise unknown("metric that both runs have", name, shared)
    measures = first.protocol.measures
    loaded = {name: plugins.load("metric", measures[name].metric) for name in metrics or shared}
    paired = {name: metric for name, metric in loaded.items() if isinstance(metric, PairedMetric)}
    if unpaired := [name for name in metrics if name not in paired]:
        alternatives = ", ".join(paired) or "another"
        raise UserError(f"no paired test for {', '.join(unpaired)}: compare by {alternatives}")
    comparisons = {
        name: _compare(first.protocol, name, metric, features_a, features_b) for name, metric in paired.items()
    }
    for folder, other in ((Path(a), second), (Path(b), first)):
        _store(folder, other, comparisons)
    return [PairedResult(paired[name].title, paired[name].better, each) for name, each in comparisons.items()]


def _store(folder: Path, other: Result, comparisons: Mapping[str, Comparison]) -> None:
    """Keep the p-values beside the run: a table then prints a score in bold only where they show a difference."""
    path = (folder if folder.is_dir() else folder.parent) / COMPARED_FILE
    stored = stored_p_values(path.parent)
    p_values = {name: each.p_value for name, each in comparisons.items() if math.isfinite(each.p_value)}
    try:
        files.write_json(path, {**stored, other.run_id: {**stored.get(other.run_id, {}), **p_values}})
    except (OSError, BadEnvironment) as error:  # a folder of somebody else, for example
        console.detail(f"the comparison is not kept in {path}: {error}")


def _require_paired(a: Result, b: Result) -> None:
    """Raise `UserError` unless both runs answer the same requests under the same protocol."""
    runs = f"A is {a.run_dir}, B is {b.run_dir}"
    if a.protocol.id != b.protocol.id:
        raise UserError(
            f"the runs have different protocols, {a.protocol.id} and {b.protocol.id}: they differ in "
            f"{describe_differences(a.protocol, b.protocol)}; {runs}"
        )
    if a.seed is None and not _same_prompts(a, b):
        raise UserError(
            f"clips from elsewhere can be paired only by their prompts: score both folders with the same --prompts; "
            f"{runs}"
        )
    if a.seed != b.seed:
        raise UserError(
            f"the runs have different seeds, {a.seed} and {b.seed}, so their clips answer different requests: "
            f"repeat one with the --seed of the other; {runs}"
        )


def _same_prompts(a: Result, b: Result) -> bool:
    """True where two folders of clips scored by `score` have the same prompts in the same order."""
    hash_a, hash_b = (record.fake.captions if record.fake else None for record in (a, b))
    return hash_a is not None and hash_a == hash_b


def _read_features(folder: Path, record: Result) -> dict[str, Tensor]:
    """Features, (N, D), and groups, (N,), that a run's scores were computed from."""
    path = (folder if folder.is_dir() else folder.parent) / SCORED_FILE
    try:
        return read_tensors(path, run=record.run_id)[0]
    except ValueError as error:
        raise MissingData(f"{path} cannot be used: {error}; repeat the run's command to write it") from error


def _compare(
    protocol: ProtocolRecord, name: str, metric: PairedMetric, a: Mapping[str, Tensor], b: Mapping[str, Tensor]
) -> Comparison:
    """Mean over the protocol's draws, each compared row by row against its own real clips."""
    source, count, seed = protocol.measures[name].source, protocol.n_fake, protocol.selection_seed
    if any(f"fake.{source}" not in features for features in (a, b)):
        raise MissingData(f"the features of {name} were not kept: repeat both runs with --metrics {name}")
    comparisons = []
    for draw in range(protocol.repeats):
        rows = slice(draw * count, (draw + 1) * count)
        fake_a, fake_b = (features[f"fake.{source}"][rows].numpy() for features in (a, b))
        groups = Groups(a["fake.groups"][rows].numpy(), a[f"real.{draw}.groups"].numpy())
        real = a[f"real.{draw}.{source}"].numpy()
        comparisons.append(metric.compare(fake_a, fake_b, real, groups=groups, seed=seed + draw))
    return mean_comparison(comparisons)


def mean_comparison(draws: Sequence[Comparison]) -> Comparison:
    """Mean of the comparisons of several draws of clips.

    The draws share real clips, so the error is that of one draw: too large where they share none, never too small.
    """
    if len(draws) == 1:
        return draws[0]
    mean = sum(draw.difference for draw in draws) / len(draws)
    half = math.sqrt(sum(((draw.high - draw.low) / 2) ** 2 for draw in draws) / len(draws))
    p_value = math.erfc(NormalDist().inv_cdf(0.975) * abs(mean) / half / math.sqrt(2)) if half else float(mean == 0)
    notes = dict.fromkeys(draw.note for draw in draws)
    note = "; ".join(filter(None, [f"mean of {len(draws)} draws", *notes]))
    return Comparison(mean, mean - half, mean + half, p_value, note)
