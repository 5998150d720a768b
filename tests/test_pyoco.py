"""PYoCo: VDM's network under noise that frames share, in training and in sampling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from conftest import Command, results
from helpers import CPU, UNET, clips_of, embed, perturb, requests, setting, tiny_dataset, tiny_vdm
from torch import Tensor

from vfbench import train as training
from vfbench.baselines import pyoco, vdm
from vfbench.baselines.pyoco import PYoCo
from vfbench.datasets import shapes
from vfbench.datasets.shapes import Shapes
from vfbench.diffusion.model import ModelConfig
from vfbench.diffusion.priors import Mixed, Progressive
from vfbench.diffusion.schedule import v_target
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Sampler, Setting
from vfbench.train import TrainOptions, train

TIMES = torch.tensor([300, 800])
OPTIONS = TrainOptions(steps=60, batch_size=2, lr=1e-2, warmup=2, ema=0.9, save_every=100, sample_every=100)
PRESETS = ("tiny", "tiny-progressive")


def tiny(preset: str = "tiny", data: Shapes | None = None, **options: Any) -> PYoCo:
    """A PYoCo whose step takes milliseconds."""
    config = ModelConfig.of("pyoco", preset, pyoco.PRESETS, data or tiny_dataset())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PYoCo(replace(config, options={**config.options, "network": UNET, **options}))


def perturbed(preset: str = "tiny") -> PYoCo:
    model = tiny(preset)
    perturb(model)
    return model


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sample sheets: they take longer than a tiny training."""
    monkeypatch.setattr(training._Run, "show", lambda run: None)


# The idea.


@pytest.mark.parametrize(("preset", "prior", "alpha"), [("tiny", Mixed, 1.0), ("tiny-progressive", Progressive, 2.0)])
def test_presets_have_the_prior_and_alpha_that_the_paper_recommends(
    preset: str, prior: type[Mixed] | type[Progressive], alpha: float
) -> None:
    for name in (preset, preset.replace("tiny", "small")):
        with torch.device("meta"):
            found = pyoco.create(tiny_dataset(), name).prior
        assert isinstance(found, prior)
        assert found.alpha == alpha


def test_alpha_is_a_parameter_that_the_checkpoint_remembers(tmp_path: Path) -> None:
    model = pyoco.create(tiny_dataset(), "tiny-progressive", alpha=0.7)
    assert isinstance(model.prior, Progressive)
    assert model.prior.alpha == 0.7
    model.save(tmp_path)
    loaded = pyoco.build(setting(tmp_path)).model.prior
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
    model.training_losses(x, [0] * 200, [""] * 200, ["none"] * 200, torch.Generator().manual_seed(0))
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


# A model like every other.


def loss_of(model: PYoCo) -> float:
    """The loss on one clip at many times."""
    clip = tiny_dataset().clips("train", [0] * 32).float() / 127.5 - 1
    with torch.no_grad():
        losses = model.training_losses(clip, [0] * 32, [""] * 32, ["none"] * 32, torch.Generator().manual_seed(7))
    return float(torch.stack(list(losses.values())).sum())


class OneClip(Shapes):
    """A dataset whose train split shows one clip over and over."""

    def clips(self, split: Any, indices: Any, device: torch.device | None = None) -> Tensor:
        return super().clips(split, [0] * len(indices) if split == "train" else indices, device)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_loss_falls_by_a_fifth_in_60_steps(quiet: None, tmp_path: Path, preset: str) -> None:
    model = tiny(preset)
    before = loss_of(model)
    train(model, OneClip(tiny_dataset().shape), OPTIONS, tmp_path)
    averaged = pyoco.build(Setting(tiny_dataset(), CPU, checkpoint=tmp_path)).model
    assert isinstance(averaged, PYoCo)
    assert loss_of(model) < 0.8 * before
    assert loss_of(averaged) < 0.8 * before


def test_stopped_and_resumed_is_uninterrupted_bit_for_bit(quiet: None, tmp_path: Path) -> None:
    few, asked = replace(OPTIONS, steps=6), iter([False, False, True])  # after each step: stops at the third
    train(tiny(), tiny_dataset(), few, tmp_path / "whole")
    train(tiny(), tiny_dataset(), few, tmp_path / "parts", stop=lambda: next(asked))
    train(perturbed(), tiny_dataset(), few, tmp_path / "parts", resume=True)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_resuming_under_another_alpha_is_refused_naming_it(quiet: None, tmp_path: Path) -> None:
    train(tiny(), tiny_dataset(), replace(OPTIONS, steps=1), tmp_path)
    with pytest.raises(UserError, match=r"config.options.alpha = 1.0, now it is 0.5"):
        train(tiny(alpha=0.5), tiny_dataset(), replace(OPTIONS, steps=1), tmp_path, resume=True)


def test_saving_and_loading_gives_the_same_weights(tmp_path: Path) -> None:
    saved = perturbed()
    saved.save(tmp_path)
    loaded = pyoco.build(setting(tmp_path)).model.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in saved.state_dict().items())


@pytest.mark.parametrize("preset", PRESETS)
def test_a_clip_depends_on_its_request_alone(tmp_path: Path, preset: str) -> None:
    perturbed(preset).save(tmp_path)
    model, wanted = pyoco.build(setting(tmp_path), steps=3), requests(4, 5, 6)
    assert isinstance(model, Sampler)
    together = model.sample(wanted)
    alone = torch.cat([model.sample([request]) for request in reversed(wanted)]).flip(0)
    assert (together.int() - alone.int()).abs().max() <= 1
    assert (together[0].int() - together[1].int()).abs().max() > 20


def test_a_model_of_two_steps_runs_through_the_benchmark(quiet: None, vfbench: Command, tmp_path: Path) -> None:
    data = shapes.build()
    train(tiny(data=data), data, replace(OPTIONS, steps=2), tmp_path / "model")
    asked = ("run", "--model", "pyoco", "--dataset", "shapes", "--smoke", "--device", "cpu", "--steps", 2)
    done = vfbench(*asked, "--checkpoint", tmp_path / "model", "--output", tmp_path / "run")
    assert done.code == 0, done.err
    result = results(tmp_path / "run")
    assert result["scores"]
    assert result["model"].startswith("pyoco")


# Mistakes.


def test_the_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    tiny_vdm().save(tmp_path)
    with pytest.raises(MissingData, match="checkpoint of 'vdm', not of 'pyoco'"):
        pyoco.build(setting(tmp_path))


@pytest.mark.parametrize(
    ("preset", "alpha", "named"),
    [("tiny-progresive", None, "did you mean 'tiny-progressive'"), ("tiny", -1.0, r"alpha -1\.0: choose")],
)
def test_wrong_options_are_refused_naming_them(preset: str, alpha: float | None, named: str) -> None:
    with pytest.raises(UserError, match=named):
        pyoco.create(tiny_dataset(), preset, alpha=alpha)


def test_an_unknown_prior_in_a_configuration_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UserError, match="did you mean 'mixed'"):
        tiny(prior="mixt")
