"""KVD: the kernel video distance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from vfbench.errors import UserError
from vfbench.interfaces import Better, Comparison, Groups, PairedMetric, Score
from vfbench.metrics._mmd import (
    Kernel,
    check_degree,
    check_estimator,
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
    checked_pair,
    clusters,
    count,
    enough,
    floor,
    note,
    paired_remarks,
    remarks,
)
from vfbench.metrics._uncertainty import around, compared

LOWER: Better = "lower"


@dataclass(frozen=True)
class KVD:
    """The MMD^2 of video features with a polynomial kernel: over all pairs, as in DIGAN and TATS, or in subsets.

    `minimum` 32: the estimate is unbiased at any N, so fewer clips than for FVD will do; below this its own standard
    error is as large as the differences between models. For two samples of one distribution the interval is too wide:
    in simulations it held the truth in 98 to 100 %, not in 95 %.
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
        """Score `fake` (N, D) against `real` (M, D); value and floor may be negative when the two are alike.

        `floor` is the distance of real clips from real clips, 0 but for chance. The standard error is that of a
        jackknife over clusters, see `KernelSums`, and with subsets also of their draw. The limit is the mean over all
        pairs of independent clips, which does not depend on N: it is the value itself, but for the biased estimator,
        for subsets and for groups. Two groups on a side have no limit.
        Raises `UserError` for NaN or infinity, different widths, fewer than 3 generated or 4 real clips, groups that do
        not fit the clips, or of which one holds all clips but one, or fewer clips than a subset needs.
        """
        fake, real = checked_pair(fake, real, self.title, least=3, least_real=4)
        labels = clusters(groups, len(fake), len(real), self.title)
        sums = kernel_sums(fake, real, *labels, self._kernel)
        value, error, said = sums.distance(self.estimator), sums.error(self.estimator), remarks(fake, real, *labels)
        if self.subsets:
            drawn = self._drawn(fake, real)
            value, error = float(drawn.mean()), math.hypot(error, float(drawn.std()) / math.sqrt(self.subsets))
            said = [f"standard deviation over {self.subsets} subsets {drawn.std():.4g}", *said]
        base, base_n = floor(self._distance, real, holdout, len(fake), labels=labels[1], seed=seed)
        return Score(
            value,
            *around(value, error),
            base,
            len(real),
            len(fake),
            note(enough(holdout, len(fake)), base_n, *said),
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
        """KVD of `a` minus KVD of `b` (N, D), row i of both for the same request, against the same `real` (M, D).

        Over all pairs, also where the score is that of subsets. The difference has the standard error of a kernel
        distance, being one, see `kernel_difference`. Nothing is drawn, so `seed` does not matter.
        Raises `UserError` as `score` does, and where `a` and `b` have different shapes.
        """
        check_paired(a, b, self.title)
        (a, real), (b, _) = (checked_pair(each, real, self.title, least=3, least_real=3) for each in (a, b))
        labels = clusters(groups, len(a), len(real), self.title)
        sums = kernel_difference(a, b, real, *labels, self._kernel)
        difference, error = sums.distance(self.estimator), sums.error(self.estimator)
        return compared(difference, error, *paired_remarks(a, b, real, *labels))

    def _drawn(self, fake: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"]) -> Float[np.ndarray, " subsets"]:
        draw = {"subsets": self.subsets, "size": self.subset_size, "seed": self.subset_seed}
        return subset_distances(fake, real, self._kernel, **draw)

    def _distance(self, fake: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"]) -> float:
        return kernel_distance(fake, real, degree=self.degree, coef0=self.coef0, estimator=self.estimator)

    @property
    def _kernel(self) -> Kernel:
        return partial(polynomial_kernel, degree=self.degree, coef0=self.coef0)


def _limit(value: float, sums: KernelSums, labels: tuple[Labels, Labels]) -> tuple[float, float, float] | tuple[()]:
    """The limit, its standard error and the slope; nothing where leaving one group out leaves no two."""
    if min(count(each) for each in labels) < 3:
        return ()
    limit = sums.distance("independent")
    return limit, sums.error("independent"), len(labels[0]) * (value - limit)


def build(
    *,
    degree: int = 3,
    coef0: float = 1.0,
    estimator: str = "unbiased",
    subsets: int = 0,
    subset_size: int = 0,
    subset_seed: int = 2020,
) -> PairedMetric:
    """KVD with the kernel (x.y / D + `coef0`)^`degree`; the defaults are those of DIGAN, TATS, LVDM and KID.

    KID of torch-fidelity draws `subsets` 100 of `subset_size` 1000. JEDi is 100 times that of `degree` 2, `coef0` 0 and
    `estimator` "biased".
    """
    check_degree(degree)
    check_estimator(estimator)
    if subsets < 0 or (subsets > 0) != (subset_size > 0):
        raise UserError(f"subsets = {subsets}, subset_size = {subset_size}: give both, such as 100 and 1000, or none")
    if subsets and estimator == "biased":
        raise UserError("estimator = 'biased' with subsets: subsets are for the unbiased estimator; leave one out")
    return KVD(degree, coef0, estimator, subsets, subset_size, subset_seed)
