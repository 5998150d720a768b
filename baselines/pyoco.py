"""PYoCo (Ge et al., arXiv 2305.10474): one space-time U-Net, and noise that is correlated between frames.

The network of each preset is VDM's. Only the noise prior differs, in training and in sampling, so that the comparison
isolates correlated noise at equal compute. The paper fine-tunes a large image model; here the network is trained from
scratch, as all models are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from vfbench.diffusion.build_sampler import builder
from vfbench.diffusion.frame_embedding import EmbeddingOption
from vfbench.diffusion.model_config import ModelConfig, embedding_options
from vfbench.diffusion.priors import Mixed, NoisePrior, Progressive
from vfbench.diffusion.schedule import ParametrisationOption, ShiftedShareOption, TimeShiftOption
from vfbench.diffusion.single_network import COMMON, SIZES, OneUNet, resolution_presets, with_options
from vfbench.errors import unknown
from vfbench.interfaces import Dataset
from vfbench.nets.text_encoder import TextEncoderOption, TextLROption

_NOISE_PRIORS: Mapping[str, type[Mixed] | type[Progressive]] = {"mixed": Mixed, "progressive": Progressive}
# The alpha that the paper recommends for each noise prior.
_MIXED = {**COMMON, "prior": "mixed", "alpha": 1.0}
_PROGRESSIVE = {**COMMON, "prior": "progressive", "alpha": 2.0}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {**_MIXED, "network": SIZES["tiny"]},
    "tiny-progressive": {**_PROGRESSIVE, "network": SIZES["tiny"]},
    "tiny-prior": {**_MIXED, "network": SIZES["tiny"], "embedding": embedding_options()},
    "small": {**_MIXED, "network": SIZES["small"]},
    "small-progressive": {**_PROGRESSIVE, "network": SIZES["small"]},
    **resolution_presets("base", {**_MIXED, "network": SIZES["base"]}),
    **resolution_presets("base-progressive", {**_PROGRESSIVE, "network": SIZES["base"]}),
    **resolution_presets("paper", {**_MIXED, "network": SIZES["paper"]}),
    **resolution_presets("paper-progressive", {**_PROGRESSIVE, "network": SIZES["paper"]}),
}


def create(
    dataset: Dataset,
    preset: str = "tiny",
    *,
    alpha: Annotated[float | None, "Amount of noise that the frames share, at least 0."] = None,
    parametrisation: ParametrisationOption = None,
    time_shift: TimeShiftOption = None,
    shifted_share: ShiftedShareOption = None,
    embedding: EmbeddingOption = None,
    text_encoder: TextEncoderOption = None,
    text_lr: TextLROption = None,
) -> PYoCo:
    """An untrained model for a dataset; None keeps the preset's value.

    `alpha`, at least 0, is how much noise the frames share. `parametrisation` is the target of the network, `eps` or
    `v`; the loss is the unweighted mean squared error of that target. `embedding` adds conditioning on the embedding of
    a frame, see `ModelConfig.with_embedding`; `text_encoder` and `text_lr` are those of
    `ModelConfig.with_text_encoder`. Raises `UserError` for an alpha out of range and for an unknown name.
    """
    config = ModelConfig.from_preset("pyoco", preset, PRESETS, dataset).with_embedding(embedding)
    config = config.with_text_encoder(text_encoder, text_lr)
    return PYoCo(
        with_options(
            config, alpha=alpha, parametrisation=parametrisation, time_shift=time_shift, shifted_share=shifted_share
        )
    )


class PYoCo(OneUNet):
    """One U-Net over all frames; option `prior` is `mixed` or `progressive`, `alpha` the strength of shared noise."""

    @staticmethod
    def make_noise_prior(config: ModelConfig) -> NoisePrior:
        """Mixed or progressive noise; raises `UserError` for an unknown name or an alpha out of range."""
        name, alpha = config.options["prior"], config.options["alpha"]
        if name not in _NOISE_PRIORS:
            raise unknown("PYoCo prior", name, _NOISE_PRIORS)
        return _NOISE_PRIORS[name](alpha)


build = builder("pyoco", PYoCo)
