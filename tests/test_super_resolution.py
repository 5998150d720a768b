"""Tests of `vfbench.baselines.super_resolution`. The contract of trainable models is in test_trainable.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import CPU, UNET, clips_of, embed, perturb, randn, requests, tiny_dataset
from torch import Tensor

from vfbench.baselines import super_resolution
from vfbench.baselines.super_resolution import SuperResolution
from vfbench.diffusion.model_config import ModelConfig
from vfbench.diffusion.sampler import DiffusionSampler, SamplerOptions
from vfbench.diffusion.super_resolution import SmallClips, real_small_clips
from vfbench.errors import UserError
from vfbench.interfaces import ClipShape

SIDE = 8


def tiny_super_resolution(side: int = SIDE, frames: int = 4, *, perturbed: bool = True) -> SuperResolution:
    presets, data = super_resolution.PRESETS, tiny_dataset(frames, side)
    config = ModelConfig.from_preset("super_resolution", "tiny", presets, data)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SuperResolution(replace(config, options={**config.options, "network": UNET}))
    if perturbed:
        perturb(model)
    return model


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, ...]]:
    """What the network is called with."""
    calls: list[tuple[Tensor, ...]] = []
    original = super_resolution.ConditionedUNet.forward

    def recorded(network: Any, *arguments: Tensor) -> Tensor:
        calls.append(arguments)
        return original(network, *arguments)

    monkeypatch.setattr(super_resolution.ConditionedUNet, "forward", recorded)
    return calls


def halved(clips: Tensor) -> Tensor:
    """Frames of half the size: each pixel is the mean of four."""
    sums = clips[..., ::2, :] + clips[..., 1::2, :]
    return (sums[..., ::2] + sums[..., 1::2]) / 4


def doubled(small: Tensor) -> Tensor:
    """Frames of twice the size by bilinear interpolation; each new pixel lies a quarter of one off an old pixel."""
    for dim in (-2, -1):
        last = small.shape[dim] - 1
        positions = (torch.arange(2 * (last + 1)) / 2 - 0.25).clamp(0, last)
        low = positions.floor().long()
        shape = [1] * small.ndim
        shape[dim] = -1
        weight = (positions - low).view(shape)
        high = (low + 1).clamp(max=last)
        small = small.index_select(dim, low) * (1 - weight) + small.index_select(dim, high) * weight
    return small


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_the_network_reads_the_enlarged_clip_with_noise_of_the_level(
    inputs: list[tuple[Tensor, ...]], level: float
) -> None:
    model, small, noise = tiny_super_resolution(), randn(2, 4, 3, 4, 4), randn(2, 4, 3, SIDE, SIDE, seed=1)
    denoise = model.enlarge(small, level, lambda _: noise)
    times, z = torch.tensor([300, 800]), clips_of(model)
    denoise(z, times, embed(model))
    _, _, _, read, read_time = inputs[-1]
    time = round(level * 999)
    a = model.schedule.alpha_bar[time].float()
    assert read_time.tolist() == [time, time]
    assert torch.allclose(read, a.sqrt() * doubled(small) + (1 - a).sqrt() * noise, atol=1e-6)
    denoise(torch.cat([z, z]), times.repeat(2), embed(model, batch=4))  # guidance
    assert torch.equal(inputs[-1][3], torch.cat([read, read]))


def test_training_reduces_each_clip_and_draws_every_level(inputs: list[tuple[Tensor, ...]]) -> None:
    model, count = tiny_super_resolution(), 400
    x, draws = clips_of(model, batch=count), model.draw(count, torch.Generator().manual_seed(0))
    model.training_losses(x, [0] * count, [""] * count, ["none"] * count, draws)
    small = halved(x)
    alpha_bar = model.schedule.at(draws["small_t"], x)
    expected = alpha_bar.sqrt() * doubled(small) + (1 - alpha_bar).sqrt() * draws["small_noise"]
    assert torch.allclose(inputs[-1][3], expected, atol=1e-5)
    assert torch.equal(inputs[-1][4], draws["small_t"])
    assert torch.histc(draws["small_t"].float(), 10, 0, 999).min() > 20
    assert not torch.equal(draws["small_noise"], draws["noise"])


def test_level_and_clip_change_the_output() -> None:
    model = tiny_super_resolution()
    z, t, cond, small = clips_of(model), torch.tensor([500, 500]), embed(model), randn(2, 4, 3, 4, 4)

    def x0(small: Tensor, level: float) -> Tensor:
        return model.enlarge(small, level, lambda shape: torch.zeros(2, *shape))(z, t, cond).x0

    first = x0(small, 0.1)
    assert not torch.allclose(first, x0(small, 0.5), atol=1e-3)
    assert not torch.allclose(first, x0(-small, 0.1), atol=1e-3)


def test_a_sampler_enlarges_the_real_clip_of_each_request() -> None:
    model, data = tiny_super_resolution().eval(), tiny_dataset()
    batch = [replace(request, source=source) for request, source in zip(requests(4, 4), (2, 5), strict=True)]
    small_clips = real_small_clips(model, data)
    assert small_clips is not None
    real = data.clips("test", [2, 5]).float()
    assert torch.equal(small_clips.sample(batch), halved(real).round().byte())
    sampling = SamplerOptions(steps=2)
    sampler = DiffusionSampler(model, "none", CPU, sampling=sampling, small_clips=small_clips)
    assert sampler.reference
    assert not torch.equal(*sampler.sample(batch))  # they differ in their real clip alone
    assert not DiffusionSampler(model, "none", CPU, sampling=sampling).reference


@pytest.mark.parametrize(("preset", "side"), [("tiny", 64), ("small-128", 128), ("small-256", 256)])
def test_every_preset_enlarges_clips_of_its_size(preset: str, side: int) -> None:
    with torch.device("meta"):
        model = super_resolution.create(tiny_dataset(16, side), preset)
        small = 32 if preset == "tiny" else 64
        denoise = model.enlarge(torch.empty(1, 16, 3, small, small), 0.1, lambda shape: torch.empty(1, *shape))
        prediction = denoise(
            torch.empty(1, 16, 3, side, side), torch.zeros(1, dtype=torch.long), model.null_conditioning(1)
        )
    assert prediction.x0.shape == (1, 16, 3, side, side)
    assert model.config.shape == ClipShape(16, side, side)


@pytest.mark.parametrize("factor", [0, -2, 3])
def test_a_factor_that_does_not_divide_the_clips_is_refused(factor: int) -> None:
    with pytest.raises(UserError, match=f"factor {factor}: clips of 4x8x8"):
        super_resolution.create(tiny_dataset(), factor=factor)


@pytest.mark.parametrize("level", [-0.1, 1.5, float("nan")])
def test_a_level_out_of_range_is_refused(level: float) -> None:
    with pytest.raises(UserError, match=f"level {level}: choose 0"):
        SmallClips(lambda _: torch.empty(0), level)
