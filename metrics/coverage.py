"""Coverage: fraction of real clips with a generated clip nearby."""

from __future__ import annotations

from vfbench.interfaces import PairedMetric
from vfbench.metrics._prdc import Neighbours, check_k, coverage
from vfbench.metrics._prdc_metric import NeighbourMetric


def build(*, k: Neighbours = 5) -> PairedMetric:
    """Coverage with balls up to the `k`-th neighbour; 5 in Naeem et al."""
    check_k(k)
    return NeighbourMetric("coverage", "Coverage", coverage, k)
