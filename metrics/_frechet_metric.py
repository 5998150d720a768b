"""The Frechet distance of video features as a metric: score, interval, limit at infinite N, floor and paired test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vfbench.interfaces import Better, Comparison, Groups, Score
from vfbench.metrics import _extrapolate
from vfbench.metrics._frechet import frechet_distance, frechet_influence
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
from vfbench.metrics._uncertainty import Influence, around, compared, of_rows

LOWER: Better = "lower"
FOURFOLD = max(_extrapolate.PARTS)


@dataclass(frozen=True)
class FrechetMetric:
    """The Frechet distance of the features of clips, one row each: Unterthiner et al., arXiv 1812.01717.

    `minimum` 64: below it a covariance of a hundred or more features rests on too few clips to say anything, and even
    real clips score far from 0. FVD falls as N grows; compare only equal N, and read it against its floor, or compare
    its limits at infinite N.
    """

    name: str
    title: str
    ddof: int = 1
    better = LOWER
    output = "features"
    minimum = 64
    extrapolates = True  # to infinite N, where there are clips enough

    def score(
        self,
        fake: Float[np.ndarray, "n _"],
        real: Float[np.ndarray, "m _"],
        *,
        holdout: Float[np.ndarray, "k _"] | None = None,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Score:
        """Score `fake` (N, D) against `real` (M, D): a value >= 0; `floor` is that of real clips against real clips.

        The standard error is that of the influence function, without resampling. The limit is given where a quarter
        of each sample has a clip for every dimension, min(N, M) >= 4 D, and eight groups. For two samples of one
        distribution the interval around it is too wide: in simulations it held the truth in 100 %, not in 95 %.
        Raises `UserError` for NaN or infinity, different widths, fewer than 2 generated or 4 real clips, or groups that
        do not fit the clips.
        """
        fake, real = checked_pair(fake, real, self.title, least_real=4)
        labels = clusters(groups, len(fake), len(real), self.title)
        found = self._influence(fake, real, labels)
        limit = self._limit(found.value, fake, real, labels, seed)
        base, base_n = floor(self._distance, real, holdout, len(fake), labels=labels[1], seed=seed)
        return Score(
            found.value,
            *around(found.value, found.error),
            base,
            len(real),
            len(fake),
            note(
                enough(holdout, len(fake)),
                base_n,
                *self._warnings(fake, real, labels),
                *remarks(fake, real, *labels),
            ),
            found.error,
            *((limit.value, limit.error(found.error), len(fake) * (found.value - limit.value)) if limit else ()),
        )

    def compare(
        self,
        a: Float[np.ndarray, "n _"],
        b: Float[np.ndarray, "l _"],
        real: Float[np.ndarray, "m _"],
        *,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Comparison:
        """The score of `a` minus that of `b` (N, D), row i of both for one request, against the same `real` (M, D).

        The difference at this N, tested by the differences of the influence values of each request and of each real
        clip. Part of it may be a difference of bias; the note has the difference at infinite N where it is known.
        Raises `UserError` as `score` does, and where `a` and `b` have different shapes.
        """
        check_paired(a, b, self.title)
        (a, real), (b, _) = checked_pair(a, real, self.title), checked_pair(b, real, self.title)
        labels = clusters(groups, len(a), len(real), self.title)
        first, second = (self._influence(each, real, labels) for each in (a, b))
        limits = [self._limit(one.value, each, real, labels, seed) for one, each in ((first, a), (second, b))]
        at_infinity = [f"at infinite N {limits[0].value - limits[1].value:.4g}"] if limits[0] and limits[1] else []
        difference = first - second
        said = *at_infinity, *self._warnings(a, real, labels), *paired_remarks(a, b, real, *labels)
        return compared(difference.value, difference.error, *said)

    def _distance(self, fake: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"]) -> float:
        return frechet_distance(fake, real, ddof=self.ddof)

    def _influence(
        self, fake: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"], labels: tuple[Labels, Labels]
    ) -> Influence:
        return of_rows(self._distance(fake, real), *frechet_influence(fake, real, ddof=self.ddof), *labels)

    def _limit(
        self,
        value: float,
        fake: Float[np.ndarray, "n _"],
        real: Float[np.ndarray, "m _"],
        labels: tuple[Labels, Labels],
        seed: int,
    ) -> _extrapolate.Limit | None:
        if not self.extrapolates or _extrapolate.missing(FOURFOLD * fake.shape[1], *labels):
            return None
        return _extrapolate.limit(value, self._distance, (fake, real), labels, seed=seed)

    def _warnings(
        self, fake: Float[np.ndarray, "n dim"], real: Float[np.ndarray, "m dim"], labels: tuple[Labels, Labels]
    ) -> list[str]:
        clips, dim = min(len(fake), len(real)), fake.shape[1]
        singular = [f"N = {clips} for D = {dim}: singular covariance, strongly biased upward"] if clips <= dim else []
        return [*singular, *_extrapolate.missing(FOURFOLD * dim, *labels)]
