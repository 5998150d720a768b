"""Tests of `vfbench.baselines.pyoco`: shared noise. The contract of trainable models is in test_trainable.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from helpers import UNET, build_context, clips_of, embed, perturb, requests, tiny_dataset, tiny_vdm
from torch import Tensor

from vfbench.baselines import pyoco, vdm
from vfbench.baselines.pyoco import PYoCo
from vfbench.diffusion.model_config import ModelConfig
from vfbench.diffusion.priors import Mixed, Progressive
from vfbench.diffusion.schedule import v_target
from vfbench.errors import UserError
from vfbench.training.train import TrainOptions, train
from vfbench.training.trainer import Trainer

TIMES = torch.tensor([300, 800])
PRESETS = ("tiny", "tiny-progressive")


def tiny_pyoco(preset: str = "tiny", **options: Any) -> PYoCo:
    """PYoCo whose step takes milliseconds."""
    config = ModelConfig.from_preset("pyoco", preset, pyoco.PRESETS, tiny_dataset())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PYoCo(replace(config, options={**config.options, "network": UNET, **options}))


def perturbed_pyoco(preset: str = "tiny") -> PYoCo:
    model = tiny_pyoco(preset)
    perturb(model)
    return model


# Noise priors.


@pytest.mark.parametrize(("preset", "prior", "alpha"), [("tiny", Mixed, 1.0), ("tiny-progressive", Progressive, 2.0)])
def test_presets_have_the_prior_and_alpha_of_the_paper(
    preset: str, prior: type[Mixed] | type[Progressive], alpha: float
) -> None:
    for name in (preset, preset.replace("tiny", "small")):
        with torch.device("meta"):
            noise_prior = pyoco.create(tiny_dataset(), name).noise_prior
        assert isinstance(noise_prior, prior)
        assert noise_prior.alpha == alpha


def test_alpha_is_saved_in_the_checkpoint(tmp_path: Path) -> None:
    model = pyoco.create(tiny_dataset(), "tiny-progressive", alpha=0.7)
    assert isinstance(model.noise_prior, Progressive)
    assert model.noise_prior.alpha == 0.7
    model.save(tmp_path)
    loaded = pyoco.build(build_context(tmp_path)).model.noise_prior
    assert isinstance(loaded, Progressive)
    assert loaded.alpha == 0.7


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_network_has_the_size_of_vdms(size: str) -> None:
    with torch.device("meta"):
        reference = vdm.create(tiny_dataset(), size).state_dict()
        for preset in (size, f"{size}-progressive"):
            state = pyoco.create(tiny_dataset(), preset).state_dict()
            assert {n: t.shape for n, t in state.items()} == {n: t.shape for n, t in reference.items()}


def test_the_loss_for_equal_noise_equals_that_of_vdm() -> None:
    pyoco_model, vdm_model = perturbed_pyoco(), tiny_vdm()
    x, noise = clips_of(pyoco_model), clips_of(pyoco_model, seed=1)
    pyoco_loss, vdm_loss = (
        model.losses(x, noise, TIMES, embed(model))["network"] for model in (pyoco_model, vdm_model)
    )
    assert float(pyoco_loss.detach()) == float(vdm_loss.detach())


@pytest.mark.parametrize("preset", PRESETS)
def test_training_draws_its_noise_from_the_prior(monkeypatch: pytest.MonkeyPatch, preset: str) -> None:
    noises: list[Tensor] = []
    original = PYoCo.losses

    def recorded(model: PYoCo, x: Tensor, noise: Tensor, *rest: Any) -> dict[str, Tensor]:
        noises.append(noise)
        return original(model, x, noise, *rest)

    monkeypatch.setattr(PYoCo, "losses", recorded)
    model = perturbed_pyoco(preset)
    x = clips_of(model, batch=200)
    draws = model.draw(200, torch.Generator().manual_seed(0))
    model.training_losses(x, [0] * 200, [""] * 200, ["none"] * 200, draws)
    correlation = torch.corrcoef(noises[0].transpose(0, 1).flatten(1))  # of 38,400 pixels
    share = 0.5 if preset == "tiny" else 2 / 5**0.5
    assert correlation[0, 1:].tolist() == pytest.approx(
        [share, *([share] * 2 if preset == "tiny" else [share**2, share**3])], abs=0.03
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_sampling_draws_all_its_noise_from_the_prior(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, preset: str
) -> None:
    perturbed_pyoco(preset).save(tmp_path)
    draws: list[Tensor] = []
    prior = Mixed if preset == "tiny" else Progressive
    original = prior.noise

    def recorded(self: Any, *arguments: Any) -> Tensor:
        draws.append(original(self, *arguments))
        return draws[-1]

    monkeypatch.setattr(prior, "noise", recorded)
    pyoco.build(build_context(tmp_path), solver="ddpm", steps=5).sample(requests(4))
    assert len({float(draw[0, 0, 0, 0, 0]) for draw in draws}) == 5  # initial noise, and after each step but the last


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_an_oracle_has_zero_loss_and_predicts_the_clip(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    model = tiny_pyoco(parametrisation=kind)
    x, noise = clips_of(model).clamp(-1, 1), clips_of(model, seed=1)
    alpha_bar = model.schedule.at(TIMES, x)
    answer = noise if kind == "eps" else v_target(x, noise, alpha_bar)
    monkeypatch.setattr(model.network, "forward", lambda *_: answer)
    z = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise
    assert float(model.losses(x, noise, TIMES, embed(model))["network"]) == 0
    prediction = model.predict(z, TIMES, embed(model))
    assert torch.allclose(prediction.x0, x, atol=1e-5)
    assert torch.allclose(prediction.eps, noise, atol=1e-5)


# Refused options.


@pytest.mark.slow
def test_resuming_with_another_alpha_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Trainer, "write_preview", lambda trainer: None)
    options = TrainOptions(steps=1, batch_size=2)
    train(tiny_pyoco(), tiny_dataset(), options, tmp_path)
    with pytest.raises(UserError, match=r"--model with alpha 1\.0 saved, 0\.5 now"):
        train(tiny_pyoco(alpha=0.5), tiny_dataset(), options, tmp_path, resume=True)


def test_an_alpha_out_of_range_is_refused() -> None:
    with pytest.raises(UserError, match=r"alpha -1\.0: choose"):
        pyoco.create(tiny_dataset(), "tiny", alpha=-1.0)


def test_an_unknown_prior_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UserError, match="did you mean 'mixed'"):
        tiny_pyoco(prior="mixt")
