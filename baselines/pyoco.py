"""PYoCo (Ge et al., arXiv 2305.10474): one space-time U-Net, and noise that the frames of a clip have in common.

The network is VDM's, preset by preset; only the noise differs, in training and in sampling, so that the comparison
isolates correlated noise at no extra compute. The paper fine-tunes a large image model; here the network starts from
scratch, as every model does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfbench.diffusion.model import ModelConfig, embedding_options
from vfbench.diffusion.priors import Mixed, Prior, Progressive
from vfbench.diffusion.sampler import builder
from vfbench.diffusion.single_network import COMMON, SIZES, OneUNet, chosen, sides
from vfbench.errors import unknown
from vfbench.interfaces import Dataset

_PRIORS: Mapping[str, type[Mixed] | type[Progressive]] = {"mixed": Mixed, "progressive": Progressive}
# What the paper recommends for each prior.
_MIXED = {**COMMON, "prior": "mixed", "alpha": 1.0}
_PROGRESSIVE = {**COMMON, "prior": "progressive", "alpha": 2.0}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {**_MIXED, "network": SIZES["tiny"]},
    "tiny-progressive": {**_PROGRESSIVE, "network": SIZES["tiny"]},
    "tiny-prior": {**_MIXED, "network": SIZES["tiny"], "embedding": embedding_options()},
    "small": {**_MIXED, "network": SIZES["small"]},
    "small-progressive": {**_PROGRESSIVE, "network": SIZES["small"]},
    **sides("base", {**_MIXED, "network": SIZES["base"]}),
    **sides("base-progressive", {**_PROGRESSIVE, "network": SIZES["base"]}),
    **sides("paper", {**_MIXED, "network": SIZES["paper"]}),
    **sides("paper-progressive", {**_PROGRESSIVE, "network": SIZES["paper"]}),
}


def create(
    dataset: Dataset,
    preset: str = "tiny",
    *,
    alpha: float | None = None,
    parametrisation: str | None = None,
    embedding: str | None = None,
) -> PYoCo:
    """An untrained model for a dataset; `alpha` (at least 0) instead of the preset's, and None leaves what it says.

    `parametrisation` is what the network predicts, `eps` or `v`, and its loss is the plain error of that. `embedding`
    is that of a frame as a condition, see `ModelConfig.with_embedding`.
    Raises `UserError` for an alpha out of range and for an unknown name.
    """
    config = ModelConfig.of("pyoco", preset, PRESETS, dataset).with_embedding(embedding)
    return PYoCo(chosen(config, alpha=alpha, parametrisation=parametrisation))


class PYoCo(OneUNet):
    """One U-Net over all frames; the option `prior` is `mixed` or `progressive`, `alpha` how much frames share."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, _prior(config.options["prior"], config.options["alpha"]))


def _prior(name: str, alpha: float) -> Prior:
    if name not in _PRIORS:
        raise unknown("PYoCo prior", name, _PRIORS)
    return _PRIORS[name](alpha)


build = builder("pyoco", PYoCo)
