"""Tests of frame metrics (`fid`, `clip_consistency`): a clip is one sample, however many frames it has."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from vfbench import plugins
from vfbench.errors import UserError
from vfbench.interfaces import Groups, Metric, PairedMetric
from vfbench.metrics import clip_consistency, fid
from vfbench.metrics._frechet import frechet_distance
from vfbench.metrics.fid import FID

DIM, FRAMES = 4, 3


def frame_features(clips: int, *, seed: int, shift: float = 0.0, correlation: float = 0.9) -> np.ndarray:
    """Features (clips, frames * dim) of unit variance, with this correlation between the frames of a clip."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((clips, 1, DIM))
    independent = rng.standard_normal((clips, FRAMES, DIM))
    features: np.ndarray = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * independent + shift
    return features.reshape(clips, -1)


def cosines(clips: int, *, seed: int, low: float = 0.8) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, 0.95, (clips, 1))


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the features of a frame from 2048 to `DIM`."""
    monkeypatch.setattr(fid, "FRAME_DIM", DIM)


@pytest.mark.parametrize("name", ["fid", "fid(frames=3)", "clip_consistency"])
def test_frame_metrics_are_paired_metrics(name: str) -> None:
    metric: Metric = plugins.load("metric", name)
    assert isinstance(metric, PairedMetric)
    assert name.startswith(metric.name)


# Frame FID.


@pytest.mark.usefixtures("small_frames")
def test_fid_pools_the_frames_of_all_clips() -> None:
    fake, real = frame_features(90, seed=1, shift=0.5), frame_features(70, seed=2)
    x, y = fake.reshape(-1, DIM), real.reshape(-1, DIM)
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    score = fid.build(frames=FRAMES).score(fake, real)
    assert score.value == pytest.approx(expected, rel=1e-6)
    assert (score.n_fake, score.n_real) == (90, 70)
    assert "3 frames of each clip" in score.note


def test_fid_of_one_frame_is_the_frechet_distance() -> None:
    fake, real = frame_features(90, seed=1)[:, :DIM], frame_features(70, seed=2)[:, :DIM]
    score = fid.build().score(fake, real)
    assert score.value == frechet_distance(fake, real)
    assert "frames" not in score.note
    assert fid.build(ddof=0).score(fake, real).value == frechet_distance(fake, real, ddof=0)


@pytest.mark.usefixtures("small_frames")
def test_the_error_of_fid_is_the_spread_between_samples() -> None:
    """Compare also with frames taken as independent samples, whose error is too small."""
    metric = fid.build(frames=FRAMES)
    holdout = frame_features(120, seed=0)
    pairs = [(frame_features(120, seed=2 * k, shift=0.6), frame_features(100, seed=2 * k + 1)) for k in range(1, 61)]
    scores = [metric.score(*pair, holdout=holdout) for pair in pairs]
    spread = np.std([score.value for score in scores])
    assert np.mean([score.error for score in scores]) / spread == pytest.approx(1, abs=0.2)
    frames_as_samples = fid.build().score(
        *(frame_features(n, seed=n, shift=s).reshape(-1, DIM) for n, s in ((120, 0.6), (100, 0.0)))
    )
    assert frames_as_samples.error / spread < 0.75


@pytest.mark.usefixtures("small_frames")
def test_repeated_frames_do_not_change_the_error() -> None:
    fake, real = frame_features(80, seed=1, shift=0.4)[:, :DIM], frame_features(60, seed=2)[:, :DIM]
    single = fid.build(ddof=0).score(fake, real)
    repeated = fid.build(frames=3, ddof=0).score(np.tile(fake, 3), np.tile(real, 3))
    assert repeated.value == pytest.approx(single.value)
    assert repeated.error == pytest.approx(single.error)
    assert repeated.floor == pytest.approx(single.floor)


@pytest.mark.usefixtures("small_frames")
def test_copies_in_one_group_keep_the_error() -> None:
    fake, real = frame_features(80, seed=1, shift=0.4), frame_features(60, seed=2)
    metric = fid.build(frames=FRAMES)
    single = metric.score(fake, real)
    copies = np.repeat(fake, 2, axis=0), np.repeat(real, 2, axis=0)
    groups = Groups(np.repeat(np.arange(80), 2), np.repeat(np.arange(60), 2))
    assert metric.score(*copies, groups=groups).error == pytest.approx(single.error, rel=0.05)
    assert metric.score(*copies).error < 0.8 * single.error


@pytest.mark.usefixtures("small_frames")
def test_the_floor_of_fid_is_the_score_of_the_holdout() -> None:
    fake, real, holdout = (frame_features(64, seed=seed) for seed in (1, 2, 3))
    metric = fid.build(frames=FRAMES)
    score = metric.score(fake, real, holdout=holdout)
    assert score.floor == metric.score(holdout, real).value
    assert "floor at N = 32" in metric.score(fake, real).note


@pytest.mark.usefixtures("small_frames")
def test_few_clips_for_the_feature_width_get_a_note() -> None:
    fake, real = frame_features(4, seed=1), frame_features(50, seed=2)
    notes = fid.build(frames=FRAMES).score(fake, real).note.split("; ")
    assert "N = 4 clips for D = 4: strongly biased upward" in notes


@pytest.mark.usefixtures("small_frames")
def test_fid_compares_two_models_pairwise() -> None:
    a, real = frame_features(150, seed=1, shift=0.5), frame_features(120, seed=2)
    b = 0.9 * a
    metric = fid.build(frames=FRAMES)
    comparison = metric.compare(a, b, real)
    assert comparison.difference == pytest.approx(metric.score(a, real).value - metric.score(b, real).value)
    assert comparison.p_value < 0.05
    assert comparison.high - comparison.low < metric.score(a, real).high - metric.score(a, real).low
    assert metric.compare(a, a, real).p_value == 1


@pytest.mark.parametrize(("width", "frames"), [(10, 3), (4096, 1), (3 * 2048, 2), (2048, 16), (2048, 2), (400, 4)])
def test_features_of_another_number_of_frames_are_refused(width: int, frames: int) -> None:
    """Refuse also features of one frame whose width is a multiple of the number of frames."""
    x = np.random.default_rng(0).standard_normal((8, width))
    message = rf"{width} values .*{frames} frames.*--extractor \"inception=inception\(frames='all', count=K\)\""
    with pytest.raises(UserError, match=message):
        fid.build(frames=frames).score(x, x)


def test_features_are_split_into_frames() -> None:
    x = np.random.default_rng(0).standard_normal((4, 2 * 2048))
    np.testing.assert_array_equal(FID(frames=2)._split_frames(x), x.reshape(8, 2048))


@pytest.mark.parametrize("option", ["frames=0", "ddof=2"])
def test_invalid_options_are_refused(option: str) -> None:
    with pytest.raises(UserError, match=option.replace("=", " = ")):
        plugins.load("metric", f"fid({option})")


# CLIP frame consistency.


def test_consistency_is_a_mean_with_the_real_mean_as_floor() -> None:
    fake, real = cosines(40, seed=1, low=0.6), cosines(50, seed=2)
    score = clip_consistency.build().score(fake, real)
    assert [score.value, score.floor] == pytest.approx([fake.mean(), real.mean()])
    assert score.error == pytest.approx(fake.std() / np.sqrt(40), rel=0.25)
    assert score.low < score.value < score.high
    assert (score.limit, score.slope) == (score.value, 0.0)
    assert "the floor is the real clips" in score.note
    assert clip_consistency.build().score(fake, real) == score


def test_consistency_compares_two_models_pairwise() -> None:
    a, real = cosines(60, seed=1), cosines(30, seed=3)
    b = a - 0.005 - cosines(60, seed=4) / 1000
    comparison = clip_consistency.build().compare(a, b, real)
    assert comparison.difference == pytest.approx((a - b).mean())
    assert comparison.p_value < 1e-6
    assert clip_consistency.build().compare(a, cosines(60, seed=5), real).p_value > 0.01


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((20, 2), 0.5), ".*2 columns"),
        (np.full((20, 1), 93.0), ".*93, outside -1..1"),
        (np.full((20, 1), np.nan), ".*NaN .* 20 of 20 rows"),
        (np.full((1, 1), 0.9), ".*1 rows"),
    ],
)
def test_values_other_than_cosines_are_refused(values: np.ndarray, message: str) -> None:
    good, metric = cosines(20, seed=1), clip_consistency.build()
    with pytest.raises(UserError, match=f"generated clips {message}"):
        metric.score(values, good)
    with pytest.raises(UserError, match=f"real clips {message}"):
        metric.score(good, values)


def test_constant_clips_score_above_real_ones_with_a_note() -> None:
    score = clip_consistency.build().score(np.ones((20, 1)), cosines(20, seed=1))
    assert score.value > score.floor
    assert "all 20 generated clips" in score.note
