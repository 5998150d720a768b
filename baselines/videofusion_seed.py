"""VideoFusion as this project first described it: y = x + b + r, noise b shared by all frames, and r of each frame.

This is not the model of the paper, `videofusion`. The first description, word for word where it is not our reading:

- The noisy frames are y = x + b + r; b has the variance sigma_b^2 and is shared, r has sigma_r^2 and is not.
- Two networks: B(y) estimates b, and R(y - b) estimates r.
- Both learn from one loss, the mean squared error of x, where x = y - B(y) - R(y - B(y)).
- The text gives mean and variance of b, by a linear layer and a reshape, with a KL term to N(0, sigma_b^2) of weight
  0.1. It enters nowhere else.
- Clips of 32 frames of 64 pixels, Adam at 1e-4: `train --preset original --lr 1e-4 --lr-schedule constant`.

Our reading, where the description leaves something open:

- It names no noise level. One level denoises and makes nothing new, so sigma_b and sigma_r are relative: both are
  multiplied by a strength s that falls from far above 1 to almost 0, and sampling anneals along it. With
  s^2 = (1 - a_t) / a_t and z = sqrt(a_t) y these are the times and solvers of all other models. The networks know t.
- B reads all frames, and its output is the mean over them, as b is one picture. R reads B's estimate of b.
- R returns r by way of the clip: its network predicts v of x and r, as in the other models, so that the error of x
  stays bounded where s is large.
- The KL is the mean over pixels, as is the error of x.
- Sampling keeps the mean of b apart: the solver follows y without it, and the networks see it added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from vfbench.diffusion.build_sampler import builder
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.model_config import ModelConfig
from vfbench.diffusion.priors import Mixed, NoisePrior, Normal, normal_per_batch
from vfbench.diffusion.schedule import AUTO, Prediction, ShiftedShareOption, TimeShiftOption, to_prediction
from vfbench.diffusion.single_network import with_options
from vfbench.errors import UserError
from vfbench.interfaces import ClipShape, Conditioning, Dataset
from vfbench.nets.embedding import ConditioningEmbedding
from vfbench.nets.text_encoder import TextEncoderConfig, TextEncoderOption, TextLROption
from vfbench.nets.unet import UNet, UNetConfig

KL_WEIGHT = 0.1
_COMMON = {"schedule": "cosine", "time_shift": AUTO, "sigma_b": 1.0, "sigma_r": 1.0}  # the sigmas are not described
_TINY = {"channels": [32, 40, 56], "blocks": 1, "patch": 2, "attention": [1, 2]}
_ORIGINAL = {"channels": [96, 192, 256], "blocks": 1, "patch": 4, "attention": [1, 2], "embedding": 384}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # 16x32x32 shapes. Parameters, FLOPs per clip and per training step are within 3 % of vdm's `tiny`.
    "tiny": {**_COMMON, "base": _TINY, "residual": _TINY},
    # Frames and pixels of the description, which gives no sizes of the networks.
    "original": {**_COMMON, "base": _ORIGINAL, "residual": _ORIGINAL, "clips": [32, 64, 64]},
}


def create(
    dataset: Dataset,
    preset: str = "tiny",
    *,
    sigma_b: Annotated[
        float | None, "Standard deviation of the noise that all frames share, relative to sigma_r."
    ] = None,
    sigma_r: Annotated[
        float | None, "Standard deviation of the noise of each frame; only the ratio of both counts."
    ] = None,
    time_shift: TimeShiftOption = None,
    shifted_share: ShiftedShareOption = None,
    text_encoder: TextEncoderOption = None,
    text_lr: TextLROption = None,
) -> VideoFusionSeed:
    """An untrained model for a dataset; None keeps the preset's value.

    Only the ratio of `sigma_b`, at least 0, and `sigma_r`, above 0, counts, as the noise of sampling falls from far
    above the signal to almost none. `text_encoder` and `text_lr` are those of `ModelConfig.with_text_encoder`. Raises
    `UserError` for a value out of range and for an unknown name.
    """
    config = ModelConfig.from_preset("videofusion_seed", preset, PRESETS, dataset)
    options = {"sigma_b": sigma_b, "sigma_r": sigma_r, "time_shift": time_shift, "shifted_share": shifted_share}
    return VideoFusionSeed(with_options(config.with_text_encoder(text_encoder, text_lr), **options))


class VideoFusionSeed(DiffusionModel):
    """The networks `base`, B, and `residual`, R, and a conditioning embedding that gives mean and variance of b.

    A conditioning vector (B, 6 H W) holds mean and log variance of b / sigma_b, of each pixel.
    """

    noise_prior: Mixed

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        base, residual = UNetConfig(**config.options["base"]), UNetConfig(**config.options["residual"])
        encoder = config.options.get("text_encoder")
        self.condition: BaseNoiseStatistics = BaseNoiseStatistics(
            len(config.classes),
            config.words,
            residual.embedding,
            None if encoder is None else TextEncoderConfig(**encoder),
            shape=config.shape,
        )
        self.base = UNet(base, frames=config.shape.frames)
        self.residual = UNet(residual, frames=config.shape.frames)

    @staticmethod
    def make_noise_prior(config: ModelConfig) -> Mixed:
        """b + r, scaled to variance 1; raises `UserError` for a sigma out of range."""
        sigma_b, sigma_r = config.options["sigma_b"], config.options["sigma_r"]
        if not (0 <= sigma_b < math.inf and 0 < sigma_r < math.inf):
            raise UserError(f"sigma_b {sigma_b} and sigma_r {sigma_r}: choose sigma_b from 0, and sigma_r above 0")
        return Mixed(sigma_b / sigma_r)

    def networks(self) -> dict[str, nn.Module]:
        """B and R."""
        return {"base": self.base, "residual": self.residual}

    def sampling_prior(self, cond: Tensor) -> NoisePrior:
        """Noise whose shared part has the variance that the conditioning gives; `predict` adds the mean."""
        return _TextNoise(self.noise_prior.alpha, self.condition.statistics(cond)[1])

    def predict(self, z: Tensor, t: Tensor, cond: Tensor) -> Prediction:
        """Predict x0, and eps without the mean of b, from z without that mean, which is added for the networks."""
        alpha_bar = self.schedule.at(t, z)
        mean, _ = self.condition.statistics(cond)
        base_weight, _ = self._weights
        x0 = self.denoise(z + (1 - alpha_bar).sqrt() * base_weight * mean.to(z), t)
        return Prediction(x0, (z - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt())

    def denoise(self, z: Tensor, t: Tensor) -> Tensor:
        """The clip x = y - B(y) - R(y - B(y)) of z = sqrt(a_t) y, (B, T, 3, H, W)."""
        signal, noise = self.schedule.at(t, z).sqrt(), (1 - self.schedule.at(t, z)).sqrt()
        base_weight, residual_weight = self._weights
        no_condition = z.new_zeros(len(z), self.base.config.embedding)
        base = self.base(z, t, no_condition).to(z).mean(dim=1, keepdim=True)
        residual_z = z - noise * base_weight * base
        no_condition = z.new_zeros(len(z), self.residual.config.embedding)
        output = self.residual(residual_z, t, no_condition).to(z)
        return to_prediction(output, residual_z, signal, noise * residual_weight, "v").x0

    @property
    def _weights(self) -> tuple[float, float]:
        """Weights of b and r, both of variance 1, in noise of variance 1."""
        norm = math.hypot(1.0, self.noise_prior.alpha)
        return self.noise_prior.alpha / norm, 1 / norm

    def draw(self, count: int, generator: torch.Generator, normal: Normal | None = None) -> dict[str, Tensor]:
        """Random tensors of a training step; `noise` (count, 1 + T, 3, H, W) holds b, before its scaling, and r."""
        t = self.schedule.training_times(count, generator)
        parts = self.noise_prior.draw_parts(normal or normal_per_batch(count, generator), self.config.shape)
        return {"t": t, "noise": torch.cat(parts, dim=1)}

    def losses(self, x: Tensor, noise: Tensor, t: Tensor, cond: Tensor) -> dict[str, Tensor]:
        """Mean squared error of x, and the weighted KL of b to N(0, sigma_b^2); `noise` as in `draw`."""
        alpha_bar = self.schedule.at(t, x)
        mean, deviation = self.condition.statistics(cond)
        eps = self.noise_prior.combine(mean + deviation * noise[:, :1], noise[:, 1:])
        x0 = self.denoise(alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * eps, t)
        divergence = (mean**2 + deviation**2 - 1) / 2 - deviation.log()
        return {"x": ((x0 - x) ** 2).mean(), "kl": KL_WEIGHT * divergence.mean()}


class BaseNoiseStatistics(ConditioningEmbedding):
    """Mean and log variance of b / sigma_b for class, caption or nothing, by a linear layer that is zero at first."""

    def __init__(
        self, classes: int, words: Sequence[str], width: int, encoder: TextEncoderConfig | None, *, shape: ClipShape
    ) -> None:
        super().__init__(classes, words, width, encoder)
        self.picture = (1, 3, shape.height, shape.width)
        self.layer = nn.Linear(width, 2 * math.prod(self.picture))
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, labels: Sequence[int], captions: Sequence[str], conditioning: Sequence[Conditioning]) -> Tensor:
        """Vectors (B, 6 H W); raises `UserError` as `ConditioningEmbedding`."""
        vectors: Tensor = self.layer(super().forward(labels, captions, conditioning))
        return vectors

    def statistics(self, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each (B, 1, 3, H, W), from the vectors of `forward`."""
        mean, log_variance = cond.float().view(len(cond), 2, *self.picture).unbind(1)
        return mean, (log_variance / 2).exp()


class _TextNoise(Mixed):
    """Mixed noise whose shared part has another standard deviation (B, 1, 3, H, W) in each clip and pixel."""

    def __init__(self, alpha: float, deviation: Tensor) -> None:
        super().__init__(alpha)
        self.deviation = deviation

    def combine(self, base: Tensor, residual: Tensor) -> Tensor:
        """The noise of all frames from b (B, 1, C, H, W) and r (B, T, C, H, W)."""
        return super().combine(self.deviation * base, residual)


build = builder("videofusion_seed", VideoFusionSeed)
