"""Diffusion models of one network that reads all frames and predicts their whole noise, under any noise prior.

VDM, PYoCo and VideoFusion's single-network form share this code, so that a comparison isolates the noise prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.model_config import ModelConfig
from vfbench.diffusion.schedule import AUTO, Prediction, check_parametrisation, to_prediction, v_target
from vfbench.nets.unet import UNet, UNetConfig

COMMON: Mapping[str, Any] = {"schedule": "cosine", "parametrisation": "v", "time_shift": AUTO}
FRAME_CONDITION: Mapping[str, Any] = {"frame_condition": True}  # not of the presets that follow a paper
SIZES: Mapping[str, Mapping[str, Any]] = {
    # 16x32x32 shapes.
    "tiny": {"channels": [32, 64, 112], "blocks": 1, "patch": 2, "attention": [1, 2], **FRAME_CONDITION},
    # 16x64x64.
    "small": {
        "channels": [112, 224, 288],
        "blocks": 1,
        "patch": 4,
        "attention": [1, 2],
        "embedding": 384,
        **FRAME_CONDITION,
    },
    # Without attention over frames: the base generator of VideoFusion's presets of these sizes.
    "tiny-image": {"channels": [32, 64, 80], "blocks": 1, "patch": 2, "attention": []},
    "small-image": {"channels": [128, 256, 384], "blocks": 2, "patch": 4, "attention": [], "embedding": 384},
    # `small-image` with attention over frames: VDM* in VideoFusion's table of efficiency.
    "small-star": {"channels": [128, 256, 384], "blocks": 2, "patch": 4, "attention": [1, 2], "embedding": 384},
    # FLOPs per clip within 3 % of VideoFusion's presets of these names. The size of the paper's VDM is not known.
    "base": {
        "channels": [144, 288, 432, 432],
        "blocks": 2,
        "patch": 2,
        "attention": [1, 2, 3],
        "embedding": 640,
        **FRAME_CONDITION,
    },
    "paper": {"channels": [320, 640, 960, 1024], "blocks": 2, "patch": 2, "attention": [1, 2, 3], "embedding": 1280},
}
LARGE_PRESET_FRAMES = 16


def resolution_presets(name: str, options: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A preset for clips of 64x64 pixels, and `<name>-128` for 128x128 with twice the patch size, at the same cost.

    The option `clips` of a preset is the only clip shape that it takes. (The paper makes clips of 64x64 pixels, and
    larger ones from them by super-resolution.)
    """
    networks = {key: value for key, value in options.items() if isinstance(value, Mapping) and "patch" in value}
    larger = {key: {**network, "patch": 2 * network["patch"]} for key, network in networks.items()}
    return {
        name: {**options, "clips": [LARGE_PRESET_FRAMES, 64, 64]},
        f"{name}-128": {**options, **larger, "clips": [LARGE_PRESET_FRAMES, 128, 128]},
    }


def with_options(config: ModelConfig, **options: Any) -> ModelConfig:
    """A copy with these options; None keeps the preset's value."""
    changes = {name: value for name, value in options.items() if value is not None}
    return replace(config, options={**config.options, **changes})


class OneNetwork(DiffusionModel):
    """A model of one network; options `schedule`, and `parametrisation` (`eps` or `v`).

    A subclass sets `network`, calls `_build_conditioning`, and has its own `make_noise_prior` where noise is not
    independent. Raises `UserError` for an unknown parametrisation.
    """

    network: nn.Module

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.parametrisation = check_parametrisation(config.options["parametrisation"])

    def networks(self) -> dict[str, nn.Module]:
        """Modules by name: the denoising network, and the modules of the frame embedding where the model has one."""
        return {"network": self.network, **self._embedding_networks()}

    def predict(self, z: Tensor, t: Tensor, cond: Tensor, *inputs: Tensor) -> Prediction:
        """The network's prediction for all frames; `inputs` are what the network of a subclass reads besides."""
        alpha_bar = self.schedule.at(t, z)
        output = self.network(z, t, cond, *inputs).to(z)
        return to_prediction(output, z, alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), self.parametrisation)

    def losses(self, x: Tensor, noise: Tensor, t: Tensor, cond: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        """Mean squared error of eps or v; `inputs` as in `predict`."""
        alpha_bar = self.schedule.at(t, x)
        z = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise
        output = self.network(z, t, cond, *inputs).to(x)
        target = noise if self.parametrisation == "eps" else v_target(x, noise, alpha_bar)
        return {"network": ((output - target) ** 2).mean()}


class OneUNet(OneNetwork):
    """A factorised space-time U-Net, sized by the option `network`, under any noise prior."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        network = UNetConfig(**config.options["network"])
        self._build_conditioning(network.embedding)
        self.network: UNet = UNet(network, frames=config.shape.frames)
