"""Presets are counted as the ledger counts a run, and widened until they cost what another model does."""

from __future__ import annotations

import itertools
import math
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
from vfbench.errors import UserError
from vfbench.interfaces import BuildContext
from vfbench.pipeline.cost import measure
from vfbench.pipeline.requests import make_requests
from vfbench.training import match_flops
from vfbench.training import width_search as widths
from vfbench.training.match_flops import create, describe, match
from vfbench.utils import tensor_files

TRAINABLE = match_flops.trainable()
MODELS = ("vdm", "videofusion", "vdit")
DATA = tiny_dataset(side=16)


def networks(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: value for name, value in options.items() if isinstance(value, dict)}


def fixed(options: Mapping[str, Any]) -> dict[str, Any]:
    """All options but the widths."""
    widths = ("channels", "width", "hidden")
    rest = {name: {k: v for k, v in value.items() if k not in widths} for name, value in networks(options).items()}
    return {**options, **rest}


def all_widths(options: Mapping[str, Any]) -> list[int]:
    found: list[int] = []
    for network in networks(options).values():
        found += [*network.get("channels", []), *(network[k] for k in ("width", "hidden") if k in network)]
    return found


# Counting.


@pytest.mark.parametrize(("name", "preset"), [*((name, "tiny") for name in TRAINABLE), ("videofusion", "tiny-prior")])
def test_what_is_described_is_what_the_ledger_counts_of_a_run(
    name: str, preset: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("vfbench.pipeline.cost.MAX_REPEAT_SECONDS", 0.0)  # the time is not asked for
    described = describe(name, preset, DATA)
    create(described, DATA).save(tmp_path)
    sampler = plugins.load("model", name, BuildContext(DATA, torch.device("cpu"), checkpoint=tmp_path))
    found = measure(sampler, make_requests(DATA, "test", 1, 0)[0])
    assert (described.parameters, described.flops_per_clip) == (found.parameters, found.flops_per_clip)
    if preset == "tiny":
        assert described.evaluations == found.evaluations


def test_counting_computes_nothing_and_draws_nothing() -> None:
    before = torch.get_rng_state()
    large = describe("vdm", "small", shapes.build(frames=64, height=1024, width=1024))  # no machine's work of a second
    assert large.flops_per_clip > 1e14
    assert torch.equal(torch.get_rng_state(), before)


def test_a_created_model_is_the_presets_own() -> None:
    torch.manual_seed(3)
    mine = create(describe("vdm", "tiny", DATA), DATA)
    torch.manual_seed(3)
    theirs = plugins.module("model", "vdm").create(DATA, "tiny")
    assert mine.config == theirs.config
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize(
    ("model", "preset", "side", "said"),
    [
        ("noise", "tiny", 16, "'noise' has no presets to count; these have: .*vdit, vdm, videofusion"),
        ("vdm", "tinny", 16, "did you mean 'tiny'"),
        ("vmd", "tiny", 16, "did you mean 'vdm'"),
        ("vdit", "tiny", 18, "vdit preset 'tiny' does not fit shapes: clips of 4x18x18 cannot be cut into patches"),
        ("vdm", "tiny", 17, "vdm tiny does not take clips of 4x17x17: 17x17 pixels: both sides must be multiples of 8"),
    ],
)
def test_what_cannot_be_counted_is_named(model: str, preset: str, side: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        describe(model, preset, tiny_dataset(side=side))


# Matching.


QUICK = [("vdm", "vdit", "tiny"), ("videofusion", "vdm", "tiny"), ("vdit", "videofusion", "tiny")]
PAIRS = [
    pytest.param(*pair, marks=[] if pair in QUICK else [pytest.mark.slow])
    for pair in itertools.product(MODELS, MODELS, ("tiny", "small"))
]


@pytest.mark.parametrize(("model", "reference", "preset"), PAIRS)
def test_each_model_is_brought_to_the_flops_of_each_other(model: str, reference: str, preset: str) -> None:
    data, other = shapes.build(), "small" if preset == "tiny" else "tiny"
    wanted, before = describe(reference, preset, data), describe(model, other, data)
    found = match(model, other, data, wanted)
    assert found.flops_per_clip == pytest.approx(wanted.flops_per_clip, rel=0.03)
    assert fixed(found.options) == fixed(before.options)
    grows = wanted.flops_per_clip > before.flops_per_clip
    assert (sum(all_widths(found.options)) > sum(all_widths(before.options))) is grows
    _check_widths(found.options)


def _check_widths(options: Mapping[str, Any]) -> None:
    assert all_widths(options)
    assert all(width % 8 == 0 for width in all_widths(options))
    for network in networks(options).values():
        if "heads" in network:
            assert network["width"] // network["heads"] % 8 == 0


def test_what_is_matched_can_be_made_saved_and_loaded(tmp_path: Path) -> None:
    wanted = describe("vdit", "tiny", DATA)
    found = match("vdm", "small", DATA, wanted)
    model = create(found, DATA)
    assert model.config.preset == "small at the FLOPs of vdit tiny"
    assert sum(p.numel() for p in model.parameters()) == found.parameters
    model.save(tmp_path)
    sampler = plugins.load("model", "vdm(steps=1)", BuildContext(DATA, torch.device("cpu"), checkpoint=tmp_path))
    assert measure(sampler, make_requests(DATA, "test", 1, 0)[0]).parameters == found.parameters


def test_a_preset_that_costs_the_same_already_stays_as_it_is() -> None:
    data = shapes.build()
    wanted = describe("vdm", "tiny", data)
    assert match("vdit", "tiny", data, wanted).options == describe("vdit", "tiny", data).options
    again = match("vdm", "tiny", data, replace(wanted, flops_per_clip=wanted.flops_per_clip * 199 // 200))
    assert again.options == wanted.options


def test_widths_keep_their_proportions_and_the_presets_themselves_are_left_alone() -> None:
    before = str(plugins.module("model", "vdm").PRESETS)
    wanted = describe("vdm", "tiny", DATA)
    found = match("vdm", "tiny", DATA, replace(wanted, flops_per_clip=4 * wanted.flops_per_clip))
    pairs = zip(all_widths(found.options), all_widths(wanted.options), strict=True)
    ratios = [ours / theirs for ours, theirs in pairs]
    assert 1.6 < min(ratios) < max(ratios) < 2.4  # four times the products: about twice the width
    assert str(plugins.module("model", "vdm").PRESETS) == before


@pytest.mark.parametrize(
    ("factor", "tolerance", "nearest"), [(1e-4, 0.03, "the nearest is"), (1e6, 0.03, "the nearest is"), (1.5, 1e-9, "")]
)
def test_what_cannot_be_reached_is_told_with_what_can(factor: float, tolerance: float, nearest: str) -> None:
    wanted = describe("vdit", "tiny", DATA)
    far = replace(wanted, model="vdm", preset="x", flops_per_clip=round(factor * wanted.flops_per_clip))
    with pytest.raises(UserError, match=f"vdit tiny cannot be scaled to the .* GFLOP a clip of vdm x .*{nearest}"):
        match("vdit", "tiny", DATA, far, tolerance=tolerance)


def test_a_model_without_widths_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widths, "width_multiples", lambda options: {})
    with pytest.raises(UserError, match="preset 'tiny' of vdm has no `channels`, `width` or `hidden`"):
        match("vdm", "tiny", DATA, describe("vdm", "tiny", DATA))


def test_widths_are_found_at_any_depth_and_heads_are_kept_in_mind() -> None:
    options = {"lam": 0.5, "a": {"channels": [8, 16], "patch": 2, "b": {"width": 32, "heads": 4, "hidden": 64}}}
    assert widths.width_multiples(options) == {
        ("a", "channels", 0): 8,
        ("a", "channels", 1): 8,
        ("a", "b", "width"): 32,
        ("a", "b", "hidden"): 8,
    }


@pytest.mark.parametrize("wanted", [4321, 10**5])
def test_single_steps_come_nearer_than_one_factor_alone(wanted: int) -> None:
    before: dict[tuple[str | int, ...], int] = {("a",): 32, ("b",): 64}

    def error(widths: Sequence[int]) -> float:
        return math.log(sum(width**2 for width in widths) / wanted)

    in_proportion = min(abs(error((8 * n, 16 * n))) for n in range(1, 100))
    a, b = widths.search(before, {("a",): 8, ("b",): 16}, error, 1e-6)
    assert a % 8 == b % 16 == 0
    assert abs(error((a, b))) < in_proportion


def test_a_size_says_what_it_was_scaled_to() -> None:
    size = describe("vdm", "tiny", DATA)
    assert size.label == "tiny"
    assert replace(size, reference="vdit small").label == "tiny at the FLOPs of vdit small"


def test_the_models_of_the_study_at_equal_compute_cost_the_same() -> None:
    """Parameters, FLOPs a clip and FLOPs of a training step, forward and backward, within 3 % of VDM's."""

    data = shapes.build()
    wanted = describe("vdm", "tiny", data)
    studied = [("pyoco", "tiny"), ("pyoco", "tiny-progressive"), ("videofusion", "tiny-equal"), ("vdit", "tiny")]
    for model, preset in studied:
        found = describe(model, preset, data)
        assert found.parameters == pytest.approx(wanted.parameters, rel=0.03), model
        assert found.flops_per_clip == pytest.approx(wanted.flops_per_clip, rel=0.03), model
        assert found.training_flops == pytest.approx(wanted.training_flops, rel=0.03), model


# Options of a model, and references by name.


def test_options_of_a_model_are_its_own_and_stay() -> None:
    found = describe("pyoco", "tiny", DATA, {"alpha": 2})
    assert (found.options["alpha"], found.user_options) == (2.0, {"alpha": 2})
    assert create(found, DATA).config.options["alpha"] == 2.0
    matched = create(match("pyoco", "tiny", DATA, found, options={"alpha": 2}), DATA)
    assert (matched.config.options["alpha"], matched.config.preset) == (2.0, "tiny at the FLOPs of pyoco tiny")
    assert describe("pyoco", "tiny", DATA).options["alpha"] == 1.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alhpa": 2}, "no option of model pyoco called 'alhpa': did you mean 'alpha'"),
        ({"alpha": "2"}, "option alpha='2' of model pyoco must be float or None"),
        ({"alpha": -1}, "alpha"),
    ],
)
def test_an_option_that_a_model_does_not_take_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        describe("pyoco", "tiny", DATA, options)


def test_a_step_of_training_is_counted_as_the_ledger_does() -> None:
    found = describe("vdm", "tiny", DATA)
    assert found.training_flops == cost.training_flops(create(found, DATA)) > found.flops_per_clip / 25


def test_a_model_whose_loss_looks_at_values_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def looks(*_: Any) -> int:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr(cost, "training_flops", looks)
    with pytest.raises(UserError, match="vdm tiny: training FLOPs cannot be counted"):
        describe("vdm", "tiny", DATA).training_flops  # noqa: B018


@pytest.mark.parametrize(
    ("text", "model", "preset", "options"),
    [
        ("vdm", "vdm", "tiny", {}),
        (" vdm:small ", "vdm", "small", {}),
        ("pyoco(alpha=3):tiny-progressive", "pyoco", "tiny-progressive", {"alpha": 3.0}),
        ("pyoco(alpha=3)", "pyoco", "tiny", {"alpha": 3.0}),
    ],
)
def test_a_reference_is_a_model_and_perhaps_its_preset(
    text: str, model: str, preset: str, options: dict[str, Any]
) -> None:
    found = match_flops.reference(text, DATA, "tiny")
    assert (found.model, found.preset) == (model, preset)
    assert found == describe(model, preset, DATA, found.user_options)
    assert {name: found.options[name] for name in options} == options


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vmd", "did you mean 'vdm'"),
        ("vdm:smal", "no vdm preset called 'smal': did you mean 'small'"),
        ("vdm:", "cannot read 'vdm:'"),
        ("", "cannot read ''"),
        ("noise", "'noise' has no presets to count"),
        ("pyoco(alhpa=3):tiny", "did you mean 'alpha'"),
    ],
)
def test_a_reference_that_is_none_is_named(text: str, said: str) -> None:
    with pytest.raises(UserError, match=f"reference '{text.replace('(', '.').replace(')', '.')}': .*{said}"):
        match_flops.reference(text, DATA, "tiny")


def test_a_reference_without_a_preset_has_that_of_the_model_or_says_how_to_name_one() -> None:
    assert match_flops.reference("vdm", DATA, "small").preset == "small"
    with pytest.raises(UserError, match=r"no vdm preset called 'tiny-equal'.*MODEL:PRESET, such as vdm:small"):
        match_flops.reference("vdm", DATA, "tiny-equal")


# A part that was trained before.


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of an image model, for a VideoFusion that is smaller than its preset."""
    presets = plugins.module("model", "videofusion").PRESETS
    monkeypatch.setitem(presets, "tiny", {**presets["tiny"], "base": NO_TIME, "residual": UNET})
    model = tiny_vdm(1, network=NO_TIME)
    model.save(tmp_path / "images")
    return tmp_path / "images"


def test_a_pretrained_part_is_counted_and_is_in_what_is_created(images: Path) -> None:
    data, given = tiny_dataset(), {"base_from": str(images), "base_init": "finetune"}
    before = torch.get_rng_state()
    found = describe("videofusion", "tiny", data, given)
    assert torch.equal(torch.get_rng_state(), before)
    assert found.parameters == describe("videofusion", "tiny", data).parameters
    made, theirs = create(found, data).state_dict(), tensor_files.read(images / "model.safetensors")
    assert torch.equal(made["base.stem.weight"], theirs["network.stem.weight"])


def test_a_pretrained_part_has_its_widths_and_is_not_scaled(images: Path) -> None:
    data = tiny_dataset()
    given = {"base_from": str(images), "base_init": "finetune"}
    with pytest.raises(
        UserError, match=r"has a pretrained part, .*images, whose widths cannot be scaled: leave out base_from"
    ):
        match("videofusion", "tiny", data, describe("vdm", "tiny", data), options=given)


# Models of others.


OTHERS = {
    "no_steps": "def build(setting): ...\n",
    "no_model": "class Own: ...\ndef create(dataset, preset): return Own()\ndef build(setting, *, steps=25): ...\n",
    "own": "build = builder('own', vdm.VDM)\n",
}


@pytest.mark.parametrize(
    ("name", "said"), [("no_steps", "takes no option 'steps'"), ("no_model", "creates a Own: only a DiffusionModel")]
)
def test_a_model_of_others_that_cannot_be_counted_says_why(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _package(name, tmp_path, monkeypatch)
    with pytest.raises(UserError, match=f"'others_{name}.model' {said}"):
        describe(f"others_{name}.model", "tiny", DATA)


def test_a_model_of_others_is_counted_by_its_dotted_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _package("own", tmp_path, monkeypatch)
    found, theirs = describe("others_own.model", "tiny", DATA), describe("vdm", "tiny", DATA)
    assert (found.model, found.flops_per_clip) == ("others_own.model", theirs.flops_per_clip)
    assert match("others_own.model", "tiny", DATA, theirs).label == "tiny at the FLOPs of vdm tiny"


def _package(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with a model; what it does not say itself is VDM's."""
    (folder / f"others_{name}").mkdir()
    (folder / f"others_{name}" / "__init__.py").write_text("")
    usual = "from vfbench.baselines import vdm\nfrom vfbench.diffusion.sampler import builder\n"
    usual += "PRESETS = vdm.PRESETS\ndef create(dataset, preset): return vdm.create(dataset, preset)\n"
    (folder / f"others_{name}" / "model.py").write_text(usual + OTHERS[name])
    monkeypatch.syspath_prepend(folder)


# Which clips a preset is shown for.


def test_a_preset_made_for_one_shape_has_clips_of_that_shape() -> None:
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
