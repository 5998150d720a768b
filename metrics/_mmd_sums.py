"""The kernel distance and its standard error, from sums of kernel values over pairs of clusters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from vfbench.errors import UserError
from vfbench.metrics._uncertainty import of_leave_outs

BLOCK = 1024  # rows of kernel values held at once, or those of one larger cluster: 80 MB against 10,000 clips

Rows: TypeAlias = Callable[[slice], np.ndarray]
Sizes: TypeAlias = Int[np.ndarray, " _"]


@dataclass(frozen=True)
class Pairs:
    """The kernel values of some rows of x with all x, of some rows of x with all y, of some rows of y with all y."""

    xx: Rows
    xy: Rows
    yy: Rows


@dataclass(frozen=True, eq=False)
class KernelSums:
    """All that the distance needs of the kernel values, by cluster: from one pass over the pairs.

    An estimator says which pairs of one sample count: `biased` all, `unbiased` all but those of a clip with itself,
    `independent` those of different clusters.
    """

    x: _Within
    y: _Within
    cross: _Across

    @classmethod
    def of(cls, pairs: Pairs, x_sizes: Sizes, y_sizes: Sizes) -> KernelSums:
        """The rows of each sample are sorted by cluster, of which these are the sizes."""
        x, y = _Within.of(pairs.xx, x_sizes), _Within.of(pairs.yy, y_sizes)
        return cls(x, y, _Across.of(pairs.xy, x_sizes, y_sizes))

    def distance(self, estimator: str) -> float:
        """The mean over pairs of x, plus that of y, less twice that of x with y."""
        cross = self.cross.rows.sum() / (self.x.clips * self.y.clips)
        return self.x.mean(estimator) + self.y.mean(estimator) - 2.0 * float(cross)

    def error(self, estimator: str) -> float:
        """The standard error of the distance, clusters being independent.

        The variance is that of the delete-one-cluster jackknife, exact and on both samples, less a part that it counts
        twice: what depends on two clusters at once (Efron and Stein, Annals of Statistics 9, 1981). That part is most
        of the variance where the two samples are alike. It is the mean square of the kernel values centred on both
        sides, unbiased (Szekely and Rizzo, Annals of Statistics 42, 2014), and the least that is left.
        Raises `UserError` where too few clips are left without some cluster.
        """
        jackknife = of_leave_outs(self.distance(estimator), *self._leave_outs(estimator)).error ** 2
        n, m = self.x.clips, self.y.clips
        second = self.x.second_order(estimator) + self.y.second_order(estimator)
        second += 4.0 * self.cross.interaction / (n * m) ** 2
        return math.sqrt(max(jackknife - second, second))

    def _leave_outs(self, estimator: str) -> tuple[Float[np.ndarray, " xs"], Float[np.ndarray, " ys"]]:
        """The distance without each cluster of x in turn, and without each of y."""
        x, y, cross = self.x, self.y, self.cross
        total = cross.rows.sum()
        cross_x = (total - cross.rows) / ((x.clips - x.sizes) * y.clips)
        cross_y = (total - cross.columns) / ((y.clips - y.sizes) * x.clips)
        without_x = x.means_without(estimator) + y.mean(estimator) - 2.0 * cross_x
        return without_x, y.means_without(estimator) + x.mean(estimator) - 2.0 * cross_y


@dataclass(frozen=True, eq=False)
class _Within:
    """Kernel values of one sample: sums over pairs with each cluster, within it, and of its clips with themselves.

    `squares` is the sum of squares of the sums S_ab over pairs of clusters, a = b left out.
    """

    sizes: Float[np.ndarray, " clusters"]
    touching: Float[np.ndarray, " clusters"]
    inside: Float[np.ndarray, " clusters"]
    diagonal: Float[np.ndarray, " clusters"]
    squares: float

    @classmethod
    def of(cls, values: Rows, sizes: Sizes) -> _Within:
        touching, inside, own, squares = [], [], [], 0.0
        for rows, clusters, block in _blocks(values, sizes):
            sums = _by_cluster(block, sizes[clusters], sizes)
            touching.append(sums.sum(axis=1))
            inside.append(sums.diagonal(offset=clusters.start))
            own.append(block.diagonal(offset=rows.start))
            squares += float((sums**2).sum() - (inside[-1] ** 2).sum())
        diagonal = np.add.reduceat(np.concatenate(own), _starts(sizes))
        return cls(sizes.astype(np.float64), np.concatenate(touching), np.concatenate(inside), diagonal, squares)

    @property
    def clips(self) -> float:
        return float(self.sizes.sum())

    def mean(self, estimator: str) -> float:
        """The mean over the pairs that count."""
        return float((self.touching.sum() - self._skipped(estimator)[0].sum()) / self._pairs(estimator))

    def means_without(self, estimator: str) -> Float[np.ndarray, " clusters"]:
        """The same without each cluster in turn."""
        skipped, number = self._skipped(estimator)
        sums = self.touching.sum() - 2.0 * self.touching + self.inside - (skipped.sum() - skipped)
        pairs = (self.clips - self.sizes) ** 2 - (number.sum() - number)
        if pairs.min() <= 0:
            raise UserError(
                f"kernel distance: of {self.clips:g} clips too few are left without the largest group for a standard "
                "error: use more prompts or source videos"
            )
        return np.asarray(sums / pairs)

    def second_order(self, estimator: str) -> float:
        """The variance of the mean that comes from two clusters at once; 0 of fewer than 4, which do not tell it."""
        number, sums = len(self.sizes), self.touching - self.inside
        if number < 4:
            return 0.0
        centred = self.squares - 2.0 * (sums**2).sum() / (number - 2)
        centred += sums.sum() ** 2 / ((number - 1) * (number - 2))
        return 2.0 * max(float(centred), 0.0) * (number - 1) / (number - 3) / self._pairs(estimator) ** 2

    def _pairs(self, estimator: str) -> float:
        return float(self.clips**2 - self._skipped(estimator)[1].sum())

    def _skipped(self, estimator: str) -> tuple[Float[np.ndarray, " clusters"], Float[np.ndarray, " clusters"]]:
        """Of the pairs within each cluster that do not count: the sum, and the number."""
        skipped = {
            "biased": (np.zeros_like(self.sizes), np.zeros_like(self.sizes)),
            "unbiased": (self.diagonal, self.sizes),
            "independent": (self.inside, self.sizes**2),
        }
        return skipped[estimator]


@dataclass(frozen=True, eq=False)
class _Across:
    """Kernel values of two samples: sums with each cluster of x, with each of y, and of squares as in `_Within`."""

    rows: Float[np.ndarray, " xs"]
    columns: Float[np.ndarray, " ys"]
    squares: float

    @classmethod
    def of(cls, values: Rows, x_sizes: Sizes, y_sizes: Sizes) -> _Across:
        rows, columns, squares = [], np.zeros(len(y_sizes)), 0.0
        for _, clusters, block in _blocks(values, x_sizes):
            sums = _by_cluster(block, x_sizes[clusters], y_sizes)
            rows.append(sums.sum(axis=1))
            columns += sums.sum(axis=0)
            squares += float((sums**2).sum())
        return cls(np.concatenate(rows), columns, squares)

    @property
    def interaction(self) -> float:
        """G H times the variance of the sums over pairs of clusters, centred on both sides, of G and H clusters."""
        g, h = len(self.rows), len(self.columns)
        centred = self.squares - (self.rows**2).sum() / h - (self.columns**2).sum() / g
        centred += self.rows.sum() ** 2 / (g * h)
        return max(float(centred), 0.0) * g * h / ((g - 1) * (h - 1))


def _blocks(values: Rows, sizes: Sizes) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """The kernel values of some rows at a time, to bound the memory: the rows, their whole clusters, the values."""
    edges, first = np.concatenate([[0], np.cumsum(sizes)]), 0
    while first < len(sizes):
        last = max(first + 1, int(np.searchsorted(edges, edges[first] + BLOCK, side="right")) - 1)
        rows = slice(int(edges[first]), int(edges[last]))
        yield rows, slice(first, last), values(rows)
        first = last


def _by_cluster(block: np.ndarray, row_sizes: Sizes, column_sizes: Sizes) -> Float[np.ndarray, "rows columns"]:
    """The sums of a block of values over pairs of clusters."""
    columns = np.add.reduceat(block, _starts(column_sizes), axis=1)
    return np.asarray(np.add.reduceat(columns, _starts(row_sizes), axis=0))


def _starts(sizes: Sizes) -> Any:
    """Where each cluster begins."""
    return np.cumsum(sizes) - sizes
