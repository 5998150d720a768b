"""PYoCo: VDM's network under noise that frames share, in training and in sampling. (The rest: test_trainable.py.)"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from helpers import UNET, clips_of, embed, perturb, requests, setting, tiny_dataset, tiny_vdm
from torch import Tensor

from vfbench.baselines import pyoco, vdm
from vfbench.baselines.pyoco import PYoCo
from vfbench.diffusion.model import ModelConfig
from vfbench.diffusion.priors import Mixed, Progressive
from vfbench.diffusion.schedule import v_target
from vfbench.errors import UserError
from vfbench.training.train import TrainOptions, train
from vfbench.training.trainer import Trainer

TIMES = torch.tensor([300, 800])
PRESETS = ("tiny", "tiny-progressive")


def tiny(preset: str = "tiny", **options: Any) -> PYoCo:
    """A PYoCo whose step takes milliseconds."""
    config = ModelConfig.from_preset("pyoco", preset, pyoco.PRESETS, tiny_dataset())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PYoCo(replace(config, options={**config.options, "network": UNET, **options}))


def perturbed(preset: str = "tiny") -> PYoCo:
    model = tiny(preset)
    perturb(model)
    return model


# The idea.


@pytest.mark.parametrize(("preset", "prior", "alpha"), [("tiny", Mixed, 1.0), ("tiny-progressive", Progressive, 2.0)])
def test_presets_have_the_prior_and_alpha_that_the_paper_recommends(
    preset: str, prior: type[Mixed] | type[Progressive], alpha: float
) -> None:
    for name in (preset, preset.replace("tiny", "small")):
        with torch.device("meta"):
            found = pyoco.create(tiny_dataset(), name).noise_prior
        assert isinstance(found, prior)
        assert found.alpha == alpha


def test_alpha_is_a_parameter_that_the_checkpoint_remembers(tmp_path: Path) -> None:
    model = pyoco.create(tiny_dataset(), "tiny-progressive", alpha=0.7)
    assert isinstance(model.noise_prior, Progressive)
    assert model.noise_prior.alpha == 0.7
    model.save(tmp_path)
    loaded = pyoco.build(setting(tmp_path)).model.noise_prior
    assert isinstance(loaded, Progressive)
    assert loaded.alpha == 0.7


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_network_is_vdms_so_that_compute_is_equal(size: str) -> None:
    with torch.device("meta"):
        reference = vdm.create(tiny_dataset(), size).state_dict()
        for preset in (size, f"{size}-progressive"):
            found = pyoco.create(tiny_dataset(), preset).state_dict()
            assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in reference.items()}


def test_only_the_noise_tells_it_from_vdm() -> None:
    ours, theirs = perturbed(), tiny_vdm()
    x, noise = clips_of(ours), clips_of(ours, seed=1)
    one, two = (model.losses(x, noise, TIMES, embed(model))["network"] for model in (ours, theirs))
    assert float(one.detach()) == float(two.detach())


@pytest.mark.parametrize("preset", PRESETS)
def test_training_draws_its_noise_from_the_prior(monkeypatch: pytest.MonkeyPatch, preset: str) -> None:
    seen: list[Tensor] = []
    honest = PYoCo.losses

    def watched(model: PYoCo, x: Tensor, noise: Tensor, *rest: Any) -> dict[str, Tensor]:
        seen.append(noise)
        return honest(model, x, noise, *rest)

    monkeypatch.setattr(PYoCo, "losses", watched)
    model = perturbed(preset)
    x = clips_of(model, batch=200)
    drawn = model.draw(200, torch.Generator().manual_seed(0))
    model.training_losses(x, [0] * 200, [""] * 200, ["none"] * 200, drawn)
    found = torch.corrcoef(seen[0].transpose(0, 1).flatten(1))  # of 38,400 pixels
    share = 0.5 if preset == "tiny" else 2 / 5**0.5
    assert found[0, 1:].tolist() == pytest.approx(
        [share, *([share] * 2 if preset == "tiny" else [share**2, share**3])], abs=0.03
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_sampling_draws_all_its_noise_from_the_prior(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, preset: str
) -> None:
    perturbed(preset).save(tmp_path)
    draws: list[Tensor] = []
    prior = Mixed if preset == "tiny" else Progressive
    honest = prior.noise

    def watched(self: Any, *arguments: Any) -> Tensor:
        draws.append(honest(self, *arguments))
        return draws[-1]

    monkeypatch.setattr(prior, "noise", watched)
    pyoco.build(setting(tmp_path), solver="ddpm", steps=5).sample(requests(4))
    assert len({float(draw[0, 0, 0, 0, 0]) for draw in draws}) == 5  # to begin with, and after every step but the last


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_an_oracle_has_no_loss_and_finds_the_clip(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    model = tiny(parametrisation=kind)
    x, noise = clips_of(model).clamp(-1, 1), clips_of(model, seed=1)
    alpha_bar = model.schedule.at(TIMES, x)
    answer = noise if kind == "eps" else v_target(x, noise, alpha_bar)
    monkeypatch.setattr(model.network, "forward", lambda *_: answer)
    z = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise
    assert float(model.losses(x, noise, TIMES, embed(model))["network"]) == 0
    found = model.predict(z, TIMES, embed(model))
    assert torch.allclose(found.x0, x, atol=1e-5)
    assert torch.allclose(found.eps, noise, atol=1e-5)


# Mistakes.


def test_resuming_under_another_alpha_is_refused_naming_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Trainer, "write_preview", lambda run: None)
    options = TrainOptions(steps=1, batch_size=2)
    train(tiny(), tiny_dataset(), options, tmp_path)
    with pytest.raises(UserError, match=r"--model with alpha 1\.0 saved, 0\.5 now"):
        train(tiny(alpha=0.5), tiny_dataset(), options, tmp_path, resume=True)


def test_an_alpha_out_of_range_is_refused_naming_it() -> None:
    with pytest.raises(UserError, match=r"alpha -1\.0: choose"):
        pyoco.create(tiny_dataset(), "tiny", alpha=-1.0)


def test_an_unknown_prior_in_a_configuration_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UserError, match="did you mean 'mixed'"):
        tiny(prior="mixt")
