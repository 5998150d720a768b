"""KVD: kernel video distance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from jaxtyping import Float

from vfbench.errors import UserError
from vfbench.interfaces import Better, Comparison, Groups, PairedMetric, Score
from vfbench.metrics._mmd import (
    ESTIMATORS,
    KernelFunction,
    check_degree,
    check_digits,
    check_estimator,
    check_kernel,
    kernel_difference,
    kernel_distance,
    kernel_sums,
    polynomial_kernel,
    subset_distances,
)
from vfbench.metrics._mmd_sums import KernelSums
from vfbench.metrics._two_sample import (
    Labels,
    check_paired,
    cluster_labels,
    floor,
    holdout_suffices,
    join_notes,
    num_clusters,
    paired_sample_notes,
    sample_notes,
    validate_pair,
)
from vfbench.metrics._uncertainty import comparison, interval_95

LOWER: Better = "lower"


@dataclass(frozen=True)
class KVD:
    """Squared MMD of video features with a polynomial kernel: over all pairs, as in DIGAN and TATS, or over subsets.

    `minimum` 32: the estimate is unbiased at any N, so it needs fewer clips than FVD; below 32 its standard error is as
    large as the differences between models. For two samples of one distribution the interval is too wide: in
    simulations it covered the truth in 98 to 100 %, not in 95 %.
    """

    degree: int = 3
    coef0: float = 1.0
    estimator: str = "unbiased"
    subsets: int = 0
    subset_size: int = 0
    subset_seed: int = 2020
    name = "kvd"
    title = "KVD"
    better = LOWER
    output = "features"
    minimum = 32

    def score(
        self,
        fake: Float[np.ndarray, "n _"],
        real: Float[np.ndarray, "m _"],
        *,
        holdout: Float[np.ndarray, "k _"] | None = None,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Score:
        """Score `fake` (N, D) against `real` (M, D); value and floor may be negative if the samples are alike.

        `floor` is the distance of real clips from real clips, 0 on average. The standard error comes from a jackknife
        over clusters, see `KernelSums`; with subsets it includes the error of drawing them. The limit is the mean over
        all pairs of independent clips, which does not depend on N. It differs from the value only for the biased
        estimator, for subsets and for groups, and needs three groups per sample.
        Two clips of a sample have no standard error: it is NaN.
        Raises `UserError` for NaN or infinity, features too large or too far from 0 for the kernel, different widths,
        fewer than 2 generated or real clips or than a subset needs, groups that do not fit the clips, and a group so
        large that at most one clip remains without it.
        """
        fake, real = validate_pair(fake, real, self.title)
        check_kernel(fake, real, self._kernel)
        labels = cluster_labels(groups, len(fake), len(real), self.title)
        sums = kernel_sums(fake, real, *labels, self._kernel)
        value = sums.distance(self.estimator)
        error = sums.error(self.estimator) if min(len(fake), len(real)) > 2 else math.nan
        check_digits(fake, real, self._kernel, 0.0 if math.isnan(error) else error)
        no_interval = ["no interval: it takes 3 clips of each side"] if math.isnan(error) else []
        notes = [*no_interval, *sample_notes(fake, real, *labels)]
        if self.subsets:
            distances = self._subset_distances(fake, real)
            value, error = float(distances.mean()), math.hypot(error, float(distances.std()) / math.sqrt(self.subsets))
            notes = [f"standard deviation over {self.subsets} subsets {distances.std():.4g}", *notes]
        floor_value, floor_n = floor(self._distance, real, holdout, len(fake), labels=labels[1], seed=seed)
        return Score(
            value,
            *interval_95(value, error),
            floor_value,
            len(real),
            len(fake),
            join_notes(holdout_suffices(holdout, len(fake)), floor_n, *notes),
            error,
            *_limit(value, sums, labels),
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
        """KVD of `a` minus KVD of `b` (N, D) against the same `real` (M, D).

        Row i of `a` and row i of `b` answer one request.

        Over all pairs, even if the score uses subsets. The difference is itself a kernel distance with its standard
        error, see `kernel_difference`. Nothing is random, so `seed` has no effect.
        Raises `UserError` as `score` does, and if `a` and `b` have different shapes.
        """
        check_paired(a, b, self.title)
        (a, real), (b, _) = (validate_pair(each, real, self.title, min_rows=3, min_real=3) for each in (a, b))
        check_kernel(np.concatenate([a, b]), real, self._kernel)
        labels = cluster_labels(groups, len(a), len(real), self.title)
        sums = kernel_difference(a, b, real, *labels, self._kernel)
        difference, error = sums.distance(self.estimator), sums.error(self.estimator)
        check_digits(np.concatenate([a, b]), real, self._kernel, error)
        return comparison(difference, error, *paired_sample_notes(a, b, real, *labels))

    def _subset_distances(
        self, fake: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"]
    ) -> Float[np.ndarray, " subsets"]:
        options = {"subsets": self.subsets, "size": self.subset_size, "seed": self.subset_seed}
        return subset_distances(fake, real, self._kernel, **options)

    def _distance(self, fake: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"]) -> float:
        return kernel_distance(fake, real, degree=self.degree, coef0=self.coef0, estimator=self.estimator)

    @property
    def fewest_clips(self) -> tuple[int, int]:
        """Smallest numbers of generated and real clips: those of a subset, else two of each."""
        return max(2, self.subset_size), max(2, self.subset_size)

    @property
    def _kernel(self) -> KernelFunction:
        return partial(polynomial_kernel, degree=self.degree, coef0=self.coef0)


def _limit(value: float, sums: KernelSums, labels: tuple[Labels, Labels]) -> tuple[float, float, float] | tuple[()]:
    """Limit, its standard error and the slope; empty for fewer than three groups in a sample."""
    if min(num_clusters(each) for each in labels) < 3:
        return ()
    limit = sums.distance("independent")
    return limit, sums.error("independent"), len(labels[0]) * (value - limit)


def build(
    *,
    degree: Annotated[int, "Degree of the polynomial kernel."] = 3,
    coef0: Annotated[float, "Constant that the kernel adds to x.y / D."] = 1.0,
    estimator: Annotated[str, ESTIMATORS, "Estimator of the distance."] = "unbiased",
    subsets: Annotated[int, "Pairs of random subsets to average over; 0 is all clips."] = 0,
    subset_size: Annotated[int, "Clips of a subset."] = 0,
    subset_seed: Annotated[int, "Seed of the subsets."] = 2020,
) -> PairedMetric:
    """KVD with the kernel (x.y / D + `coef0`)^`degree`; the defaults are those of DIGAN, TATS, LVDM and KID.

    KID of torch-fidelity uses `subsets` 100 and `subset_size` 1000. JEDi is 100 times KVD with `degree` 2, `coef0` 0
    and `estimator` "biased".
    """
    check_degree(degree)
    check_estimator(estimator)
    if subsets < 0 or (subsets > 0) != (subset_size > 0):
        raise UserError(f"subsets = {subsets}, subset_size = {subset_size}: give both, such as 100 and 1000, or none")
    if subsets and estimator == "biased":
        raise UserError("estimator = 'biased' with subsets: subsets are for the unbiased estimator; leave one out")
    return KVD(degree, coef0, estimator, subsets, subset_size, subset_seed)
