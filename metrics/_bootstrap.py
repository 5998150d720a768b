"""What every score needs beside its formula: checked samples, an interval, a floor, and the note that explains them.

A statistic here is a function of one or two arrays whose rows are clips, the generated clips first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from vfbench.errors import UserError

REPEATS = 100  # resamples: they give a standard error to about 7 % (1 / sqrt(2 * 100))
SHUFFLES = 5  # random halves that the floor is averaged over
NORMAL_95 = 1.96  # half width of a 95 % interval in standard errors

Statistic = Callable[..., float]


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
    fake: np.ndarray, real: np.ndarray, place: str, *, least_real: int = 2
) -> tuple[Float[np.ndarray, "fakes dim"], Float[np.ndarray, "reals dim"]]:
    """Both samples `checked`; raises `UserError` naming `place` also if their widths differ."""
    fake = checked(fake, f"{place}: values of generated clips")
    real = checked(real, f"{place}: values of real clips", least=least_real)
    if fake.shape[1] != real.shape[1]:
        raise UserError(
            f"{place}: {fake.shape[1]} values per generated clip but {real.shape[1]} per real clip: "
            "extract both with the same extractor and protocol"
        )
    return fake, real


def draws(sizes: Sequence[int], *, repeats: int, seed: int) -> Iterator[tuple[Int[np.ndarray, " _"], ...]]:
    """`repeats` times the row numbers of one resample with replacement for each sample, drawn independently."""
    rng = np.random.default_rng(seed)
    for _ in range(repeats):
        yield tuple(_resample(rng, size) for size in sizes)


def _resample(rng: np.random.Generator, size: int) -> Int[np.ndarray, " {size}"]:
    assert size >= 2, "a single clip has no spread to resample"
    while True:  # a draw of one clip alone has no pairs of different clips, which the kernel distance needs
        rows = rng.integers(size, size=size)
        if (rows != rows[0]).any():
            return rows


def multiplicities(sizes: Sequence[int], *, repeats: int, seed: int) -> list[Float[np.ndarray, "repeats _"]]:
    """The same resamples as `draws`, as how often each row occurs: one (repeats, size) array per sample."""
    columns = zip(*draws(sizes, repeats=repeats, seed=seed), strict=True)
    return [
        np.stack([np.bincount(rows, minlength=size) for rows in column]).astype(np.float64)
        for size, column in zip(sizes, columns, strict=True)
    ]


def around(value: float, replicates: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """`value` -+ 1.96 standard deviations of `replicates`; see `interval`."""
    half = NORMAL_95 * float(np.std(replicates, ddof=1))
    return value - half, value + half


def interval(
    value: float, statistic: Statistic, arrays: Sequence[np.ndarray], *, repeats: int = REPEATS, seed: int
) -> tuple[float, float]:
    """The 95 % interval `value` -+ 1.96 bootstrap standard errors of `statistic(*arrays)`.

    The rows of each array are resampled with replacement, independently of the other arrays; the same seed gives the
    same interval. Percentiles of the resamples are not used: a resample holds only about 63 % of the clips, the rest
    are duplicates, so a Frechet distance of resamples is biased upward (and an Inception Score downward), and a
    percentile interval may not even contain the value. Their spread about their own centre suffers less. For the
    Frechet distance it still errs on the wide side where N is not much larger than D: on Gaussian features by about
    a tenth at N = 32 D and by a factor of up to two at N = 4 D. The interval covers the sampling error at this N, not
    the bias that N itself brings (which the floor shows), and its lower end may be negative.
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6 and 12.
    """
    sizes = [len(array) for array in arrays]
    replicates = [
        statistic(*(array[rows] for array, rows in zip(arrays, drawn, strict=True)))
        for drawn in draws(sizes, repeats=repeats, seed=seed)
    ]
    return around(value, replicates)


def floor(
    statistic: Statistic, real: np.ndarray, spare: np.ndarray | None, n_fake: int, *, repeats: int = SHUFFLES, seed: int
) -> tuple[float, int]:
    """What real clips score against the real clips, and the N at which they do: (value, n).

    `spare` real clips stand in for the generated ones, at the same N on both sides. Where there are fewer than
    `n_fake` of them, `real` is cut in two instead, n of it against the rest, and the mean over `repeats` seeded
    shuffles is taken: a distance that is biased upward at small N then has a floor that is too high, which `note` says.
    Raises `UserError` for fewer than four real clips, two on each side.
    """
    if len(real) < 4:
        raise UserError(f"floor: {len(real)} real clips, and at least 4 are needed to split them: load more real clips")
    if spare is not None and enough(spare, n_fake):
        return statistic(checked(spare[:n_fake], "floor: values of spare real clips"), real), n_fake
    n = min(n_fake, len(real) // 2)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(real)) for _ in range(repeats)]
    return float(np.mean([statistic(real[order[:n]], real[order[n:]]) for order in orders])), n


def note(whole: bool, floor_n: int, *more: str) -> str:
    """The note of a score: a floor that is not `whole`, and whatever `more` the metric has to say; often nothing."""
    said = [] if whole else [f"floor at N = {floor_n}: too few real clips for more"]
    return "; ".join((*said, *more))


def enough(spare: np.ndarray | None, n_fake: int) -> bool:
    """Whether the floor can be had at the N of the score."""
    return spare is not None and len(spare) >= n_fake
