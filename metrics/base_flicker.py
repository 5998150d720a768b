"""Base flicker: change of pixels into and out of the base frame, over that between the other frames."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from vfbench.interfaces import PairedMetric
from vfbench.metrics._clip_statistic import ClipStatistic

SOURCE = "frame_change.base_change"  # default, unless the protocol names another source


def ratio(changes: Float[np.ndarray, "n 2"]) -> float:
    """Mean of the first column over that of the second; 1 for clips that do not change."""
    at_base, elsewhere = changes.mean(axis=0)
    return float(at_base / elsewhere) if elsewhere else 1.0


def build() -> PairedMetric:
    """Ratio of mean absolute changes over all clips, at least 0; 1 if the base frame changes as much as other frames.

    The base frame is VideoFusion's, the middle one, also for models that have none: they are the reference. Another
    frame: `--extractor 'frame_change=frame_change(base=0)'`.
    """
    return ClipStatistic(
        name="base_flicker",
        title="base flicker",
        output="base_change",
        statistic=ratio,
        columns=2,
        lowest=0.0,
        better="lower",
    )
