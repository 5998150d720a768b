"""Tests of VideoFusion's `base_update`: with exact networks, `joint` samples the joint distribution of all frames.

The video is Gaussian: each pixel is a stationary series of 16 frames with correlation 0.95 from frame to frame. Exact
networks are then linear, and so is sampling: clips made from unit vectors give the correlation of the sampled frames.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import OneClip, build_context, clips_of, embed, requests, tiny_dataset, tiny_videofusion
from torch import Tensor, nn

from vfbench.diffusion.schedule import Prediction
from vfbench.diffusion.solvers import solve
from vfbench.errors import UserError
from vfbench.models import videofusion
from vfbench.models.videofusion import VideoFusion
from vfbench.training.train import TrainOptions, train

FRAMES, LAM, CORRELATION = 16, 0.5, 0.95
TIMES = torch.tensor([300, 800])
INDICES = torch.arange(FRAMES)
VIDEO = (CORRELATION ** (INDICES[:, None] - INDICES).abs()).double()  # covariance of the frames of a clip


def noise_covariance(model: VideoFusion) -> Tensor:
    lam = model.noise_prior.lam.double()
    return (lam[:, None] * lam).sqrt().fill_diagonal_(1.0)


class ExactBase(nn.Module):
    """Mean of v given the base frame alone: 0 for pixels of unit variance."""

    def forward(self, z: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return torch.zeros_like(z)


class ExactResidual(nn.Module):
    """Output from which the model reads the mean of every frame given all noisy frames.

    Its input is what the model makes of z: without the base noise, or with it in the base frame.
    """

    def __init__(self, model: VideoFusion) -> None:
        super().__init__()
        self.prior, self.schedule, self.joint = model.noise_prior, model.schedule, model.joint
        self.noise = noise_covariance(model)

    def forward(self, inputs: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        a, m = self.schedule.alpha_bar[t[0]].double(), self.prior.base
        residual_z = inputs[:, :, :3].double()
        lam = self.prior.lam.double().view(1, -1, 1, 1, 1)
        # In `paper` the base frame arrives as sqrt(a) times the mean of x, which is sqrt(a) z.
        z_base = residual_z[:, m, None] if self.joint else residual_z[:, m, None] / a
        z = residual_z + (lam.sqrt() * (1 - a).sqrt()) * (1 - a).sqrt() * z_base
        z[:, m] = z_base[:, 0]
        gain = a.sqrt() * VIDEO @ torch.linalg.inv(a * VIDEO + (1 - a) * self.noise)
        mean = torch.einsum("ij,bjchw->bichw", gain, z)
        strength = (1 - a).sqrt() * (1 - lam).sqrt()
        if self.joint:
            strength[:, m] = (1 - a).sqrt()
        norm = (a + strength**2).sqrt()
        output = (a.sqrt() / norm * residual_z / norm - mean) / (strength / norm).clamp(min=1e-9)
        return output.where(strength > 0, torch.zeros_like(output))


def sampled_correlation(base_update: str) -> Tensor:
    """Correlation (16, 16) of the frames that 25 steps of dpm++2m make with exact networks."""
    model = tiny_videofusion(FRAMES, lam=LAM, base_update=base_update)
    model.residual, model.base = ExactResidual(model), ExactBase()  # type: ignore[assignment]
    condition = embed(model, batch=1)

    def denoise(z: Tensor, t: int) -> Prediction:
        return model.predict(z, torch.tensor([t]), condition)

    # One noisy frame is 1 at each pixel, another one at the next: 16 pixels.
    z = torch.eye(FRAMES, dtype=torch.float64).view(1, FRAMES, 1, 4, 4).repeat(1, 1, 3, 1, 1)
    with torch.no_grad():
        x = solve(denoise, z, model.schedule, steps=25, solver="dpm++2m", fresh_noise=lambda: z)
    linear = x[0, :, 0].reshape(FRAMES, FRAMES)
    covariance = linear @ noise_covariance(model) @ linear.T
    deviation = covariance.diagonal().sqrt()
    return covariance / deviation / deviation[:, None]


@pytest.mark.parametrize(("base_update", "low", "high"), [("joint", 0.0, 0.02), ("paper", 0.2, 0.4)])
def test_joint_samples_the_correlation_of_a_gaussian_video(base_update: str, low: float, high: float) -> None:
    error = float((sampled_correlation(base_update) - VIDEO).abs().max())
    assert low <= error <= high


def test_with_joint_the_residual_generator_reads_and_predicts_the_noisy_base_frame() -> None:
    model = tiny_videofusion(base_update="joint", images=0)
    inputs: list[Tensor] = []
    model.residual.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    z, m = clips_of(model), model.noise_prior.base
    prediction = model.predict(z, TIMES, embed(model))
    assert torch.equal(inputs[0][:, m, :3], z[:, m])
    picture = model.denoise_base(z, TIMES, embed(model)).x0.clamp(-1, 1)
    assert torch.equal(inputs[0][:, :, 3:], picture.expand_as(z))
    alpha_bar = model.schedule.at(TIMES, z)
    restored = alpha_bar.sqrt() * prediction.x0 + (1 - alpha_bar).sqrt() * prediction.eps
    assert torch.allclose(restored, z, atol=1e-4)
    # The loss contains the error of the base frame, which depends on R alone.
    x, noise = clips_of(model, seed=1), clips_of(model, seed=2)
    before = model.losses(x, noise, TIMES, embed(model))["residual"]
    changed = noise.clone()
    changed[:, m] += 1 - alpha_bar[:, 0]
    assert not torch.isclose(model.losses(x, changed, TIMES, embed(model))["residual"], before)


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("base_update", ["paper", "joint"])
def test_base_update_is_saved_and_its_model_trains_and_samples(
    base_update: str, small_presets: None, quick_training: None, tmp_path: Path
) -> None:
    model = videofusion.create(tiny_dataset(), base_update=base_update)
    options = TrainOptions(steps=25, batch_size=4, lr=1e-2, warmup=2, ema=0.9)
    train(model, OneClip(tiny_dataset().shape), options, tmp_path)
    built = videofusion.build(build_context(tmp_path), steps=3)
    assert isinstance(built.model, VideoFusion)
    assert built.model.joint is (base_update == "joint")
    assert torch.equal(built.sample(requests(4, 5))[0], built.sample(requests(4))[0])


def test_an_unknown_base_update_is_refused() -> None:
    with pytest.raises(UserError, match=r"'jiont'.*'joint'"):
        videofusion.create(tiny_dataset(), base_update="jiont")
