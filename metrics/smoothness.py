"""Smoothness: 1 minus the mean absolute change of pixels from frame to frame."""

from __future__ import annotations

from vfbench.interfaces import PairedMetric
from vfbench.metrics._clip_statistic import ClipStatistic

SOURCE = "frame_change.smoothness"  # default, unless the protocol names another source


def build() -> PairedMetric:
    """Mean over clips of 1 minus the mean absolute change in bytes over 255, in 0..1.

    Temporal flickering of VBench, arXiv 2311.17982, there of clips that should not move. A clip that does not move
    scores 1, so compare it with its floor, the score of real clips.
    """
    return ClipStatistic(name="smoothness", title="smoothness", output="smoothness", lowest=0.0)
