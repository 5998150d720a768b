"""Frechet distance of video features as a metric: score, interval, limit at infinite N, floor and paired test."""

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
    cluster_labels,
    floor,
    holdout_suffices,
    join_notes,
    paired_sample_notes,
    sample_notes,
    validate_pair,
)
from vfbench.metrics._uncertainty import HEAVY_WIDENING, Influence, comparison, influence_from_rows, interval_95

LOWER: Better = "lower"
MIN_CLIPS_PER_DIM = max(_extrapolate.NUM_PARTS)


@dataclass(frozen=True)
class FrechetMetric:
    """Frechet distance of clip features, one row per clip: Unterthiner et al., arXiv 1812.01717.

    `minimum` 64: fewer clips cannot estimate a covariance of a hundred or more features, and even real clips score far
    from 0. FVD falls as N grows: compare scores at equal N and against their floor, or compare limits at infinite N.
    """

    name: str
    title: str
    ddof: int = 1
    better = LOWER
    output = "features"
    minimum = 64
    extrapolates = True  # to infinite N, if there are enough clips

    def score(
        self,
        fake: Float[np.ndarray, "n _"],
        real: Float[np.ndarray, "m _"],
        *,
        holdout: Float[np.ndarray, "k _"] | None = None,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Score:
        """Score `fake` (N, D) against `real` (M, D): a value >= 0; `floor` is the score of real against real clips.

        The standard error comes from the influence function, without resampling. With heavy tails it is made 1.5 times
        as large, and the note says so. The limit needs a clip per dimension in a quarter of each sample, min(N, M) >=
        4 D, and 32 groups per sample. For two samples of one distribution, and with heavy tails, the interval around it
        is too wide: in simulations it covered the truth in 98 to 100 %, not in 95 %.
        Raises `UserError` for NaN or infinity, different widths, fewer than 2 generated or real clips, or groups that
        do not fit the clips.
        """
        fake, real = validate_pair(fake, real, self.title)
        labels = cluster_labels(groups, len(fake), len(real), self.title)
        distance = self._influence(fake, real, labels)
        error = distance.widened_error
        limit = self._limit(distance.value, fake, real, labels, seed)
        floor_value, floor_n = floor(self._distance, real, holdout, len(fake), labels=labels[1], seed=seed)
        return Score(
            distance.value,
            *interval_95(distance.value, error),
            floor_value,
            len(real),
            len(fake),
            join_notes(
                holdout_suffices(holdout, len(fake)),
                floor_n,
                *self._warnings(fake, real, labels),
                *_tail_notes(distance, limit is not None),
                *sample_notes(fake, real, *labels),
            ),
            error,
            *((limit.value, limit.error(error), len(fake) * (distance.value - limit.value)) if limit else ()),
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
        """Score of `a` minus score of `b` (N, D) against the same `real` (M, D).

        Row i of `a` and row i of `b` answer one request.

        The test uses the differences of the influence values of each request and of each real clip. Part of the
        difference may be bias at this N; the note gives the difference at infinite N if it is known.
        Raises `UserError` as `score` does, and if `a` and `b` have different shapes.
        """
        check_paired(a, b, self.title)
        (a, real), (b, _) = validate_pair(a, real, self.title), validate_pair(b, real, self.title)
        labels = cluster_labels(groups, len(a), len(real), self.title)
        first, second = (self._influence(each, real, labels) for each in (a, b))
        limits = [self._limit(score.value, each, real, labels, seed) for score, each in ((first, a), (second, b))]
        at_infinity = [f"at infinite N {limits[0].value - limits[1].value:.4g}"] if limits[0] and limits[1] else []
        difference = first - second
        notes = *at_infinity, *self._warnings(a, real, labels), *_tail_notes(difference, bool(at_infinity))
        notes = *notes, *paired_sample_notes(a, b, real, *labels)
        return comparison(difference.value, difference.widened_error, *notes)

    def real_influence(
        self,
        fake: Float[np.ndarray, "n _"],
        real: Float[np.ndarray, "m _"],
        *,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Float[np.ndarray, " reals"]:
        """Influence of each source of real clips, (H,), on the score; see `SharedRealClips`."""
        fake, real = validate_pair(fake, real, self.title)
        return self._influence(fake, real, cluster_labels(groups, len(fake), len(real), self.title)).real

    def _distance(self, fake: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"]) -> float:
        return frechet_distance(fake, real, ddof=self.ddof)

    def _influence(
        self, fake: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"], labels: tuple[Labels, Labels]
    ) -> Influence:
        return influence_from_rows(self._distance(fake, real), *frechet_influence(fake, real, ddof=self.ddof), *labels)

    def _limit(
        self,
        value: float,
        fake: Float[np.ndarray, "n _"],
        real: Float[np.ndarray, "m _"],
        labels: tuple[Labels, Labels],
        seed: int,
    ) -> _extrapolate.Limit | None:
        if not self.extrapolates or _extrapolate.no_limit_notes(MIN_CLIPS_PER_DIM * fake.shape[1], *labels):
            return None
        return _extrapolate.limit(value, self._distance, (fake, real), labels, seed=seed)

    def _warnings(
        self, fake: Float[np.ndarray, "n dim"], real: Float[np.ndarray, "m dim"], labels: tuple[Labels, Labels]
    ) -> list[str]:
        clips, dim = min(len(fake), len(real)), fake.shape[1]
        singular = [f"N = {clips} for D = {dim}: singular covariance, strongly biased upward"] if clips <= dim else []
        return [*singular, *_extrapolate.no_limit_notes(MIN_CLIPS_PER_DIM * dim, *labels)]


def _tail_notes(distance: Influence, has_limit: bool) -> list[str]:
    """Note on heavy tails: the widened interval, and the bias of a limit."""
    if not distance.heavy_tailed:
        return []
    biased = ["the value at infinite N is biased"] if has_limit else []
    return [f"heavy-tailed features: few clips decide, interval widened {HEAVY_WIDENING:g} times", *biased]
