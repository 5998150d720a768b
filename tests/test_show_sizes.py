"""Tests of the size of presets: equal compute across models, and presets for one clip shape."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import tiny_dataset

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.datasets.shapes import Shapes
from vfbench.diffusion.model import DiffusionModel
from vfbench.errors import UserError
from vfbench.training.match_flops import Size, describe

MODELS = ("vdm", "pyoco", "vdit", "videofusion")
LARGE = ("base", "base-128", "paper", "paper-128")
MILLION = 10**6
slow = pytest.mark.slow  # counting takes seconds each


def data(preset: str) -> Shapes:
    side = 128 if preset.endswith("-128") else 64
    return shapes.build(height=side, width=side)


def size_of(model: str, preset: str) -> Size:
    return describe(model, preset, data(preset))


def network_parameters(preset: str) -> dict[str, int]:
    """Parameters of each network of VideoFusion."""
    with torch.device("meta"):
        model: DiffusionModel = plugins.module("model", "videofusion").create(data(preset), preset)
    return {name: sum(p.numel() for p in network.parameters()) for name, network in model.networks().items()}


@slow
@pytest.mark.one_case
@pytest.mark.parametrize("preset", LARGE)
def test_presets_have_equal_compute_across_models(preset: str) -> None:
    sizes = {model: size_of(model, preset) for model in MODELS}
    name, large, _ = preset.partition("-128")
    sizes["progressive"] = size_of("pyoco", f"{name}-progressive{large}")
    expected = sizes["videofusion"].flops_per_clip
    for model, size in sizes.items():
        assert size.flops_per_clip == pytest.approx(expected, rel=0.03), model
    vdm, vdit = sizes["vdm"], sizes["vdit"]
    assert vdit.parameters == pytest.approx(vdm.parameters, rel=0.03)
    assert vdit.flops_per_clip == pytest.approx(vdm.flops_per_clip, rel=0.03)
    assert vdit.training_flops == pytest.approx(vdm.training_flops, rel=0.03)
    assert sizes["pyoco"].parameters == sizes["progressive"].parameters == vdm.parameters
    if preset.startswith("base"):
        assert all(100 * MILLION <= size.parameters <= 300 * MILLION for size in sizes.values())


def test_the_paper_preset_has_the_parameters_of_the_paper() -> None:
    parameters = network_parameters("paper")
    assert parameters["base"] == pytest.approx(2e9, rel=0.02)
    assert parameters["residual"] == pytest.approx(5e8, rel=0.05)


@pytest.mark.slow
def test_the_quarter_preset_costs_at_most_two_fifths_of_vdm() -> None:
    """Efficiency table of the paper: VDM with the widths of the base generator against VideoFusion."""
    parameters = network_parameters("small-quarter")
    assert parameters["residual"] == pytest.approx(parameters["base"] / 4, rel=0.01)
    presets = {name: plugins.module("model", name).PRESETS for name in MODELS}
    star, base = presets["vdm"]["small-star"]["network"], presets["videofusion"]["small-quarter"]["base"]
    assert {**star, "attention": []} == base
    videofusion_size, vdm_size = size_of("videofusion", "small-quarter"), size_of("vdm", "small-star")
    assert videofusion_size.flops_per_clip <= 0.4 * vdm_size.flops_per_clip
    assert videofusion_size.parameters == pytest.approx(vdm_size.parameters, rel=0.03)


@pytest.mark.one_case
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("preset", LARGE)
def test_a_preset_of_one_shape_is_refused_for_others_with_suggestions(model: str, preset: str) -> None:
    module = plugins.module("model", model)
    other = next(name for name in LARGE if name.endswith("-128") != preset.endswith("-128"))
    message = f"{model} preset '{preset}' is made for clips of {data(preset).shape}, shapes has {data(other).shape}"
    with pytest.raises(UserError, match=message) as caught:
        module.create(data(other), preset)
    suggested = str(caught.value).rpartition("choose one of ")[2].split(", ")
    assert {"tiny", "small", other} <= set(suggested)
    assert preset not in suggested
    with torch.device("meta"):
        for name in suggested[:-1]:
            assert isinstance(module.create(data(other), name), DiffusionModel)


@pytest.mark.one_case
@pytest.mark.parametrize("model", MODELS)
def test_smaller_presets_take_clips_of_any_shape(model: str) -> None:
    presets = plugins.module("model", model).PRESETS
    fixed_shape = {name for name, options in presets.items() if "clips" in options}
    assert fixed_shape == {name for name in presets if name.split("-")[0] in ("base", "paper")}
    with torch.device("meta"):
        for name in set(presets) - fixed_shape:
            assert isinstance(plugins.module("model", model).create(tiny_dataset(side=16), name), DiffusionModel)
    assert json.loads(json.dumps(presets)) == presets


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["base", "paper"])
def test_the_128_preset_has_equal_networks_on_larger_patches(model: str, name: str) -> None:
    presets = plugins.module("model", model).PRESETS
    small, large = presets[name], presets[f"{name}-128"]
    assert small["clips"] == [16, 64, 64]
    assert large["clips"] == [16, 128, 128]
    networks = [key for key, value in small.items() if isinstance(value, dict)]
    for network in networks:
        assert large[network] == {**small[network], "patch": 2 * small[network]["patch"]}
    assert {k: v for k, v in small.items() if k not in (*networks, "clips")} == {
        k: v for k, v in large.items() if k not in (*networks, "clips")
    }
