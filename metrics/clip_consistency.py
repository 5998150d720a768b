"""CLIP frame consistency: similarity of consecutive frames of a clip."""

from __future__ import annotations

from vfbench.interfaces import PairedMetric
from vfbench.metrics._clip_statistic import mean_cosine

SOURCE = "clip.consistency"  # default, unless the protocol names another source


def build() -> PairedMetric:
    """Mean cosine of the CLIP embeddings of consecutive frames ("CLIP-temp"), over frames and clips, in -1..1.

    Flicker and cuts lower it, but static clips score 1. So compare it with its floor, the score of real clips, and
    report a motion-sensitive metric with it. No options: the extractor selects the CLIP model.
    """
    return mean_cosine("clip_consistency", "CLIP consistency", "consistency")
