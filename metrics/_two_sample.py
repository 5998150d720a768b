"""The two samples behind a score: checked, clustered, and with a floor and a note beside their number.

A statistic here is a function of one or two arrays whose rows are clips, the generated clips first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from vfbench.errors import UserError
from vfbench.interfaces import Groups

SHUFFLES = 5  # random halves that the floor is averaged over
FEW = 20  # clusters below which a standard error is itself known to no better than about 15 %

Statistic = Callable[..., float]
Labels = Int[np.ndarray, " _"]


def checked(values: np.ndarray, place: str, *, least: int = 2) -> Float[np.ndarray, "rows dim"]:
    """`values` as float64 (N, D), without touching the original.

    Raises `UserError` naming `place` if it is no matrix, has fewer than `least` rows, no column, or NaN or infinity.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise UserError(f"{place} have shape {array.shape}: give one row per clip and at least one column, (N, D)")
    if len(array) < least:
        raise UserError(f"{place} have {len(array)} rows, and at least {least} are needed: generate or load more clips")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise UserError(
            f"{place} hold NaN or infinity in {len(bad)} of {len(array)} rows, the first is row {bad[0]}: "
            "that clip or its extractor is broken; mend it and extract again"
        )
    return array


def checked_pair(
    fake: np.ndarray, real: np.ndarray, place: str, *, least: int = 2, least_real: int = 2
) -> tuple[Float[np.ndarray, "fakes dim"], Float[np.ndarray, "reals dim"]]:
    """Both samples `checked`; raises `UserError` naming `place` also if their widths differ."""
    fake = checked(fake, f"{place}: values of generated clips", least=least)
    real = checked(real, f"{place}: values of real clips", least=least_real)
    if fake.shape[1] != real.shape[1]:
        raise UserError(
            f"{place}: {fake.shape[1]} values per generated clip but {real.shape[1]} per real clip: "
            "extract both with the same extractor and protocol"
        )
    return fake, real


def check_paired(a: np.ndarray, b: np.ndarray, place: str) -> None:
    """Raise `UserError` naming `place` unless the two models have one row per request each, (N, D) both."""
    if np.shape(a) != np.shape(b):
        raise UserError(
            f"{place}: the values to compare have shapes {np.shape(a)} and {np.shape(b)}, but row i of both must "
            "answer the same request: run both models with the same prompts and --num-samples"
        )


def clusters(groups: Groups | None, fakes: int, reals: int, place: str) -> tuple[Labels, Labels]:
    """The cluster of each generated and of each real clip, numbered from 0; without `groups` each is its own.

    Raises `UserError` naming `place` where the numbers are not one a clip, or are the same for all clips.
    """
    if groups is None:
        return np.arange(fakes), np.arange(reals)
    fake = _labels(groups.fake, fakes, f"{place}: groups of generated clips")
    return fake, _labels(groups.real, reals, f"{place}: groups of real clips")


def _labels(numbers: np.ndarray, rows: int, place: str) -> Labels:
    if len(numbers) != rows:
        raise UserError(f"{place} are {len(numbers)} numbers for {rows} clips: give one for each clip")
    found, labels = np.unique(numbers, return_inverse=True)
    if len(found) < 2:
        raise UserError(f"{place} put all {rows} clips into one: their spread needs 2 prompts or source videos or more")
    return np.asarray(labels)


def count(labels: Labels) -> int:
    """How many clusters there are."""
    return int(labels.max()) + 1


def totals(values: Float[np.ndarray, " n"], labels: Labels) -> Float[np.ndarray, " clusters"]:
    """The sum of the values of each cluster."""
    return np.bincount(labels, weights=values)


def members(labels: Labels) -> list[Int[np.ndarray, " _"]]:
    """The rows of each cluster."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.cumsum(np.bincount(labels))[:-1])


def shuffled(labels: Labels, rng: np.random.Generator) -> Int[np.ndarray, " _"]:
    """All rows in random order, those of one cluster together."""
    return np.argsort(rng.permutation(count(labels))[labels], kind="stable")


def floor(
    statistic: Statistic,
    real: np.ndarray,
    holdout: np.ndarray | None,
    n_fake: int,
    *,
    labels: Labels | None = None,
    repeats: int = SHUFFLES,
    seed: int,
) -> tuple[float, int]:
    """What real clips score against the real clips, and the N at which they do: (value, n).

    `holdout` real clips stand in for the generated ones, at the same N on both sides. Where there are fewer than
    `n_fake` of them, `real` is cut in two instead, n of it against the rest, and the mean over `repeats` seeded
    shuffles is taken: a distance that is biased upward at small N then has a floor that is too high, which `note` says.
    Clips of one cluster (`labels`) stay on one side, but for the one that the cut goes through.
    Raises `UserError` for fewer than four real clips, two on each side.
    """
    if len(real) < 4:
        raise UserError(f"floor: {len(real)} real clips, and at least 4 are needed to split them: load more real clips")
    if holdout is not None and enough(holdout, n_fake):
        return statistic(checked(holdout[:n_fake], "floor: values of spare real clips"), real), n_fake
    n = min(n_fake, len(real) // 2)
    rng = np.random.default_rng(seed)
    orders = [shuffled(np.arange(len(real)) if labels is None else labels, rng) for _ in range(repeats)]
    return float(np.mean([statistic(real[order[:n]], real[order[n:]]) for order in orders])), n


def enough(holdout: np.ndarray | None, n_fake: int) -> bool:
    """Whether the floor can be had at the N of the score."""
    return holdout is not None and len(holdout) >= n_fake


def note(whole: bool, floor_n: int, *more: str) -> str:
    """The note of a score: a floor that is not `whole`, and whatever `more` the metric has to say; often nothing."""
    said = [] if whole else [f"floor at N = {floor_n}: too few real clips for more"]
    return "; ".join((*said, *more))


def remarks(fake: np.ndarray, real: np.ndarray, fake_labels: Labels, real_labels: Labels) -> list[str]:
    """What a reader must know about the samples themselves: values that never change, few or large clusters."""
    kinds = {"generated clips": (fake, fake_labels), "real clips": (real, real_labels)}
    return [
        said for kind, (values, labels) in kinds.items() for said in (*_still(kind, values), *_dependent(kind, labels))
    ]


def paired_remarks(
    a: np.ndarray, b: np.ndarray, real: np.ndarray, fake_labels: Labels, real_labels: Labels
) -> list[str]:
    """The same of the three samples of a comparison, A and B being the two models."""
    kinds = {"clips of A": a, "clips of B": b, "real clips": real}
    still = [said for kind, values in kinds.items() for said in _still(kind, values)]
    return [*still, *_dependent("generated clips", fake_labels), *_dependent("real clips", real_labels)]


def _still(kind: str, values: np.ndarray) -> list[str]:
    still = int((values == values[0]).all(axis=0).sum())
    if still == values.shape[1]:
        return [f"all {len(values)} {kind} have the same values"]
    return [f"{still} of {values.shape[1]} values are the same for all {kind}"] if still else []


def _dependent(kind: str, labels: Labels) -> list[str]:
    number, said = count(labels), []
    if number < len(labels):
        said.append(f"{len(labels)} {kind} are {number} independent ones")
    if number < FEW:
        said.append(f"the error rests on {number} independent {kind}, and is rough")
    return said
