"""Precision: fraction of generated clips inside the manifold of real clips."""

from __future__ import annotations

from vfbench.interfaces import PairedMetric
from vfbench.metrics._prdc import Neighbours, check_k, precision
from vfbench.metrics._prdc_metric import NeighbourMetric


def build(*, k: Neighbours = 3) -> PairedMetric:
    """Precision with balls up to the `k`-th neighbour; 3 in Kynkaanniemi et al., StyleGAN and torch-fidelity."""
    check_k(k)
    return NeighbourMetric("precision", "Precision", precision, k)
