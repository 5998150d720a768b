"""CLIP frame consistency: how alike the consecutive frames of a clip are."""

from __future__ import annotations

from vfbench.interfaces import PairedMetric
from vfbench.metrics._mean_cosine import MeanCosine

SOURCE = "clip.consistency"  # where the protocol does not say


def build() -> PairedMetric:
    """The mean cosine of the CLIP embeddings of consecutive frames ("CLIP-temp"), over frames and clips, in -1..1.

    Flicker and sudden cuts lower it. Its best value is no goal: clips that stand still have 1. So read it against its
    floor, what real clips score, and beside a metric that sees motion. It has no options: the CLIP model is the
    extractor's choice.
    """
    return MeanCosine("clip_consistency", "CLIP consistency", "consistency")
