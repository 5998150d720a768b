"""Tests of `vfbench.training.options.conditioning_probs`: caption, class or no conditioning of training clips."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, omit_extras
from helpers import CPU, tiny_dataset, tiny_vdm

from vfbench.baselines import vdm
from vfbench.datasets.shapes import Shapes
from vfbench.errors import UserError
from vfbench.interfaces import BuildContext
from vfbench.training.batches import TrainingBatches
from vfbench.training.clip_sampling import conditioning_probs
from vfbench.training.train import TrainOptions, train

OPTIONS = TrainOptions(steps=2, batch_size=4, warmup=1, save_every=100, sample_every=2)
pytestmark = pytest.mark.usefixtures("small_presets")

CAPTION = "a small red circle moves left over blue stripes"
SMALL = "shapes(frames=4, height=8, width=8)"


def dataset_without(*attributes: str) -> Shapes:
    """Tiny dataset without the named attributes, such as its captions' `words`."""
    dataset = tiny_dataset()
    for name in attributes:
        setattr(dataset, name, ())
    return dataset


@pytest.mark.parametrize(
    ("missing", "weights", "expected"),
    [
        ([], None, {"text": 0.8, "class": 0.1, "none": 0.1}),
        (["words"], None, {"text": 0.0, "class": 0.9, "none": 0.1}),
        (["classes"], None, {"text": 0.9, "class": 0.0, "none": 0.1}),
        (["words", "classes"], None, {"text": 0.0, "class": 0.0, "none": 1.0}),
        ([], {"text": 8.0, "class": 1.0, "none": 1.0}, {"text": 0.8, "class": 0.1, "none": 0.1}),
        (["words"], {"none": 1.0, "class": 9.0}, {"text": 0.0, "class": 0.9, "none": 0.1}),
        ([], {"text": 1e-50, "none": 0.0}, {"text": 1.0, "class": 0.0, "none": 0.0}),
        (["words"], {"none": 1.0, "text": 0.0}, {"text": 0.0, "class": 0.0, "none": 1.0}),
    ],
)
def test_probabilities_follow_from_dataset_and_weights(
    missing: list[str], weights: dict[str, float] | None, expected: dict[str, float]
) -> None:
    assert conditioning_probs(dataset_without(*missing), replace(OPTIONS, conditions=weights)) == pytest.approx(
        expected
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"caption": 1.0}, "no --conditions called 'caption'"),
        ({"text": -1.0}, r"--conditions text=-1\.0: must be at least 0"),
        ({"text": float("nan")}, "--conditions text=nan: must be at least 0, and finite"),
        ({"text": 0.0}, "--conditions: give one of text, class and none a weight above 0"),
        ({}, "--conditions: give one of text, class and none a weight above 0"),
    ],
)
def test_invalid_weights_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(OPTIONS, conditions=weights)


@pytest.mark.parametrize(
    ("mode", "attribute", "plural"), [("text", "words", "captions"), ("class", "classes", "classes")]
)
def test_conditioning_that_the_dataset_lacks_is_refused(mode: str, attribute: str, plural: str) -> None:
    with pytest.raises(UserError, match=f"--conditions {mode}=1: shapes has no {plural}; leave out {mode}"):
        conditioning_probs(dataset_without(attribute), replace(OPTIONS, conditions={mode: 1.0}))


def test_batches_have_the_given_probabilities_and_the_same_clips() -> None:
    def batch(weights: dict[str, float] | None) -> Any:
        data, options = tiny_dataset(), replace(OPTIONS, batch_size=400, conditions=weights)
        probabilities = conditioning_probs(data, options)
        return TrainingBatches(data, options, None, probabilities, lambda count, generator: {}, slice(0, 400), CPU)(0)

    default, weighted = batch(None), batch({"class": 3.0, "none": 1.0})
    assert [weighted.conditioning.count(mode) / 400 for mode in ("text", "class", "none")] == pytest.approx(
        [0, 0.75, 0.25], abs=0.08
    )
    assert torch.equal(weighted.clips, default.clips)


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("missing", [["words"], ["words", "classes"]])
def test_a_dataset_without_captions_or_classes_is_trained_on(missing: list[str], tmp_path: Path) -> None:
    data = dataset_without(*missing)
    data.captions = lambda split, indices: [""] * len(indices)  # type: ignore[method-assign]
    if "classes" in missing:
        data.labels = lambda split, indices: [0] * len(indices)  # type: ignore[method-assign]
    train(vdm.create(data), data, OPTIONS, tmp_path)
    assert (tmp_path / "samples" / "step_000002.png").is_file()
    card = (tmp_path / "README.md").read_text()
    mode, weights = ("none", "`none` 1") if "classes" in missing else ("class", "`class` 0.9, `none` 0.1")
    assert f"| conditioning probabilities | {weights} |" in card
    assert "text-to-video" not in card
    assert vdm.build(BuildContext(data, CPU, checkpoint=tmp_path)).conditioning == mode


@pytest.mark.slow
def test_conditions_are_recorded_and_a_change_refuses_resume(vfbench: Command, tmp_path: Path) -> None:
    command = [
        "train",
        "--model",
        "vdm",
        "--dataset",
        SMALL,
        "--batch-size",
        2,
        "--device",
        "cpu",
        "--output",
        tmp_path,
    ]
    assert vfbench(*command, "--steps", 1, "--conditions", "class=0.9, none=0.1").code == 0
    spec = json.loads(torch.load(tmp_path / "training.pt", weights_only=True)["spec"])
    assert spec["config"]["conditions"] == pytest.approx({"text": 0.0, "class": 0.9, "none": 0.1})
    outcome = vfbench(*command, "--steps", 1, "--resume")
    assert outcome.code == 2
    assert "--conditions class=0.9,none=0.1 saved, text=0.8,class=0.1,none=0.1 now" in outcome.err


@pytest.mark.parametrize("text", ["class", "class=most", "class=1,class=2", ","])
def test_unreadable_conditions_are_refused_with_an_example(text: str, vfbench: Command) -> None:
    outcome = vfbench("train", "--model", "vdm", "--dataset", SMALL, "--conditions", text)
    assert outcome.code == 2
    assert f"--conditions '{text}'" in outcome.err
    assert "class=0.9,none=0.1" in outcome.err


@pytest.fixture(scope="module")
def trained_with(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints by the conditioning of their training clips."""
    folders = {}
    for weights in ({"class": 0.9, "none": 0.1}, {"text": 1.0}, {"none": 1.0}):
        folder = tmp_path_factory.mktemp("_".join(weights))
        data = tiny_dataset()
        with pytest.MonkeyPatch.context() as patch:
            omit_extras(patch)
            train(tiny_vdm(), data, replace(OPTIONS, steps=1, conditions=weights), folder)
        folders["_".join(weights)] = folder
    return folders


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize(("conditioning", "mode"), [("class_none", "class"), ("text", "text"), ("none", "none")])
def test_a_model_is_sampled_as_it_was_trained(conditioning: str, mode: str, trained_with: dict[str, Path]) -> None:
    assert vdm.build(BuildContext(tiny_dataset(), CPU, checkpoint=trained_with[conditioning])).conditioning == mode


@pytest.mark.parametrize(
    ("conditioning", "options", "message"),
    [
        ("class_none", {"condition": "text"}, "'text': this .* class or none only; choose condition='class', or train"),
        ("none", {"condition": "class"}, "condition='class': this model was trained with none only"),
        ("text", {"condition": "none"}, "condition='none': this model was trained with text only"),
        ("text", {"guidance": 3.0}, r"guidance 3\.0 needs .*--conditions text=0\.9,none=0\.1"),
        ("none", {"guidance": 3.0}, r"guidance 3\.0 has no effect with condition='none'"),
    ],
)
def test_sampling_options_without_trained_conditioning_are_refused(
    conditioning: str, options: dict[str, Any], message: str, trained_with: dict[str, Path]
) -> None:
    with pytest.raises(UserError, match=message):
        vdm.build(BuildContext(tiny_dataset(), CPU, checkpoint=trained_with[conditioning]), **options)


@pytest.mark.slow
def test_guidance_is_refused_without_unconditional_training_clips(tmp_path: Path) -> None:
    """Unconditional embeddings of text and of frames stay untrained when every training clip has a class."""
    data, weights = tiny_dataset(), {"class": 1.0}
    model = vdm.create(data, "tiny-prior")
    train(model, data, replace(OPTIONS, steps=1, sample_every=100, conditions=weights), tmp_path)
    assert model.frame_embedding is not None
    assert not model.frame_embedding.projection.unknown.any()
    with pytest.raises(UserError, match=r"guidance 3\.0 needs .*--conditions"):
        vdm.build(BuildContext(data, CPU, checkpoint=tmp_path), guidance=3.0)


def test_a_prompt_for_a_class_conditional_model_is_refused(
    vfbench: Command, trained_with: dict[str, Path], tmp_path: Path
) -> None:
    command = ["generate", "--model", "vdm", "--dataset", SMALL, "--checkpoint", trained_with["class_none"], "-n", 1]
    outcome = vfbench(*command, "--prompt", CAPTION, "--output", tmp_path / "a")
    assert outcome.code == 2
    assert "this model learnt classes" in outcome.err
    assert vfbench(*command, "--steps", 1, "--output", tmp_path / "b").code == 0


@pytest.mark.parametrize(
    ("conditioning", "flag", "value", "remedy"),
    [
        ("class_none", "--prompt", CAPTION, r"classes, not captions: give --label NAME \(one of .*circle grows.*\)"),
        ("text", "--label", "circle grows", "captions, not classes: give --prompt TEXT"),
        ("none", "--prompt", CAPTION, "neither captions nor classes: leave it out"),
        ("none", "--label", "circle grows", "neither captions nor classes: leave it out"),
    ],
)
def test_a_wrong_prompt_flag_is_refused_with_the_right_one(
    conditioning: str,
    flag: str,
    value: str,
    remedy: str,
    vfbench: Command,
    trained_with: dict[str, Path],
    tmp_path: Path,
) -> None:
    command = ["generate", "--model", "vdm", "--dataset", SMALL, "--checkpoint", trained_with[conditioning], "-n", 1]
    outcome = vfbench(*command, flag, value, "--output", tmp_path / "generated")
    assert outcome.code == 2
    assert re.search(f"{flag} '{value}': this model learnt {remedy}", outcome.err), outcome.err
    assert "condition=" not in outcome.err
