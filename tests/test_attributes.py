"""Tests of `attributes`, `base_flicker` and `smoothness`: each clip that is wrong in one way lowers one score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import Command, results
from torch import Tensor

from vfbench import plugins
from vfbench.datasets import _shapes_scene as scenes
from vfbench.datasets import shapes
from vfbench.datasets._shapes_render import render
from vfbench.errors import UserError
from vfbench.interfaces import Request
from vfbench.metrics import attributes, base_flicker, smoothness
from vfbench.metrics._frame_change import FrameChange
from vfbench.metrics._shapes_judge import ShapesJudgeExtractor
from vfbench.protocol.protocol import CAPTION_MEASURES

CLIPS = 96
FIELDS = {"ground": "background"}  # of a scene, where named otherwise
TABLES = {
    **{"motion": scenes.MOTIONS, "shape": scenes.SHAPES, "size": scenes.SIZES},
    **{"colour": scenes.COLOURS, "ground": scenes.COLOURS, "texture": scenes.TEXTURES},
}


@pytest.fixture(scope="module")
def judge() -> ShapesJudgeExtractor:
    extractor: ShapesJudgeExtractor = plugins.load("extractor", "shapes_judge", torch.device("cpu"))
    return extractor


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    captions = shapes.build().captions("test", range(CLIPS))
    return [Request(i, 0, 0, caption) for i, caption in enumerate(captions)]


def scene() -> scenes.Scene:
    return scenes.make_scene(torch.arange(CLIPS) + shapes.SPLIT_RANGES["test"].start)


def judged(judge: ShapesJudgeExtractor, clips: Tensor, requests: list[Request]) -> dict[str, float]:
    right = judge(clips, requests, ["attributes"])["attributes"].numpy()
    metrics = {name: attributes.build(attribute=name) for name in attributes.ATTRIBUTES}
    return {name: metric.score(right, right).value for name, metric in metrics.items()}


@pytest.mark.one_case
@pytest.mark.parametrize("wrong", attributes.ATTRIBUTES)
def test_clips_that_are_wrong_in_one_attribute_lower_its_score(
    judge: ShapesJudgeExtractor, requests: list[Request], wrong: str
) -> None:
    asked, field = scene(), FIELDS.get(wrong, wrong)
    other = (getattr(asked, field) + 1) % len(TABLES[wrong])
    if wrong in ("colour", "ground"):  # shape and ground never have one colour
        taken = asked.background if wrong == "colour" else asked.colour
        other = torch.where(other == taken, (other + 1) % len(scenes.COLOURS), other)
    scores = judged(judge, render(replace(asked, **{field: other}), shapes.build().shape), requests)
    assert scores.pop(wrong) <= 0.02
    # The judge looks for the clip's colours in shape and ground alike: where one is wrong, it often misses the other.
    assert all(value >= (0.4 if {name, wrong} == {"colour", "ground"} else 0.9) for name, value in scores.items())


def test_real_clips_show_what_they_are_asked_for(judge: ShapesJudgeExtractor, requests: list[Request]) -> None:
    assert min(judged(judge, shapes.build().clips("test", range(CLIPS)), requests).values()) >= 0.99


def test_a_caption_of_another_form_is_refused(judge: ShapesJudgeExtractor) -> None:
    clips = shapes.build().clips("test", range(1))
    with pytest.raises(UserError, match=r"'a red circle'.*--metrics"):
        judge(clips, [Request(0, 0, 0, "a red circle")], ["attributes"])


def test_the_protocol_the_metric_and_the_judge_name_the_same_attributes(judge: ShapesJudgeExtractor) -> None:
    assert {name: list(words) for name, words in TABLES.items()} == judge.variants.words
    assert list(judge.variants.words) == list(attributes.ATTRIBUTES)
    declared = {name: measure["metric"] for name, measure in CAPTION_MEASURES.items() if name in attributes.PARTS}
    assert declared == attributes.PARTS
    others = judge.variants.others(shapes.build().captions("test", range(1))[0])
    assert {name: len(captions) + 1 for name, captions in others.items()} == attributes.WORDS


def test_shares_of_which_all_are_right_are_compared_without_a_remark() -> None:
    right = np.ones((CLIPS, len(attributes.ATTRIBUTES)))
    wrong = right * (np.arange(CLIPS) % 2)[:, None]
    comparison = attributes.build(attribute="texture").compare(right, wrong, right)
    assert (comparison.difference, comparison.note) == (0.5, "")


@pytest.mark.parametrize(("right", "low", "high"), [(0, 0.0, 0.04), (48, 0.40, 0.60), (96, 0.96, 1.0)])
def test_the_interval_of_a_share_has_a_width_everywhere_and_stays_in_range(right: int, low: float, high: float) -> None:
    fake = np.repeat((np.arange(CLIPS) < right).astype(float)[:, None], 6, axis=1)
    score = attributes.build(attribute="motion").score(fake, fake)
    assert score.value == right / CLIPS
    assert 0 <= score.low <= score.value <= score.high <= 1
    assert (score.low, score.high) == pytest.approx((low, high), abs=0.02)
    assert score.chance == pytest.approx(0.1)


@pytest.mark.slow
def test_a_run_by_attributes_writes_the_mean_and_its_parts(vfbench: Command, tmp_path: pytest.TempPathFactory) -> None:
    arguments = ["--model", "real", "--dataset", "shapes", "-n", CLIPS, "--device", "cpu", "--metrics", "attributes"]
    outcome = vfbench("run", *arguments, "--num-real", 96, "--output", f"{tmp_path}/run")
    assert outcome.code == 0, outcome.err
    scores = results(tmp_path / "run")["scores"]  # type: ignore[operator]
    assert list(scores) == ["attributes", *attributes.ATTRIBUTES]
    values = [scores[name]["value"] for name in attributes.ATTRIBUTES]
    assert scores["attributes"]["value"] == pytest.approx(np.mean(values))
    assert min(values) >= 0.98
    assert {scores[name]["part_of"] for name in attributes.ATTRIBUTES} == {"attributes"}
    table = vfbench("table", f"{tmp_path}/run").out
    assert "motion ↑" in table
    assert "*chance*" in table


def clips_of(*levels: int) -> Tensor:
    """Two clips of grey frames at these levels."""
    frames = torch.tensor(levels, dtype=torch.uint8).view(1, -1, 1, 1, 1)
    return frames.expand(2, -1, 3, 8, 8).contiguous()


@pytest.mark.parametrize(
    ("levels", "flicker", "smooth"),
    [
        ((0, 51, 102, 153, 204, 255), 1.0, 0.8),  # even steps
        ((10, 10, 40, 10, 10, 10), None, None),  # a base frame apart, all others still
        ((0, 10, 60, 10, 0, 10), 5.0, 1 - 26 / 255),
        ((9, 9, 9, 9, 9, 9), 1.0, 1.0),
    ],
)
def test_changes_at_the_base_frame_and_elsewhere(
    levels: tuple[int, ...], flicker: float | None, smooth: float | None
) -> None:
    outputs = FrameChange(None)(clips_of(*levels), [], ["base_change", "smoothness"])
    arrays = {name: values.double().numpy() for name, values in outputs.items()}
    if flicker is None:
        assert outputs["base_change"].tolist()[0] == pytest.approx([30 / 255, 0])
        return
    assert base_flicker.ratio(arrays["base_change"]) == pytest.approx(flicker)
    assert smoothness.build().score(arrays["smoothness"], arrays["smoothness"]).value == pytest.approx(smooth)


@pytest.mark.parametrize(("frames", "base"), [(2, None), (3, 1), (6, 6), (6, -1)])
def test_clips_without_such_a_base_frame_are_refused(frames: int, base: int | None) -> None:
    with pytest.raises(UserError, match=f"clips of {frames} frames"):
        FrameChange(base)(clips_of(*range(frames)), [], ["base_change"])
    assert FrameChange(base)(clips_of(*range(2, frames + 2)), [], ["smoothness"])["smoothness"].isfinite().all()
