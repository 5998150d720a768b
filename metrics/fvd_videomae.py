"""VideoMAE FVD: Frechet video distance of features that are more sensitive to motion than I3D's."""

from __future__ import annotations

from vfbench.interfaces import PairedMetric
from vfbench.metrics._frechet import Ddof, check_ddof
from vfbench.metrics._frechet_metric import FrechetMetric

SOURCE = "videomae.features"  # default, unless the protocol names another source


def build(*, ddof: Ddof = 0) -> PairedMetric:
    """Content-debiased FVD of Ge et al., arXiv 2404.12391; covariances over N (`ddof` 0), as in cd-fvd, or N - 1.

    Its values are not comparable with FVD on I3D features.
    """
    check_ddof(ddof)
    return FrechetMetric("fvd_videomae", "FVD (VideoMAE)", ddof)
