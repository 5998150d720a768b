"""VideoFusion's sampler: what reaches a clip, and what does not. (What every model's does: test_trainable.py.)"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from contract import check_sampler
from helpers import clips_of, requests, sampler, setting
from torch import Tensor

from vfbench.diffusion.priors import Decomposed
from vfbench.models import videofusion


@pytest.mark.parametrize("options", [{"guidance": 2.0}, {"condition": "class"}], ids=str)
def test_a_clip_depends_on_its_request_alone(checkpoint: Path, options: dict[str, Any]) -> None:
    check_sampler(sampler(checkpoint, **options), requests(4, 5, 6))


def test_guidance_and_conditioning_reach_the_clips(checkpoint: Path) -> None:
    wanted = requests(4, 5)
    choices: list[dict[str, Any]] = [
        {},
        {"guidance": 4.0},
        {"condition": "class"},
        {"condition": "none"},
        {"solver": "ddpm"},
    ]
    clips = [sampler(checkpoint, **choice).sample(wanted) for choice in choices]
    assert all(not torch.equal(a, b) for i, a in enumerate(clips) for b in clips[:i])


def test_fresh_noise_comes_from_the_models_own_prior(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    draws: list[Tensor] = []
    honest = Decomposed.noise

    def watched(prior: Decomposed, *arguments: Any) -> Tensor:
        draws.append(honest(prior, *arguments))
        return draws[-1]

    monkeypatch.setattr(Decomposed, "noise", watched)
    sampler(checkpoint, solver="ddpm", steps=5).sample(requests(4))
    assert len(draws) == 5  # to begin with, and after every step but the last
    assert len({float(draw[0, 0, 0, 0, 0]) for draw in draws}) == 5


def test_predictions_are_limited_to_the_range_of_pixels(checkpoint: Path) -> None:
    model = sampler(checkpoint, guidance=20.0)
    z, a = 3 * clips_of(model.model, batch=1), float(model.model.schedule.alpha_bar[500])
    with torch.inference_mode():
        found = model._denoiser(requests(4))(z, 500)
    assert found.x0.abs().max() == 1
    assert torch.allclose(a**0.5 * found.x0 + (1 - a) ** 0.5 * found.eps, z, atol=1e-5)


def test_half_precision_arithmetic_makes_nearly_the_same_clips(checkpoint: Path) -> None:
    half = videofusion.build(replace(setting(checkpoint), dtype=torch.bfloat16), steps=3).sample(requests(4, 5))
    change = (half.int() - sampler(checkpoint).sample(requests(4, 5)).int()).abs().float()
    assert 0 < change.mean() < 4


def test_its_networks_are_counted_each_by_itself_and_are_not_in_training_mode(checkpoint: Path) -> None:
    model = sampler(checkpoint)
    assert set(model.networks) == {"condition", "base", "residual"}
    assert not any(network.training for network in model.networks.values())
