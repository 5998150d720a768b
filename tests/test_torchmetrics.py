"""The scores as torchmetrics: the numbers of the run, whatever the batches and processes."""

from __future__ import annotations

import math
import warnings

import matplotlib
import pytest
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.errors import UserError
from vfbench.interfaces import Request
from vfbench.metrics import _inception
from vfbench.torchmetrics import ClipSim, FrechetVideoDistance, KernelVideoDistance, VideoInceptionScore, VideoMetric
from vfbench.weights import WeightInfo

DATA = shapes.build()
REAL, FAKE = DATA.clips("train", range(96)), DATA.clips("test", range(64))
CAPTIONS = DATA.captions("test", range(64))
JUDGE = {"extractor": "shapes_judge", "output": "features"}


def judged() -> dict[str, VideoMetric]:
    return {
        "fvd": FrechetVideoDistance(**JUDGE),
        "kvd": KernelVideoDistance(**JUDGE),
        "is": VideoInceptionScore(extractor="shapes_judge"),
        "clipsim": ClipSim(extractor="shapes_judge"),
    }


def value(metric: Metric) -> float:
    return float(metric.compute())


@pytest.fixture(scope="module")
def features() -> dict[str, dict[str, Tensor]]:
    """What the judge says of both sides, asked directly."""
    judge = plugins.load("extractor", "shapes_judge", torch.device("cpu"))
    asked = [Request(i, 0, 0, text) for i, text in enumerate(CAPTIONS)]
    blank = [Request(i, 0, 0, "") for i in range(len(REAL))]
    return {
        "fake": judge(FAKE, asked, ["features", "logits", "similarity"]),
        "real": judge(REAL, blank, ["features", "logits"]),
    }


@pytest.mark.parametrize(("name", "output"), [("fvd", "features"), ("kvd", "features"), ("is", "logits")])
@pytest.mark.pitfall("a mean over batches")
def test_batches_do_not_matter_and_the_number_is_that_of_the_library(
    name: str, output: str, features: dict[str, dict[str, Tensor]]
) -> None:
    metric = judged()[name]
    for batch in torch.split(REAL, 40):
        metric.update(batch, real=True)
    for batch in torch.split(FAKE, 7):
        metric.update(batch)
    statistic = plugins.load("metric", name)
    score = statistic.score(features["fake"][output].numpy(), features["real"][output].numpy())
    assert value(metric) == pytest.approx(score.value, rel=1e-4)
    assert metric.score().n_fake == 64
    assert metric.compute().dtype == torch.float64


def test_clipsim_reads_the_prompts_and_needs_no_real_clips(features: dict[str, dict[str, Tensor]]) -> None:
    metric = judged()["clipsim"]
    metric.update(FAKE, prompts=CAPTIONS)
    assert value(metric) == pytest.approx(float(features["fake"]["similarity"].double().mean()), rel=1e-4)
    with pytest.raises(UserError, match="3 prompts for 64 clips"):
        metric.update(FAKE, prompts=CAPTIONS[:3])


@pytest.mark.parametrize("real", [False, True])
def test_clips_are_not_compared_with_an_empty_prompt(real: bool) -> None:
    with pytest.raises(UserError, match=r"ClipSim compares clips with their prompts, .* update\(clips, prompts="):
        judged()["clipsim"].update(FAKE, real=real)


@pytest.mark.parametrize("name", ["is", "clipsim"])
def test_without_real_clips_there_is_no_floor(name: str) -> None:
    alone, beside = judged()[name], judged()[name]
    for metric in (alone, beside):
        metric.update(FAKE, prompts=CAPTIONS)
    beside.update(REAL, real=True, prompts=DATA.captions("train", range(96)))
    score, whole = alone.score(), beside.score()
    assert math.isnan(score.floor)
    assert score.n_real == 0
    assert "floor" not in score.note
    assert "real clips" not in score.note
    assert (whole.n_real, whole.value, whole.limit) == (96, score.value, score.limit)
    assert "floor: real clips' own score" in whole.note


def test_other_remarks_stay_where_there_are_no_real_clips() -> None:
    metric = VideoInceptionScore(metric="is(splits=4)", extractor="shapes_judge")
    metric.update(FAKE[:1].expand(64, -1, -1, -1, -1))
    assert "standard deviation over 4 splits" in metric.score().note
    assert "all 64 generated clips have the same values" in metric.score().note


def test_two_processes_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, here, there = (FrechetVideoDistance(**JUDGE) for _ in range(3))
    for metric, clips in ((whole, FAKE), (here, FAKE[:20]), (there, FAKE[20:])):
        metric.update(clips)
    whole.update(REAL, real=True)
    here.update(REAL[:50], real=True)
    there.update(REAL[50:], real=True)
    here.merge_state(there)
    assert value(here) == pytest.approx(value(whole), rel=1e-9)


def test_a_collection_runs_a_shared_network_once() -> None:
    collection = MetricCollection({name: judged()[name] for name in ("fvd", "kvd")})
    collection.update(REAL, real=True)
    collection.update(FAKE, real=False)
    assert len(collection.compute_groups) == 1
    apart = judged()
    for name in ("fvd", "kvd"):
        apart[name].update(REAL, real=True)
        apart[name].update(FAKE)
    assert {name: float(found) for name, found in collection.compute().items()} == {
        name: value(apart[name]) for name in ("fvd", "kvd")
    }


def together(metric: VideoMetric, other: VideoMetric) -> list[str]:
    """Let the metric find two processes, itself and the other; the list tells what it gathers."""
    gathered: list[str] = []

    def gather(state: Tensor, group: object = None) -> list[Tensor]:
        side = ("fake", "real")[len(gathered) % 2]
        gathered.append(side)
        return [state, torch.cat(getattr(other, side))]

    metric.dist_sync_fn, metric.distributed_available_fn = gather, lambda: True
    return gathered


def test_score_is_that_of_all_processes_as_compute_is() -> None:
    whole, here, there = (FrechetVideoDistance(**JUDGE) for _ in range(3))
    for metric, fake, real in ((whole, FAKE, REAL), (here, FAKE[:20], REAL[:50]), (there, FAKE[20:], REAL[50:])):
        metric.update(fake)
        metric.update(real, real=True)
    gathered = together(here, there)
    score = here.score()
    assert (score.n_fake, score.n_real) == (64, 96)
    assert score.value == pytest.approx(value(whole), rel=1e-9)
    assert gathered == ["fake", "real"]
    assert value(here) == score.value
    assert gathered == 2 * ["fake", "real"]  # and not once more within
    assert [len(part) for part in here.fake] == [20]
    with here.sync_context(here.dist_sync_fn):
        assert here.score() == score
        assert here._is_synced


def test_too_few_clips_in_all_processes_do_not_keep_them_from_going_on() -> None:
    here, there = (VideoInceptionScore(extractor="shapes_judge") for _ in range(2))
    here.update(FAKE[:20])
    there.update(FAKE[:30])
    there.real = [torch.empty(0, 2)]
    together(here, there)
    for ask in (here.compute, here.score):
        with pytest.raises(UserError, match="has 50 generated clips, and needs at least 64"):
            ask()
        assert [len(part) for part in here.fake] == [20]
    here.update(FAKE[:20])
    assert here.score().n_fake == 70


@pytest.mark.parametrize(
    ("fakes", "reals", "said"),
    [
        (63, 96, r"has 63 generated clips, and needs at least 64: call update\(clips\)"),
        (64, 63, r"has 63 real clips, and needs at least 64: call update\(clips, real=True\)"),
        (64, 0, "has 0 real clips"),
        (0, 96, "has 0 generated clips"),
    ],
)
@pytest.mark.pitfall("a handful of clips")
def test_too_few_clips_for_the_metric_are_refused(fakes: int, reals: int, said: str) -> None:
    metric = FrechetVideoDistance(**JUDGE)
    if fakes:
        metric.update(FAKE[:fakes])
    if reals:
        metric.update(REAL[:reals], real=True)
    for ask in (metric.compute, metric.score):
        with pytest.raises(UserError, match=f"FrechetVideoDistance {said}"):
            ask()


@pytest.mark.pitfall("a score that changes by being asked for")
def test_asking_changes_nothing_and_reset_forgets() -> None:
    metric = FrechetVideoDistance(**JUDGE)
    metric.update(FAKE)
    metric.update(REAL, real=True)
    first = value(metric)
    assert value(metric) == first
    metric.update(REAL[:32], real=True)
    assert value(metric) != first
    metric.reset()
    with pytest.raises(UserError, match="has 0 generated clips"):
        metric.score()


def test_one_batch_has_no_score_and_nothing_is_lost() -> None:
    metric = VideoInceptionScore(extractor="shapes_judge")
    metric.update(FAKE)
    with pytest.raises(UserError, match=r"one batch is too few clips for VideoInceptionScore: call update\(clips\)"):
        metric(FAKE[:8])
    assert metric.score().n_fake == 64


@pytest.mark.parametrize("real", [False, True])
def test_a_frame_drawn_by_the_number_of_a_clip_does_not_depend_on_the_batches(real: bool) -> None:
    whole, apart = (VideoMetric("fid", "inception", "features") for _ in range(2))
    for metric in (whole, apart):
        metric._extractor = _inception.InceptionExtractor(
            Colours(), WeightInfo("0" * 64, weight_status="unpublished"), torch.device("cpu")
        )
    whole.update(REAL[:8], real=real)
    for number, clip in enumerate(torch.split(REAL[:8], 1)):
        apart.update(FAKE[number, None], real=not real)  # the other side has its own numbers
        apart.update(clip, real=real)
    side = "real" if real else "fake"
    assert torch.equal(torch.cat(getattr(whole, side)), torch.cat(getattr(apart, side)))
    whole.update(REAL[:8], real=real)
    first, second = getattr(whole, side)
    assert not torch.equal(first, second)


class Colours(torch.nn.Module):
    """Stands in for Inception: the mean colour of a frame."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def test_random_weights_are_warned_of_once() -> None:
    metric = FrechetVideoDistance(extractor="inception(weights='random', frames='middle')", output="features")
    with pytest.warns(UserWarning, match=r"NOT the published weights: inception\(.*random.*"):
        assert metric.extractor.weight_status == "nonstandard"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metric.extractor.weight_status == "nonstandard"


def test_floats_are_refused() -> None:
    with pytest.raises(TypeError):
        FrechetVideoDistance(**JUDGE).update(FAKE.float() / 255)


def test_which_way_is_better() -> None:
    for name, metric in judged().items():
        assert metric.higher_is_better == (plugins.load("metric", name).better == "higher")


def test_it_can_be_drawn() -> None:
    matplotlib.use("agg")  # draws without a screen
    metric = FrechetVideoDistance(**JUDGE)
    metric.update(REAL, real=True)
    metric.update(FAKE)
    assert metric.plot()[1].lines


def test_clips_of_another_size_are_refused() -> None:
    metric = FrechetVideoDistance(**JUDGE)
    metric.update(REAL, real=True)
    with pytest.raises(UserError, match=r"clips of shape .* after clips of"):
        metric.update(FAKE[:, :8])
    metric.reset()
    metric.update(FAKE[:, :8])


def test_clips_that_were_refused_settle_no_size() -> None:
    metric = FrechetVideoDistance(**JUDGE)
    with pytest.raises(Exception, match=r".+"):
        metric.update(REAL.transpose(1, 2))
    metric.update(REAL, real=True)
