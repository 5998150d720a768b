"""KVD: the kernel video distance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from vfbench.interfaces import Better, Metric, Score
from vfbench.metrics._bootstrap import REPEATS, around, checked_pair, enough, floor, multiplicities, note
from vfbench.metrics._kernel import check_degree, kernel_distance, polynomial_kernel, weighted_distances

LOWER: Better = "lower"


@dataclass(frozen=True)
class KVD:
    """The unbiased MMD^2 of video features with a polynomial kernel over all pairs, as DIGAN and TATS compute it.

    `minimum` 32: the estimate is unbiased at any N, so fewer clips than for FVD will do; below this its own standard
    error is as large as the differences between models.
    """

    degree: int = 3
    coef0: float = 1.0
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
        spare: Float[np.ndarray, "k _"] | None = None,
        seed: int = 0,
    ) -> Score:
        """Score `fake` (N, D) against `real` (M, D); value and floor may be negative when the two are alike.

        `floor` is the distance of real clips from real clips, 0 but for chance. The resamples of the interval are
        computed together from one Gram matrix, and never pair a clip with itself.
        Raises `UserError` for NaN or infinity, different widths, fewer than 2 generated or 4 real clips.
        """
        fake, real = checked_pair(fake, real, self.title, least_real=4)
        distance = partial(kernel_distance, degree=self.degree, coef0=self.coef0)
        kernel = partial(polynomial_kernel, degree=self.degree, coef0=self.coef0)
        value = distance(fake, real)
        fake_weights, real_weights = multiplicities((len(fake), len(real)), repeats=REPEATS, seed=seed)
        low, high = around(value, weighted_distances(fake, real, fake_weights, real_weights, kernel))
        base, base_n = floor(distance, real, spare, len(fake), seed=seed)
        return Score(value, low, high, base, len(real), len(fake), note(enough(spare, len(fake)), base_n))


def build(*, degree: int = 3, coef0: float = 1.0) -> Metric:
    """KVD with the kernel (x.y / D + `coef0`)^`degree`; the defaults are those of DIGAN, TATS, LVDM and KID."""
    check_degree(degree)
    return KVD(degree, coef0)
