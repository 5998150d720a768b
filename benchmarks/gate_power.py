"""False alarms and power of the gate on FVD, in simulation: python benchmarks/gate_power.py [--trials 400]

Draws features of real clips, of a baseline and of a new run, and counts how often a rule fails the new run: where it is
as good as the baseline, a false alarm, and where its true FVD is 10, 20 or 30 % higher. The features are normal with a
decaying spectrum, like those of networks; a worse run has them further from the real ones. In a paired test, part of
what varies from clip to clip follows from the request, which both runs share. Writes the table to
results/gate-power.md.
"""

from __future__ import annotations

import argparse
import textwrap
from collections import Counter
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TypeAlias

import numpy as np
from _measure import make_parser

from vfbench.interfaces import Comparison
from vfbench.metrics._frechet import frechet_distance, frechet_influence
from vfbench.metrics._uncertainty import Influence, comparison, influence_from_rows, interval_95
from vfbench.report import difference, gate
from vfbench.report.result_parts import ScoreRecord
from vfbench.utils import files

PAGE = Path(__file__).parent.parent / "results" / "gate-power.md"
RISES = (0.0, 0.1, 0.2, 0.3)
RULES = gate.parse(["fvd:+0%,fvd:+5%,fvd:+10%"])
SHARED = {"unpaired": 0.0, "paired, requests set 50 %": 0.5, "paired, requests set 90 %": 0.9}
SHIFT = 1.5  # of the baseline's features from the real ones, in units of their largest standard deviation
CALIBRATION = 30  # draws for the mean FVD of the baseline

Tests: TypeAlias = dict[float, tuple[float, Comparison]]  # true rise: FVD of the baseline, test of the new run


def main() -> None:
    arguments = make_parser(__doc__, clips=256, real=2048, dims=32, trials=400, seed=0).parse_args()
    expected = np.mean([_baseline_fvd(arguments, trial) for trial in range(CALIBRATION)])
    failures, detectable = Counter[tuple[str, str, float]](), Counter[str]()
    for trial in range(arguments.trials):
        for test, comparisons in _trial(arguments, trial, float(expected)).items():
            detectable[test] += difference.smallest_detectable(comparisons[0.0][1]) / expected / arguments.trials
            for rise, (baseline, each) in comparisons.items():
                for rule in RULES:
                    failures[test, str(rule), rise] += rule.is_broken(baseline, each.low, each.high)
    files.write_text(PAGE, _page(arguments, float(expected), failures, detectable))


def _trial(
    arguments: argparse.Namespace, trial: int, expected: float
) -> dict[str, dict[float, tuple[float, Comparison]]]:
    """Value of the baseline and test of the new run against it, by test and true rise."""
    rng = np.random.default_rng([arguments.seed, 1, trial])
    real, shared, *own = _noise(rng, arguments)
    tests = {}
    for test, share in SHARED.items():
        old, new = (np.sqrt(share) * shared + np.sqrt(1 - share) * noise for noise in own)
        baseline = _influence(old, SHIFT, real)
        shifts = {rise: np.sqrt(SHIFT**2 + rise * expected) for rise in RISES}
        runs = {rise: _influence(new, shift, real) for rise, shift in shifts.items()}
        compare = _unpaired if test == "unpaired" else _paired
        tests[test] = {rise: (baseline.value, compare(run, baseline)) for rise, run in runs.items()}
    return tests


def _baseline_fvd(arguments: argparse.Namespace, trial: int) -> float:
    real, fake, *_ = _noise(np.random.default_rng([arguments.seed, 0, trial]), arguments)
    return _influence(fake, SHIFT, real).value


def _noise(rng: np.random.Generator, arguments: argparse.Namespace) -> list[np.ndarray]:
    """Centred features of the real clips, of what both runs share, and of what each has alone."""
    spectrum = np.arange(1, arguments.dims + 1) ** -0.5
    sizes = (arguments.real, *[arguments.clips] * 3)
    return [rng.standard_normal((size, arguments.dims)) * spectrum for size in sizes]


def _influence(fake: np.ndarray, shift: float, real: np.ndarray) -> Influence:
    """FVD of generated features, moved by `shift` along the first axis, with the influence of each clip."""
    fake = fake + shift * np.eye(1, fake.shape[1])
    labels = np.arange(len(fake)), np.arange(len(real))
    return influence_from_rows(frechet_distance(fake, real), *frechet_influence(fake, real), *labels)


def _paired(new: Influence, old: Influence) -> Comparison:
    change = new - old
    return comparison(change.value, change.error)


def _unpaired(new: Influence, old: Influence) -> Comparison:
    return difference.unpaired(_record(new), _record(old))


def _record(score: Influence) -> ScoreRecord:
    low, high = interval_95(score.value, score.error)
    return ScoreRecord(
        value=score.value,
        low=low,
        high=high,
        floor=0.0,
        n_real=len(score.real),
        n_fake=len(score.fake),
        title="FVD",
        better="lower",
    )


def _page(
    arguments: argparse.Namespace,
    expected: float,
    failures: Mapping[tuple[str, str, float], int],
    detectable: Mapping[str, float],
) -> str:
    """The page, with the share of trials in which each rule fails."""
    rows = []
    for test, rule in product(SHARED, RULES):
        shares = [failures[test, str(rule), rise] / arguments.trials for rise in RISES]
        found = detectable[test] + rule.amount / 100
        rows.append([test, str(rule), *(f"{share:.1%}" for share in shares), f"{found:+.0%}"])
    head = ["test", "rule", "unchanged", *(f"{rise:+.0%}" for rise in RISES[1:]), "detectable"]
    lines = [head, [":--", ":--", *["--:"] * (len(head) - 2)], *rows]
    settings = " ".join(f"--{name} {value}" for name, value in vars(arguments).items())
    text = (
        f"Share of {arguments.trials} simulated runs that a rule fails, by the true rise of FVD since the baseline: "
        f"{arguments.clips} generated against {arguments.real} real clips, {arguments.dims} features, mean FVD of the "
        f"baseline {expected:.2f}. Detectable: the smallest true rise that the gate says it finds in 80 % of runs, "
        "mean over unchanged runs. Paired: both runs answer the same requests, which set 50 or 90 % of what varies "
        "from clip to clip."
    )
    table = "".join(f"| {' | '.join(row)} |\n" for row in lines)
    command = f"`python benchmarks/gate_power.py {settings}`"
    return f"# How often the gate fails\n\n{textwrap.fill(text, 120)}\n\n{table}\nMade by {command}.\n"


if __name__ == "__main__":
    main()
