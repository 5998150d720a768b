"""Super-resolution by diffusion: a small clip enlarged, with noise in it, beside z; the second stage of `cascade`.

After SR3 (Saharia et al., arXiv 2104.07636), which conditions on an interpolated picture by concatenation, Cascaded
Diffusion (Ho et al., arXiv 2106.15282), which adds noise to it, and Imagen Video (Ho et al., arXiv 2210.02303), whose
stages do so for clips. In training the level of this noise is uniform between none and pure noise, as in Imagen Video,
and the network reads it. Blocks, noise, solvers and conditioning are VDM's, but `time_shift` is 1: the small clip
already shows content and motion, which other models learn in stronger noise.

Training reduces the clips of the dataset, each pixel the mean of several. Without `cascade`, `run` and `generate`
enlarge real clips that were made small, as SR3 is measured: a reference row, since it is given real clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from vfbench.diffusion.build_sampler import builder
from vfbench.diffusion.model_config import ModelConfig
from vfbench.diffusion.priors import Normal, normal_per_batch
from vfbench.diffusion.schedule import ParametrisationOption, Prediction
from vfbench.diffusion.single_network import COMMON, OneNetwork, with_options
from vfbench.diffusion.solvers import ConditionalDenoiser
from vfbench.diffusion.super_resolution import interpolate, reduce, reduced_shape
from vfbench.interfaces import Conditioning, Dataset
from vfbench.nets.embedding import sinusoidal
from vfbench.nets.text_encoder import TextEncoderOption, TextLROption
from vfbench.nets.unet import UNet, UNetConfig

_COMMON = {**COMMON, "time_shift": 1.0, "factor": 2}
_SMALL = {"channels": [96, 192, 288, 384], "blocks": 1, "patch": 4, "attention": [2, 3], "embedding": 384}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Shapes of 32 to 64 pixels.
    "tiny": {**_COMMON, "network": {"channels": [24, 48, 80], "blocks": 1, "patch": 2, "attention": [2]}},
    "small-128": {**_COMMON, "network": _SMALL, "clips": [16, 128, 128]},
    "small-256": {**_COMMON, "network": _SMALL, "factor": 4, "clips": [16, 256, 256]},
}


def create(
    dataset: Dataset,
    preset: str = "tiny",
    *,
    factor: Annotated[int | None, "Height of the clips over that of the small ones."] = None,
    parametrisation: ParametrisationOption = None,
    text_encoder: TextEncoderOption = None,
    text_lr: TextLROption = None,
) -> SuperResolution:
    """An untrained model that makes the clips of a dataset from smaller ones; None keeps the preset's value.

    `parametrisation` is the target of the network, `eps` or `v`; `text_encoder` and `text_lr` are those of
    `ModelConfig.with_text_encoder`. Raises `UserError` for an unknown name, and for a factor that does not divide the
    height and width of clips.
    """
    config = ModelConfig.from_preset("super_resolution", preset, PRESETS, dataset)
    config = config.with_text_encoder(text_encoder, text_lr)
    return SuperResolution(with_options(config, factor=factor, parametrisation=parametrisation))


class SuperResolution(OneNetwork):
    """One U-Net that reads z and, beside it, the small clip."""

    network: ConditionedUNet

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.factor: int = config.options["factor"]
        reduced_shape(config.shape, self.factor)
        network = UNetConfig(**config.options["network"])
        self._build_conditioning(network.embedding)
        self.network = ConditionedUNet(network, frames=config.shape.frames)

    def enlarge(self, small: Tensor, level: float, normal: Normal) -> ConditionalDenoiser:
        """The denoiser given small clips (B, T, 3, h, w) in [-1, 1], to which noise of a level from 0 to 1 is added."""
        shape = self.config.shape
        times = torch.full((len(small),), round(level * (self.schedule.steps - 1)), device=small.device)
        noisy = self._noisy(small, times, normal((shape.frames, 3, shape.height, shape.width)))

        def denoise(z: Tensor, t: Tensor, cond: Tensor) -> Prediction:
            copies = len(z) // len(noisy)  # two with guidance, which changes the class or caption alone
            return self.predict(z, t, cond, noisy.repeat(copies, 1, 1, 1, 1), times.repeat(copies))

        return denoise

    def _noisy(self, small: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """Small clips enlarged by interpolation, with noise of the given times."""
        large = interpolate(small, self.factor)
        alpha_bar = self.schedule.at(times, large)
        return alpha_bar.sqrt() * large + (1 - alpha_bar).sqrt() * noise

    def draw(self, count: int, generator: torch.Generator, normal: Normal | None = None) -> dict[str, Tensor]:
        """Random tensors of a training step, with times and noise of the small clips."""
        draws = super().draw(count, generator, normal)
        draws["small_t"] = torch.randint(self.schedule.steps, (count,), generator=generator)
        draws["small_noise"] = (normal or normal_per_batch(count, generator))(tuple(draws["noise"].shape[1:]))
        return draws

    def training_losses(
        self,
        x: Tensor,
        labels: Sequence[int],
        captions: Sequence[str],
        conditioning: Sequence[Conditioning],
        draws: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """The loss of clips x (B, T, 3, H, W) in [-1, 1] given the same clips made small."""
        draws = {name: value.to(x.device) for name, value in draws.items()}
        noisy = self._noisy(reduce(x, self.factor), draws["small_t"], draws["small_noise"])
        cond = self.condition(labels, captions, conditioning)
        return self.losses(x, draws["noise"], draws["t"], cond, noisy, draws["small_t"])


class ConditionedUNet(nn.Module):
    """A U-Net of z and a noisy clip as large as z, side by side; the time of that clip's noise is a condition."""

    def __init__(self, config: UNetConfig, *, frames: int) -> None:
        super().__init__()
        self.unet = UNet(config, frames=frames, inputs=6)
        width = config.embedding
        self.level = nn.Sequential(nn.Linear(128, width), nn.SiLU(), nn.Linear(width, width))

    def forward(
        self, z: Tensor, t: Tensor, cond: Tensor, small: Tensor | None = None, small_t: Tensor | None = None
    ) -> Tensor:
        """Map z and `small` (B, T, 3, H, W) at times `t` and `small_t` (B,) to (B, T, 3, H, W).

        Without `small`, as for counting FLOPs, a clip of zeros takes its place.
        """
        small = torch.zeros_like(z) if small is None else small
        level = self.level(sinusoidal(torch.zeros_like(t) if small_t is None else small_t, 128))
        output: Tensor = self.unet(torch.cat([z, small.to(z)], dim=2), t, cond + level)
        return output


build = builder("super_resolution", SuperResolution)
