"""Density: number of real-clip balls around each generated clip, divided by k."""

from __future__ import annotations

from vfbench.interfaces import PairedMetric
from vfbench.metrics._prdc import Neighbours, check_k, density
from vfbench.metrics._prdc_metric import NeighbourMetric


def build(*, k: Neighbours = 5) -> PairedMetric:
    """Density with balls up to the `k`-th neighbour; 5 in Naeem et al."""
    check_k(k)
    return NeighbourMetric("density", "Density", density, k)
