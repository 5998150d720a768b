"""VDiT: a transformer in VDM's place, at VDM's cost. (What every trainable model does: test_trainable.py.)"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command
from helpers import clips_of, embed, perturb, randn, setting, tiny_dataset, tiny_vdm
from torch import Tensor

from vfbench.baselines import vdit
from vfbench.baselines.vdit import VDiT
from vfbench.datasets import shapes
from vfbench.diffusion.model import ModelConfig
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
        model = VDiT(replace(config, options={**config.options, "network": NETWORK, **options}))
    if perturbed:
        perturb(model)
    return model


# The model.


def test_it_differs_from_vdm_in_the_network_alone() -> None:
    model, other = tiny_vdit(perturbed=False), tiny_vdm(perturbed=False)
    assert isinstance(model.noise_prior, Independent)
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
    mine, theirs = (match_flops.describe(name, preset, data) for name in ("vdit", "vdm"))
    assert mine.flops_per_clip == pytest.approx(theirs.flops_per_clip, rel=0.03)
    assert mine.parameters == pytest.approx(theirs.parameters, rel=0.03)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["class", "text"])
def test_conditions_change_what_it_says(mode: Conditioning) -> None:
    model, z = tiny_vdit(), randn(2, 4, 3, 8, 8)
    modes: tuple[Conditioning, ...] = ("none", mode)
    without, given = (model.predict(z, TIMES, embed(model, m)).x0 for m in modes)
    assert ((given - without).abs().amax((0, 2, 3, 4)) > 1e-6).all()


# The files.


def test_a_configuration_whose_sizes_do_not_fit_is_refused(tmp_path: Path) -> None:
    tiny_vdit().save(tmp_path)
    content = (tmp_path / "config.json").read_text()
    assert '"heads": 2' in content
    (tmp_path / "config.json").write_text(content.replace('"heads": 2', '"heads": 5'))
    with pytest.raises(MissingData, match=r"does not describe a vdit \(width 32 must be a multiple"):
        vdit.build(setting(tmp_path))


def test_without_a_checkpoint_the_command_that_trains_one_is_told(vfbench: Command) -> None:
    done = vfbench("run", "--model", "vdit", "--dataset", "shapes", "--smoke")
    assert done.code == 4
    assert "python -m vfbench train --model vdit --dataset shapes" in done.err
