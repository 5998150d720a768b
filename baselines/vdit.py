"""VDiT: a factorised space-time transformer (after Latte, Ma et al., arXiv 2401.03048) and independent noise.

Everything but the network is that of VDM: prior, schedule, parametrisation, condition and solvers, so that the
comparison isolates transformer from U-Net. Latte's own model denoises latents of an image autoencoder; this one pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfbench.diffusion.model import ModelConfig
from vfbench.diffusion.one_network import COMMON, OneNetwork
from vfbench.diffusion.priors import Independent
from vfbench.diffusion.sampler import builder
from vfbench.interfaces import Dataset
from vfbench.nets.embedding import Condition
from vfbench.nets.transformer import Transformer, TransformerConfig

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # 16x32x32 shapes. Parameters and FLOPs a clip are within 3 % of vdm's preset of that name, here and below.
    "tiny": {
        **COMMON,
        "network": {"width": 128, "hidden": 560, "heads": 4, "depth": 6, "patch": 4, "embedding": 208},
    },
    # 16x64x64: as many patches a frame.
    "small": {
        **COMMON,
        "network": {"width": 384, "hidden": 1344, "heads": 6, "depth": 8, "patch": 8, "embedding": 368},
    },
}


def create(dataset: Dataset, preset: str = "tiny") -> VDiT:
    """An untrained model for a dataset; raises `ValueError` where its clips cannot be cut into patches."""
    return VDiT(ModelConfig.of("vdit", preset, PRESETS, dataset))


class VDiT(OneNetwork):
    """One transformer over all frames."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.prior = Independent()
        network = TransformerConfig(**config.options["network"])
        self.condition = Condition(len(config.classes), config.words, network.embedding)
        self.network = Transformer(network, shape=config.shape)


build = builder("vdit", VDiT)
