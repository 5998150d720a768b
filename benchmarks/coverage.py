"""Coverage of the intervals of FVD, in simulation: python benchmarks/coverage.py [--repeats 400] [--output FILE]

Draws real and generated features whose distance is known, and counts how often a 95 % interval holds the true value:
that of the score, against its mean over all repeats, and that of the limit, against the distance of the distributions.
Writes a table with the machine and this command to results/coverage.md. The features have a spectrum that falls like
that of network features, or a flat one; "alike" is a model whose clips are distributed as the real ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _measure import machine, make_parser

from vfbench.interfaces import Groups, Score
from vfbench.metrics import fvd

White = Callable[[np.random.Generator, int, int], np.ndarray]
FREEDOM = 4.5  # degrees of freedom of the heavy-tailed features: their fourth moments barely exist
NOTE = "heavy-tailed"


def gaussian(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return rng.standard_normal((n, dim))


def mixture(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Four Gaussians of one covariance, whose means are fixed; mean 0 and covariance 1 on average over them."""
    means = np.random.default_rng(7).standard_normal((4, dim))
    means -= means.mean(axis=0)
    within = 0.5
    root = np.linalg.cholesky(within * np.eye(dim) + means.T @ means / 4)
    drawn = math.sqrt(within) * rng.standard_normal((n, dim)) + means[rng.integers(4, size=n)]
    white: np.ndarray = np.linalg.solve(root, drawn.T).T
    return white


def heavy(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Multivariate Student's t with unit covariance."""
    tailed: np.ndarray = rng.standard_normal((n, dim)) * np.sqrt((FREEDOM - 2) / rng.chisquare(FREEDOM, (n, 1)))
    return tailed


WHITE: Mapping[str, White] = {"Gaussian": gaussian, "mixture": mixture, f"t({FREEDOM:g})": heavy}


@dataclass(frozen=True)
class Cell:
    """One simulation: `clips` real and as many generated clips of `dim` features, `each` of them of one video."""

    kind: str
    clips: int
    dim: int
    each: int = 1
    alike: bool = False


CELLS = [
    *(Cell(kind, 256, 32) for kind in WHITE),  # enough clips for a limit
    Cell(f"t({FREEDOM:g})", 256, 32, alike=True),
    *(Cell(kind, 120, 32, alike=True) for kind in WHITE),
    *(Cell(kind, 120, 32, each=2) for kind in WHITE),
    *(Cell(kind, 48, 64) for kind in WHITE),
]


def draw(cell: Cell, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features of generated and of real clips, (clips, dim) each."""
    white, (mean, fake_root, real_root) = WHITE[cell.kind], moments(cell)
    fake = white(rng, cell.clips, cell.dim)
    if cell.each > 1:
        videos = white(rng, cell.clips // cell.each, cell.dim)
        fake = math.sqrt(0.7) * np.repeat(videos, cell.each, axis=0) + math.sqrt(0.3) * fake
    return fake @ fake_root.T + mean, white(rng, cell.clips, cell.dim) @ real_root.T


def moments(cell: Cell) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of the generated clips, and roots of the covariances of generated and real clips; the real mean is 0."""
    if cell.alike:
        return np.zeros(cell.dim), np.eye(cell.dim), np.eye(cell.dim)
    fixed, spectrum = np.random.default_rng(99), np.diag(np.arange(1, cell.dim + 1) ** -0.5)
    rotation = np.linalg.qr(fixed.standard_normal((cell.dim, cell.dim)))[0]
    mean = 0.5 * spectrum @ fixed.standard_normal(cell.dim)
    return mean, 0.8 * spectrum @ (np.eye(cell.dim) + 0.3 * rotation), spectrum


def true_distance(cell: Cell) -> float:
    """Frechet distance of the two distributions."""
    mean, fake_root, real_root = moments(cell)
    nuclear = np.linalg.norm(fake_root.T @ real_root, "nuc")
    return float(mean @ mean + (fake_root**2).sum() + (real_root**2).sum() - 2 * nuclear)


def simulate(cell: Cell, repeats: int) -> list[Score]:
    """FVD of independent draws."""
    groups = Groups(np.arange(cell.clips) // cell.each, np.arange(cell.clips))
    rngs = (np.random.default_rng([seed, *map(ord, cell.kind)]) for seed in range(repeats))
    return [fvd.build().score(*draw(cell, rng), groups=groups) for rng in rngs]


def row(cell: Cell, scores: list[Score]) -> tuple[str, ...]:
    """Row of the table: the data, the share of scores with the note on heavy tails, and both coverages."""
    mean, truth = float(np.mean([score.value for score in scores])), true_distance(cell)
    covered = float(np.mean([score.low <= mean <= score.high for score in scores]))
    noted = float(np.mean([NOTE in score.note for score in scores]))
    kind = f"{cell.kind}{', alike' if cell.alike else ''}{f', {cell.each} clips a video' if cell.each > 1 else ''}"
    return kind, str(cell.clips), str(cell.dim), f"{noted:.1%}", f"{mean:.2f}", f"{covered:.1%}", *_limit(scores, truth)


def _limit(scores: list[Score], truth: float) -> tuple[str, str, str]:
    """True limit, mean of the extrapolated ones, and the coverage of their intervals."""
    limits = [(score.limit, score.limit_error) for score in scores]
    known = [(limit, error) for limit, error in limits if limit is not None and error is not None]
    if not known:
        return f"{truth:.2f}", "none", "none"
    covered = float(np.mean([abs(limit - truth) <= 1.96 * error for limit, error in known]))
    return f"{truth:.2f}", f"{float(np.mean([limit for limit, _ in known])):.2f}", f"{covered:.1%}"


def main() -> None:
    parser = make_parser(__doc__, repeats=400, output="results/coverage.md")
    arguments = parser.parse_args()
    rows: list[tuple[str, ...]] = [
        (
            "features",
            "N = M",
            "D",
            "noted",
            "mean FVD",
            "interval covers",
            "true limit",
            "mean limit",
            "interval covers",
        )
    ]
    for cell in CELLS:
        rows.append(row(cell, simulate(cell, arguments.repeats)))
        print("  ".join(rows[-1]), flush=True)
    Path(arguments.output).write_text(report(rows, arguments.repeats))


def report(rows: list[tuple[str, ...]], repeats: int) -> str:
    """Page with the command, the machine and the table."""
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    error = math.sqrt(0.95 * 0.05 / repeats)
    table = ["| " + " | ".join(each) + " |" for each in rows]
    table.insert(1, "|:--" + "|--:" * (len(rows[0]) - 1) + "|")
    lines = [
        "# Coverage of the 95 % intervals of FVD",
        "",
        f"Written by `python benchmarks/coverage.py --repeats {repeats}`: {facts}.",
        f"Each row has {repeats} draws, so that a share of 95 % has a standard error of {error:.1%}.",
        "Noted: scores with the note on heavy tails, whose intervals are 1.5 times as wide.",
        "",
        *table,
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
