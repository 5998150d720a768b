"""Tests of VideoFusion's sampler: options, noise prior, clipping, precision. See also test_trainable.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from contract import check_sampler
from helpers import build_context, clips_of, requests, sampler
from torch import Tensor

from vfbench.diffusion.priors import Decomposed
from vfbench.models import videofusion


@pytest.mark.parametrize("options", [{"guidance": 2.0}, {"condition": "class"}], ids=str)
def test_a_clip_depends_on_its_request_alone(checkpoint: Path, options: dict[str, Any]) -> None:
    check_sampler(sampler(checkpoint, **options), requests(4, 5, 6))


@pytest.mark.slow
def test_sampling_options_change_the_clips(checkpoint: Path) -> None:
    batch = requests(4, 5)
    choices: list[dict[str, Any]] = [
        {},
        {"guidance": 4.0},
        {"condition": "class"},
        {"condition": "none"},
        {"solver": "ddpm"},
    ]
    clips = [sampler(checkpoint, **choice).sample(batch) for choice in choices]
    assert all(not torch.equal(a, b) for i, a in enumerate(clips) for b in clips[:i])


def test_fresh_noise_comes_from_the_noise_prior(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    draws: list[Tensor] = []
    original = Decomposed.noise

    def recorded(prior: Decomposed, *arguments: Any) -> Tensor:
        draws.append(original(prior, *arguments))
        return draws[-1]

    monkeypatch.setattr(Decomposed, "noise", recorded)
    sampler(checkpoint, solver="ddpm", steps=5).sample(requests(4))
    assert len(draws) == 5  # initial noise, and after each step but the last
    assert len({float(draw[0, 0, 0, 0, 0]) for draw in draws}) == 5


def test_predictions_are_clipped_to_the_pixel_range(checkpoint: Path) -> None:
    model = sampler(checkpoint, guidance=20.0)
    z, a = 3 * clips_of(model.model, batch=1), float(model.model.schedule.alpha_bar[500])
    with torch.inference_mode():
        cond = model._conditioning_vectors(requests(4))
        prediction = model._denoiser(requests(4), cond)(z, 500)
    assert prediction.x0.abs().max() == 1
    assert torch.allclose(a**0.5 * prediction.x0 + (1 - a) ** 0.5 * prediction.eps, z, atol=1e-5)


def test_bfloat16_gives_nearly_equal_clips(checkpoint: Path) -> None:
    half = videofusion.build(replace(build_context(checkpoint), dtype=torch.bfloat16), steps=3).sample(requests(4, 5))
    change = (half.int() - sampler(checkpoint).sample(requests(4, 5)).int()).abs().float()
    assert 0 < change.mean() < 4


def test_networks_are_listed_and_in_evaluation_mode(checkpoint: Path) -> None:
    model = sampler(checkpoint)
    assert set(model.networks) == {"condition", "base", "residual"}
    assert not any(network.training for network in model.networks.values())
