"""Tests of `vfbench.torchmetrics`: equal scores in any batches and processes, refused updates."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

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
from vfbench.torchmetrics import (
    ClipSim,
    FrechetVideoDistance,
    KernelVideoDistance,
    VideoInceptionScore,
    VideoMetric,
    _require_layout,
)
from vfbench.weights.load import WeightInfo

DATA = shapes.build()
REAL, FAKE = DATA.clips("train", range(96)), DATA.clips("test", range(64))
CAPTIONS = DATA.captions("test", range(64))
JUDGE = {"extractor": "shapes_judge", "output": "features"}


def shapes_metrics() -> dict[str, VideoMetric]:
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
    """Outputs of the Shapes judge for generated and real clips."""
    judge = plugins.load("extractor", "shapes_judge", torch.device("cpu"))
    captioned = [Request(i, 0, 0, text) for i, text in enumerate(CAPTIONS)]
    without_prompts = [Request(i, 0, 0, "") for i in range(len(REAL))]
    return {
        "fake": judge(FAKE, captioned, ["features", "logits", "similarity"]),
        "real": judge(REAL, without_prompts, ["features", "logits"]),
    }


@pytest.mark.one_case
@pytest.mark.parametrize(("name", "output"), [("fvd", "features"), ("kvd", "features"), ("is", "logits")])
@pytest.mark.pitfall("a mean over batches")
def test_scores_in_batches_equal_those_of_the_library(
    name: str, output: str, features: dict[str, dict[str, Tensor]]
) -> None:
    metric = shapes_metrics()[name]
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
    metric = shapes_metrics()["clipsim"]
    metric.update(FAKE, prompts=CAPTIONS)
    assert value(metric) == pytest.approx(float(features["fake"]["similarity"].double().mean()), rel=1e-4)
    with pytest.raises(UserError, match="3 prompts for 64 clips"):
        metric.update(FAKE, prompts=CAPTIONS[:3])


@pytest.mark.parametrize("real", [False, True])
def test_clipsim_without_prompts_is_refused(real: bool) -> None:
    with pytest.raises(UserError, match=r"ClipSim .* update\(clips, prompts="):
        shapes_metrics()["clipsim"].update(FAKE, real=real)


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("name", ["is", "clipsim"])
def test_without_real_clips_there_is_no_floor(name: str) -> None:
    without_real, with_real = shapes_metrics()[name], shapes_metrics()[name]
    for metric in (without_real, with_real):
        metric.update(FAKE, prompts=CAPTIONS)
    with_real.update(REAL, real=True, prompts=DATA.captions("train", range(96)))
    score, full_score = without_real.score(), with_real.score()
    assert math.isnan(score.floor)
    assert score.n_real == 0
    assert "floor" not in score.note
    assert "real clips" not in score.note
    assert (full_score.n_real, full_score.value, full_score.limit) == (96, score.value, score.limit)
    assert "the floor is the real clips' own score" in full_score.note


def test_notes_of_generated_clips_are_kept_without_real_clips() -> None:
    metric = VideoInceptionScore(metric="is(splits=4)", extractor="shapes_judge")
    metric.update(FAKE[:1].expand(64, -1, -1, -1, -1))
    assert "standard deviation over 4 splits" in metric.score().note
    assert "all 64 generated clips have the same values" in metric.score().note


@pytest.mark.slow
def test_merged_states_equal_a_single_one(monkeypatch: pytest.MonkeyPatch) -> None:
    single, first, second = (FrechetVideoDistance(**JUDGE) for _ in range(3))
    for metric, clips in ((single, FAKE), (first, FAKE[:20]), (second, FAKE[20:])):
        metric.update(clips)
    single.update(REAL, real=True)
    first.update(REAL[:50], real=True)
    second.update(REAL[50:], real=True)
    first.merge_state(second)
    assert value(first) == pytest.approx(value(single), rel=1e-9)


@pytest.mark.slow
def test_a_collection_runs_a_shared_network_once() -> None:
    collection = MetricCollection({name: shapes_metrics()[name] for name in ("fvd", "kvd")})
    collection.update(REAL, real=True)
    collection.update(FAKE, real=False)
    assert len(collection.compute_groups) == 1
    separate = shapes_metrics()
    for name in ("fvd", "kvd"):
        separate[name].update(REAL, real=True)
        separate[name].update(FAKE)
    assert {name: float(result) for name, result in collection.compute().items()} == {
        name: value(separate[name]) for name in ("fvd", "kvd")
    }


def simulate_two_processes(metric: VideoMetric, other: VideoMetric) -> list[str]:
    """Let the metric synchronise with `other`; return the list of gathered states.

    As real processes do, it refuses states of different dimensions or types.
    """
    gathered: list[str] = []

    def gather(state: Tensor, group: object = None) -> list[Tensor]:
        side = ("fake", "real")[len(gathered) % 2]
        gathered.append(side)
        parts = getattr(other, side)
        second = torch.cat(parts) if parts else torch.empty(0, 0)
        assert (state.ndim, state.dtype) == (second.ndim, second.dtype)
        return [state, second]

    metric.dist_sync_fn, metric.distributed_available_fn = gather, lambda: True
    return gathered


@pytest.mark.slow
def test_score_and_compute_use_all_processes() -> None:
    single, first, second = (FrechetVideoDistance(**JUDGE) for _ in range(3))
    for metric, fake, real in ((single, FAKE, REAL), (first, FAKE[:20], REAL[:50]), (second, FAKE[20:], REAL[50:])):
        metric.update(fake)
        metric.update(real, real=True)
    gathered = simulate_two_processes(first, second)
    score = first.score()
    assert (score.n_fake, score.n_real) == (64, 96)
    assert score.value == pytest.approx(value(single), rel=1e-9)
    assert gathered == ["fake", "real"]
    assert value(first) == score.value
    assert gathered == 2 * ["fake", "real"]  # gathered once per call
    assert [len(part) for part in first.fake] == [20]
    with first.sync_context(first.dist_sync_fn):
        assert first.score() == score
        assert first._is_synced


@pytest.mark.one_case
@pytest.mark.parametrize("first_share", [(64, 96), (0, 0), (64, 0), (0, 96), (20, 96)])
def test_a_process_without_clips_merges_exactly(first_share: tuple[int, int]) -> None:
    single, first, second = (FrechetVideoDistance(**JUDGE) for _ in range(3))
    fakes, reals = first_share
    for metric, fake, real in ((single, FAKE, REAL), (first, FAKE[:fakes], REAL[:reals])):
        metric.update(fake)
        metric.update(real, real=True)
    for clips, are_real in ((FAKE[fakes:], False), (REAL[reals:], True)):
        if len(clips):
            second.update(clips, real=are_real)
    simulate_two_processes(first, second)
    assert value(first) == pytest.approx(value(single), rel=1e-9)


@pytest.mark.thorough
@pytest.mark.slow
def test_two_processes_print_the_score_of_one(reports: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "h4_ddp_rank_without_real.py"]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    results = [
        subprocess.run([*command, mode], cwd=reports, env=environment, capture_output=True, text=True, check=True)
        for mode in ("rank0", "uneven")
    ]
    one, *both = (float(text) for each in results for text in re.findall(r"-> ([\d.]+)", each.stdout))
    assert both == pytest.approx([one, one], rel=1e-9)


def test_after_too_few_clips_updates_continue() -> None:
    first, second = (VideoInceptionScore(extractor="shapes_judge") for _ in range(2))
    first.update(FAKE[:20])
    second.update(FAKE[:30])
    simulate_two_processes(first, second)
    for compute in (first.compute, first.score):
        with pytest.raises(UserError, match="has 50 generated clips, and needs at least 64"):
            compute()
        assert [len(part) for part in first.fake] == [20]
    first.update(FAKE[:20])
    assert first.score().n_fake == 70


@pytest.mark.one_case
@pytest.mark.parametrize(
    ("fakes", "reals", "message"),
    [
        (63, 96, r"has 63 generated clips, and needs at least 64: call update\(clips\)"),
        (64, 63, r"has 63 real clips, and needs at least 64: call update\(clips, real=True\)"),
        (64, 0, "has 0 real clips"),
        (0, 96, "has 0 generated clips"),
    ],
)
@pytest.mark.pitfall("a handful of clips")
def test_too_few_clips_for_the_metric_are_refused(fakes: int, reals: int, message: str) -> None:
    metric = FrechetVideoDistance(**JUDGE)
    if fakes:
        metric.update(FAKE[:fakes])
    if reals:
        metric.update(REAL[:reals], real=True)
    for compute in (metric.compute, metric.score):
        with pytest.raises(UserError, match=f"FrechetVideoDistance {message}"):
            compute()


@pytest.mark.pitfall("a score that changes by being asked for")
def test_compute_keeps_the_state_and_reset_clears_it() -> None:
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


def test_forward_on_one_batch_is_refused_and_keeps_the_state() -> None:
    metric = VideoInceptionScore(extractor="shapes_judge")
    metric.update(FAKE)
    with pytest.raises(UserError, match=r"VideoInceptionScore: call update\(clips\)"):
        metric(FAKE[:8])
    assert metric.score().n_fake == 64


@pytest.mark.parametrize("real", [False, True])
def test_random_frames_do_not_depend_on_the_batches(real: bool) -> None:
    single, batched = (VideoMetric("fid", "inception", "features") for _ in range(2))
    for metric in (single, batched):
        metric._extractor = _inception.InceptionExtractor(
            MeanColour(), WeightInfo("0" * 64, weight_status="unpublished"), torch.device("cpu")
        )
    single.update(REAL[:8], real=real)
    for number, clip in enumerate(torch.split(REAL[:8], 1)):
        batched.update(FAKE[number, None], real=not real)  # real and generated clips are counted separately
        batched.update(clip, real=real)
    side = "real" if real else "fake"
    assert torch.equal(torch.cat(getattr(single, side)), torch.cat(getattr(batched, side)))
    single.update(REAL[:8], real=real)
    first, second = getattr(single, side)
    assert not torch.equal(first, second)


class MeanColour(torch.nn.Module):
    """Stand-in for Inception: mean colour of a frame."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def test_random_weights_warn_once() -> None:
    metric = FrechetVideoDistance(extractor="inception(weights='random', frames='middle')", output="features")
    with pytest.warns(UserWarning, match=r"NOT the published weights: inception\(.*random.*"):
        assert metric.extractor.weight_status == "nonstandard"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metric.extractor.weight_status == "nonstandard"


@pytest.mark.slow
def test_reset_may_keep_the_real_clips() -> None:
    metric = FrechetVideoDistance(**JUDGE, reset_real_features=False)
    metric.update(REAL, real=True)
    metric.update(FAKE)
    before = value(metric)
    metric.reset()
    with pytest.raises(UserError, match="after clips of"):
        metric.update(FAKE[:, :8])
    metric.update(FAKE)
    assert value(metric) == before


def test_a_float64_training_loop_gets_the_same_score(features: dict[str, dict[str, Tensor]]) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        metric = FrechetVideoDistance(**JUDGE)
        metric.update(FAKE)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(metric.fake[0], features["fake"]["features"])


@pytest.mark.parametrize(
    ("clips", "mend"),
    [
        (FAKE.permute(0, 1, 3, 4, 2), r"permute\(0, 1, 4, 2, 3\)"),
        (FAKE.transpose(1, 2), r"transpose\(1, 2\)"),
        (FAKE[:, :, :1], r"grey: clips.expand"),
        (FAKE[0], r"clips\[None\]"),
        (FAKE[:, :, 0], "needed is uint8"),
    ],
)
def test_another_layout_is_refused_with_the_call_that_mends_it(clips: Tensor, mend: str) -> None:
    with pytest.raises(UserError, match=mend):
        FrechetVideoDistance(**JUDGE).update(clips)


def test_an_array_is_refused() -> None:
    with pytest.raises(UserError, match="ndarray"):
        _require_layout(FAKE.numpy())


def test_floats_are_refused() -> None:
    with pytest.raises(TypeError):
        FrechetVideoDistance(**JUDGE).update(FAKE.float() / 255)


def test_higher_is_better_follows_the_metric() -> None:
    for name, metric in shapes_metrics().items():
        assert metric.higher_is_better == (plugins.load("metric", name).better == "higher")


@pytest.mark.slow
def test_metrics_can_be_plotted() -> None:
    matplotlib.use("agg")  # no display
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


def test_refused_clips_set_no_size() -> None:
    metric = FrechetVideoDistance(**JUDGE)
    with pytest.raises(UserError, match="0 or 1"):
        metric.update(REAL[:, :8].clamp(max=1))
    metric.update(REAL, real=True)
