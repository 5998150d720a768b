"""CLIPSIM: similarity of a clip and its caption."""

from __future__ import annotations

from vfbench.interfaces import PairedMetric
from vfbench.metrics._clip_statistic import mean_cosine

SOURCE = "clip.similarity"  # default, unless the protocol names another source


def build() -> PairedMetric:
    """Mean cosine of the CLIP embeddings of frame and caption, over frames and clips, in -1..1.

    SIM of GODIVA, arXiv 2104.14806; not clipped at 0, not scaled by CLIP's temperature, not multiplied by 100. Values
    of different CLIP models are not comparable. No options: the extractor selects the CLIP model.
    """
    return mean_cosine("clipsim", "CLIPSIM", "similarity")
