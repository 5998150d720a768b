"""CLIPSIM: how well a clip matches its caption."""

from __future__ import annotations

from vfbench.interfaces import PairedMetric
from vfbench.metrics._mean_cosine import MeanCosine

SOURCE = "clip.similarity"  # where the protocol does not say


def build() -> PairedMetric:
    """The mean cosine of the CLIP embeddings of frame and caption, over frames and clips, in -1..1.

    SIM of GODIVA, arXiv 2104.14806; not clipped at 0, without CLIP's temperature, and not times 100. Values of
    different CLIP models do not compare. It has no options: the CLIP model is the extractor's choice.
    """
    return MeanCosine("clipsim", "CLIPSIM", "similarity")
