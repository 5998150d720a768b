"""Density: how many real clips surround each generated one, as a part of what is usual among real ones."""

from __future__ import annotations

from vfbench.interfaces import PairedMetric
from vfbench.metrics._prdc import check_k, density
from vfbench.metrics._prdc_metric import NeighbourMetric


def build(*, k: int = 5) -> PairedMetric:
    """Density with balls to the `k`-th neighbour: 5 in Naeem et al."""
    check_k(k)
    return NeighbourMetric("density", "Density", density, k)
