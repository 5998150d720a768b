"""Recall: the share of real clips that look like generated ones."""

from __future__ import annotations

from vfbench.interfaces import PairedMetric
from vfbench.metrics._neighbour_metric import NeighbourMetric
from vfbench.metrics._neighbours import check_k, recall


def build(*, k: int = 3) -> PairedMetric:
    """Recall with balls to the `k`-th neighbour: 3 in Kynkaanniemi et al., StyleGAN and torch-fidelity."""
    check_k(k)
    return NeighbourMetric("recall", "Recall", recall, k)
