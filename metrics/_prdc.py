"""Precision, recall, density and coverage: which clips lie within the nearest-neighbour balls of the others.

The ball of a clip reaches to its k-th nearest neighbour among the other clips of its own sample.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from vfbench.errors import UserError
from vfbench.metrics._two_sample import Labels, count, members, totals
from vfbench.metrics._uncertainty import Influence, of_leave_outs

ROWS = 512  # rows of the distance matrix held at once
ROUNDING = 1e-13  # squared distances below this part of the squared lengths are 0: the same clip twice
NO_BALL = -1.0


def check_k(k: int) -> None:
    """Raise `UserError` unless there is at least one neighbour."""
    if k < 1:
        raise UserError(f"k = {k}: a ball reaches to the k-th nearest neighbour, k from 1; usual are 3 and 5")


def precision(
    fake: Float[np.ndarray, "n dim"], real: Float[np.ndarray, "m dim"], k: int, fake_blocks: Labels, real_blocks: Labels
) -> Influence:
    """The share of `fake` (N, D) within some ball of `real` (M, D), in 0..1: Kynkaanniemi et al., arXiv 1904.06991.

    Like all of these, with the jackknife that leaves out each block of clips in turn, exactly.
    """
    return _mean_over(_balls_around(fake, real, k, real_blocks) > 0, fake_blocks)


def recall(
    fake: Float[np.ndarray, "n dim"], real: Float[np.ndarray, "m dim"], k: int, fake_blocks: Labels, real_blocks: Labels
) -> Influence:
    """The share of `real` (M, D) within some ball of `fake` (N, D), in 0..1: precision with the roles exchanged."""
    swapped = precision(real, fake, k, real_blocks, fake_blocks)
    return Influence(swapped.value, swapped.real, swapped.fake)


def density(
    fake: Float[np.ndarray, "n dim"], real: Float[np.ndarray, "m dim"], k: int, fake_blocks: Labels, real_blocks: Labels
) -> Influence:
    """1 / k times the mean number of balls of `real` (M, D) that a row of `fake` (N, D) lies in, in 0..M / k.

    Unlike precision it is not carried by a single far real clip: Naeem et al., arXiv 2002.09797, eq. 4.
    """
    return _mean_over(_balls_around(fake, real, k, real_blocks) / k, fake_blocks)


def coverage(
    fake: Float[np.ndarray, "n dim"], real: Float[np.ndarray, "m dim"], k: int, fake_blocks: Labels, real_blocks: Labels
) -> Influence:
    """The share of `real` (M, D) with some of `fake` (N, D) within their ball, in 0..1: Naeem et al., eq. 5."""
    radii = _nearest(real, real, k, real_blocks, same=True)
    closest = _nearest(real, fake, 1, fake_blocks)
    without_fake = (closest[1:] <= radii[0]).mean(axis=1)
    without_real = [(closest[0] <= radius)[real_blocks != block].mean() for block, radius in enumerate(radii[1:])]
    return of_leave_outs(float((closest[0] <= radii[0]).mean()), without_fake, np.array(without_real))


def _mean_over(values: np.ndarray, fake_blocks: Labels) -> Influence:
    """The mean over generated clips of values (1 + blocks, N): of all real clips, and without each block of them."""
    every = values[0].astype(np.float64)
    left = len(every) - np.bincount(fake_blocks)
    without_fake = (every.sum() - totals(every, fake_blocks)) / left
    return of_leave_outs(float(every.mean()), without_fake, values[1:].mean(axis=1))


def _balls_around(
    points: Float[np.ndarray, "n dim"], centres: Float[np.ndarray, "m dim"], k: int, blocks: Labels
) -> Int[np.ndarray, "cases n"]:
    """How many balls each point lies in: those of all centres, and of all without each block (1 + blocks, N)."""
    radii = _nearest(centres, centres, k, blocks, same=True)
    for block in range(count(blocks)):
        radii[1 + block, blocks == block] = NO_BALL
    found = [
        np.stack([(distances <= radius).sum(axis=1) for radius in radii]) for distances in _distances(points, centres)
    ]
    return np.concatenate(found, axis=1)


def _nearest(
    points: Float[np.ndarray, "n dim"],
    others: Float[np.ndarray, "m dim"],
    k: int,
    blocks: Labels,
    *,
    same: bool = False,
) -> Float[np.ndarray, "cases n"]:
    """The squared distance of each point from its k-th nearest of all others, and of all without each block of them.

    With `same` the points are the others, and none is its own neighbour. Raises `UserError` where too few are left.
    """
    columns, found, start = members(blocks), [], 0
    for distances in _distances(points, others):
        if same:
            distances[np.arange(len(distances)), start + np.arange(len(distances))] = np.inf
        # Whatever block is left out, the k nearest are among the k nearest of every other block.
        least = np.stack([_smallest(distances[:, each], k) for each in columns])
        found.append(_without_each(least))
        start += len(distances)
    nearest = np.concatenate(found, axis=1)
    if not np.isfinite(nearest).all():
        raise UserError(
            f"k = {k}: without the largest group fewer than {k} of {len(others)} clips are left to be neighbours: "
            "use more prompts or source videos"
        )
    return nearest


def _smallest(values: Float[np.ndarray, "n m"], k: int) -> Float[np.ndarray, "n k"]:
    """The k smallest of each row in any order, infinity where there are fewer."""
    if values.shape[1] <= k:
        return np.pad(values, ((0, 0), (0, k - values.shape[1])), constant_values=np.inf)
    return np.partition(values, k - 1, axis=1)[:, :k]


def _without_each(least: Float[np.ndarray, "blocks n k"]) -> Float[np.ndarray, "cases n"]:
    """The k-th smallest over all blocks, and over all but each."""
    k = least.shape[2]
    cases = [np.delete(least, [block], axis=0) if block >= 0 else least for block in range(-1, len(least))]
    return np.stack([_smallest(np.concatenate(list(case), axis=1), k).max(axis=1) for case in cases])


def _distances(x: Float[np.ndarray, "n dim"], y: Float[np.ndarray, "m dim"]) -> Iterator[Float[np.ndarray, "rows m"]]:
    """The squared distances of all pairs, some rows of x at a time to bound the memory."""
    centre = y.mean(axis=0)  # long vectors would cost digits
    x, y = x - centre, y - centre
    squares = (y**2).sum(axis=1)
    for start in range(0, len(x), ROWS):
        rows = x[start : start + ROWS]
        scale = (rows**2).sum(axis=1)[:, None] + squares
        distances = scale - 2.0 * (rows @ y.T)
        yield np.where(distances < ROUNDING * scale, 0.0, distances)
