"""VDM (Ho et al., arXiv 2204.03458): one factorised space-time U-Net and independent noise for every frame.

Blocks, conditioning, schedule and solvers are VideoFusion's, so that the comparison isolates the decomposed noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfbench.diffusion.build_sampler import builder
from vfbench.diffusion.frame_embedding import EmbeddingOption
from vfbench.diffusion.model_config import ModelConfig, embedding_options
from vfbench.diffusion.schedule import ParametrisationOption, ShiftedShareOption, TimeShiftOption
from vfbench.diffusion.single_network import COMMON, SIZES, OneUNet, resolution_presets, with_options
from vfbench.interfaces import Dataset
from vfbench.nets.text_encoder import TextEncoderOption, TextLROption

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {**COMMON, "network": SIZES["tiny"]},  # shipped
    "tiny-prior": {**COMMON, "network": SIZES["tiny"], "embedding": embedding_options()},
    "small": {**COMMON, "network": SIZES["small"]},
    "small-star": {**COMMON, "network": SIZES["small-star"]},
    **resolution_presets("base", {**COMMON, "network": SIZES["base"]}),
    **resolution_presets("paper", {**COMMON, "network": SIZES["paper"]}),
    # Image models for clips of one frame, as base generators of VideoFusion.
    "tiny-image": {**COMMON, "network": SIZES["tiny-image"]},
    "small-image": {**COMMON, "network": SIZES["small-image"]},
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
) -> VDM:
    """An untrained model for a dataset; None keeps the preset's value.

    `parametrisation` is the target of the network, `eps` or `v`; the loss is its plain error. `embedding` adds
    conditioning on the embedding of a frame, see `ModelConfig.with_embedding`; `text_encoder` and `text_lr` are those
    of `ModelConfig.with_text_encoder`. Raises `UserError` for an unknown name.
    """
    config = ModelConfig.from_preset("vdm", preset, PRESETS, dataset).with_embedding(embedding)
    config = config.with_text_encoder(text_encoder, text_lr)
    return VDM(
        with_options(config, parametrisation=parametrisation, time_shift=time_shift, shifted_share=shifted_share)
    )


class VDM(OneUNet):
    """One U-Net over all frames."""


build = builder("vdm", VDM)
