"""Tests of `vfbench.baselines.videofusion_seed`. The contract of trainable models is in test_trainable.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import UNET, build_context, clips_of, perturb, randn, requests, tiny_dataset
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from vfbench.baselines import videofusion_seed
from vfbench.baselines.videofusion_seed import VideoFusionSeed
from vfbench.diffusion.model_config import ModelConfig
from vfbench.diffusion.schedule import v_target
from vfbench.errors import UserError

TIMES = torch.tensor([300, 800])


def tiny_seed(*, perturbed: bool = True, **options: Any) -> VideoFusionSeed:
    config = ModelConfig.from_preset("videofusion_seed", "tiny", videofusion_seed.PRESETS, tiny_dataset())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VideoFusionSeed(replace(config, options={**config.options, "base": UNET, "residual": UNET, **options}))
    if perturbed:
        perturb(model)
    return model


def noise_of(model: VideoFusionSeed) -> Tensor:
    """The noise of `draw` for two clips: b, and r of each frame."""
    return model.draw(2, torch.Generator().manual_seed(0))["noise"]


def vectors(mean: float, log_variance: float) -> Tensor:
    """Conditioning vectors of two clips of 8x8 pixels."""
    return torch.tensor([mean, log_variance]).repeat_interleave(3 * 8 * 8).expand(2, -1)


@pytest.mark.parametrize(("sigma_b", "sigma_r"), [(1.0, 1.0), (2.0, 0.5), (0.0, 1.0)])
def test_exact_networks_find_the_clip(monkeypatch: pytest.MonkeyPatch, sigma_b: float, sigma_r: float) -> None:
    model = tiny_seed(sigma_b=sigma_b, sigma_r=sigma_r)
    x, noise, cond = clips_of(model), noise_of(model), vectors(0.3, -1.0)
    alpha_bar, scale = model.schedule.at(TIMES, x), (sigma_b**2 + sigma_r**2) ** 0.5
    b, r = 0.3 + noise[:, :1] * torch.tensor(-0.5).exp(), noise[:, 1:]
    y = x + ((1 - alpha_bar) / alpha_bar).sqrt() / scale * (sigma_b * b + sigma_r * r)
    without_b: list[Tensor] = []

    def read_residual(z: Tensor, *_: Any) -> Tensor:
        without_b.append(z / alpha_bar.sqrt())
        ratio = (1 - alpha_bar) * sigma_r**2 / scale**2
        return v_target(x, r, alpha_bar / (alpha_bar + ratio))

    monkeypatch.setattr(model.base, "forward", lambda z, *_: b.expand_as(z))
    monkeypatch.setattr(model.residual, "forward", read_residual)
    losses = model.losses(x, noise, TIMES, cond)
    assert float(losses["x"]) == pytest.approx(0, abs=1e-9)
    expected = y - ((1 - alpha_bar) / alpha_bar).sqrt() / scale * sigma_b * b
    assert torch.allclose(without_b[0], expected, atol=1e-4)  # R reads y - B(y)
    # The solver follows y without the mean of b, and the networks see it added.
    mean = 0.3 * sigma_b / scale * (1 - alpha_bar).sqrt()
    prediction = model.predict(alpha_bar.sqrt() * y - mean, TIMES, cond)
    assert torch.allclose(prediction.x0, x, atol=1e-4)
    assert torch.allclose(prediction.eps, (sigma_b * (b - 0.3) + sigma_r * r) / scale, atol=1e-4)


def test_the_kl_is_that_of_normal_distributions_with_weight_a_tenth() -> None:
    model = tiny_seed()
    x, noise = clips_of(model), noise_of(model)
    deviation = torch.tensor(-0.7).div(2).exp()
    expected = 0.1 * float(kl_divergence(Normal(0.4, deviation), Normal(0.0, 1.0)))
    assert float(model.losses(x, noise, TIMES, vectors(0.4, -0.7))["kl"]) == pytest.approx(expected, rel=1e-5)
    assert float(model.losses(x, noise, TIMES, vectors(0.0, 0.0))["kl"]) == 0


def test_one_loss_of_x_trains_both_networks_and_the_text() -> None:
    model = tiny_seed()
    cond = model.condition([0] * 2, ["a small red circle moves left over blue stripes"] * 2, ["text"] * 2)
    model.losses(clips_of(model), noise_of(model), TIMES, cond)["x"].backward()  # type: ignore[no-untyped-call]
    for module in (model.base.stem, model.residual.stem, model.condition.layer):
        assert module.weight.grad is not None
        assert module.weight.grad.any()


def test_the_text_enters_by_mean_and_variance_of_b_alone(tmp_path: Path) -> None:
    model = tiny_seed()
    one, other = requests(4, 5)
    pair = [one, replace(one, prompt=other.prompt)]
    for parameter in model.condition.layer.parameters():
        torch.nn.init.zeros_(parameter)
    model.save(tmp_path / "standard b")
    perturb(model.condition.layer)
    model.save(tmp_path / "b of the text")
    same, different = (
        videofusion_seed.build(build_context(tmp_path / name), steps=2).sample(pair)
        for name in ("standard b", "b of the text")
    )
    assert torch.equal(*same)
    assert not torch.equal(*different)


def test_the_noise_of_sampling_has_the_deviation_that_the_text_gives() -> None:
    model = tiny_seed(sigma_b=2.0, sigma_r=1.0)
    b, r = randn(2, 1, 3, 8, 8), randn(2, 4, 3, 8, 8, seed=1)
    parts = iter([b, r])
    noise = model.sampling_prior(vectors(5.0, -1.2)).noise(lambda _: next(parts), model.config.shape)
    assert torch.allclose(noise, (2 * b * torch.tensor(-0.6).exp() + r) / 5**0.5, atol=1e-6)


@pytest.mark.parametrize(("sigma_b", "sigma_r"), [(-1.0, 1.0), (1.0, 0.0), (float("nan"), 1.0), (1.0, float("inf"))])
def test_a_sigma_out_of_range_is_refused(sigma_b: float, sigma_r: float) -> None:
    with pytest.raises(UserError, match=f"sigma_b {sigma_b} and sigma_r {sigma_r}: choose"):
        videofusion_seed.create(tiny_dataset(), sigma_b=sigma_b, sigma_r=sigma_r)


def test_the_preset_of_the_description_is_for_32_frames_of_64_pixels() -> None:
    with torch.device("meta"):
        videofusion_seed.create(tiny_dataset(32, 64), "original")
    with pytest.raises(UserError, match="made for clips of 32x64x64"):
        videofusion_seed.create(tiny_dataset(16, 64), "original")
