"""FVD: Frechet video distance."""

from __future__ import annotations

from vfbench.interfaces import PairedMetric
from vfbench.metrics._frechet import Ddof, check_ddof
from vfbench.metrics._frechet_metric import FrechetMetric


def build(*, ddof: Ddof = 1) -> PairedMetric:
    """FVD with covariances over N - 1 (`ddof` 1: DeepMind, TATS, VideoGPT) or N (0: StyleGAN-V, Latte, cd-fvd)."""
    check_ddof(ddof)
    return FrechetMetric("fvd", "FVD", ddof)
