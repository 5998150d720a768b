"""VideoFusion's presets: sizes of both networks, and training options.

Numbers that the paper does not give are marked as guesses. All presets, `paper` as well, depart from the paper in
`_COMMON`, so that each can be trained from scratch and compared with the baselines' presets of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfbench.diffusion.model_config import embedding_options
from vfbench.diffusion.single_network import COMMON, FRAME_CONDITION, SIZES, resolution_presets

# The paper's networks predict eps, its loss has no `images`, and B moves the base frame: `create(...,
# parametrisation="eps", images=0, base_update="paper")`. Its B is pretrained and learns at a smaller rate than R
# (`base_lr`). The paper gives neither this rate nor the schedule.
_COMMON = {**COMMON, "base_update": "joint", "lam": 0.5, "base_lr": 1.0, "images": 3}
_TINY = {
    **_COMMON,
    "sampling": {"steps": 6, "guidance": 2.0},  # as good as more steps (results/shapes/README.md)
    "base": SIZES["tiny-image"],
    "residual": {"channels": [40, 64, 72], "blocks": 1, "patch": 2, "attention": [1, 2], **FRAME_CONDITION},
}
# For one GPU: B has 142 million parameters, R 116 million. Not from the paper.
_BASE = {
    **_COMMON,
    "base": {"channels": [168, 336, 504, 672], "blocks": 2, "patch": 2, "attention": [], "embedding": 640},
    "residual": {
        "channels": [136, 272, 408, 544],
        "blocks": 2,
        "patch": 2,
        "attention": [1, 2, 3],
        "embedding": 640,
        **FRAME_CONDITION,
    },
}
# From the paper: clips of 16x64x64, lambda, a B of 2 billion parameters ("up to", the decoder of DALL-E 2) and an R of
# 0.5 billion, a U-Net. Widths, blocks and levels are guesses, after the U-Nets of arXiv 2105.05233, whose levels are
# one to four times as wide as the first. Attention over frames in R is a guess, too. The paper's B reads pixels, not
# patches, and a CLIP embedding, which `create(..., embedding=...)` adds. The paper's loss and its pretrained B are
# options as well, see `_COMMON`.
_PAPER = {
    **_COMMON,
    "base": {"channels": [544, 1088, 1632, 2176], "blocks": 3, "patch": 2, "attention": [], "embedding": 2048},
    "residual": {"channels": [280, 560, 840, 1120], "blocks": 2, "patch": 2, "attention": [1, 2, 3], "embedding": 2048},
}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # 16x32x32 shapes; trained from scratch, so B learns at the full rate. Shipped.
    "tiny": _TINY,
    # The paper's conditioning: the embedding of the base frame, which a prior network draws at test time.
    "tiny-prior": {**_TINY, "embedding": embedding_options()},
    # For comparisons at equal compute: parameters, FLOPs per clip and per training step within 3 % of vdm's `tiny`.
    "tiny-equal": {
        **_COMMON,
        "images": 1,
        "base": {**SIZES["tiny-image"], "channels": [32, 64, 64]},
        "residual": {"channels": [40, 64, 72], "blocks": 1, "patch": 2, "attention": [1, 2], **FRAME_CONDITION},
    },
    # 16x64x64, the resolution the paper trains at.
    "small": {
        **_COMMON,
        "base": SIZES["small-image"],
        "residual": {
            "channels": [96, 192, 256],
            "blocks": 1,
            "patch": 4,
            "attention": [1, 2],
            "embedding": 384,
            **FRAME_CONDITION,
        },
    },
    # R has a quarter of B's parameters, as in the paper. FLOPs per clip are 0.26 times those of vdm's `small-star`.
    "small-quarter": {
        **_COMMON,
        "base": SIZES["small-image"],
        "residual": {"channels": [72, 144, 200], "blocks": 1, "patch": 4, "attention": [1, 2], "embedding": 384},
    },
    **resolution_presets("base", _BASE),
    **resolution_presets("paper", _PAPER),
    # A single network, VDM's, under the same noise prior.
    "tiny-one": {**COMMON, "form": "one", "lam": 0.5, "network": SIZES["tiny"]},
    "small-one": {**COMMON, "form": "one", "lam": 0.5, "network": SIZES["small"]},
}
