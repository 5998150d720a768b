"""What a training clip is shown with: its caption, its class or nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command
from helpers import CPU, tiny_dataset

from vfbench.baselines import vdm
from vfbench.datasets.shapes import Shapes
from vfbench.errors import UserError
from vfbench.interfaces import BuildContext
from vfbench.training.batches import TrainingBatches
from vfbench.training.options import conditioning_probs
from vfbench.training.train import TrainOptions, train

OPTIONS = TrainOptions(steps=2, batch_size=4, warmup=1, save_every=100, sample_every=2)
CAPTION = "a small red circle moves left over blue stripes"
SMALL = "shapes(frames=4, height=8, width=8)"


def silent(*lacking: str) -> Shapes:
    """A dataset that says less of its clips."""
    found = tiny_dataset()
    for name in lacking:
        setattr(found, name, ())
    return found


@pytest.mark.parametrize(
    ("lacking", "given", "expected"),
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
def test_clips_are_shown_with_what_the_dataset_says(
    lacking: list[str], given: dict[str, float] | None, expected: dict[str, float]
) -> None:
    assert conditioning_probs(silent(*lacking), replace(OPTIONS, conditions=given)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"caption": 1.0}, "no --conditions called 'caption'"),
        ({"text": -1.0}, r"--conditions text=-1\.0: must be at least 0"),
        ({"text": float("nan")}, "--conditions text=nan: must be at least 0, and finite"),
        ({"text": 0.0}, "--conditions: give one of text, class and none a weight above 0"),
        ({}, "--conditions: give one of text, class and none a weight above 0"),
    ],
)
def test_weights_that_make_no_sense_are_refused(given: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(OPTIONS, conditions=given)


@pytest.mark.parametrize(("way", "lacking", "things"), [("text", "words", "captions"), ("class", "classes", "classes")])
def test_what_the_dataset_does_not_say_cannot_be_shown(way: str, lacking: str, things: str) -> None:
    with pytest.raises(UserError, match=f"--conditions {way}=1: shapes has no {things}; leave out {way}"):
        conditioning_probs(silent(lacking), replace(OPTIONS, conditions={way: 1.0}))


def test_each_is_shown_as_often_as_asked_and_other_draws_stay() -> None:
    def batch(given: dict[str, float] | None) -> Any:
        data, options = tiny_dataset(), replace(OPTIONS, batch_size=400, conditions=given)
        shown = conditioning_probs(data, options)
        return TrainingBatches(data, options, None, shown, lambda count, generator: {}, slice(0, 400), CPU)(0)

    default, mine = batch(None), batch({"class": 3.0, "none": 1.0})
    assert [mine.conditioning.count(way) / 400 for way in ("text", "class", "none")] == pytest.approx(
        [0, 0.75, 0.25], abs=0.08
    )
    assert torch.equal(mine.clips, default.clips)


@pytest.mark.parametrize("lacking", [["words"], ["words", "classes"]])
def test_a_dataset_that_says_little_is_trained_on_and_its_samples_are_asked_for_alike(
    lacking: list[str], tmp_path: Path
) -> None:
    data = silent(*lacking)
    data.captions = lambda split, indices: [""] * len(indices)  # type: ignore[method-assign]
    if "classes" in lacking:
        data.labels = lambda split, indices: [0] * len(indices)  # type: ignore[method-assign]
    train(vdm.create(data), data, OPTIONS, tmp_path)
    assert (tmp_path / "samples" / "step_000002.png").is_file()
    card = (tmp_path / "README.md").read_text()
    way, weights = ("none", "`none` 1") if "classes" in lacking else ("class", "`class` 0.9, `none` 0.1")
    assert f"| conditioning probabilities | {weights} |" in card
    assert "text-to-video" not in card
    assert vdm.build(BuildContext(data, CPU, checkpoint=tmp_path)).conditioning == way


def test_the_flag_reaches_the_record_and_a_change_is_noticed(vfbench: Command, tmp_path: Path) -> None:
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
    done = vfbench(*command, "--steps", 1, "--resume")
    assert done.code == 2
    assert "(--conditions class=0.9,none=0.1 saved, text=0.8,class=0.1,none=0.1 now)" in done.err


@pytest.mark.parametrize("text", ["class", "class=most", "class=1,class=2", ","])
def test_what_cannot_be_read_is_refused_with_an_example(text: str, vfbench: Command) -> None:
    done = vfbench("train", "--model", "vdm", "--dataset", SMALL, "--conditions", text)
    assert done.code == 2
    assert f"--conditions '{text}': give each name once with a number, such as class=0.9,none=0.1" in done.err


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints by what their clips were shown with."""
    found = {}
    for shown in ({"class": 0.9, "none": 0.1}, {"text": 1.0}, {"none": 1.0}):
        folder = tmp_path_factory.mktemp("_".join(shown))
        data = tiny_dataset()
        train(vdm.create(data), data, replace(OPTIONS, steps=1, sample_every=100, conditions=shown), folder)
        found["_".join(shown)] = folder
    return found


@pytest.mark.parametrize(("shown", "way"), [("class_none", "class"), ("text", "text"), ("none", "none")])
def test_a_model_is_asked_as_it_was_trained(shown: str, way: str, told: dict[str, Path]) -> None:
    assert vdm.build(BuildContext(tiny_dataset(), CPU, checkpoint=told[shown])).conditioning == way


@pytest.mark.parametrize(
    ("shown", "options", "said"),
    [
        ("class_none", {"condition": "text"}, "'text': this .* class or none only; choose condition='class', or train"),
        ("none", {"condition": "class"}, "condition='class': this model was trained with none only"),
        ("text", {"condition": "none"}, "condition='none': this model was trained with text only"),
        ("text", {"guidance": 3.0}, r"guidance 3\.0 needs .*--conditions text=0\.9,none=0\.1"),
        ("none", {"guidance": 3.0}, r"guidance 3\.0 has no effect with condition='none'"),
    ],
)
def test_what_no_clip_has_taught_is_not_asked(
    shown: str, options: dict[str, Any], said: str, told: dict[str, Path]
) -> None:
    with pytest.raises(UserError, match=said):
        vdm.build(BuildContext(tiny_dataset(), CPU, checkpoint=told[shown]), **options)


def test_a_frame_nobody_left_out_is_no_way_to_guide_away_from(tmp_path: Path) -> None:
    """Where every training clip has a class, the embedding of its frame is never left out either."""
    data, taught = tiny_dataset(), {"class": 1.0}
    model = vdm.create(data, "tiny-prior")
    train(model, data, replace(OPTIONS, steps=1, sample_every=100, conditions=taught), tmp_path)
    assert model.frame_embedding is not None
    assert not model.frame_embedding.projection.unknown.any()
    with pytest.raises(UserError, match=r"guidance 3\.0 needs .*--conditions"):
        vdm.build(BuildContext(data, CPU, checkpoint=tmp_path), guidance=3.0)


def test_a_prompt_to_a_model_of_classes_is_refused(vfbench: Command, told: dict[str, Path], tmp_path: Path) -> None:
    command = ["generate", "--model", "vdm", "--dataset", SMALL, "--checkpoint", told["class_none"], "-n", 1]
    done = vfbench(*command, "--prompt", CAPTION, "--output", tmp_path / "a")
    assert done.code == 2
    assert "this model learnt classes" in done.err
    assert vfbench(*command, "--steps", 1, "--output", tmp_path / "b").code == 0


@pytest.mark.parametrize(
    ("shown", "flag", "value", "said"),
    [
        ("class_none", "--prompt", CAPTION, r"classes, not captions: give --label NAME \(one of .*circle grows.*\)"),
        ("text", "--label", "circle grows", "captions, not classes: give --prompt TEXT"),
        ("none", "--prompt", CAPTION, "neither captions nor classes: leave it out"),
        ("none", "--label", "circle grows", "neither captions nor classes: leave it out"),
    ],
)
def test_the_flag_of_what_a_model_learnt_is_named(
    shown: str, flag: str, value: str, said: str, vfbench: Command, told: dict[str, Path], tmp_path: Path
) -> None:
    command = ["generate", "--model", "vdm", "--dataset", SMALL, "--checkpoint", told[shown], "-n", 1]
    done = vfbench(*command, flag, value, "--output", tmp_path / "made")
    assert done.code == 2
    assert re.search(f"{flag} '{value}': this model learnt {said}", done.err), done.err
    assert "condition=" not in done.err
