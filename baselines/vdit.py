"""VDiT: a factorised space-time transformer (after Latte, Ma et al., arXiv 2401.03048) and independent noise.

Everything but the network is that of VDM: prior, schedule, parametrisation, condition and solvers, so that the
comparison isolates transformer from U-Net. Latte's own model denoises latents of an image autoencoder; this one pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfbench.diffusion.model import ModelConfig, embedding_options
from vfbench.diffusion.priors import Independent
from vfbench.diffusion.sampler import builder
from vfbench.diffusion.single_network import COMMON, OneNetwork, chosen, sides
from vfbench.interfaces import Dataset
from vfbench.nets.transformer import Transformer, TransformerConfig

_SIZES: Mapping[str, Mapping[str, Any]] = {
    # 16x32x32 shapes. Parameters and FLOPs a clip are within 3 % of vdm's preset of that name, here and below.
    "tiny": {"width": 128, "hidden": 560, "heads": 4, "depth": 6, "patch": 4, "embedding": 208},
    # 16x64x64: as many patches a frame.
    "small": {"width": 384, "hidden": 1344, "heads": 6, "depth": 8, "patch": 8, "embedding": 368},
    # Four times as many. A U-Net has most of its parameters where there are few pixels; here a wide embedding, which
    # costs next to no FLOPs, makes up for them.
    "base": {"width": 512, "hidden": 1808, "heads": 8, "depth": 12, "patch": 4, "embedding": 1312},
    "paper": {"width": 1024, "hidden": 4152, "heads": 16, "depth": 14, "patch": 4, "embedding": 2936},
}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {**COMMON, "network": _SIZES["tiny"]},
    "tiny-prior": {**COMMON, "network": _SIZES["tiny"], "embedding": embedding_options()},
    "small": {**COMMON, "network": _SIZES["small"]},
    **sides("base", {**COMMON, "network": _SIZES["base"]}),
    **sides("paper", {**COMMON, "network": _SIZES["paper"]}),
}


def create(
    dataset: Dataset, preset: str = "tiny", *, parametrisation: str | None = None, embedding: str | None = None
) -> VDiT:
    """An untrained model for a dataset; None leaves what the preset says.

    `parametrisation` is what the network predicts, `eps` or `v`, and its loss is the plain error of that. `embedding`
    is that of a frame as a condition, see `ModelConfig.with_embedding`.
    Raises `UserError` for an unknown name, and `ValueError` where clips cannot be cut into patches.
    """
    config = ModelConfig.of("vdit", preset, PRESETS, dataset).with_embedding(embedding)
    return VDiT(chosen(config, parametrisation=parametrisation))


class VDiT(OneNetwork):
    """One transformer over all frames."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.prior = Independent()
        network = TransformerConfig(**config.options["network"])
        self._conditions(network.embedding)
        self.network = Transformer(network, shape=config.shape)


build = builder("vdit", VDiT)
