"""What `show model` tells: each preset with what it costs, or one of them with all its options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from conftest import Command

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.training.match_flops import describe


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """VDM with two presets, one of them made for clips of one shape."""
    module = plugins.module("model", "vdm")
    presets = {"tiny": module.PRESETS["tiny"], "fixed": {**module.PRESETS["tiny"], "clips": [8, 16, 16]}}
    monkeypatch.setattr(module, "PRESETS", presets)
    return presets


def test_a_model_shows_its_presets_below_each_other(vfbench: Command) -> None:
    done = vfbench("show", "model", "vdm")
    table = done.out.splitlines()[-3:]
    assert (done.code, done.err) == (0, "")
    tiny, fixed = (
        describe("vdm", "tiny", shapes.build()),
        describe("vdm", "fixed", shapes.build(frames=8, height=16, width=16)),
    )
    assert table[0].split("  ")[0] == "preset"
    for line, size, name in zip(table[1:], (tiny, fixed), ("tiny", "fixed"), strict=True):
        told = [f"{size.flops_per_clip / 1e9:,.1f}", "25"]
        assert line.split() == [name, str(size.shape), f"{size.parameters:,}", *told]
    assert len({len(line) for line in table}) == 1  # the numbers stand below each other


def test_presets_are_counted_for_the_clips_of_a_dataset(vfbench: Command) -> None:
    *_, tiny, fixed = vfbench(
        "show", "model", "vdm", "--dataset", "shapes(frames=4, height=16, width=16)"
    ).out.splitlines()
    assert tiny.split()[1] == "4x16x16"
    assert fixed.split() == ["fixed", "do", "not", "fit"]


def test_a_preset_shows_what_it_costs_and_all_its_options(vfbench: Command) -> None:
    done = vfbench("show", "model", "vdm", "--preset", "tiny")
    size = describe("vdm", "tiny", shapes.build())
    lines = dict(
        line.split(maxsplit=1) for line in done.out.splitlines()[1:] if not line.startswith(("a clip", "to train"))
    )
    assert done.out.startswith("vdm tiny\n")
    assert lines["clips"] == "16x32x32"
    assert lines["parameters"] == f"{size.parameters:,}"
    assert lines["network.channels"] == str(size.options["network"]["channels"])
    assert lines["parametrisation"] == "v"
    assert f"{size.flops_per_clip / 1e9:,.1f} GFLOP in 25 evaluations of the network" in done.out
    assert "10,000 steps of 8 clips by our assumption, less than 0.1 GPU-hours at 100 TFLOP/s a GPU" in done.out


def test_a_preset_of_its_own_size_is_shown_at_that_size(vfbench: Command) -> None:
    found = json.loads(vfbench("show", "model", "vdm", "--preset", "fixed", "--json").out)
    size = describe("vdm", "fixed", shapes.build(frames=8, height=16, width=16))
    counted = {name: getattr(size, name) for name in ("parameters", "flops_per_clip", "evaluations", "training_flops")}
    options = json.loads(json.dumps(size.options))
    assert found == {"name": "vdm", "preset": "fixed", "clips": "8x16x16", **counted, "options": options}


def test_json_has_the_sizes_of_all_presets(vfbench: Command, small: Mapping[str, Any]) -> None:
    found = json.loads(vfbench("show", "model", "vdm", "--json", "--dataset", "shapes(height=16, width=16)").out)
    assert found["presets"] == json.loads(json.dumps(small))
    assert found["sizes"]["tiny"]["clips"] == "16x16x16"
    assert found["sizes"]["fixed"] is None
    assert found["options"]["steps"] == 25


def test_settings_that_are_no_sizes_are_shown_as_they_are(vfbench: Command) -> None:
    assert 'preset modelscope: {"id": ' in vfbench("show", "model", "diffusers").out
    assert "preset" not in vfbench("show", "model", "noise").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model", "vdm", "--preset", "tinny"], "no vdm preset called 'tinny': did you mean 'tiny'"),
        (["model", "noise", "--preset", "tiny"], "'noise' has no presets to count; these have: pyoco, vdit, vdm"),
        (["model", "diffusers", "--preset", "modelscope"], "'diffusers' has no presets to count"),
        (["model", "vdm", "--preset", "fixed", "--dataset", "shapes"], "is made for clips of 8x16x16"),
        (["model", "vdm", "--preset", "tiny", "--dataset", "shaps"], "did you mean 'shapes'"),
        (["dataset", "shapes", "--preset", "tiny"], "--preset: a dataset has no presets"),
        (["metric", "fvd", "--dataset", "shapes"], "--dataset: a metric has no presets"),
        (["protocol", "strict", "--preset", "tiny"], "--preset: a protocol has no presets"),
    ],
)
def test_what_cannot_be_shown_is_named(arguments: list[str], said: str, vfbench: Command) -> None:
    done = vfbench("show", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
