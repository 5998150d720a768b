"""VideoMAE FVD: the Frechet video distance by features that see more of the motion, and less of single frames."""

from __future__ import annotations

from vfbench.interfaces import PairedMetric
from vfbench.metrics._frechet import check_ddof
from vfbench.metrics._frechet_metric import FrechetMetric

SOURCE = "videomae.features"  # where the protocol does not say


def build(*, ddof: int = 0) -> PairedMetric:
    """The content-debiased FVD of Ge et al., arXiv 2404.12391; covariances over N (`ddof` 0), as in cd-fvd, or N - 1.

    Its values do not compare with those of I3D's FVD.
    """
    check_ddof(ddof)
    return FrechetMetric("fvd_videomae", "FVD (VideoMAE)", ddof)
