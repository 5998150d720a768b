"""The scores as torchmetrics: the numbers of the run, whatever the batches and processes."""

from __future__ import annotations

import matplotlib
import pytest
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.errors import UserError
from vfbench.interfaces import Request
from vfbench.torchmetrics import (
    ClipSim,
    FrechetVideoDistance,
    KernelVideoDistance,
    VideoInceptionScore,
    VideoMetric,
)

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
    with pytest.raises(UserError, match="3 prompts came with 64 clips"):
        metric.update(FAKE, prompts=CAPTIONS[:3])


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


def test_reset_forgets_and_an_empty_side_is_named() -> None:
    metric = FrechetVideoDistance(**JUDGE)
    metric.update(FAKE)
    with pytest.raises(UserError, match=r"no real clips: call update\(clips, real=True\)"):
        metric.compute()
    metric.reset()
    with pytest.raises(UserError, match="no fake clips"):
        metric.score()


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
