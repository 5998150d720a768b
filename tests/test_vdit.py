"""Tests of `vfbench.baselines.vdit`. The contract of trainable models is in test_trainable.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import build_context, clips_of, embed, perturb, randn, tiny_dataset, tiny_vdm
from torch import Tensor

from vfbench.baselines import vdit
from vfbench.baselines.vdit import VDiT
from vfbench.datasets import shapes
from vfbench.diffusion.model_config import ModelConfig
from vfbench.diffusion.priors import Independent
from vfbench.diffusion.schedule import v_target
from vfbench.errors import MissingData
from vfbench.interfaces import Conditioning
from vfbench.training import match_flops

TIMES = torch.tensor([300, 800])
NETWORK = {"width": 32, "hidden": 64, "heads": 2, "depth": 2, "patch": 4, "embedding": 16}


def tiny_vdit(*, perturbed: bool = True, **options: Any) -> VDiT:
    config = ModelConfig.from_preset("vdit", "tiny", vdit.PRESETS, tiny_dataset())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VDiT(replace(config, options={**config.options, "network": NETWORK, "time_shift": 1.0, **options}))
    if perturbed:
        perturb(model)
    return model


# Model.


def test_only_the_network_differs_from_vdm() -> None:
    model, other = tiny_vdit(perturbed=False), tiny_vdm(perturbed=False)
    assert isinstance(model.noise_prior, Independent)
    vdit_options, vdm_options = ({k: v for k, v in m.config.options.items() if k != "network"} for m in (model, other))
    assert vdit_options == vdm_options
    x, noise = clips_of(model), clips_of(model, seed=1)  # both networks predict zero
    losses = [float(m.losses(x, noise, TIMES, embed(m))["network"].detach()) for m in (model, other)]
    assert losses[0] == losses[1] == pytest.approx(float((v_target(x, noise, _alpha_bar(model, x)) ** 2).mean()))


def _alpha_bar(model: VDiT, x: Tensor) -> Tensor:
    return model.schedule.at(TIMES, x)


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_presets_cost_as_much_as_those_of_vdm(preset: str) -> None:
    side = {"tiny": 32, "small": 64}[preset]
    data = shapes.build(height=side, width=side)
    vdit_cost, vdm_cost = (match_flops.describe(name, preset, data) for name in ("vdit", "vdm"))
    assert vdit_cost.flops_per_clip == pytest.approx(vdm_cost.flops_per_clip, rel=0.03)
    assert vdit_cost.parameters == pytest.approx(vdm_cost.parameters, rel=0.03)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["class", "text"])
def test_conditioning_changes_predictions(mode: Conditioning) -> None:
    model, z = tiny_vdit(), randn(2, 4, 3, 8, 8)
    modes: tuple[Conditioning, ...] = ("none", mode)
    unconditional, conditional = (model.predict(z, TIMES, embed(model, m)).x0 for m in modes)
    assert ((conditional - unconditional).abs().amax((0, 2, 3, 4)) > 1e-6).all()


# Checkpoints.


def test_inconsistent_sizes_in_a_checkpoint_are_refused(tmp_path: Path) -> None:
    tiny_vdit().save(tmp_path)
    content = (tmp_path / "config.json").read_text()
    assert '"heads": 2' in content
    (tmp_path / "config.json").write_text(content.replace('"heads": 2', '"heads": 5'))
    with pytest.raises(MissingData, match=r"does not describe a vdit \(width 32 must be a multiple"):
        vdit.build(build_context(tmp_path))
