"""Tests of `vfbench.pipeline.eval_setup`: chosen protocol, loaded extractors, recorded protocol and drawn clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import Colour

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape, Request, Score
from vfbench.pipeline import features, real_clips
from vfbench.pipeline import scores as scores_
from vfbench.pipeline.eval_setup import EvalSetup, prepare
from vfbench.pipeline.features import FeatureCollector, real_features
from vfbench.pipeline.options import EvalOptions, RunOptions
from vfbench.pipeline.plan import plan, require_clips, scored_frames
from vfbench.pipeline.scores import mean_score, scores
from vfbench.plugins import Spec
from vfbench.protocol.protocol import JUDGE_MEASURES

CPU = torch.device("cpu")
SHAPES, UCF101 = Spec("shapes"), Spec("ucf101")
RANDOM = EvalOptions(protocol="strict", num_real=64, weights="random")


# Loaded extractors.


def prepare_shapes(n_fake: int | None = None, n_real: int | None = None, **options: Any) -> EvalSetup:
    return prepare(SHAPES, CPU, EvalOptions(num_real=n_real, **options), n_fake)


def test_only_required_extractors_are_loaded_and_the_id_is_unchanged(loaded_specs: list[str]) -> None:
    setup = prepare_shapes(protocol="strict", metrics=["fvd"], n_real=64)
    assert loaded_specs == ["i3d(bn_eps=0.001, resize='squash')"]
    assert setup.protocol.id == prepare_shapes(protocol="strict", n_real=64).protocol.id
    assert list(setup.metrics) == ["fvd"]
    assert list(setup.protocol.measures) == ["fvd", "kvd"]


def test_a_chosen_metric_reads_its_default_extractor(loaded_specs: list[str]) -> None:
    setup = prepare_shapes(protocol="strict", metrics=["fvd", "clipsim", "precision", "is"], n_real=64)
    sources = {name: measure.source for name, measure in setup.protocol.measures.items()}
    assert sources["clipsim"] == "clip.similarity"
    assert sources["precision"] == "i3d.logits"
    assert sources["is"] == "c3d.logits"
    assert setup.outputs == {"i3d": ["logits"], "clip": ["similarity"], "c3d": ["logits"]}
    assert setup.protocol.id != prepare_shapes(protocol="strict", n_real=64).protocol.id


@pytest.mark.pitfall("variants of the Inception Score")
def test_a_metric_with_other_options_is_another_measure() -> None:
    plain, other = (prepare_shapes(metrics=[text]).protocol for text in ("fvd", "fvd(ddof=0)"))
    assert plain.measures["fvd"].metric == JUDGE_MEASURES["fvd"]["metric"]
    assert (other.measures["fvd"].metric, other.measures["fvd"].source) == ("fvd(ddof=0)", "shapes_judge.features")
    assert plain.id != other.id


def test_a_chosen_extractor_is_recorded_with_all_its_options(loaded_specs: list[str]) -> None:
    options: dict[str, Any] = {"protocol": "strict", "metrics": ["fvd", "fid"], "n_real": 256, "n_fake": 256}
    setup = prepare_shapes(extractors=["i3d=i3d(resize='tf1')"], **options)
    assert loaded_specs[0] == "i3d(bn_eps=0.001, dtype='float32', resize='tf1')"
    assert setup.protocol.extractors["i3d"] == loaded_specs[0]
    assert setup.protocol.extractors["inception"].startswith("inception(count=16, frames='")
    assert setup.protocol.measures["fid"].metric == "fid(ddof=1, frames=1)"
    with pytest.raises(UserError, match=r"'i4d'.*'i3d'"):
        prepare_shapes(protocol="strict", metrics=["fvd"], n_real=64, extractors=["i4d=i3d"])


def test_the_judge_is_recorded_by_its_fingerprint_alone() -> None:
    judge = plugins.load("extractor", "shapes_judge", CPU)
    assert prepare_shapes(metrics=["fvd"]).protocol.extractors == {"shapes_judge": judge.fingerprint}


def test_an_output_that_a_network_lacks_is_refused(loaded_specs: list[str]) -> None:
    with pytest.raises(UserError, match=r"clip\(.*'consistency'.*logits"):
        prepare_shapes(metrics=["clip_consistency"])


def test_random_weights_are_noted_and_never_comparable(loaded_specs: list[str]) -> None:
    setup = prepare(SHAPES, CPU, RANDOM)
    assert loaded_specs == ["i3d(bn_eps=0.001, resize='squash', weights='random')"]
    assert setup.protocol.extractors == {"i3d": f"{loaded_specs[0]} {Colour.fingerprint}"}
    assert setup.protocol.comparable is False
    assert "NOT the published weights: i3d" in setup.note
    assert setup.note.startswith("strict, but height 32, width 32, start zero, geometry native")
    with pytest.raises(UserError, match="--weights random: shapes_judge"):
        prepare_shapes(weights="random")
    with pytest.raises(UserError, match=r"--weights.*'randm'.*'random'"):
        prepare_shapes(weights="randm")


def test_missing_weights_are_named_with_every_remedy() -> None:
    with pytest.raises(MissingData, match=r"weights fetch i3d(?s:.*)weights import i3d(?s:.*)--weights random"):
        prepare_shapes(protocol="strict", n_real=64)


def test_an_extractor_note_on_the_prompts_is_a_remark(loaded_specs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Colour, "note", lambda self, requests: f"{len(requests)} prompts seen", raising=False)
    judge = prepare_shapes(metrics=["fvd", "clipsim"])
    assert judge.remarks([]) == ""  # the judge's CLIPSIM
    strict = prepare_shapes(protocol="strict", metrics=["fvd", "clipsim"], n_real=64)
    assert strict.remarks([Request(0, 0, 0, "")] * 3).endswith("; 3 prompts seen")


# Number of clips.


def test_the_number_of_clips_is_the_protocols_by_default(loaded_specs: list[str]) -> None:
    assert (prepare_shapes().protocol.n_fake, prepare_shapes().protocol.n_real) == (256, 2048)
    strict = prepare_shapes(protocol="strict", metrics=["fvd"])
    assert (strict.protocol.n_fake, strict.protocol.n_real, strict.protocol.name) == (2048, 2048, "strict")
    fewer = prepare_shapes(protocol="strict", metrics=["fvd"], n_fake=100, n_real=80)
    assert (fewer.protocol.n_fake, fewer.protocol.n_real) == (100, 80)
    assert fewer.protocol.name == "strict(n_fake=100, n_real=80)"
    assert prepare_shapes(n_fake=64).protocol.name == "shapes"


@pytest.mark.pitfall("more clips than there are")
def test_an_impossible_number_of_real_clips_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingData, match=r"1,048,576 .*2,097,152 .*--num-real"):
        prepare_shapes(n_real=1 << 21)
    with pytest.raises(UserError, match=r"--num-real 3: .*4"):
        prepare_shapes(n_real=3)
    monkeypatch.setattr(shapes.Shapes, "size", lambda *_: 1)
    with pytest.raises(MissingData, match=r"shapes has 1 real clips here \(train\), and 2 are needed$"):
        prepare_shapes(smoke=True)


def test_too_few_real_clips_for_a_metric_are_refused() -> None:
    with pytest.raises(UserError, match="40 real clips, too few: fvd needs 64, is needs 64, attributes needs 64"):
        prepare_shapes(n_real=40)
    assert prepare_shapes(n_real=40, smoke=True).protocol.comparable is False


def test_a_protocol_may_use_every_real_clip(loaded_specs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes.Shapes, "size", lambda *_: 80)
    assert prepare_shapes(protocol="cd-fvd", metrics=["fvd"]).protocol.n_real == 80


# Frames and pixel values of generated clips.


def test_a_model_of_another_size_is_refused(loaded_specs: list[str]) -> None:
    protocol = prepare_shapes(protocol="strict", n_real=64).protocol
    require_clips("any", ClipShape(17, 32, 32), protocol)
    for shape in (ClipShape(16, 64, 64), ClipShape(15, 32, 32)):
        with pytest.raises(UserError, match=f"any makes clips of {shape}, .*strict.* 16x32x32"):
            require_clips("any", shape, protocol)


def test_the_protocol_chooses_the_scored_frames() -> None:
    protocol = prepare_shapes().protocol.model_copy(update={"drop_first": 2, "fake_stride": 3, "frames": 4})
    assert list(range(30))[scored_frames(protocol)] == [2, 5, 8, 11]
    with pytest.raises(UserError, match="scores 12x32x32"):
        require_clips("any", ClipShape(11, 32, 32), protocol)


def test_only_scored_frames_reach_an_extractor() -> None:
    planned = plan(RunOptions(model="noise", num_samples=64, num_real=64, device="cpu"))
    assert planned.collector.frames == slice(0, 16, 1)


def test_tats_truncates_pixel_values_and_strict_rounds_them(loaded_specs: list[str], checkpoints: Any) -> None:
    clips = {}
    options: dict[str, Any] = {"metrics": ["fvd"], "num_samples": 64, "num_real": 64, "device": "cpu"}
    for name in ("strict", "tats"):
        run = RunOptions(model="vdm", checkpoint=checkpoints / "vdm", steps=1, protocol=name, **options)
        planned = plan(run)
        clips[name] = planned.sampler.sample(planned.requests[:2]).int()
    difference = clips["strict"] - clips["tats"]
    assert set(difference.flatten().tolist()) == {0, 1}


def test_features_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = prepare_shapes(metrics=["fvd"], n_real=64, n_fake=64)
    broken = Colour("verified", ["features"])
    monkeypatch.setattr(Colour, "__call__", lambda *_: {"features": torch.tensor([[1.0], [float("nan")]])})
    collector = FeatureCollector({"colour": broken}, {"colour": ["features"]})
    with pytest.raises(UserError, match=r"colour\.features of clip 1 is NaN"):
        collector.features(setup.dataset.clips("test", [0, 1]), [Request(i, i, 0, "") for i in range(2)])


# Draws of real clips.


def test_selection_takes_the_first_clips_or_a_seeded_draw() -> None:
    setup = prepare_shapes(n_real=64)
    protocol, data = setup.protocol, setup.dataset
    indices = {
        selection: real_clips.select(data, protocol.model_copy(update={"selection": selection}), 5, 0)
        for selection in ("sorted", "all", "seeded", "windows")
    }
    assert indices["sorted"] == indices["all"] == [0, 1, 2, 3, 4]
    assert indices["seeded"] == indices["windows"] != real_clips.select(data, protocol, 5, 1)


@pytest.mark.parametrize("clips", [25, 300, 1003])
def test_every_tenth_clip_is_selected_as_mcvd_does(clips: int, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = prepare_shapes(n_real=64)
    monkeypatch.setattr(shapes.Shapes, "size", lambda *_: clips)
    protocol = setup.protocol.model_copy(update={"selection": "every-tenth"})
    count, tenths = 8, clips // 10
    chosen = real_clips.select(setup.dataset, protocol, count, 0)
    if tenths >= count:
        assert chosen == [10 * round(index / (count - 1) * (tenths - 1)) for index in range(count)]
    else:
        assert chosen == [0, 10, 1, 2, 3, 4, 5, 6]
    assert sorted(real_clips.select(setup.dataset, protocol, clips, 0)) == list(range(clips))


def test_sorted_selection_orders_both_splits_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = prepare_shapes(n_real=64)
    names = {"train": ["b_2", "a_1"], "test": ["a_0", "c_0"]}
    monkeypatch.setattr(shapes.Shapes, "size", lambda *_: 2)
    monkeypatch.setattr(shapes.Shapes, "names", lambda _, split: names[split], raising=False)
    monkeypatch.setattr(shapes.Shapes, "keys", lambda *_: pytest.fail("drawn by hash"), raising=False)
    protocol = setup.protocol.model_copy(update={"selection": "sorted", "split": "both"})
    assert real_clips.select(setup.dataset, protocol, 3, 0) == [2, 1, 0]


def test_each_draw_has_other_real_clips() -> None:
    setup = prepare_shapes(metrics=["fvd"], n_real=64, n_fake=64)
    protocol = setup.protocol.model_copy(update={"repeats": 2})
    manifest = real_clips.draw(setup.dataset, protocol)
    reals = real_features(setup.dataset, protocol, FeatureCollector(setup.extractors, setup.outputs), CPU, manifest)
    assert len(reals) == 2
    assert not torch.equal(*(real.clips["shapes_judge.features"] for real in reals))


def test_clips_of_one_video_are_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = prepare_shapes(metrics=["fvd"], n_real=64, n_fake=64)
    monkeypatch.setattr(shapes.Shapes, "size", lambda *_: 4000)
    monkeypatch.setattr(
        shapes.Shapes, "videos", lambda self, split, indices: [i // 2000 for i in indices], raising=False
    )
    manifest = real_clips.draw(setup.dataset, setup.protocol)
    (real,) = real_features(
        setup.dataset, setup.protocol, FeatureCollector(setup.extractors, setup.outputs), CPU, manifest
    )
    assert len(set(real.groups.tolist())) == 2


def test_features_and_videos_follow_the_order_of_the_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = prepare_shapes(metrics=["fvd"], n_real=64, n_fake=64)
    monkeypatch.setattr(shapes.Shapes, "size", lambda *_: 20)
    chosen, collector = [25, 3, 39, 0, 25, 11], FeatureCollector(setup.extractors, setup.outputs)
    computed = features.features(setup.dataset, "both", collector, CPU, chosen)["shapes_judge.features"]
    for row, index in enumerate(chosen):
        split, clip = ("train", index) if index < 20 else ("test", index - 20)
        clips = setup.dataset.clips(split, [clip])  # type: ignore[arg-type]
        torch.testing.assert_close(computed[row : row + 1], collector.features(clips, [])["shapes_judge.features"])
    sources = real_clips.videos(setup.dataset, "both", chosen)
    assert sources == [("test", 5), ("train", 3), ("test", 19), ("train", 0), ("test", 5), ("train", 11)]


def test_the_floor_needs_clips_of_other_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = prepare_shapes(metrics=["fvd"], n_real=64, n_fake=64)
    monkeypatch.setattr(shapes.Shapes, "size", lambda *_: 400)
    for clips_a_video, enough in ((1, True), (400, False)):
        monkeypatch.setattr(
            shapes.Shapes,
            "videos",
            lambda self, split, indices, n=clips_a_video: [i // n for i in indices],
            raising=False,
        )
        manifest = real_clips.draw(setup.dataset, setup.protocol)
        (real,) = real_features(
            setup.dataset, setup.protocol, FeatureCollector(setup.extractors, setup.outputs), CPU, manifest
        )
        assert (real.holdout is not None) is enough


def test_holdout_clips_are_unused_and_shuffled(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = prepare_shapes(metrics=["fvd"], n_real=64, n_fake=64)
    monkeypatch.setattr(shapes.Shapes, "size", lambda *_: 180)
    chosen = real_clips.select(setup.dataset, setup.protocol, 64, 0)
    holdout = real_clips.holdout_clips(setup.dataset, setup.protocol, chosen, 0)
    assert len(holdout) == 64
    assert not set(holdout) & set(chosen)
    assert holdout != sorted(holdout)


def test_the_score_is_the_mean_over_draws() -> None:
    rng = np.random.default_rng(0)
    setup = prepare_shapes(metrics=["fvd"], n_real=64, n_fake=64)
    protocol = setup.protocol.model_copy(update={"repeats": 2})
    source = "shapes_judge.features"
    fake, real = (torch.from_numpy(rng.normal(size=(2, 64, 3))) for _ in range(2))
    reals = [features.RealFeatures({source: part}, None, np.arange(64)) for part in real]
    mean = scores(protocol, setup.metrics, {source: fake.flatten(0, 1)}, reals, range(128))["fvd"]
    single_draws = [
        setup.metrics["fvd"].score(f.numpy(), r.numpy(), seed=i)
        for i, (f, r) in enumerate(zip(fake, real, strict=True))
    ]
    assert mean.value == pytest.approx(np.mean([score.value for score in single_draws]))
    assert mean.error == pytest.approx(np.sqrt(np.mean([score.error**2 for score in single_draws])))
    assert mean.note.startswith("mean of 2 draws")


def test_repeated_prompts_widen_the_error() -> None:
    rng = np.random.default_rng(0)
    setup = prepare_shapes(metrics=["fvd"], n_real=64, n_fake=64)
    source = "shapes_judge.features"
    fake = torch.from_numpy(rng.normal(size=(8, 3)).repeat(8, axis=0))
    reals = [features.RealFeatures({source: torch.from_numpy(rng.normal(size=(64, 3)))}, None, np.arange(64))]
    errors = [
        scores(setup.protocol, setup.metrics, {source: fake}, reals, sources)["fvd"].error
        for sources in (range(64), [i // 8 for i in range(64)])
    ]
    assert errors[1] > 1.5 * errors[0]


def test_a_nan_score_is_refused() -> None:
    setup = prepare_shapes(metrics=["fvd"], n_real=64, n_fake=64)
    with pytest.raises(UserError, match="FVD is nan"):
        scores_.score_record(setup.metrics["fvd"], Score(float("nan"), 0.0, 0.0, 0.0, 64, 64))


def test_a_mean_has_a_limit_only_if_every_draw_has_one() -> None:
    score = Score(2.0, 1.0, 3.0, 0.5, 10, 10, "", 0.5, 1.5, 0.25, 5.0)
    all_limits = mean_score([score, score])
    assert (all_limits.value, all_limits.limit, all_limits.limit_error, all_limits.slope) == (2.0, 1.5, 0.25, 5.0)
    one_limit = mean_score([score, Score(4.0, 3.0, 5.0, 0.5, 10, 10, error=0.5)])
    assert (one_limit.value, one_limit.limit) == (3.0, None)
    assert mean_score([score]) is score
