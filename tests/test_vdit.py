"""VDiT: a transformer in VDM's place, at VDM's cost; it learns, resumes, samples by request and runs as a command."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, python, results
from helpers import clips_of, embed, perturb, randn, requests, setting, tiny_dataset, tiny_vdm
from torch import Tensor

from vfbench import matching, weights
from vfbench import train as training
from vfbench.baselines import vdit
from vfbench.baselines.vdit import VDiT
from vfbench.datasets import shapes
from vfbench.datasets.shapes import Shapes
from vfbench.diffusion.model import ModelConfig
from vfbench.diffusion.priors import Independent
from vfbench.diffusion.schedule import v_target
from vfbench.errors import Interrupted, MissingData, UserError
from vfbench.interfaces import Clips, Conditioning, Sampler, Split
from vfbench.train import TrainOptions, train

TIMES = torch.tensor([300, 800])
NETWORK = {"width": 32, "hidden": 64, "heads": 2, "depth": 2, "patch": 4, "embedding": 16}
OPTIONS = TrainOptions(steps=6, batch_size=2, lr=1e-2, warmup=2, ema=0.9, save_every=100, sample_every=100)


def tiny_vdit(*, perturbed: bool = True, **options: Any) -> VDiT:
    config = ModelConfig.of("vdit", "tiny", vdit.PRESETS, tiny_dataset())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VDiT(replace(config, options={**config.options, "network": NETWORK, **options}))
    if perturbed:
        perturb(model)
    return model


class OneClip(Shapes):
    """A dataset whose train split shows one clip over and over."""

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Clips:
        return super().clips(split, [0] * len(indices) if split == "train" else indices, device)


def loss_of(model: VDiT) -> float:
    """The loss on the one clip at many times, the same for every model."""
    clip = tiny_dataset().clips("train", [0] * 32).float() / 127.5 - 1
    with torch.no_grad():
        losses = model.training_losses(clip, [0] * 32, [""] * 32, ["none"] * 32, torch.Generator().manual_seed(7))
    return float(losses["network"])


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sample sheets: they take longer than a tiny training."""
    monkeypatch.setattr(training._Run, "show", lambda run: None)


# The model.


def test_it_differs_from_vdm_in_the_network_alone() -> None:
    model, other = tiny_vdit(perturbed=False), tiny_vdm(perturbed=False)
    assert isinstance(model.prior, Independent)
    mine, theirs = ({k: v for k, v in m.config.options.items() if k != "network"} for m in (model, other))
    assert mine == theirs
    x, noise = clips_of(model), clips_of(model, seed=1)  # both networks say nothing yet
    losses = [float(m.losses(x, noise, TIMES, embed(m))["network"].detach()) for m in (model, other)]
    assert losses[0] == losses[1] == pytest.approx(float((v_target(x, noise, _alpha_bar(model, x)) ** 2).mean()))


def _alpha_bar(model: VDiT, x: Tensor) -> Tensor:
    return model.schedule.at(TIMES, x)


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_its_presets_cost_what_vdms_do(preset: str) -> None:
    side = {"tiny": 32, "small": 64}[preset]
    data = shapes.build(height=side, width=side)
    mine, theirs = (matching.describe(name, preset, data) for name in ("vdit", "vdm"))
    assert mine.flops_per_clip == pytest.approx(theirs.flops_per_clip, rel=0.03)
    assert mine.parameters == pytest.approx(theirs.parameters, rel=0.03)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'small'"):
        vdit.create(tiny_dataset(), "smal")


def test_every_weight_learns() -> None:
    model = tiny_vdit()
    caption = "a small red circle moves left over blue stripes"
    modes: list[Any] = ["text", "class", "none"]
    loss = model.training_losses(
        clips_of(model, batch=3), [1, 2, 3], [caption] * 3, modes, torch.Generator().manual_seed(0)
    )
    gradients = torch.autograd.grad(loss["network"], list(model.parameters()), allow_unused=True)
    named = zip(model.named_parameters(), gradients, strict=True)
    assert [name for (name, _), g in named if g is None or not g.any()] == []


@torch.no_grad()
@pytest.mark.parametrize("mode", ["class", "text"])
def test_conditions_change_what_it_says(mode: Conditioning) -> None:
    model, z = tiny_vdit(), randn(2, 4, 3, 8, 8)
    modes: tuple[Conditioning, ...] = ("none", mode)
    without, given = (model.predict(z, TIMES, embed(model, m)).x0 for m in modes)
    assert ((given - without).abs().amax((0, 2, 3, 4)) > 1e-6).all()


# Training.


def test_the_loss_falls_by_a_third(quiet: None, tmp_path: Path) -> None:
    raw = tiny_vdit(perturbed=False)
    before = loss_of(raw)
    train(raw, OneClip(tiny_dataset().shape), replace(OPTIONS, steps=60), tmp_path)
    averaged = vdit.build(setting(tmp_path)).model
    assert isinstance(averaged, VDiT)
    assert loss_of(raw) < before / 1.5
    assert loss_of(averaged) < before / 1.5


def test_stopped_and_resumed_is_uninterrupted_bit_for_bit(
    quiet: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny_vdit(), tiny_dataset(), OPTIONS, whole)
    advance = training._Run.advance

    def pressed(run: training._Run) -> dict[str, float]:
        losses = advance(run)
        if run.step == 3:
            signal.raise_signal(signal.SIGINT)
        return losses

    monkeypatch.setattr(training._Run, "advance", pressed)
    with pytest.raises(Interrupted, match="after step 3 of 6"):
        train(tiny_vdit(), tiny_dataset(), OPTIONS, parts)
    train(tiny_vdit(perturbed=False), tiny_dataset(), OPTIONS, parts, resume=True)  # its initial weights do not matter
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    states = [torch.load(folder / "training.pt", weights_only=True) for folder in (whole, parts)]
    for part in ("model", "ema"):
        assert all(torch.equal(a, b) for a, b in zip(*(s[part].values() for s in states), strict=True))


@pytest.mark.slow
def test_it_survives_the_compiler(tmp_path: Path) -> None:
    # In a process of its own: the compiler cannot read through the checks of types in tests.
    command = ["--model", "vdit", "--dataset", "shapes(frames=2)", "--steps", "3", "--batch-size", "2"]
    for name, flags in {"plain": [], "compiled": ["--compile"]}.items():
        more = ["--device", "cpu", "--dtype", "float32", "--output", tmp_path / name, *flags]
        done = subprocess.run(
            python("-m", "vfbench", "train", *command, *more), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    plain, compiled = (weights.read(tmp_path / name / "model.safetensors") for name in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    assert all(torch.allclose(plain[name], compiled[name], atol=1e-4) for name in plain)


# Sampling, and the files.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("vdit")
    tiny_vdit().save(folder)
    return folder


def test_a_clip_depends_on_its_request_alone(checkpoint: Path) -> None:
    model, wanted = vdit.build(setting(checkpoint), steps=3), requests(4, 5, 6)
    assert isinstance(model, Sampler)
    together = model.sample(wanted)
    alone = torch.cat([model.sample([request]) for request in reversed(wanted)]).flip(0)
    assert (together.int() - alone.int()).abs().max() <= 1
    assert (together[0].int() - together[1].int()).abs().max() > 20
    assert torch.equal(model.sample(wanted), together)


def test_saved_and_loaded_it_is_the_same(checkpoint: Path) -> None:
    model, loaded = tiny_vdit(), vdit.build(setting(checkpoint)).model
    assert {**loaded.state_dict()}.keys() == {**model.state_dict()}.keys()
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )
    z, condition = clips_of(model), embed(model)
    with torch.no_grad():
        assert torch.equal(loaded.predict(z, TIMES, condition).x0, model.eval().predict(z, TIMES, condition).x0)


def test_the_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    tiny_vdm().save(tmp_path)
    with pytest.raises(MissingData, match="checkpoint of 'vdm', not of 'vdit'"):
        vdit.build(setting(tmp_path))


def test_a_configuration_whose_sizes_do_not_fit_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    content = (checkpoint / "config.json").read_text()
    assert '"heads": 2' in content
    (tmp_path / "config.json").write_text(content.replace('"heads": 2', '"heads": 5'))
    (tmp_path / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    with pytest.raises(MissingData, match=r"does not describe a vdit \(width 32 must be a multiple"):
        vdit.build(setting(tmp_path))


def test_without_a_checkpoint_the_command_that_trains_one_is_told(vfbench: Command) -> None:
    done = vfbench("run", "--model", "vdit", "--dataset", "shapes", "--smoke")
    assert done.code == 4
    assert "python -m vfbench train --model vdit --dataset shapes" in done.err


def test_the_command_runs_a_checkpoint_of_two_steps(quiet: None, tmp_path: Path, vfbench: Command) -> None:
    model = VDiT(replace(tiny_vdit().config, shape=shapes.build().shape))
    train(model, shapes.build(), replace(OPTIONS, steps=2), tmp_path / "trained")
    options = ["--model", "vdit", "--dataset", "shapes", "--smoke", "--device", "cpu", "--steps", 2]
    done = vfbench("run", *options, "--checkpoint", tmp_path / "trained", "--output", tmp_path / "run")
    assert done.code == 0, done.err
    result = results(tmp_path / "run")
    assert set(result["scores"]) == {"fvd", "kvd", "is", "clipsim"}
    assert result["cost"]["calls"]["network"] == 2
