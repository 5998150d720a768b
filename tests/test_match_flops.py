"""Tests of `vfbench.training.match_flops`: counting the cost of presets, and scaling widths to equal FLOPs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import NO_TIME, UNET, tiny_dataset, tiny_vdm

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.diffusion import flops as cost
from vfbench.diffusion.sampler import preset_sampling
from vfbench.errors import UserError
from vfbench.interfaces import BuildContext
from vfbench.pipeline.cost import measure
from vfbench.pipeline.requests import make_requests
from vfbench.plugins import Spec
from vfbench.training import match_flops
from vfbench.training import width_search as widths
from vfbench.training.match_flops import create, describe, match
from vfbench.utils import tensor_files

TRAINABLE = plugins.trainable()
DATA = tiny_dataset(side=16)


def networks(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: value for name, value in options.items() if isinstance(value, dict)}


def without_widths(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without the widths of their networks."""
    widths = ("channels", "width", "hidden")
    rest = {name: {k: v for k, v in value.items() if k not in widths} for name, value in networks(options).items()}
    return {**options, **rest}


def all_widths(options: Mapping[str, Any]) -> list[int]:
    values: list[int] = []
    for network in networks(options).values():
        values += [*network.get("channels", []), *(network[k] for k in ("width", "hidden") if k in network)]
    return values


# Counting.


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize(("name", "preset"), [*((name, "tiny") for name in TRAINABLE), ("videofusion", "tiny-prior")])
def test_described_cost_equals_the_measured_cost(
    name: str, preset: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("vfbench.pipeline.cost.MAX_REPEAT_SECONDS", 0.0)  # no timing needed
    described = describe(name, preset, DATA)
    create(described, DATA).save(tmp_path)
    context, request = (
        BuildContext(DATA, torch.device("cpu"), checkpoint=tmp_path),
        make_requests(DATA, "test", 1, 0)[0],
    )
    one, two = (measure(plugins.load("model", Spec(name, {"steps": n}), context), request) for n in (1, 2))
    steps, _ = preset_sampling(described.config)
    assert described.parameters == two.parameters
    assert described.flops_per_clip == one.flops_per_clip + (steps - 1) * (two.flops_per_clip - one.flops_per_clip)
    if preset == "tiny":
        assert described.evaluations == steps * one.evaluations


def test_counting_uses_no_computation_and_no_random_numbers() -> None:
    before = torch.get_rng_state()
    large = describe("vdm", "small", shapes.build(frames=64, height=1024, width=1024))  # too large to compute
    assert large.flops_per_clip > 1e14
    assert torch.equal(torch.get_rng_state(), before)


def test_a_created_model_equals_the_preset() -> None:
    torch.manual_seed(3)
    created = create(describe("vdm", "tiny", DATA), DATA)
    torch.manual_seed(3)
    expected = plugins.module("model", "vdm").create(DATA, "tiny")
    assert created.config == expected.config
    assert all(torch.equal(a, b) for a, b in zip(created.parameters(), expected.parameters(), strict=True))


@pytest.mark.parametrize(
    ("model", "preset", "side", "message"),
    [
        ("noise", "tiny", 16, "'noise' has no presets .*vdit, vdm, videofusion"),
        ("vdm", "tinny", 16, "'tinny'.*'tiny'"),
        ("vmd", "tiny", 16, "'vmd'.*'vdm'"),
        ("vdit", "tiny", 18, "vdit .*'tiny' .*4x18x18"),
        ("vdm", "tiny", 17, "vdm tiny .*4x17x17: .*multiples of 8"),
    ],
)
def test_a_preset_that_cannot_be_counted_is_refused(model: str, preset: str, side: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        describe(model, preset, tiny_dataset(side=side))


# Matching.


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize(
    ("model", "reference", "preset"),
    [
        ("vdm", "vdit", "tiny"),
        ("videofusion", "vdm", "tiny"),
        ("vdit", "videofusion", "tiny"),
    ],
)
def test_each_model_is_scaled_to_the_flops_of_each_other(model: str, reference: str, preset: str) -> None:
    data, other = shapes.build(), "small" if preset == "tiny" else "tiny"
    target, before = describe(reference, preset, data), describe(model, other, data)
    matched = match(model, other, data, target)
    assert matched.flops_per_clip == pytest.approx(target.flops_per_clip, rel=0.03)
    assert without_widths(matched.config.options) == without_widths(before.config.options)
    grows = target.flops_per_clip > before.flops_per_clip
    assert (sum(all_widths(matched.config.options)) > sum(all_widths(before.config.options))) is grows
    _check_widths(matched.config.options)


def _check_widths(options: Mapping[str, Any]) -> None:
    assert all_widths(options)
    assert all(width % 8 == 0 for width in all_widths(options))
    for network in networks(options).values():
        if "heads" in network:
            assert network["width"] // network["heads"] % 8 == 0


@pytest.mark.slow
def test_a_matched_model_can_be_saved_and_loaded(tmp_path: Path) -> None:
    matched = match("vdm", "small", DATA, describe("vdit", "tiny", DATA))
    model = create(matched, DATA)
    assert model.config.preset == "small at the FLOPs of vdit tiny"
    assert sum(p.numel() for p in model.parameters()) == matched.parameters
    model.save(tmp_path)
    sampler = plugins.load("model", "vdm(steps=1)", BuildContext(DATA, torch.device("cpu"), checkpoint=tmp_path))
    assert measure(sampler, make_requests(DATA, "test", 1, 0)[0]).parameters == matched.parameters


@pytest.mark.slow
def test_a_preset_of_equal_cost_is_unchanged() -> None:
    data = shapes.build()
    target = describe("vdm", "tiny", data)
    assert match("vdit", "tiny", data, target).config.options == describe("vdit", "tiny", data).config.options
    again = match("vdm", "tiny", data, replace(target, flops_per_clip=target.flops_per_clip * 199 // 200))
    assert again.config.options == target.config.options


@pytest.mark.slow
def test_widths_keep_their_proportions_and_presets_are_not_modified() -> None:
    before = str(plugins.module("model", "vdm").PRESETS)
    size = describe("vdm", "tiny", DATA)
    matched = match("vdm", "tiny", DATA, replace(size, flops_per_clip=4 * size.flops_per_clip))
    pairs = zip(all_widths(matched.config.options), all_widths(size.config.options), strict=True)
    ratios = [scaled / original for scaled, original in pairs]
    assert 1.6 < min(ratios) < max(ratios) < 2.4  # FLOPs grow with the square of the width
    assert str(plugins.module("model", "vdm").PRESETS) == before


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize(
    ("factor", "tolerance", "nearest"), [(1e-4, 0.03, "the nearest is"), (1e6, 0.03, "the nearest is"), (1.5, 1e-9, "")]
)
def test_an_unreachable_target_names_the_nearest_size(factor: float, tolerance: float, nearest: str) -> None:
    size = describe("vdit", "tiny", DATA)
    target = replace(size, spec=Spec("vdm"), preset="x", flops_per_clip=round(factor * size.flops_per_clip))
    with pytest.raises(UserError, match=f"vdit tiny cannot be scaled .*vdm x .*{nearest}"):
        match("vdit", "tiny", DATA, target, tolerance=tolerance)


def test_a_model_without_widths_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widths, "width_multiples", lambda options: {})
    with pytest.raises(UserError, match="'tiny' of vdm has no `channels`"):
        match("vdm", "tiny", DATA, describe("vdm", "tiny", DATA))


def test_widths_are_found_at_any_depth_as_multiples_of_heads() -> None:
    options = {"lam": 0.5, "a": {"channels": [8, 16], "patch": 2, "b": {"width": 32, "heads": 4, "hidden": 64}}}
    assert widths.width_multiples(options) == {
        ("a", "channels", 0): 8,
        ("a", "channels", 1): 8,
        ("a", "b", "width"): 32,
        ("a", "b", "hidden"): 8,
    }


@pytest.mark.parametrize("target", [4321, 10**5])
def test_adjusting_single_widths_comes_nearer_than_one_common_factor(target: int) -> None:
    before: dict[tuple[str | int, ...], int] = {("a",): 32, ("b",): 64}

    def error(widths: Sequence[int]) -> float:
        return math.log(sum(width**2 for width in widths) / target)

    in_proportion = min(abs(error((8 * n, 16 * n))) for n in range(1, 100))
    a, b = widths.search(before, {("a",): 8, ("b",): 16}, error, 1e-6)
    assert a % 8 == b % 16 == 0
    assert abs(error((a, b))) < in_proportion


def test_a_label_names_the_reference() -> None:
    size = describe("vdm", "tiny", DATA)
    assert size.label == "tiny"
    assert replace(size, reference="vdit small").label == "tiny at the FLOPs of vdit small"


@pytest.mark.slow
def test_the_presets_of_the_equal_compute_study_cost_the_same() -> None:
    """Compare parameters, FLOPs a clip and training FLOPs (forward and backward) with VDM's, to 3 %."""
    data = shapes.build()
    vdm = describe("vdm", "tiny", data)
    studied = [("pyoco", "tiny"), ("pyoco", "tiny-progressive"), ("videofusion", "tiny-equal"), ("vdit", "tiny")]
    for model, preset in studied:
        size = describe(model, preset, data)
        assert size.parameters == pytest.approx(vdm.parameters, rel=0.03), model
        assert size.flops_per_clip == pytest.approx(vdm.flops_per_clip, rel=0.03), model
        assert size.training_flops == pytest.approx(vdm.training_flops, rel=0.03), model


# Options of a model, and references by name.


def test_options_of_a_model_survive_matching() -> None:
    size = describe("pyoco(alpha=2)", "tiny", DATA)
    assert (size.config.options["alpha"], size.spec) == (2.0, Spec("pyoco", {"alpha": 2}))
    assert create(size, DATA).config.options["alpha"] == 2.0
    matched = create(match(size.spec, "tiny", DATA, size), DATA)
    assert (matched.config.options["alpha"], matched.config.preset) == (2.0, "tiny at the FLOPs of pyoco tiny")
    assert describe("pyoco", "tiny", DATA).config.options["alpha"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alhpa": 2}, "'alhpa'.*'alpha'"),
        ({"alpha": "2"}, "alpha='2' .*float"),
        ({"alpha": -1}, "alpha"),
    ],
)
def test_a_wrong_model_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        describe(Spec("pyoco", options), "tiny", DATA)


@pytest.mark.slow
def test_training_flops_are_those_of_the_created_model() -> None:
    size = describe("vdm", "tiny", DATA)
    assert size.training_flops == cost.training_flops(create(size, DATA)) > size.flops_per_clip / 25


def test_a_loss_that_reads_values_cannot_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr(cost, "training_flops", fail)
    with pytest.raises(UserError, match="vdm tiny: training FLOPs cannot be counted"):
        describe("vdm", "tiny", DATA).training_flops  # noqa: B018


@pytest.mark.one_case
@pytest.mark.parametrize(
    ("text", "model", "preset", "options"),
    [
        ("vdm", "vdm", "tiny", {}),
        (" vdm:small ", "vdm", "small", {}),
        ("pyoco(alpha=3):tiny-progressive", "pyoco", "tiny-progressive", {"alpha": 3.0}),
        ("pyoco(alpha=3)", "pyoco", "tiny", {"alpha": 3.0}),
    ],
)
def test_a_reference_is_a_model_with_an_optional_preset(
    text: str, model: str, preset: str, options: dict[str, Any]
) -> None:
    size = match_flops.reference(text, DATA, "tiny")
    assert (size.model, size.preset) == (model, preset)
    assert size == describe(size.spec, preset, DATA)
    assert {name: size.config.options[name] for name in options} == options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vmd", "'vdm'"),
        ("vdm:smal", "'smal'.*'small'"),
        ("vdm:", "cannot read 'vdm:'"),
        ("", "cannot read ''"),
        ("noise", "'noise' has no presets"),
        ("pyoco(alhpa=3):tiny", "'alpha'"),
    ],
)
def test_a_wrong_reference_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"reference '{re.escape(text)}': .*{message}"):
        match_flops.reference(text, DATA, "tiny")


def test_a_reference_without_preset_uses_the_trained_preset() -> None:
    assert match_flops.reference("vdm", DATA, "small").preset == "small"
    with pytest.raises(UserError, match=r"'tiny-equal'.*MODEL:PRESET"):
        match_flops.reference("vdm", DATA, "tiny-equal")


# Pretrained parts.


@pytest.fixture
def image_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Checkpoint of a tiny image model that fits the base network of a shrunken VideoFusion preset."""
    presets = plugins.module("model", "videofusion").PRESETS
    monkeypatch.setitem(presets, "tiny", {**presets["tiny"], "base": NO_TIME, "residual": UNET})
    model = tiny_vdm(1, network=NO_TIME)
    model.save(tmp_path / "images")
    return tmp_path / "images"


@pytest.mark.slow
def test_a_pretrained_part_is_counted_and_loaded(image_checkpoint: Path) -> None:
    data = tiny_dataset()
    pretrained = Spec("videofusion", {"base_from": str(image_checkpoint), "base_init": "finetune"})
    before = torch.get_rng_state()
    size = describe(pretrained, "tiny", data)
    assert torch.equal(torch.get_rng_state(), before)
    assert size.parameters == describe("videofusion", "tiny", data).parameters
    created, loaded = create(size, data).state_dict(), tensor_files.read(image_checkpoint / "model.safetensors")
    assert torch.equal(created["base.stem.weight"], loaded["network.stem.weight"])


def test_a_pretrained_part_is_not_scaled(image_checkpoint: Path) -> None:
    data = tiny_dataset()
    pretrained = Spec("videofusion", {"base_from": str(image_checkpoint), "base_init": "finetune"})
    with pytest.raises(UserError, match=r"images, .*base_from"):
        match(pretrained, "tiny", data, describe("vdm", "tiny", data))


# Third-party models.


SOURCES = {
    "no_steps": "def build(setting): ...\n",
    "no_model": "class Own: ...\ndef create(dataset, preset): return Own()\ndef build(setting, *, steps=25): ...\n",
    "own": "build = builder('own', vdm.VDM)\n",
}


@pytest.mark.parametrize(
    ("name", "message"), [("no_steps", "takes no option 'steps'"), ("no_model", "creates a Own: .*DiffusionModel")]
)
def test_a_third_party_model_that_cannot_be_counted_is_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(name, tmp_path, monkeypatch)
    with pytest.raises(UserError, match=f"'others_{name}.model' {message}"):
        describe(f"others_{name}.model", "tiny", DATA)


def test_a_third_party_model_is_counted_by_its_dotted_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package("own", tmp_path, monkeypatch)
    size, vdm = describe("others_own.model", "tiny", DATA), describe("vdm", "tiny", DATA)
    assert (size.model, size.flops_per_clip) == ("others_own.model", vdm.flops_per_clip)
    assert match("others_own.model", "tiny", DATA, vdm).label == "tiny at the FLOPs of vdm tiny"


def write_package(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Package whose model takes from VDM what its source does not define."""
    (folder / f"others_{name}").mkdir()
    (folder / f"others_{name}" / "__init__.py").write_text("")
    defaults = "from vfbench.baselines import vdm\nfrom vfbench.diffusion.build_sampler import builder\n"
    defaults += "PRESETS = vdm.PRESETS\ndef create(dataset, preset): return vdm.create(dataset, preset)\n"
    (folder / f"others_{name}" / "model.py").write_text(defaults + SOURCES[name])
    monkeypatch.syspath_prepend(folder)


# Clip shapes of presets.


def test_a_preset_with_a_clip_shape_gets_a_dataset_of_it() -> None:
    presets = plugins.module("model", "videofusion").PRESETS
    declared = {name: tuple(options["clips"]) for name, options in presets.items() if "clips" in options}
    assert declared
    for name, clips in declared.items():
        shape = match_flops.dataset_for("videofusion", name).shape
        assert (shape.frames, shape.height, shape.width) == clips
    assert match_flops.dataset_for("vdm", "tiny").shape == shapes.build().shape
    assert match_flops.dataset_for("vdm", "tiny", "shapes(height=8)").shape.height == 8
    with pytest.raises(UserError, match="'noise' has no presets"):
        match_flops.dataset_for("noise", "tiny")
