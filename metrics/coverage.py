"""Coverage: the share of real clips that have a generated one nearby."""

from __future__ import annotations

from vfbench.interfaces import PairedMetric
from vfbench.metrics._neighbour_metric import NeighbourMetric
from vfbench.metrics._neighbours import check_k, coverage


def build(*, k: int = 5) -> PairedMetric:
    """Coverage with balls to the `k`-th neighbour: 5 in Naeem et al."""
    check_k(k)
    return NeighbourMetric("coverage", "Coverage", coverage, k)
