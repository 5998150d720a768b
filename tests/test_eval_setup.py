"""What is measured: the rules that are chosen, the networks that are loaded, and what the protocol then records."""

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


# What is loaded.


def measuring(n_fake: int | None = None, n_real: int | None = None, **options: Any) -> EvalSetup:
    return prepare(SHAPES, CPU, EvalOptions(num_real=n_real, **options), n_fake)


def test_only_the_networks_that_are_needed_are_loaded_and_the_id_stays(loads: list[str]) -> None:
    some = measuring(protocol="strict", metrics=["fvd"], n_real=64)
    assert loads == ["i3d(bn_eps=0.001, resize='squash')"]
    assert some.protocol.id == measuring(protocol="strict", n_real=64).protocol.id
    assert list(some.metrics) == ["fvd"]
    assert list(some.protocol.measures) == ["fvd", "kvd"]


def test_a_metric_of_ones_own_choice_reads_what_its_file_says(loads: list[str]) -> None:
    more = measuring(protocol="strict", metrics=["fvd", "clipsim", "precision", "is"], n_real=64)
    sources = {name: measure.source for name, measure in more.protocol.measures.items()}
    assert sources["clipsim"] == "clip.similarity"
    assert sources["precision"] == "i3d.logits"
    assert sources["is"] == "c3d.logits"
    assert more.outputs == {"i3d": ["logits"], "clip": ["similarity"], "c3d": ["logits"]}
    assert more.protocol.id != measuring(protocol="strict", n_real=64).protocol.id


@pytest.mark.pitfall("variants of the Inception Score")
def test_a_metric_with_other_options_is_another_measure() -> None:
    plain, other = (measuring(metrics=[text]).protocol for text in ("fvd", "fvd(ddof=0)"))
    assert plain.measures["fvd"].metric == JUDGE_MEASURES["fvd"]["metric"]
    assert (other.measures["fvd"].metric, other.measures["fvd"].source) == ("fvd(ddof=0)", "shapes_judge.features")
    assert plain.id != other.id


def test_a_network_of_ones_own_choice_is_told_with_all_its_options(loads: list[str]) -> None:
    asked: dict[str, Any] = {"protocol": "strict", "metrics": ["fvd", "fid"], "n_real": 256, "n_fake": 256}
    said = measuring(extractors=["i3d=i3d(resize='tf1')"], **asked)
    assert loads[0] == "i3d(bn_eps=0.001, dtype='float32', resize='tf1')"
    assert said.protocol.extractors["i3d"] == loads[0]
    assert said.protocol.extractors["inception"].startswith("inception(count=16, frames='")
    assert said.protocol.measures["fid"].metric == "fid(ddof=1, frames=1)"
    with pytest.raises(UserError, match=r"no network to replace .* called 'i4d': did you mean 'i3d'"):
        measuring(protocol="strict", metrics=["fvd"], n_real=64, extractors=["i4d=i3d"])


def test_the_networks_of_the_first_results_are_told_as_then() -> None:
    judge = plugins.load("extractor", "shapes_judge", CPU)
    assert measuring(metrics=["fvd"]).protocol.extractors == {"shapes_judge": judge.fingerprint}


def test_an_output_that_a_network_lacks_is_refused(loads: list[str]) -> None:
    with pytest.raises(UserError, match=r"of extractor clip\(.*\) called 'consistency': known: logits"):
        measuring(metrics=["clip_consistency"])


def test_random_weights_are_asked_for_told_and_never_comparable(loads: list[str]) -> None:
    found = prepare(SHAPES, CPU, RANDOM)
    assert loads == ["i3d(bn_eps=0.001, resize='squash', weights='random')"]
    assert found.protocol.extractors == {"i3d": f"{loads[0]} {Colour.fingerprint}"}
    assert found.protocol.comparable is False
    assert found.note.endswith("; NOT the published weights: i3d; these numbers compare with nothing")
    assert found.note.startswith("strict, but height 32, width 32, start zero, geometry native")
    with pytest.raises(UserError, match="--weights random: shapes_judge has no random weights; leave it out"):
        measuring(weights="random")
    with pytest.raises(UserError, match="no choice of --weights called 'randm': did you mean 'random'"):
        measuring(weights="randm")


def test_weights_that_are_not_here_are_named_with_all_ways_out() -> None:
    with pytest.raises(MissingData, match=r"weights fetch i3d(?s:.*)weights import i3d(?s:.*)--weights random"):
        measuring(protocol="strict", n_real=64)


def test_what_a_network_says_of_the_prompts_is_noted(loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Colour, "note", lambda self, requests: f"{len(requests)} prompts seen", raising=False)
    found = measuring(metrics=["fvd", "clipsim"])
    assert found.remarks([]) == ""  # the judge's CLIPSIM
    strict = measuring(protocol="strict", metrics=["fvd", "clipsim"], n_real=64)
    assert strict.remarks([Request(0, 0, 0, "")] * 3).endswith("; 3 prompts seen")


# Numbers of clips.


def test_numbers_of_clips_are_the_protocols_unless_asked_for(loads: list[str]) -> None:
    assert (measuring().protocol.n_fake, measuring().protocol.n_real) == (256, 2048)
    strict = measuring(protocol="strict", metrics=["fvd"])
    assert (strict.protocol.n_fake, strict.protocol.n_real, strict.protocol.name) == (2048, 2048, "strict")
    fewer = measuring(protocol="strict", metrics=["fvd"], n_fake=100, n_real=80)
    assert (fewer.protocol.n_fake, fewer.protocol.n_real) == (100, 80)
    assert fewer.protocol.name == "strict(n_fake=100, n_real=80)"
    assert measuring(n_fake=64).protocol.name == "shapes"


@pytest.mark.pitfall("more clips than there are")
def test_more_real_clips_than_there_are_and_too_few_for_any_score_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingData, match=r"shapes has 1,048,576 real clips here.*2,097,152 are needed.*--num-real"):
        measuring(n_real=1 << 21)
    with pytest.raises(UserError, match="--num-real 3: a score and its floor need at least 4"):
        measuring(n_real=3)
    monkeypatch.setattr(shapes.Shapes, "size", lambda *_: 3)
    with pytest.raises(MissingData, match=r"shapes has 3 real clips here \(train\), and 4 are needed$"):
        measuring(smoke=True)


def test_too_few_real_clips_for_a_metric_are_refused() -> None:
    with pytest.raises(UserError, match="40 real clips are too few: fvd needs 64, is needs 64"):
        measuring(n_real=40)
    assert measuring(n_real=40, smoke=True).protocol.comparable is False


def test_every_real_clip_is_taken_where_the_protocol_says_so(loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes.Shapes, "size", lambda *_: 80)
    assert measuring(protocol="cd-fvd", metrics=["fvd"]).protocol.n_real == 80


# Frames and bytes of generated clips.


def test_a_model_of_another_size_is_refused(loads: list[str]) -> None:
    protocol = measuring(protocol="strict", n_real=64).protocol
    require_clips("any", ClipShape(17, 32, 32), protocol)
    for shape in (ClipShape(16, 64, 64), ClipShape(15, 32, 32)):
        with pytest.raises(UserError, match=f"any makes clips of {shape}, and protocol strict.* scores 16x32x32"):
            require_clips("any", shape, protocol)


def test_the_scored_frames_are_those_of_the_protocol() -> None:
    protocol = measuring().protocol.model_copy(update={"drop_first": 2, "fake_stride": 3, "frames": 4})
    assert list(range(30))[scored_frames(protocol)] == [2, 5, 8, 11]
    with pytest.raises(UserError, match="scores 12x32x32"):
        require_clips("any", ClipShape(11, 32, 32), protocol)


def test_only_the_scored_frames_reach_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(RunOptions(model="noise", num_samples=64, num_real=64, device="cpu"))
    assert planned.collector.frames == slice(0, 16, 1)


def test_bytes_are_cut_off_where_the_protocol_does_it(loads: list[str], checkpoints: Any) -> None:
    made = {}
    for name in ("strict", "tats"):
        options: dict[str, Any] = {
            "protocol": name,
            "metrics": ["fvd"],
            "num_samples": 64,
            "num_real": 64,
            "device": "cpu",
        }
        planned = plan(RunOptions(model="vdm", checkpoint=checkpoints / "vdm", steps=1, **options))
        made[name] = planned.sampler.sample(planned.requests[:2]).int()
    lower = made["strict"] - made["tats"]
    assert set(lower.flatten().tolist()) == {0, 1}


def test_features_that_are_not_finite_are_refused_before_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made = measuring(metrics=["fvd"], n_real=64, n_fake=64)
    broken = Colour("verified", ["features"])
    monkeypatch.setattr(Colour, "__call__", lambda *_: {"features": torch.tensor([[1.0], [float("nan")]])})
    wanted = FeatureCollector({"colour": broken}, {"colour": ["features"]})
    with pytest.raises(UserError, match=r"colour\.features of clip 1 is NaN or infinite"):
        wanted.features(made.dataset.clips("test", [0, 1]), [Request(i, i, 0, "") for i in range(2)])


# Draws.


def test_the_first_clips_or_drawn_ones() -> None:
    made = measuring(n_real=64)
    protocol, data = made.protocol, made.dataset
    ways = {way: protocol.model_copy(update={"selection": way}) for way in ("sorted", "all", "seeded", "windows")}
    drawn = {way: real_clips.select(data, one, 5, 0) for way, one in ways.items()}
    assert drawn["sorted"] == drawn["all"] == [0, 1, 2, 3, 4]
    assert drawn["seeded"] == drawn["windows"] != real_clips.select(data, protocol, 5, 1)


def test_the_first_are_the_first_by_name_whatever_their_split(monkeypatch: pytest.MonkeyPatch) -> None:
    made = measuring(n_real=64)
    names = {"train": ["b_2", "a_1"], "test": ["a_0", "c_0"]}
    monkeypatch.setattr(shapes.Shapes, "size", lambda *_: 2)
    monkeypatch.setattr(shapes.Shapes, "names", lambda _, split: names[split], raising=False)
    monkeypatch.setattr(shapes.Shapes, "keys", lambda *_: pytest.fail("not drawn by hash"), raising=False)
    both = made.protocol.model_copy(update={"selection": "sorted", "split": "both"})
    assert real_clips.select(made.dataset, both, 3, 0) == [2, 1, 0]


def test_each_draw_has_real_clips_of_its_own() -> None:
    made = measuring(metrics=["fvd"], n_real=64, n_fake=64)
    protocol = made.protocol.model_copy(update={"repeats": 2})
    manifest = real_clips.draw(made.dataset, protocol)
    reals = real_features(made.dataset, protocol, FeatureCollector(made.extractors, made.outputs), CPU, manifest)
    assert len(reals) == 2
    assert not torch.equal(*(real.clips["shapes_judge.features"] for real in reals))


def test_clips_of_one_video_are_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    made = measuring(metrics=["fvd"], n_real=64, n_fake=64)
    monkeypatch.setattr(shapes.Shapes, "size", lambda *_: 4000)
    monkeypatch.setattr(
        shapes.Shapes, "videos", lambda self, split, indices: [i // 2000 for i in indices], raising=False
    )
    manifest = real_clips.draw(made.dataset, made.protocol)
    (real,) = real_features(made.dataset, made.protocol, FeatureCollector(made.extractors, made.outputs), CPU, manifest)
    assert len(set(real.groups.tolist())) == 2


def test_features_and_groups_stand_in_the_order_of_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    made = measuring(metrics=["fvd"], n_real=64, n_fake=64)
    monkeypatch.setattr(shapes.Shapes, "size", lambda *_: 20)
    chosen, wanted = [25, 3, 39, 0, 25, 11], FeatureCollector(made.extractors, made.outputs)
    found = features.features(made.dataset, "both", wanted, CPU, chosen)["shapes_judge.features"]
    for row, index in enumerate(chosen):
        split, place = ("train", index) if index < 20 else ("test", index - 20)
        clips = made.dataset.clips(split, [place])  # type: ignore[arg-type]
        torch.testing.assert_close(found[row : row + 1], wanted.features(clips, [])["shapes_judge.features"])
    sources = real_clips.videos(made.dataset, "both", chosen)
    assert sources == [("test", 5), ("train", 3), ("test", 19), ("train", 0), ("test", 5), ("train", 11)]


def test_the_floor_is_found_by_clips_of_other_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    made = measuring(metrics=["fvd"], n_real=64, n_fake=64)
    monkeypatch.setattr(shapes.Shapes, "size", lambda *_: 400)
    for clips_a_video, enough in ((1, True), (400, False)):
        monkeypatch.setattr(
            shapes.Shapes, "videos", lambda *told, n=clips_a_video: [i // n for i in told[2]], raising=False
        )
        manifest = real_clips.draw(made.dataset, made.protocol)
        (real,) = real_features(
            made.dataset, made.protocol, FeatureCollector(made.extractors, made.outputs), CPU, manifest
        )
        assert (real.holdout is not None) is enough


def test_the_floor_is_not_that_of_the_first_clips_where_all_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = measuring(metrics=["fvd"], n_real=64, n_fake=64)
    monkeypatch.setattr(shapes.Shapes, "size", lambda *_: 180)
    chosen = real_clips.select(made.dataset, made.protocol, 64, 0)
    holdout = real_clips.holdout_clips(made.dataset, made.protocol, chosen, 0)
    assert len(holdout) == 64
    assert not set(holdout) & set(chosen)
    assert holdout != sorted(holdout)


def test_each_draw_is_scored_on_its_own_part_and_mean_score() -> None:
    rng = np.random.default_rng(0)
    made = measuring(metrics=["fvd"], n_real=64, n_fake=64)
    protocol = made.protocol.model_copy(update={"repeats": 2})
    source = "shapes_judge.features"
    fake, real = (torch.from_numpy(rng.normal(size=(2, 64, 3))) for _ in range(2))
    reals = [features.Real({source: part}, None, np.arange(64)) for part in real]
    together = scores(protocol, made.metrics, {source: fake.flatten(0, 1)}, reals, range(128))["fvd"]
    alone = [
        made.metrics["fvd"].score(f.numpy(), r.numpy(), seed=i) for i, (f, r) in enumerate(zip(fake, real, strict=True))
    ]
    assert together.value == pytest.approx(np.mean([score.value for score in alone]))
    assert together.error == pytest.approx(np.sqrt(np.mean([score.error**2 for score in alone])))
    assert together.note.startswith("mean of 2 draws, standard deviation ")


def test_prompts_of_one_real_clip_widen_the_error() -> None:
    rng = np.random.default_rng(0)
    made = measuring(metrics=["fvd"], n_real=64, n_fake=64)
    source = "shapes_judge.features"
    fake = torch.from_numpy(rng.normal(size=(8, 3)).repeat(8, axis=0))
    reals = [features.Real({source: torch.from_numpy(rng.normal(size=(64, 3)))}, None, np.arange(64))]
    errors = [
        scores(made.protocol, made.metrics, {source: fake}, reals, sources)["fvd"].error
        for sources in (range(64), [i // 8 for i in range(64)])
    ]
    assert errors[1] > 1.5 * errors[0]


def test_a_score_that_is_no_number_is_refused() -> None:
    made = measuring(metrics=["fvd"], n_real=64, n_fake=64)
    with pytest.raises(UserError, match="FVD is nan: the features are too large"):
        scores_.score_record(made.metrics["fvd"], Score(float("nan"), 0.0, 0.0, 0.0, 64, 64))


def test_an_average_has_a_limit_only_where_every_draw_has_one() -> None:
    score = Score(2.0, 1.0, 3.0, 0.5, 10, 10, "", 0.5, 1.5, 0.25, 5.0)
    whole = mean_score([score, score])
    assert (whole.value, whole.limit, whole.limit_error, whole.slope) == (2.0, 1.5, 0.25, 5.0)
    part = mean_score([score, Score(4.0, 3.0, 5.0, 0.5, 10, 10, error=0.5)])
    assert (part.value, part.limit) == (3.0, None)
    assert mean_score([score]) is score
