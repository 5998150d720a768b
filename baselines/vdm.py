"""VDM (Ho et al., arXiv 2204.03458): one factorised space-time U-Net and independent noise for every frame.

Built from the same blocks, condition, schedule and solvers as VideoFusion, so that the comparison isolates the idea.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vfbench.diffusion import model as diffusion
from vfbench.diffusion.model import DiffusionModel, DiffusionSampler, ModelConfig
from vfbench.diffusion.priors import Independent
from vfbench.diffusion.schedule import Prediction, split, v_target
from vfbench.interfaces import Conditioning, Dataset, Setting
from vfbench.nets.embedding import Condition
from vfbench.nets.unet import UNet, UNetConfig

_COMMON = {"schedule": "cosine", "parametrisation": "v"}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # 16x32x32 shapes. Shipped: FVD 52.8 (results/records).
    "tiny": {**_COMMON, "network": {"channels": [32, 64, 112], "blocks": 1, "patch": 2, "attention": [1, 2]}},
    "small": {
        **_COMMON,
        "network": {"channels": [112, 224, 288], "blocks": 1, "patch": 4, "attention": [1, 2], "embedding": 384},
    },
}


def build(
    setting: Setting,
    *,
    steps: int = 25,
    solver: str = "dpm++2m",
    guidance: float = 1.0,
    condition: Conditioning = "text",
) -> DiffusionSampler:
    """The sampler of a trained VDM (see `vfbench.diffusion.model.sampler` for errors)."""
    return diffusion.sampler(VDM, "vdm", setting, steps=steps, solver=solver, guidance=guidance, condition=condition)


def create(dataset: Dataset, preset: str = "tiny") -> VDM:
    """An untrained model for a dataset."""
    return VDM(ModelConfig.of("vdm", preset, PRESETS, dataset))


class VDM(DiffusionModel):
    """One U-Net over all frames."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.kind = config.options["parametrisation"]
        self.prior = Independent()
        network = UNetConfig(**config.options["network"])
        self.condition = Condition(len(config.classes), config.words, network.embedding)
        self.network = UNet(network, frames=config.shape.frames)

    def networks(self) -> dict[str, nn.Module]:
        """The one U-Net."""
        return {"network": self.network}

    def predict(self, z: Tensor, t: Tensor, condition: Tensor) -> Prediction:
        """What the U-Net says of all frames."""
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
