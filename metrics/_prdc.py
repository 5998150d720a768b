"""Precision, recall, density and coverage from nearest-neighbour balls.

`fake` (N, D) and `real` (M, D) are features. The ball of a clip is centred on its features and reaches to its k-th
nearest neighbour in its own sample, without the edge, as in the package `prdc`: a copy of that neighbour lies outside.
Each measure comes with an exact jackknife: clips are left out block by block, and `fake_blocks` (N,) and `real_blocks`
(M,) give the number of each clip's block, from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from vfbench.errors import UserError
from vfbench.metrics._two_sample import Labels, cluster_rows, cluster_sums, num_clusters
from vfbench.metrics._uncertainty import Influence, influence_from_jackknife

CHUNK_ROWS = 512  # rows of the distance matrix in memory
RELATIVE_TOLERANCE = 1e-13  # rounding of a squared distance, relative to the squared norms
NO_BALL = -1.0  # radius of an excluded centre

Neighbours: TypeAlias = Annotated[int, "Number of the neighbour that the ball of a clip reaches to."]


def check_k(k: int) -> None:
    """Raise `UserError` unless `k`, the number of neighbours, is at least 1."""
    if k < 1:
        raise UserError(f"k = {k}: the number of neighbours is at least 1, usually 3 or 5")


def precision(
    fake: Float[np.ndarray, "n dim"], real: Float[np.ndarray, "m dim"], k: int, fake_blocks: Labels, real_blocks: Labels
) -> Influence:
    """Fraction of generated clips in the ball of a real clip, in 0..1: Kynkaanniemi et al., arXiv 1904.06991."""
    return _mean_over(_count_balls(fake, real, k, real_blocks) > 0, fake_blocks)


def recall(
    fake: Float[np.ndarray, "n dim"], real: Float[np.ndarray, "m dim"], k: int, fake_blocks: Labels, real_blocks: Labels
) -> Influence:
    """Fraction of real clips that lie in the ball of a generated clip, in 0..1: precision with exchanged roles."""
    swapped = precision(real, fake, k, real_blocks, fake_blocks)
    return Influence(swapped.value, swapped.real, swapped.fake)


def density(
    fake: Float[np.ndarray, "n dim"], real: Float[np.ndarray, "m dim"], k: int, fake_blocks: Labels, real_blocks: Labels
) -> Influence:
    """Mean over generated clips of the number of real clips whose ball contains them, divided by k; in 0..M / k.

    Less sensitive to a single outlier in `real` than precision: Naeem et al., arXiv 2002.09797, eq. 4.
    """
    return _mean_over(_count_balls(fake, real, k, real_blocks) / k, fake_blocks)


def coverage(
    fake: Float[np.ndarray, "n dim"], real: Float[np.ndarray, "m dim"], k: int, fake_blocks: Labels, real_blocks: Labels
) -> Influence:
    """Fraction of real clips whose ball contains at least one generated clip, in 0..1: Naeem et al., eq. 5."""
    radii = _kth_distances(real, real, k, real_blocks, same=True)
    closest = _kth_distances(real, fake, 1, fake_blocks)
    without_fake = (closest[1:] < radii[0]).mean(axis=1)
    without_real = [(closest[0] < radius)[real_blocks != block].mean() for block, radius in enumerate(radii[1:])]
    return influence_from_jackknife(float((closest[0] < radii[0]).mean()), without_fake, np.array(without_real))


def _mean_over(values: np.ndarray, fake_blocks: Labels) -> Influence:
    """Mean of values (1 + blocks, N) over generated clips; row 0 uses all real clips, row 1 + i all but block i."""
    full = values[0].astype(np.float64)
    num_remaining = len(full) - np.bincount(fake_blocks)
    without_fake = (full.sum() - cluster_sums(full, fake_blocks)) / num_remaining
    return influence_from_jackknife(float(full.mean()), without_fake, values[1:].mean(axis=1))


def _count_balls(
    points: Float[np.ndarray, "n dim"], centres: Float[np.ndarray, "m dim"], k: int, blocks: Labels
) -> Int[np.ndarray, "cases n"]:
    """Number of balls around each point (1 + blocks, N); row 0 for all centres, row 1 + i for all but block i."""
    radii = _kth_distances(centres, centres, k, blocks, same=True)
    for block in range(num_clusters(blocks)):
        radii[1 + block, blocks == block] = NO_BALL
    counts = [
        np.stack([(distances < radius).sum(axis=1) for radius in radii])
        for distances in _squared_distances(points, centres, rounded_up=True)
    ]
    return np.concatenate(counts, axis=1)


def _kth_distances(
    points: Float[np.ndarray, "n dim"],
    others: Float[np.ndarray, "m dim"],
    k: int,
    blocks: Labels,
    *,
    same: bool = False,
) -> Float[np.ndarray, "cases n"]:
    """Squared distance of each point to its k-th nearest of `others` (1 + blocks, N); row 1 + i leaves out block i.

    With `same`, `others` are the points themselves, and no point is its own neighbour; else the distances are rounded
    up, to compare them with radii. Raises `UserError` if fewer than k neighbours remain.
    """
    columns, chunks, start = cluster_rows(blocks), [], 0
    for distances in _squared_distances(points, others, rounded_up=not same):
        if same:
            distances[np.arange(len(distances)), start + np.arange(len(distances))] = np.inf
        # Without any one block, the k nearest are among the k nearest of each other block.
        nearest_by_block = np.stack([_k_smallest(distances[:, each], k) for each in columns])
        chunks.append(_leave_one_block_out(nearest_by_block))
        start += len(distances)
    nearest = np.concatenate(chunks, axis=1)
    if not np.isfinite(nearest).all():
        raise UserError(
            f"k = {k}: fewer than {k} of {len(others)} clips remain as neighbours without the largest group: "
            "use more prompts or source videos"
        )
    return nearest


def _k_smallest(values: Float[np.ndarray, "n m"], k: int) -> Float[np.ndarray, "n k"]:
    """Smallest k values of each row, unordered, padded with infinity."""
    if values.shape[1] <= k:
        return np.pad(values, ((0, 0), (0, k - values.shape[1])), constant_values=np.inf)
    return np.partition(values, k - 1, axis=1)[:, :k]


def _leave_one_block_out(nearest: Float[np.ndarray, "blocks n k"]) -> Float[np.ndarray, "cases n"]:
    """Values at rank k over all blocks (row 0), and over all but block i (row 1 + i)."""
    k = nearest.shape[2]
    cases = [nearest, *(np.delete(nearest, [block], axis=0) for block in range(len(nearest)))]
    return np.stack([_k_smallest(np.concatenate(list(case), axis=1), k).max(axis=1) for case in cases])


def _squared_distances(
    x: Float[np.ndarray, "n dim"], y: Float[np.ndarray, "m dim"], *, rounded_up: bool
) -> Iterator[Float[np.ndarray, "rows m"]]:
    """Squared distances of all pairs, in chunks of rows of x to bound the memory.

    With `rounded_up` they are at least the exact ones, so that a point on the edge of a ball never falls inside.
    """
    centre = y.mean(axis=0)  # centring limits cancellation
    x, y = x - centre, y - centre
    squares = (y**2).sum(axis=1)
    for start in range(0, len(x), CHUNK_ROWS):
        rows = x[start : start + CHUNK_ROWS]
        scale = (rows**2).sum(axis=1)[:, None] + squares
        distances, rounding = scale - 2.0 * (rows @ y.T), RELATIVE_TOLERANCE * scale
        yield np.where(distances < rounding, 0.0, distances) + (rounding if rounded_up else 0.0)
