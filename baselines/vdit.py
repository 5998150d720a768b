"""VDiT: a factorised space-time transformer (after Latte, Ma et al., arXiv 2401.03048) and independent noise.

Noise prior, schedule, parametrisation, conditioning and solvers are VDM's, so that the comparison isolates transformer
against U-Net. Latte denoises latents of an image autoencoder; this model denoises pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfbench.diffusion.build_sampler import builder
from vfbench.diffusion.frame_embedding import EmbeddingOption
from vfbench.diffusion.model_config import ModelConfig, embedding_options
from vfbench.diffusion.schedule import ParametrisationOption, ShiftedShareOption, TimeShiftOption
from vfbench.diffusion.single_network import COMMON, OneNetwork, resolution_presets, with_options
from vfbench.interfaces import Dataset
from vfbench.nets.text_encoder import TextEncoderOption, TextLROption
from vfbench.nets.transformer import Transformer, TransformerConfig

_SIZES: Mapping[str, Mapping[str, Any]] = {
    # 16x32x32 shapes. In all presets, parameters and FLOPs per clip are within 3 % of vdm's preset of the same name.
    "tiny": {"width": 128, "hidden": 560, "heads": 4, "depth": 6, "patch": 4, "embedding": 208},
    # 16x64x64, with as many patches per frame as `tiny`.
    "small": {"width": 384, "hidden": 1344, "heads": 6, "depth": 8, "patch": 8, "embedding": 368},
    # Four times as many patches. A U-Net has most of its parameters at coarse levels; a wide embedding, at almost no
    # FLOPs, gives the transformer as many.
    "base": {"width": 512, "hidden": 1808, "heads": 8, "depth": 12, "patch": 4, "embedding": 1312},
    "paper": {"width": 1024, "hidden": 4152, "heads": 16, "depth": 14, "patch": 4, "embedding": 2936},
}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {**COMMON, "network": _SIZES["tiny"]},
    "tiny-prior": {**COMMON, "network": _SIZES["tiny"], "embedding": embedding_options()},
    "small": {**COMMON, "network": _SIZES["small"]},
    **resolution_presets("base", {**COMMON, "network": _SIZES["base"]}),
    **resolution_presets("paper", {**COMMON, "network": _SIZES["paper"]}),
}


def create(
    dataset: Dataset,
    preset: str = "tiny",
    *,
    parametrisation: ParametrisationOption = None,
    time_shift: TimeShiftOption = None,
    shifted_share: ShiftedShareOption = None,
    embedding: EmbeddingOption = None,
    text_encoder: TextEncoderOption = None,
    text_lr: TextLROption = None,
) -> VDiT:
    """An untrained model for a dataset; None keeps the preset's value.

    `parametrisation` is the target of the network, `eps` or `v`; the loss is its plain error. `embedding` adds
    conditioning on the embedding of a frame, see `ModelConfig.with_embedding`; `text_encoder` and `text_lr` are those
    of `ModelConfig.with_text_encoder`. Raises `UserError` for an unknown name, and `ValueError` where the patch size
    does not divide the clips.
    """
    config = ModelConfig.from_preset("vdit", preset, PRESETS, dataset).with_embedding(embedding)
    config = config.with_text_encoder(text_encoder, text_lr)
    return VDiT(
        with_options(config, parametrisation=parametrisation, time_shift=time_shift, shifted_share=shifted_share)
    )


class VDiT(OneNetwork):
    """One transformer over all frames."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        network = TransformerConfig(**config.options["network"])
        self._build_conditioning(network.embedding)
        self.network = Transformer(network, shape=config.shape)


build = builder("vdit", VDiT)
