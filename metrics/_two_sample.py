"""Two-sample helpers of all metrics: input validation, cluster labels, real-data floor and notes.

A statistic is a function of one or two arrays whose rows are clips, the generated clips first.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from vfbench.errors import UserError
from vfbench.interfaces import Groups

REAL_FLOOR = "the floor is the real clips' own score"  # note of metrics that need no real clips
NUM_SHUFFLES = 5  # random splits of the real clips; the floor is their mean
LARGEST, SMALLEST = 1e60, 1e-60  # sizes of values whose fourth powers, in intervals, float64 can hold
MIN_STEPS = 32  # smallest spread of values, in rounding steps of their type: rounding then moves a score 0.1 % at most
MAX_CONSTANT = 1e6  # largest constant value: the rounding error of the mean of a larger one changes the score
MIN_SPLIT = 4  # real clips that can be split in two samples
FEW_CLUSTERS = 20  # with fewer clusters a standard error has a relative error of 15 % or more

Statistic = Callable[..., float]
Labels = Int[np.ndarray, " _"]


def validate(values: np.ndarray, context: str, *, min_rows: int = 2) -> Float[np.ndarray, "rows dim"]:
    """Float64 copy (N, D) of `values`, or `values` itself if already float64; the input is never changed.

    Raises `UserError`, which begins with `context`, unless the array is 2-D, finite, of a size that float64 can compute
    with, and has a column and at least `min_rows` rows.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise UserError(f"{context} have shape {array.shape}: give one row per clip and at least one column, (N, D)")
    if len(array) < min_rows:
        raise UserError(
            f"{context} have {len(array)} rows, and at least {min_rows} are needed: generate or load more clips"
        )
    bad_rows = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad_rows):
        raise UserError(
            f"{context} hold NaN or infinity in {len(bad_rows)} of {len(array)} rows, the first is row {bad_rows[0]}: "
            "fix that clip or its extractor, and extract again"
        )
    largest = float(np.abs(array).max())
    if largest and not SMALLEST < largest < LARGEST:
        raise UserError(
            f"{context} reach {largest:.3g}, and float64 computes only with {SMALLEST:g} to {LARGEST:g}: "
            "scale real and generated ones by the same number, or extract them again"
        )
    return array


def validate_pair(
    fake: np.ndarray, real: np.ndarray, context: str, *, min_rows: int = 2, min_real: int = 2
) -> tuple[Float[np.ndarray, "fakes dim"], Float[np.ndarray, "reals dim"]]:
    """Both samples after `validate`; also raises `UserError` for other widths, and a spread lost in rounding errors."""
    precision = max(_precision(fake), _precision(real))
    fake = validate(fake, f"{context}: values of generated clips", min_rows=min_rows)
    real = validate(real, f"{context}: values of real clips", min_rows=min_real)
    if fake.shape[1] != real.shape[1]:
        raise UserError(
            f"{context}: {fake.shape[1]} values per generated clip but {real.shape[1]} per real clip: "
            "extract both with the same extractor and protocol"
        )
    _require_digits(fake, real, precision, context)
    return fake, real


def _precision(values: np.ndarray) -> float:
    """Relative rounding error of values of this type."""
    dtype = np.asarray(values).dtype
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0


def _require_digits(
    fake: Float[np.ndarray, "fakes dim"], real: Float[np.ndarray, "reals dim"], precision: float, context: str
) -> None:
    """Raise `UserError` where an offset is so large that values vary by little more than their rounding error."""
    lowest, highest = (
        edge(np.stack([edge(side, axis=0) for side in (fake, real)]), axis=0) for edge in (np.min, np.max)
    )
    spread, size = highest - lowest, np.maximum(np.abs(lowest), np.abs(highest))
    varying = spread > 0
    rounding = precision * float(np.linalg.norm(size[varying]))
    if np.linalg.norm(spread) < MIN_STEPS * rounding or (not varying.any() and size.max() > MAX_CONSTANT):
        raise UserError(
            f"{context}: values of size {size.max():.3g} differ by {spread.max():.3g} at most, which leaves too few "
            "digits: subtract one offset from real and generated ones in float64, or extract them again"
        )


def check_paired(a: np.ndarray, b: np.ndarray, context: str) -> None:
    """Raise `UserError` unless the arrays of the two models have one shape, (N, D), with one row per request."""
    if np.shape(a) != np.shape(b):
        raise UserError(
            f"{context}: the values to compare have shapes {np.shape(a)} and {np.shape(b)}, but row i of both must "
            "answer the same request: run both models with the same prompts and --num-samples"
        )


def cluster_labels(groups: Groups | None, fakes: int, reals: int, context: str) -> tuple[Labels, Labels]:
    """Cluster of each generated and of each real clip, numbered from 0; without `groups` each clip is a cluster.

    Raises `UserError` unless there is one number per clip and at least two clusters.
    """
    if groups is None:
        return np.arange(fakes), np.arange(reals)
    fake = _labels(groups.fake, fakes, f"{context}: groups of generated clips")
    return fake, _labels(groups.real, reals, f"{context}: groups of real clips")


def _labels(numbers: np.ndarray, rows: int, context: str) -> Labels:
    if len(numbers) != rows:
        raise UserError(f"{context} are {len(numbers)} numbers for {rows} clips: give one for each clip")
    distinct, labels = np.unique(numbers, return_inverse=True)
    if len(distinct) < 2:
        raise UserError(f"{context} put all {rows} clips into one: use at least 2 prompts or source videos")
    return np.asarray(labels)


def num_clusters(labels: Labels) -> int:
    """Number of clusters."""
    return int(labels.max()) + 1


def cluster_sums(values: Float[np.ndarray, " n"], labels: Labels) -> Float[np.ndarray, " clusters"]:
    """Sum of `values` over each cluster."""
    return np.bincount(labels, weights=values)


def cluster_rows(labels: Labels) -> list[Int[np.ndarray, " _"]]:
    """Row indices of each cluster."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.cumsum(np.bincount(labels))[:-1])


def shuffle_clusters(labels: Labels, rng: np.random.Generator) -> Int[np.ndarray, " _"]:
    """All row indices, clusters in random order and each cluster contiguous."""
    return np.argsort(rng.permutation(num_clusters(labels))[labels], kind="stable")


def floor(
    statistic: Statistic,
    real: np.ndarray,
    holdout: np.ndarray | None,
    n_fake: int,
    *,
    labels: Labels | None = None,
    repeats: int = NUM_SHUFFLES,
    seed: int,
) -> tuple[float, int]:
    """Score of real clips against real clips, and the N at which it was computed: (value, n).

    `n_fake` clips of `holdout`, other real clips, replace the generated ones. If `holdout` is too small, `real` is
    split instead, n against the rest, and the value is the mean over `repeats` seeded shuffles. A distance that is
    biased upward at small N then has a floor that is too high; `join_notes` records this. Clips of one cluster
    (`labels`) stay on one side, except for the cluster at the split. Fewer than four real clips cannot be split, two to
    each side: the value is NaN then, and n is 0.
    """
    if holdout is not None and holdout_suffices(holdout, n_fake):
        return statistic(validate(holdout[:n_fake], "floor: values of holdout real clips"), real), n_fake
    if len(real) < MIN_SPLIT:
        return math.nan, 0
    n = min(n_fake, len(real) // 2)
    rng = np.random.default_rng(seed)
    orders = [shuffle_clusters(np.arange(len(real)) if labels is None else labels, rng) for _ in range(repeats)]
    return float(np.mean([statistic(real[order[:n]], real[order[n:]]) for order in orders])), n


def holdout_suffices(holdout: np.ndarray | None, n_fake: int) -> bool:
    """True where `holdout` has at least `n_fake` clips: the floor then uses as many clips as the score."""
    return holdout is not None and len(holdout) >= n_fake


def join_notes(floor_at_same_n: bool, floor_n: int, *notes: str) -> str:
    """Note of a score: a warning unless `floor_at_same_n`, then `notes`; may be empty. `floor_n` 0 means no floor."""
    at_other_n = f"floor at N = {floor_n}: too few real clips for more" if floor_n else "no floor: too few real clips"
    floor_note = [] if floor_at_same_n else [at_other_n]
    return "; ".join((*floor_note, *notes))


def sample_notes(fake: np.ndarray, real: np.ndarray, fake_labels: Labels, real_labels: Labels) -> list[str]:
    """Notes for a score of `fake` against `real`: constant features, dependent clips, few clusters."""
    return [
        *_constant_value_notes("generated clips", fake),
        *cluster_notes("generated clips", fake_labels),
        *_constant_value_notes("real clips", real),
        *cluster_notes("real clips", real_labels),
    ]


def paired_sample_notes(
    a: np.ndarray, b: np.ndarray, real: np.ndarray, fake_labels: Labels, real_labels: Labels
) -> list[str]:
    """Notes for a comparison of models A and B: constant features, dependent clips, few clusters.

    Row i of `a` and of `b` answers the same request, so both share `fake_labels`.
    """
    samples = {"clips of A": a, "clips of B": b, "real clips": real}
    constant = [note for kind, values in samples.items() for note in _constant_value_notes(kind, values)]
    return [*constant, *cluster_notes("generated clips", fake_labels), *cluster_notes("real clips", real_labels)]


def _constant_value_notes(kind: str, values: np.ndarray) -> list[str]:
    num_constant = int((values == values[0]).all(axis=0).sum())
    if num_constant == values.shape[1]:
        return [f"all {len(values)} {kind} have the same values"]
    return [f"{num_constant} of {values.shape[1]} values are the same for all {kind}"] if num_constant else []


def cluster_notes(kind: str, labels: Labels) -> list[str]:
    """Notes where clips are not independent, and where there are too few independent ones for a standard error."""
    number, notes = num_clusters(labels), []
    if number < len(labels):
        notes.append(f"{len(labels)} {kind} count as {number} independent ones")
    if number < FEW_CLUSTERS:
        notes.append(f"rough standard error: only {number} independent {kind}")
    return notes
