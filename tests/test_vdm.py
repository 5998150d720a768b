"""Tests of `vfbench.baselines.vdm`. The contract of trainable models is in test_trainable.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import clips_of, embed, randn, tiny_vdm
from torch import Tensor, nn

from vfbench.baselines.vdm import VDM
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.priors import Independent
from vfbench.diffusion.schedule import v_target
from vfbench.interfaces import Conditioning

TIMES = torch.tensor([300, 800])


class Oracle(nn.Module):
    """Network that always returns the same tensor."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, *_: Any) -> Tensor:
        return self.answer


def with_oracle(model: VDM, x: Tensor, noise: Tensor) -> Tensor:
    """Replace the network by one that knows the noise; return z_t."""
    alpha_bar = model.schedule.at(TIMES, x)
    answer = noise if model.parametrisation == "eps" else v_target(x, noise, alpha_bar)
    model.network = Oracle(answer)  # type: ignore[assignment]
    return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_an_oracle_has_zero_loss_and_predicts_the_clip(kind: str) -> None:
    model = tiny_vdm(parametrisation=kind)
    x, noise = clips_of(model).clamp(-1, 1), clips_of(model, seed=1)
    z = with_oracle(model, x, noise)
    assert float(model.losses(x, noise, TIMES, embed(model))["network"]) == 0
    prediction = model.predict(z, TIMES, embed(model))
    assert torch.allclose(prediction.x0, x, atol=1e-5)
    assert torch.allclose(prediction.eps, noise, atol=1e-5)


def test_an_untrained_network_has_the_loss_of_predicting_zero() -> None:
    model = tiny_vdm(perturbed=False)  # its head is zero
    x, noise = clips_of(model), clips_of(model, seed=1)
    target = v_target(x, noise, model.schedule.at(TIMES, x))
    loss = model.losses(x, noise, TIMES, embed(model))["network"]
    assert float(loss.detach()) == pytest.approx(float((target**2).mean()), rel=1e-5)


@pytest.mark.parametrize("missing", ["networks", "predict", "losses"])
def test_models_without_an_abstract_method_are_refused(missing: str) -> None:
    def method(*_: Any) -> None:
        raise AssertionError("called on construction")

    methods = {name: method for name in ("networks", "predict", "losses") if name != missing}
    kind = type("Partial", (DiffusionModel,), methods)
    with pytest.raises(TypeError, match=f"abstract method '?{missing}"):
        kind(tiny_vdm().config)
    assert isinstance(type("Complete", (kind,), {missing: method})(tiny_vdm().config), DiffusionModel)


def test_noise_is_independent_and_parameters_are_one_group() -> None:
    model = tiny_vdm()
    assert isinstance(model.noise_prior, Independent)
    (group,) = model.parameter_groups(2e-3)
    assert group["lr"] == 2e-3
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]


@torch.no_grad()
def test_every_frame_depends_on_the_last() -> None:
    model = tiny_vdm(16)
    z = clips_of(model, batch=1)
    before = model.predict(z, TIMES[:1], embed(model, batch=1)).eps
    z[:, 15] += 1.0
    change = (model.predict(z, TIMES[:1], embed(model, batch=1)).eps - before).abs().amax((0, 2, 3, 4))
    assert (change > 1e-5).all()


@torch.no_grad()
@pytest.mark.parametrize("mode", ["class", "text"])
def test_conditioning_changes_predictions(mode: Conditioning) -> None:
    model, z = tiny_vdm(), randn(2, 4, 3, 8, 8)
    modes: tuple[Conditioning, ...] = ("none", mode)
    unconditional, conditional = (model.predict(z, TIMES, embed(model, m)).x0 for m in modes)
    assert ((conditional - unconditional).abs().amax((0, 2, 3, 4)) > 1e-6).all()
