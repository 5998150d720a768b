"""Tests of `vfbench show model`: cost of presets, options, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Command

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.training.match_flops import describe


@pytest.fixture(autouse=True)
def two_presets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Mapping[str, Any]:
    """VDM with two presets, one of them for clips of one shape only, and a cache that no other test has filled."""
    monkeypatch.setenv("VFBENCH_CACHE", str(tmp_path))
    module = plugins.module("model", "vdm")
    presets = {"tiny": module.PRESETS["tiny"], "fixed": {**module.PRESETS["tiny"], "clips": [8, 16, 16]}}
    monkeypatch.setattr(module, "PRESETS", presets)
    return presets


@pytest.mark.slow
def test_presets_are_printed_as_a_table(vfbench: Command) -> None:
    outcome = vfbench("show", "model", "vdm")
    table = outcome.out.splitlines()[-3:]
    assert (outcome.code, outcome.err) == (0, "")
    tiny, fixed = (
        describe("vdm", "tiny", shapes.build()),
        describe("vdm", "fixed", shapes.build(frames=8, height=16, width=16)),
    )
    assert table[0].split("  ")[0] == "preset"
    for line, size, name in zip(table[1:], (tiny, fixed), ("tiny", "fixed"), strict=True):
        cost = [f"{size.flops_per_clip / 1e9:,.1f}", "16"]
        assert line.split() == [name, str(size.shape), f"{size.parameters:,}", *cost]
    assert len({len(line) for line in table}) == 1  # aligned columns


def test_costs_are_for_clips_of_the_dataset(vfbench: Command) -> None:
    *_, tiny, fixed = vfbench(
        "show", "model", "vdm", "--dataset", "shapes(frames=4, height=16, width=16)"
    ).out.splitlines()
    assert tiny.split()[1] == "4x16x16"
    assert fixed.split() == ["fixed", "do", "not", "fit"]


@pytest.mark.slow
def test_a_preset_is_printed_with_cost_and_options(vfbench: Command) -> None:
    outcome = vfbench("show", "model", "vdm", "--preset", "tiny")
    size = describe("vdm", "tiny", shapes.build())
    lines = dict(
        line.split(maxsplit=1) for line in outcome.out.splitlines()[1:] if not line.startswith(("a clip", "to train"))
    )
    assert outcome.out.startswith("vdm tiny\n")
    assert lines["clips"] == "16x32x32"
    assert lines["parameters"] == f"{size.parameters:,}"
    assert lines["network.channels"] == str(size.config.options["network"]["channels"])
    assert lines["parametrisation"] == "v"
    assert f"{size.flops_per_clip / 1e9:,.1f} GFLOP in 16 evaluations of the network" in outcome.out
    assert "10,000 steps of 8 clips" in outcome.out
    assert "less than 0.1 GPU-hours at 100 TFLOP/s" in outcome.out


@pytest.mark.slow
def test_a_preset_of_fixed_shape_is_counted_at_that_shape(vfbench: Command) -> None:
    printed = json.loads(vfbench("show", "model", "vdm", "--preset", "fixed", "--json").out)
    size = describe("vdm", "fixed", shapes.build(frames=8, height=16, width=16))
    costs = {name: getattr(size, name) for name in ("parameters", "flops_per_clip", "evaluations", "training_flops")}
    options = json.loads(json.dumps(size.config.options))
    assert printed == {"name": "vdm", "preset": "fixed", "clips": "8x16x16", **costs, "options": options}


def test_json_has_the_sizes_of_all_presets(vfbench: Command, two_presets: Mapping[str, Any]) -> None:
    printed = json.loads(vfbench("show", "model", "vdm", "--json", "--dataset", "shapes(height=16, width=16)").out)
    assert printed["presets"] == json.loads(json.dumps(two_presets))
    assert printed["sizes"]["tiny"]["clips"] == "16x16x16"
    assert printed["sizes"]["fixed"] is None
    assert printed["options"]["solver"] == "dpm++2m"
    assert printed["train_options"].keys() >= {"parametrisation", "time_shift", "embedding", "text_encoder"}


def test_json_has_choices_and_purpose_of_the_options(vfbench: Command) -> None:
    printed = json.loads(vfbench("show", "model", "vdm", "--json").out)
    assert printed["about_options"].keys() == printed["options"].keys()
    solver, steps = (printed["about_options"][name] for name in ("solver", "steps"))
    assert solver == {"type": "str", "choices": ["ddim", "ddpm", "dpm++2m"], "purpose": "Sampling algorithm."}
    assert steps == {
        "type": "int or None",
        "choices": [],
        "purpose": "Sampling steps; by default those of the preset, or 16.",
    }
    assert printed["about_train_options"]["parametrisation"]["choices"] == ["eps", "v"]
    assert "about_train_options" not in json.loads(vfbench("show", "metric", "fvd", "--json").out)


def test_presets_without_networks_are_printed_as_json(vfbench: Command) -> None:
    assert 'preset modelscope: {"id": ' in vfbench("show", "model", "diffusers").out
    assert "preset" not in vfbench("show", "model", "noise").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model", "vdm", "--preset", "tinny"], "no vdm preset called 'tinny': did you mean 'tiny'"),
        (["model", "noise", "--preset", "tiny"], "'noise' has no presets to count; these have: pyoco, super_"),
        (["model", "diffusers", "--preset", "modelscope"], "'diffusers' has no presets to count"),
        (["model", "vdm", "--preset", "fixed", "--dataset", "shapes"], "is made for clips of 8x16x16"),
        (["model", "vdm", "--preset", "tiny", "--dataset", "shaps"], "did you mean 'shapes'"),
        (["dataset", "shapes", "--preset", "tiny"], "--preset: a dataset has no presets"),
        (["metric", "fvd", "--dataset", "shapes"], "--dataset: a metric has no presets"),
        (["protocol", "strict", "--preset", "tiny"], "--preset: a protocol has no presets"),
    ],
)
def test_invalid_arguments_are_refused(arguments: list[str], message: str, vfbench: Command) -> None:
    outcome = vfbench("show", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
