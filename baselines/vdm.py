"""VDM (Ho et al., arXiv 2204.03458): one factorised space-time U-Net and independent noise for every frame.

Built from the same blocks, condition, schedule and solvers as VideoFusion, so that the comparison isolates the idea.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfbench.diffusion.model import ModelConfig, embedding_options
from vfbench.diffusion.priors import Independent
from vfbench.diffusion.sampler import builder
from vfbench.diffusion.single_network import COMMON, SIZES, OneUNet, chosen, sides
from vfbench.interfaces import Dataset

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {**COMMON, "network": SIZES["tiny"]},  # shipped: FVD 52.8 on shapes (results/records)
    "tiny-prior": {**COMMON, "network": SIZES["tiny"], "embedding": embedding_options()},
    "small": {**COMMON, "network": SIZES["small"]},
    "small-star": {**COMMON, "network": SIZES["small-star"]},
    **sides("base", {**COMMON, "network": SIZES["base"]}),
    **sides("paper", {**COMMON, "network": SIZES["paper"]}),
    # For clips of one frame: an image model, to be VideoFusion's base generator.
    "tiny-image": {**COMMON, "network": SIZES["tiny-image"]},
    "small-image": {**COMMON, "network": SIZES["small-image"]},
}


def create(
    dataset: Dataset, preset: str = "tiny", *, parametrisation: str | None = None, embedding: str | None = None
) -> VDM:
    """An untrained model for a dataset; None leaves what the preset says.

    `parametrisation` is what the network predicts, `eps` or `v`, and its loss is the plain error of that. `embedding`
    is that of a frame as a condition, see `ModelConfig.with_embedding`.
    Raises `UserError` for an unknown name.
    """
    config = ModelConfig.of("vdm", preset, PRESETS, dataset).with_embedding(embedding)
    return VDM(chosen(config, parametrisation=parametrisation))


class VDM(OneUNet):
    """One U-Net over all frames."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, Independent())


build = builder("vdm", VDM)
