"""Metrics of frames: one clip is one sample, however many frames of it are looked at."""

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


def frames_of(clips: int, *, seed: int, shift: float = 0.0, alike: float = 0.9) -> np.ndarray:
    """Features (clips, frames * dim) of unit variance, the frames of a clip being `alike` to each other."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((clips, 1, DIM))
    own = rng.standard_normal((clips, FRAMES, DIM))
    found: np.ndarray = (np.sqrt(alike) * common + np.sqrt(1 - alike) * own + shift).reshape(clips, -1)
    return found


def cosines(clips: int, *, seed: int, low: float = 0.8) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, 0.95, (clips, 1))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame of `DIM` numbers stands for one of 2048."""
    monkeypatch.setattr(fid, "FRAME_DIM", DIM)


@pytest.mark.parametrize("name", ["fid", "fid(frames=3)", "clip_consistency"])
def test_they_are_metrics(name: str) -> None:
    metric: Metric = plugins.load("metric", name)
    assert isinstance(metric, PairedMetric)
    assert name.startswith(metric.name)


# Frame FID.


@pytest.mark.usefixtures("small")
def test_fid_is_that_of_all_frames() -> None:
    fake, real = frames_of(90, seed=1, shift=0.5), frames_of(70, seed=2)
    x, y = fake.reshape(-1, DIM), real.reshape(-1, DIM)
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    score = fid.build(frames=FRAMES).score(fake, real)
    assert score.value == pytest.approx(expected, rel=1e-6)
    assert (score.n_fake, score.n_real) == (90, 70)
    assert "3 frames of each clip, N counts clips" in score.note


def test_one_frame_a_clip_needs_no_taking_apart() -> None:
    fake, real = frames_of(90, seed=1)[:, :DIM], frames_of(70, seed=2)[:, :DIM]
    score = fid.build().score(fake, real)
    assert score.value == frechet_distance(fake, real)
    assert "frames" not in score.note
    assert fid.build(ddof=0).score(fake, real).value == frechet_distance(fake, real, ddof=0)


@pytest.mark.usefixtures("small")
def test_the_error_of_fid_is_the_spread_between_samples() -> None:
    """Taken for independent, the frames of clips whose frames are nearly copies would give too small a one."""
    metric = fid.build(frames=FRAMES)
    holdout = frames_of(120, seed=0)
    pairs = [(frames_of(120, seed=2 * k, shift=0.6), frames_of(100, seed=2 * k + 1)) for k in range(1, 61)]
    scores = [metric.score(*pair, holdout=holdout) for pair in pairs]
    spread = np.std([score.value for score in scores])
    assert np.mean([score.error for score in scores]) / spread == pytest.approx(1, abs=0.2)
    careless = fid.build().score(*(frames_of(n, seed=n, shift=s).reshape(-1, DIM) for n, s in ((120, 0.6), (100, 0.0))))
    assert careless.error / spread < 0.75


@pytest.mark.usefixtures("small")
def test_more_frames_of_a_clip_are_no_more_clips() -> None:
    fake, real = frames_of(80, seed=1, shift=0.4)[:, :DIM], frames_of(60, seed=2)[:, :DIM]
    once = fid.build(ddof=0).score(fake, real)
    thrice = fid.build(frames=3, ddof=0).score(np.tile(fake, 3), np.tile(real, 3))
    assert thrice.value == pytest.approx(once.value)
    assert thrice.error == pytest.approx(once.error)
    assert thrice.floor == pytest.approx(once.floor)


@pytest.mark.usefixtures("small")
def test_groups_hold_clips_together() -> None:
    fake, real = frames_of(80, seed=1, shift=0.4), frames_of(60, seed=2)
    metric = fid.build(frames=FRAMES)
    alone = metric.score(fake, real)
    twice = np.repeat(fake, 2, axis=0), np.repeat(real, 2, axis=0)
    groups = Groups(np.repeat(np.arange(80), 2), np.repeat(np.arange(60), 2))
    assert metric.score(*twice, groups=groups).error == pytest.approx(alone.error, rel=0.05)
    assert metric.score(*twice).error < 0.8 * alone.error


@pytest.mark.usefixtures("small")
def test_the_floor_of_fid_is_that_of_spare_clips() -> None:
    fake, real, holdout = (frames_of(64, seed=seed) for seed in (1, 2, 3))
    metric = fid.build(frames=FRAMES)
    score = metric.score(fake, real, holdout=holdout)
    assert score.floor == metric.score(holdout, real).value
    assert "floor at N = 32" in metric.score(fake, real).note


@pytest.mark.usefixtures("small")
def test_few_clips_for_their_features_are_warned_of() -> None:
    fake, real = frames_of(4, seed=1), frames_of(50, seed=2)
    said = fid.build(frames=FRAMES).score(fake, real).note.split("; ")
    assert "N = 4 clips for D = 4: strongly biased upward" in said


@pytest.mark.usefixtures("small")
def test_fid_compares_two_models_on_the_same_requests() -> None:
    a, real = frames_of(150, seed=1, shift=0.5), frames_of(120, seed=2)
    b = 0.9 * a
    metric = fid.build(frames=FRAMES)
    found = metric.compare(a, b, real)
    assert found.difference == pytest.approx(metric.score(a, real).value - metric.score(b, real).value)
    assert found.p_value < 0.05
    assert found.high - found.low < metric.score(a, real).high - metric.score(a, real).low
    assert metric.compare(a, a, real).p_value == 1


@pytest.mark.parametrize(("width", "frames"), [(10, 3), (4096, 1), (3 * 2048, 2), (2048, 16), (2048, 2), (400, 4)])
def test_features_of_another_number_of_frames_are_refused(width: int, frames: int) -> None:
    """Among them those of one frame, which could be cut into as many equal parts."""
    x = np.random.default_rng(0).standard_normal((8, width))
    said = rf"FID: {width} values per clip are not those of {frames} frames, 2048 each"
    with pytest.raises(UserError, match=rf"""{said}.*--extractor "inception=inception\(frames='all', count=K\)\""""):
        fid.build(frames=frames).score(x, x)


def test_the_frames_of_inception_are_taken_apart() -> None:
    x = np.random.default_rng(0).standard_normal((4, 2 * 2048))
    np.testing.assert_array_equal(FID(frames=2)._split_frames(x), x.reshape(8, 2048))


@pytest.mark.parametrize("option", ["frames=0", "ddof=2"])
def test_impossible_options_are_refused(option: str) -> None:
    with pytest.raises(UserError, match=option.replace("=", " = ")):
        plugins.load("metric", f"fid({option})")


# CLIP frame consistency.


def test_consistency_is_a_mean_beside_that_of_real_clips() -> None:
    fake, real = cosines(40, seed=1, low=0.6), cosines(50, seed=2)
    score = clip_consistency.build().score(fake, real)
    assert [score.value, score.floor] == pytest.approx([fake.mean(), real.mean()])
    assert score.error == pytest.approx(fake.std() / np.sqrt(40), rel=0.25)
    assert score.low < score.value < score.high
    assert (score.limit, score.slope) == (score.value, 0.0)
    assert "floor: real clips' own score" in score.note
    assert clip_consistency.build().score(fake, real) == score


def test_consistency_compares_two_models_on_the_same_requests() -> None:
    a, real = cosines(60, seed=1), cosines(30, seed=3)
    b = a - 0.005 - cosines(60, seed=4) / 1000
    found = clip_consistency.build().compare(a, b, real)
    assert found.difference == pytest.approx((a - b).mean())
    assert found.p_value < 1e-6
    assert clip_consistency.build().compare(a, cosines(60, seed=5), real).p_value > 0.01


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((20, 2), 0.5), "have 2 columns: give one consistency per clip"),
        (np.full((20, 1), 93.0), "reach 93, outside -1..1"),
        (np.full((20, 1), np.nan), "hold NaN or infinity in 20 of 20 rows"),
        (np.full((1, 1), 0.9), "have 1 rows, and at least 2"),
    ],
)
def test_what_is_no_cosine_is_refused(values: np.ndarray, message: str) -> None:
    good, metric = cosines(20, seed=1), clip_consistency.build()
    with pytest.raises(UserError, match=f"CLIP consistency: values of generated clips {message}"):
        metric.score(values, good)
    with pytest.raises(UserError, match=f"CLIP consistency: values of real clips {message}"):
        metric.score(good, values)


def test_still_clips_are_more_consistent_than_real_ones() -> None:
    """What the number cannot say, and its text does."""
    score = clip_consistency.build().score(np.ones((20, 1)), cosines(20, seed=1))
    assert score.value > score.floor
    assert "all 20 generated clips have the same values" in score.note
