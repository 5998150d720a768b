"""FVD: the Frechet video distance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from vfbench.interfaces import Better, Metric, Score
from vfbench.metrics._bootstrap import checked_pair, enough, floor, interval, note
from vfbench.metrics._frechet import check_ddof, frechet_distance

LOWER: Better = "lower"


@dataclass(frozen=True)
class FVD:
    """The Frechet distance of video features: Unterthiner et al., arXiv 1812.01717.

    `minimum` 64: below it a covariance of a hundred or more features rests on too few clips to say anything, and even
    real clips score far from 0. FVD falls as N grows; compare only equal N, and read it against its floor.
    """

    ddof: int = 1
    name = "fvd"
    title = "FVD"
    better = LOWER
    output = "features"
    minimum = 64

    def score(
        self,
        fake: Float[np.ndarray, "n _"],
        real: Float[np.ndarray, "m _"],
        *,
        spare: Float[np.ndarray, "k _"] | None = None,
        seed: int = 0,
    ) -> Score:
        """Score `fake` (N, D) against `real` (M, D): a value >= 0; `floor` is that of real clips against real clips.

        Raises `UserError` for NaN or infinity, different widths, fewer than 2 generated or 4 real clips.
        """
        fake, real = checked_pair(fake, real, self.title, least_real=4)
        distance = partial(frechet_distance, ddof=self.ddof)
        value = distance(fake, real)
        low, high = interval(value, distance, (fake, real), seed=seed)
        base, base_n = floor(distance, real, spare, len(fake), seed=seed)
        return Score(
            value,
            low,
            high,
            base,
            len(real),
            len(fake),
            note(enough(spare, len(fake)), base_n, *_rank_warning(fake, real)),
        )


def _rank_warning(fake: Float[np.ndarray, "n dim"], real: Float[np.ndarray, "m dim"]) -> list[str]:
    clips, dim = min(len(fake), len(real)), fake.shape[1]
    return [f"N = {clips} for D = {dim}: singular covariance, strongly biased upward"] if clips <= dim else []


def build(*, ddof: int = 1) -> Metric:
    """FVD with covariances over N - 1 (`ddof` 1: DeepMind, TATS, VideoGPT) or N (0: StyleGAN-V, Latte, cd-fvd)."""
    check_ddof(ddof)
    return FVD(ddof)
