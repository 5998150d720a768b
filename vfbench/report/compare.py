"""Is model A better than model B? A paired test on the same requests and the same real clips, from two run folders.

Two runs of one protocol and seed answer the same requests and are scored against the same real clips. Much of their
chance is shared, and cancels in the difference: this tells more than two intervals side by side.
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
from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import Better, Comparison, Groups, PairedMetric
from vfbench.report.format import rounded
from vfbench.report.results import SCORED, Record, differences, load
from vfbench.utils.tensor_files import read_tensors

ALPHA = 0.05  # a smaller p-value counts as a difference


@dataclass(frozen=True)
class PairedResult:
    """What one metric says of A less B; `str(verdict)` is the line to print."""

    title: str
    better: Better
    found: Comparison

    @property
    def winner(self) -> str:
        """`A`, `B`, or nothing where chance explains the difference."""
        if not self.found.p_value < ALPHA:
            return ""
        return "A" if (self.found.difference < 0) == (self.better == "lower") else "B"

    def __str__(self) -> str:
        found = self.found
        half = (found.high - found.low) / 2
        difference, low, high = rounded([found.difference, found.low, found.high], half)
        said = f"{self.winner} is better" if self.winner else "no difference beyond chance"
        note = f" ({found.note})" if found.note else ""
        return f"{self.title}: A - B = {difference} [{low}, {high}], p = {found.p_value:.2g}: {said}{note}"


def compare(a: Path, b: Path, metrics: Sequence[str] = ()) -> list[PairedResult]:
    """Compare the runs in the folders `a` and `b` by the metrics named, or by all that both have and can be paired.

    Raises `UserError` where the two differ in protocol or seed, or a metric knows no paired test, and `MissingData`
    where a folder lacks what its scores were made of.
    """
    first, second = load([a, b]) if Path(a).resolve() != Path(b).resolve() else load([a]) * 2
    _require_paired(first, second)
    mine, theirs = _scored(Path(a), first), _scored(Path(b), second)
    both = [key for key in mine if key.startswith("real.") and key in theirs]
    if differing := [key for key in both if not torch.equal(mine[key], theirs[key])]:
        raise MissingData(f"{a} and {b} were scored against other real clips ({differing[0]}): run both again")
    shared = [name for name in first["scores"] if name in second["scores"]]
    for name in metrics:
        if name not in shared:
            raise unknown("metric that both runs have", name, shared)
    measures = first["protocol"]["measures"]
    loaded = {name: plugins.load("metric", measures[name]["metric"]) for name in metrics or shared}
    able = {name: metric for name, metric in loaded.items() if isinstance(metric, PairedMetric)}
    if lacking := [name for name in metrics if name not in able]:
        raise UserError(f"{', '.join(lacking)} knows no paired test: compare by {', '.join(able) or 'another'}")
    return [
        PairedResult(metric.title, metric.better, _compared(first["protocol"], name, metric, mine, theirs))
        for name, metric in able.items()
    ]


def _require_paired(ours: Record, theirs: Record) -> None:
    """Raise `UserError` unless both runs answer the same requests and are scored alike."""
    mine, other = ours["protocol"], theirs["protocol"]
    named = f"A is {ours['run_dir']}, B is {theirs['run_dir']}"
    if mine["id"] != other["id"]:
        raise UserError(
            f"these runs have other protocols, {mine['id']} and {other['id']}: they differ in "
            f"{differences(mine, other)}; {named}"
        )
    if ours.get("seed") is None and not _same_prompts(ours, theirs):
        raise UserError(
            f"clips made elsewhere can be paired only by the prompts that both were made for, clip by clip: score both "
            f"folders with the same --prompts; {named}"
        )
    if ours.get("seed") != theirs.get("seed"):
        raise UserError(
            f"these runs have other seeds, {ours.get('seed')} and {theirs.get('seed')}, so their clips answer other "
            f"requests: run one again with the --seed of the other; {named}"
        )


def _same_prompts(ours: Record, theirs: Record) -> bool:
    """Whether both sides of clips that others made answer the same prompts in the same order."""
    told = [(record.get("fake") or {}).get("captions") for record in (ours, theirs)]
    return told[0] is not None and told[0] == told[1]


def _scored(folder: Path, record: Record) -> dict[str, Tensor]:
    """What the scores of a run were made of."""
    path = (folder if folder.is_dir() else folder.parent) / SCORED
    try:
        return read_tensors(path, run=record["run_id"])[0]
    except ValueError as error:
        raise MissingData(f"{path} cannot be used: {error}; give the run's command again, which makes it") from error


def _compared(
    protocol: Record, name: str, metric: PairedMetric, a: Mapping[str, Tensor], b: Mapping[str, Tensor]
) -> Comparison:
    """Row by row, each draw of the protocol against its own real clips, and the mean of the draws."""
    source, count, seed = protocol["measures"][name]["source"], protocol["n_fake"], protocol["selection_seed"]
    if any(f"fake.{source}" not in each for each in (a, b)):
        raise MissingData(
            f"what {name} was made of is not kept: give the commands of both runs again, --metrics {name}"
        )
    found = []
    for draw in range(protocol.get("repeats", 1)):
        part = slice(draw * count, (draw + 1) * count)
        mine, theirs = (each[f"fake.{source}"][part].numpy() for each in (a, b))
        groups = Groups(a["fake.groups"][part].numpy(), a[f"real.{draw}.groups"].numpy())
        real = a[f"real.{draw}.{source}"].numpy()
        found.append(metric.compare(mine, theirs, real, groups=groups, seed=seed + draw))
    return averaged(found)


def averaged(drawn: Sequence[Comparison]) -> Comparison:
    """The mean of the comparisons of several draws of clips.

    The draws share real clips, so the error is that of one draw: too large where they share none, never too small.
    """
    if len(drawn) == 1:
        return drawn[0]
    mean = sum(one.difference for one in drawn) / len(drawn)
    half = math.sqrt(sum(((one.high - one.low) / 2) ** 2 for one in drawn) / len(drawn))
    p_value = math.erfc(NormalDist().inv_cdf(0.975) * abs(mean) / half / math.sqrt(2)) if half else float(mean == 0)
    notes = dict.fromkeys(one.note for one in drawn)
    said = "; ".join(filter(None, [f"mean of {len(drawn)} draws", *notes]))
    return Comparison(mean, mean - half, mean + half, p_value, said)
