"""A diffusion model of one network: it reads all frames and predicts their whole noise, whatever prior that came from.

What VDM, PYoCo and VideoFusion's one-network form share, so that a comparison of them isolates the prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vfbench.diffusion.model import DiffusionModel, ModelConfig
from vfbench.diffusion.priors import Prior
from vfbench.diffusion.schedule import Prediction, split, v_target
from vfbench.nets.embedding import Condition
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
}


class OneNetwork(DiffusionModel):
    """A subclass sets `prior`, `condition` and `network`; options: `schedule`, and `parametrisation` (`eps` or `v`)."""

    network: nn.Module

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.kind = config.options["parametrisation"]

    def networks(self) -> dict[str, nn.Module]:
        """The one network."""
        return {"network": self.network}

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
        self.condition = Condition(len(config.classes), config.words, network.embedding)
        self.network: UNet = UNet(network, frames=config.shape.frames)
