"""Kernel distance and its standard error, from sums of kernel values over pairs of clusters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from vfbench.errors import UserError
from vfbench.metrics._uncertainty import influence_from_jackknife

BLOCK_ROWS = 1024  # rows of kernel values in memory (more for a larger cluster): 80 MB against 10,000 clips

KernelRows: TypeAlias = Callable[[slice], np.ndarray]  # kernel values of some rows with all columns
Sizes: TypeAlias = Int[np.ndarray, " _"]  # clips in each cluster


@dataclass(frozen=True)
class PairKernels:
    """Kernel values of x with x, x with y, and y with y. Each is a function that computes a block of rows."""

    xx: KernelRows
    xy: KernelRows
    yy: KernelRows


@dataclass(frozen=True, eq=False)
class KernelSums:
    """Sums of kernel values by cluster, from one pass over all pairs of clips.

    The estimator selects the pairs within one sample: `biased` all, `unbiased` all but those of a clip with itself,
    `independent` those of different clusters.
    """

    x: _WithinSample
    y: _WithinSample
    cross: _CrossSample

    @classmethod
    def from_pairs(cls, pairs: PairKernels, x_sizes: Sizes, y_sizes: Sizes) -> KernelSums:
        """Sum the kernel values; the rows of each sample are sorted by cluster, with the given cluster sizes."""
        x, y = _WithinSample.from_pairs(pairs.xx, x_sizes), _WithinSample.from_pairs(pairs.yy, y_sizes)
        return cls(x, y, _CrossSample.from_pairs(pairs.xy, x_sizes, y_sizes))

    def distance(self, estimator: str) -> float:
        """Mean over pairs of x, plus mean over pairs of y, minus twice the mean over pairs of x and y."""
        cross = self.cross.rows.sum() / (self.x.clips * self.y.clips)
        return self.x.mean(estimator) + self.y.mean(estimator) - 2.0 * float(cross)

    def error(self, estimator: str) -> float:
        """Standard error of the distance for independent clusters.

        The variance is that of the exact delete-one-cluster jackknife over both samples, minus the second-order part,
        which the jackknife counts twice (Efron and Stein, Annals of Statistics 9, 1981). That part dominates if the two
        samples are alike. It is estimated by the unbiased mean square of the doubly centred kernel values (Szekely and
        Rizzo, Annals of Statistics 42, 2014), and is the lower bound of the result.
        Raises `UserError` if too few clips remain without some cluster.
        """
        jackknife = influence_from_jackknife(self.distance(estimator), *self._leave_one_out(estimator)).error ** 2
        n, m = self.x.clips, self.y.clips
        second_order = self.x.second_order(estimator) + self.y.second_order(estimator)
        second_order += 4.0 * self.cross.interaction / (n * m) ** 2
        return math.sqrt(max(jackknife - second_order, second_order))

    def _leave_one_out(self, estimator: str) -> tuple[Float[np.ndarray, " xs"], Float[np.ndarray, " ys"]]:
        """Distance without each cluster of x in turn, and without each cluster of y."""
        x, y, cross = self.x, self.y, self.cross
        total = cross.rows.sum()
        cross_x = (total - cross.rows) / ((x.clips - x.sizes) * y.clips)
        cross_y = (total - cross.columns) / ((y.clips - y.sizes) * x.clips)
        without_x = x.means_without(estimator) + y.mean(estimator) - 2.0 * cross_x
        return without_x, y.means_without(estimator) + x.mean(estimator) - 2.0 * cross_y


@dataclass(frozen=True, eq=False)
class _WithinSample:
    """Kernel sums of one sample, per cluster: all its pairs, pairs within it, pairs of a clip with itself.

    `squares` is the sum of squares of the sums S_ab over pairs of different clusters a and b.
    """

    sizes: Float[np.ndarray, " clusters"]
    row_sums: Float[np.ndarray, " clusters"]
    within_sums: Float[np.ndarray, " clusters"]
    self_sums: Float[np.ndarray, " clusters"]
    squares: float

    @classmethod
    def from_pairs(cls, values: KernelRows, sizes: Sizes) -> _WithinSample:
        row_sums, within_sums, self_values, squares = [], [], [], 0.0
        for rows, clusters, block in _kernel_blocks(values, sizes):
            sums = _cluster_pair_sums(block, sizes[clusters], sizes)
            row_sums.append(sums.sum(axis=1))
            within_sums.append(sums.diagonal(offset=clusters.start))
            self_values.append(block.diagonal(offset=rows.start))
            squares += float((sums**2).sum() - (within_sums[-1] ** 2).sum())
        self_sums = np.add.reduceat(np.concatenate(self_values), _cluster_starts(sizes))
        return cls(sizes.astype(np.float64), np.concatenate(row_sums), np.concatenate(within_sums), self_sums, squares)

    @property
    def clips(self) -> float:
        return float(self.sizes.sum())

    def mean(self, estimator: str) -> float:
        """Mean over the pairs of `estimator`."""
        return float((self.row_sums.sum() - self._excluded_pairs(estimator)[0].sum()) / self._num_pairs(estimator))

    def means_without(self, estimator: str) -> Float[np.ndarray, " clusters"]:
        """Mean over the pairs of `estimator`, without each cluster in turn."""
        excluded, number = self._excluded_pairs(estimator)
        sums = self.row_sums.sum() - 2.0 * self.row_sums + self.within_sums - (excluded.sum() - excluded)
        num_pairs = (self.clips - self.sizes) ** 2 - (number.sum() - number)
        if num_pairs.min() <= 0:
            raise UserError(
                f"kernel distance: too few of {self.clips:g} clips remain without the largest group, so there is no "
                "standard error: use more prompts or source videos"
            )
        return np.asarray(sums / num_pairs)

    def second_order(self, estimator: str) -> float:
        """Second-order variance of the mean, from pairs of clusters; 0 for fewer than 4 clusters."""
        number, sums = len(self.sizes), self.row_sums - self.within_sums
        if number < 4:
            return 0.0
        centred = self.squares - 2.0 * (sums**2).sum() / (number - 2)
        centred += sums.sum() ** 2 / ((number - 1) * (number - 2))
        return 2.0 * max(float(centred), 0.0) * (number - 1) / (number - 3) / self._num_pairs(estimator) ** 2

    def _num_pairs(self, estimator: str) -> float:
        return float(self.clips**2 - self._excluded_pairs(estimator)[1].sum())

    def _excluded_pairs(self, estimator: str) -> tuple[Float[np.ndarray, " clusters"], Float[np.ndarray, " clusters"]]:
        """Sum and number of the pairs within each cluster that `estimator` excludes."""
        excluded = {
            "biased": (np.zeros_like(self.sizes), np.zeros_like(self.sizes)),
            "unbiased": (self.self_sums, self.sizes),
            "independent": (self.within_sums, self.sizes**2),
        }
        return excluded[estimator]


@dataclass(frozen=True, eq=False)
class _CrossSample:
    """Kernel sums of x with y: per cluster of x, per cluster of y, and squared over pairs of clusters."""

    rows: Float[np.ndarray, " xs"]
    columns: Float[np.ndarray, " ys"]
    squares: float

    @classmethod
    def from_pairs(cls, values: KernelRows, x_sizes: Sizes, y_sizes: Sizes) -> _CrossSample:
        rows, columns, squares = [], np.zeros(len(y_sizes)), 0.0
        for _, clusters, block in _kernel_blocks(values, x_sizes):
            sums = _cluster_pair_sums(block, x_sizes[clusters], y_sizes)
            rows.append(sums.sum(axis=1))
            columns += sums.sum(axis=0)
            squares += float((sums**2).sum())
        return cls(np.concatenate(rows), columns, squares)

    @property
    def interaction(self) -> float:
        """Variance of the doubly centred sums over pairs of G and H clusters, times G H."""
        g, h = len(self.rows), len(self.columns)
        centred = self.squares - (self.rows**2).sum() / h - (self.columns**2).sum() / g
        centred += self.rows.sum() ** 2 / (g * h)
        return max(float(centred), 0.0) * g * h / ((g - 1) * (h - 1))


def _kernel_blocks(values: KernelRows, sizes: Sizes) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Kernel values in blocks of whole clusters, to bound the memory: (rows, clusters, values)."""
    edges, first = np.concatenate([[0], np.cumsum(sizes)]), 0
    while first < len(sizes):
        last = max(first + 1, int(np.searchsorted(edges, edges[first] + BLOCK_ROWS, side="right")) - 1)
        rows = slice(int(edges[first]), int(edges[last]))
        yield rows, slice(first, last), values(rows)
        first = last


def _cluster_pair_sums(block: np.ndarray, row_sizes: Sizes, column_sizes: Sizes) -> Float[np.ndarray, "rows columns"]:
    """Sums of a block of kernel values over pairs of clusters."""
    columns = np.add.reduceat(block, _cluster_starts(column_sizes), axis=1)
    return np.asarray(np.add.reduceat(columns, _cluster_starts(row_sizes), axis=0))


def _cluster_starts(sizes: Sizes) -> Any:
    """First row of each cluster."""
    return np.cumsum(sizes) - sizes
