"""What the four metrics of nearest neighbours share: score, interval, floor and paired test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from vfbench.interfaces import Better, Comparison, Groups, Score
from vfbench.metrics._two_sample import (
    Labels,
    check_paired,
    checked_pair,
    clusters,
    enough,
    floor,
    note,
    paired_remarks,
    remarks,
)
from vfbench.metrics._uncertainty import Influence, around, blocks, compared

HIGHER: Better = "higher"
BLOCKS = 32  # blocks of clips that are left out in turn: they give a standard error to about 13 %

Measure: TypeAlias = Callable[[np.ndarray, np.ndarray, int, Labels, Labels], Influence]


@dataclass(frozen=True)
class NeighbourMetric:
    """A measure of `metrics/_neighbours.py` as a metric.

    `minimum` 64: the balls of fewer clips are so wide that most clips are in some. All of these depend on N and on the
    number of real clips, each in its own way: compare only equal numbers. No limit is known, so none is given.

    The intervals are too wide rather than too narrow: whether a clip is counted depends on several others at once, and
    a jackknife counts that several times (Efron and Stein, Annals of Statistics 9, 1981). In simulations of two equally
    good models at N = 256 the error of the difference was 1.3 (recall) to 2.3 times (precision) the spread seen.
    """

    name: str
    title: str
    measure: Measure
    k: int
    better = HIGHER
    output = "features"
    minimum = 64

    def score(
        self,
        fake: Float[np.ndarray, "n _"],
        real: Float[np.ndarray, "m _"],
        *,
        holdout: Float[np.ndarray, "k _"] | None = None,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Score:
        """Score `fake` (N, D) against `real` (M, D); `floor` is that of real clips against real clips, a ceiling here.

        The standard error is that of a jackknife over blocks of whole clusters, both of generated and of real clips.
        Raises `UserError` for NaN or infinity, different widths, fewer than k + 2 clips on a side (of real clips twice
        as many), or groups that do not fit the clips.
        """
        least = self.k + 2
        fake, real = checked_pair(fake, real, self.title, least=least, least_real=2 * least)
        labels = clusters(groups, len(fake), len(real), self.title)
        found = self.measure(fake, real, self.k, *_blocks(labels, seed))
        base, base_n = floor(self._value, real, holdout, len(fake), labels=labels[1], seed=seed)
        said = note(enough(holdout, len(fake)), base_n, *remarks(fake, real, *labels))
        interval = around(found.value, found.error)
        return Score(found.value, *interval, base, len(real), len(fake), said, found.error)

    def compare(
        self,
        a: Float[np.ndarray, "n _"],
        b: Float[np.ndarray, "l _"],
        real: Float[np.ndarray, "m _"],
        *,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Comparison:
        """The score of `a` minus that of `b` (N, D), row i of both for the same request, against the same `real`.

        Tested by a joint jackknife: the same requests are left out of both, the same real clips for both.
        Raises `UserError` as `score` does, and where `a` and `b` have different shapes.
        """
        check_paired(a, b, self.title)
        least = self.k + 2
        (a, real), (b, _) = (checked_pair(each, real, self.title, least=least, least_real=least) for each in (a, b))
        labels = clusters(groups, len(a), len(real), self.title)
        parts = _blocks(labels, seed)
        difference = self.measure(a, real, self.k, *parts) - self.measure(b, real, self.k, *parts)
        return compared(difference.value, difference.error, *paired_remarks(a, b, real, *labels))

    def _value(self, fake: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"]) -> float:
        two = (np.arange(len(each)) % 2 for each in (fake, real))  # the fewest blocks: their jackknife is not used
        return self.measure(fake, real, self.k, *two).value


def _blocks(labels: tuple[Labels, Labels], seed: int) -> tuple[Labels, Labels]:
    rng = np.random.default_rng(seed)
    return blocks(labels[0], BLOCKS, rng), blocks(labels[1], BLOCKS, rng)
