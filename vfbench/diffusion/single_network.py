"""A diffusion model of one network: it reads all frames and predicts their whole noise, whatever prior that came from.

What VDM, PYoCo and VideoFusion's one-network form share, so that a comparison of them isolates the prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from vfbench.diffusion.model import DiffusionModel, ModelConfig
from vfbench.diffusion.priors import Prior
from vfbench.diffusion.schedule import Prediction, parametrisation, split, v_target
from vfbench.nets.unet import UNet, UNetConfig

COMMON: Mapping[str, Any] = {"schedule": "cosine", "parametrisation": "v"}
SIZES: Mapping[str, Mapping[str, Any]] = {
    # 16x32x32 shapes.
    "tiny": {"channels": [32, 64, 112], "blocks": 1, "patch": 2, "attention": [1, 2]},
    # 16x64x64.
    "small": {"channels": [112, 224, 288], "blocks": 1, "patch": 4, "attention": [1, 2], "embedding": 384},
    # Without attention over frames: the base generator of VideoFusion's presets of these sizes.
    "tiny-image": {"channels": [32, 64, 80], "blocks": 1, "patch": 2, "attention": []},
    "small-image": {"channels": [128, 256, 384], "blocks": 2, "patch": 4, "attention": [], "embedding": 384},
    # As wide as that one, over all frames: what the paper's table of efficiency calls VDM*.
    "small-star": {"channels": [128, 256, 384], "blocks": 2, "patch": 4, "attention": [1, 2], "embedding": 384},
    # FLOPs a clip within 3 % of VideoFusion's presets of these names. How large the paper's VDM is, is not known.
    "base": {"channels": [144, 288, 432, 432], "blocks": 2, "patch": 2, "attention": [1, 2, 3], "embedding": 640},
    "paper": {"channels": [320, 640, 960, 1024], "blocks": 2, "patch": 2, "attention": [1, 2, 3], "embedding": 1280},
}
FRAMES = 16  # of the clips that the larger presets are made for


def sides(name: str, options: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A preset for clips of 64x64 pixels, and `<name>-128`: its networks on patches twice as large, at the same cost.

    `clips` of a preset is the only shape that it takes. (The paper makes clips of 64x64 pixels, and larger ones of them
    by super-resolution.)
    """
    parts = {key: part for key, part in options.items() if isinstance(part, Mapping) and "patch" in part}
    larger = {key: {**part, "patch": 2 * part["patch"]} for key, part in parts.items()}
    return {
        name: {**options, "clips": [FRAMES, 64, 64]},
        f"{name}-128": {**options, **larger, "clips": [FRAMES, 128, 128]},
    }


def chosen(config: ModelConfig, **options: Any) -> ModelConfig:
    """With these options instead of the preset's; None leaves what the preset says."""
    given = {name: value for name, value in options.items() if value is not None}
    return replace(config, options={**config.options, **given})


class OneNetwork(DiffusionModel):
    """A subclass sets `prior`, `condition` and `network`; options: `schedule`, and `parametrisation` (`eps` or `v`).

    Raises `UserError` for an unknown one.
    """

    network: nn.Module

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.kind = parametrisation(config.options["parametrisation"])

    def networks(self) -> dict[str, nn.Module]:
        """The one network, and those of the embedding where there is one."""
        return {"network": self.network, **self._embedding_networks()}

    def predict(self, z: Tensor, t: Tensor, condition: Tensor) -> Prediction:
        """What the network says of all frames."""
        alpha_bar = self.schedule.at(t, z)
        output = self.network(z, t, condition).to(z)
        return split(output, z, alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), self.kind)

    def losses(self, x: Tensor, noise: Tensor, t: Tensor, condition: Tensor) -> dict[str, Tensor]:
        """Mean squared error of eps or v."""
        alpha_bar = self.schedule.at(t, x)
        z = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise
        output = self.network(z, t, condition).to(x)
        target = noise if self.kind == "eps" else v_target(x, noise, alpha_bar)
        return {"network": ((output - target) ** 2).mean()}


class OneUNet(OneNetwork):
    """The factorised space-time U-Net, of the size that the option `network` says, under any prior."""

    def __init__(self, config: ModelConfig, prior: Prior) -> None:
        super().__init__(config)
        self.prior = prior
        network = UNetConfig(**config.options["network"])
        self._conditions(network.embedding)
        self.network: UNet = UNet(network, frames=config.shape.frames)
