"""Tests of every metric: scores, intervals, floors, notes, refused inputs, groups and paired comparisons."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from samples import gaussian

from vfbench.errors import UserError
from vfbench.interfaces import Groups, Metric, PairedMetric, SharedRealClips
from vfbench.metrics import clipsim, coverage, density, fvd, inception_score, kvd, precision, recall
from vfbench.metrics._frechet import frechet_influence
from vfbench.metrics._uncertainty import influence_from_rows
from vfbench.report import difference
from vfbench.report.result_parts import ScoreRecord

IDS = ["fvd", "kvd", "biased kvd", "precision", "recall", "density", "coverage", "is", "is in splits", "clipsim"]
DISTANCES = [fvd.build(), kvd.build(), kvd.build(degree=2, coef0=0.0, estimator="biased")]
NEIGHBOURS = [precision.build(), recall.build(), density.build(), coverage.build()]
MEANS = [inception_score.build(), inception_score.build(splits=4), clipsim.build()]
METRICS = [*DISTANCES, *NEIGHBOURS, *MEANS]


def metric_id(metric: PairedMetric) -> str:
    """Test id of a metric, equal in every process."""
    return IDS[METRICS.index(metric)]


def sample_for(metric: Metric, n: int, seed: int) -> np.ndarray:
    if metric.output == "similarity":
        return np.random.default_rng(seed).uniform(0.2, 0.4, (n, 1))
    return gaussian(n, 5, seed=seed, scale=2.0)


@pytest.mark.parametrize("metric", METRICS, ids=IDS)
@pytest.mark.pitfall("sides of unlike number")
@pytest.mark.parametrize(("n_fake", "n_real"), [(70, 90), (90, 70)])
def test_a_score_is_deterministic_and_has_counts_and_a_symmetric_interval(
    metric: Metric, n_fake: int, n_real: int
) -> None:
    assert isinstance(metric, PairedMetric)
    fake = 1.3 * sample_for(metric, n_fake, seed=1).astype(np.float32)
    real = sample_for(metric, n_real, seed=2).astype(np.float32)
    copies = fake.copy(), real.copy()
    score = metric.score(fake, real, seed=3)
    assert metric.score(fake, real, seed=3) == score
    np.testing.assert_array_equal(fake, copies[0])
    np.testing.assert_array_equal(real, copies[1])
    assert (score.n_fake, score.n_real) == (n_fake, n_real)
    assert score.low < score.value < score.high
    assert (score.low + score.high) / 2 == pytest.approx(score.value)
    assert score.high - score.value == pytest.approx(1.96 * score.error)
    assert (f"floor at N = {n_real // 2}" in score.note) == (metric not in MEANS)


@pytest.mark.parametrize("metric", METRICS, ids=IDS)
def test_limit_and_slope_define_a_line_through_the_value(metric: Metric) -> None:
    score = metric.score(sample_for(metric, 70, seed=1), sample_for(metric, 90, seed=2))
    assert (score.limit is None) == (score.slope is None) == (score.limit_error is None) == (metric in NEIGHBOURS)
    if score.limit is not None and score.slope is not None and score.limit_error is not None:
        assert score.limit + score.slope / 70 == pytest.approx(score.value)
        assert score.limit_error >= score.error * (1 - 1e-9) or metric in DISTANCES[2:]


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric.name != "recall"], ids=metric_id)
def test_the_better_model_scores_better(metric: Metric) -> None:
    real = sample_for(metric, 80, seed=1)
    good, bad = sample_for(metric, 64, seed=2), sample_for(metric, 64, seed=3) * 0.2
    bad += 4 * (metric in NEIGHBOURS)  # away from the centre of the real clips, which is near every one
    gain = metric.score(bad, real).value - metric.score(good, real).value
    assert gain > 0 if metric.better == "lower" else gain < 0


@pytest.mark.parametrize("metric", METRICS, ids=IDS)
@pytest.mark.pitfall("the Inception Score of real clips")
def test_the_floor_is_near_the_score_of_real_clips(metric: Metric) -> None:
    real, fake = sample_for(metric, 160, seed=1), sample_for(metric, 64, seed=2) * 0.2
    score = metric.score(fake, real, holdout=sample_for(metric, 64, seed=4))
    real_score = metric.score(sample_for(metric, 64, seed=3), real).value
    assert abs(score.floor - real_score) < 0.5 * abs(score.value - real_score)
    assert "floor at" not in score.note


@pytest.mark.parametrize("metric", [*DISTANCES, *NEIGHBOURS], ids=metric_id)
def test_the_floor_is_the_score_of_the_holdout_clips(metric: Metric) -> None:
    fake, real, holdout = (gaussian(80, 6, seed=seed) for seed in (1, 2, 3))
    assert metric.score(fake, real, holdout=holdout).floor == pytest.approx(metric.score(holdout, real).value)
    assert "too few" not in metric.score(fake, real, holdout=holdout).note


def test_the_error_of_fvd_is_not_too_small_for_a_singular_covariance() -> None:
    scores = [
        fvd.build().score(gaussian(32, 48, seed=2 * k) + 0.1, gaussian(32, 48, seed=2 * k + 1)) for k in range(60)
    ]
    spread = np.std([score.value for score in scores], ddof=1)
    assert 0.95 < np.mean([score.error for score in scores]) / spread < 1.6
    assert {"N = 32 for D = 48: singular covariance, strongly biased upward"} < set(scores[0].note.split("; "))


def heavy_tailed(n: int, dim: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tailed: np.ndarray = rng.standard_normal((n, dim)) / np.sqrt(rng.chisquare(4.5, (n, 1)))
    return tailed


@pytest.mark.pitfall("intervals that heavy tails make too narrow")
@pytest.mark.parametrize("draw", [heavy_tailed, lambda n, dim, seed: gaussian(n, dim, seed=seed)], ids=["t", "normal"])
def test_heavy_tails_are_noted_and_widen_the_interval(draw: Callable[[int, int, int], np.ndarray]) -> None:
    a, b, real = (draw(128, 16, seed) for seed in (1, 2, 3))
    score, comparison = fvd.build().score(a, real), fvd.build().compare(a, 1.1 * b, real)
    plain = influence_from_rows(score.value, *frechet_influence(a, real), np.arange(128), np.arange(128)).error
    factor = 1.5 if draw is heavy_tailed else 1.0
    assert score.error == pytest.approx(factor * plain, rel=1e-12)
    assert score.high - score.value == pytest.approx(1.96 * factor * plain, rel=1e-12)
    assert score.limit_error is not None
    assert score.limit_error >= score.error
    assert ("heavy-tailed" in score.note) == ("heavy-tailed" in comparison.note) == (draw is heavy_tailed)
    assert ("infinite N is biased" in score.note) == (draw is heavy_tailed)


@pytest.mark.pitfall("the bias of few clips")
def test_fvd_notes_a_singular_covariance_and_a_missing_limit() -> None:
    score = fvd.build().score(gaussian(40, 50, seed=1), gaussian(60, 50, seed=2))
    assert "floor at N = 30" in score.note
    assert "N = 40 for D = 50: singular covariance" in score.note
    assert score.limit is None
    assert "N >= 200" in score.note
    assert "N >= 80" in fvd.build().score(gaussian(79, 20, seed=1), gaussian(90, 20, seed=2)).note
    enough = fvd.build().score(gaussian(80, 20, seed=1), gaussian(90, 20, seed=2))
    assert enough.limit is not None
    assert enough.limit < enough.value


@pytest.mark.parametrize("metric", METRICS, ids=IDS)
def test_identical_clips_get_a_note(metric: Metric) -> None:
    score = metric.score(np.full((64, 1), 0.3), sample_for(metric, 64, seed=2)[:, :1])
    assert "all 64 generated clips" in score.note


@pytest.mark.parametrize("metric", METRICS, ids=IDS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_with_the_row(metric: PairedMetric, value: float) -> None:
    good, bad = sample_for(metric, 20, seed=1), sample_for(metric, 20, seed=2)
    bad[[5, 7], 0] = value
    with pytest.raises(UserError, match=rf"{metric.title}.* generated clips .* 2 of 20 rows.* row 5"):
        metric.score(bad, good)
    with pytest.raises(UserError, match=r"real clips .* 2 of 20 rows.* row 5"):
        metric.score(good, bad)
    with pytest.raises(UserError, match=r"generated clips .* 2 of 20 rows.* row 5"):
        metric.compare(good, bad, good)


KEEPS_OFFSET = ("fvd", "is", "precision", "recall", "density", "coverage")


@pytest.mark.pitfall("scores that are no numbers")
@pytest.mark.parametrize("metric", METRICS, ids=IDS)
@pytest.mark.parametrize(
    ("scale", "offset"), [(1, 1e6), (1, 1e20), (1, 1e150), (1e-150, 0), (1e30, 0), (1e150, 0), (1e300, 0)]
)
def test_features_beyond_float64_are_refused_or_scored_right(metric: PairedMetric, scale: float, offset: float) -> None:
    samples = [sample_for(metric, 70, seed=seed) for seed in (1, 2, 3)]
    a, b, real = (sample * scale + offset for sample in samples)
    try:
        score, comparison = metric.score(a, real), metric.compare(a, b, real)
    except UserError:
        if offset == 1e6 and metric.name in KEEPS_OFFSET:
            raise
        return
    numbers = [score.value, score.low, score.high, score.floor, score.error, comparison.low, comparison.high]
    assert np.isfinite(numbers).all()
    assert score.low < score.high
    expected = metric.score(samples[0], samples[2])
    if offset or metric in NEIGHBOURS:
        assert score.value == pytest.approx(expected.value, rel=1e-6)
        assert score.error == pytest.approx(expected.error, rel=1e-6)


def test_float32_features_that_an_offset_has_rounded_away_are_refused() -> None:
    a, b = (gaussian(70, 5, seed=seed) for seed in (1, 2))
    rounded = fvd.build().score((a + 1e4).astype(np.float32), (b + 1e4).astype(np.float32))
    assert rounded.value == pytest.approx(fvd.build().score(a, b).value, rel=0.01)
    with pytest.raises(UserError, match="subtract"):
        fvd.build().score((a + 1e8).astype(np.float32), (b + 1e8).astype(np.float32))


@pytest.mark.parametrize("metric", METRICS, ids=IDS)
def test_too_few_clips_and_other_widths_are_refused(metric: PairedMetric) -> None:
    real = sample_for(metric, 20, seed=1)
    with pytest.raises(UserError, match="generated clips have 1 rows"):
        metric.score(real[:1], real)
    with pytest.raises(UserError, match="real clips have 1 rows"):
        metric.score(real, real[:1])
    with pytest.raises(UserError, match=r"6 values per generated clip but 5|have 2 columns"):
        metric.score(np.hstack([real, real[:, :1]]), real)
    with pytest.raises(UserError, match=r"\(20, \d\) and \(19, \d\)"):
        metric.compare(real, real[:19], real)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(fvd.build, ddof=2), "ddof = 2"),
        (partial(clipsim.build().score, np.full((20, 1), 29.3), np.full((20, 1), 0.3)), "29.3, outside -1..1"),
    ],
)
@pytest.mark.pitfall("the scale of CLIPSIM")
def test_invalid_options_and_values_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


# Groups.


@pytest.mark.parametrize(
    "metric", [fvd.build(ddof=0), DISTANCES[2], clipsim.build()], ids=["fvd", "biased kvd", "clipsim"]
)
def test_copies_in_one_group_count_as_one_clip(metric: Metric) -> None:
    fake, real = 1.5 * sample_for(metric, 64, seed=1), sample_for(metric, 80, seed=2)
    expected = metric.score(fake, real)
    groups = Groups(np.repeat(np.arange(64), 3), np.tile(np.arange(80), 2))
    copies = np.repeat(fake, 3, axis=0), np.tile(real, (2, 1))
    grouped, ungrouped = metric.score(*copies, groups=groups), metric.score(*copies)
    assert grouped.value == pytest.approx(expected.value)
    assert grouped.error == pytest.approx(expected.error, rel=1e-6 if metric.name != "clipsim" else 0.2)
    assert ungrouped.error < 0.8 * grouped.error
    assert "192 generated clips count as 64 independent" in grouped.note
    assert "160 real clips count as 80" in grouped.note


@pytest.mark.parametrize("metric", METRICS, ids=IDS)
def test_groups_of_one_clip_change_nothing(metric: PairedMetric) -> None:
    a, b, real = sample_for(metric, 70, seed=1), sample_for(metric, 70, seed=2), sample_for(metric, 80, seed=3)
    each = Groups(np.arange(70), np.arange(80))
    assert metric.score(a, real, groups=each) == metric.score(a, real)
    assert metric.compare(a, b, real, groups=each) == metric.compare(a, b, real)


# Comparisons.


@pytest.mark.parametrize("metric", METRICS, ids=IDS)
def test_a_model_equals_itself(metric: PairedMetric) -> None:
    a, real = sample_for(metric, 70, seed=1), sample_for(metric, 80, seed=2)
    comparison = metric.compare(a, a.copy(), real)
    assert (comparison.difference, comparison.low, comparison.high, comparison.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize("metric", METRICS, ids=IDS)
def test_the_difference_is_that_of_the_scores_and_antisymmetric(metric: PairedMetric) -> None:
    a, b, real = sample_for(metric, 70, seed=1), 0.9 * sample_for(metric, 70, seed=2), sample_for(metric, 80, seed=3)
    copies = a.copy(), b.copy(), real.copy()
    comparison, reversed_comparison = metric.compare(a, b, real, seed=5), metric.compare(b, a, real, seed=5)
    assert comparison.difference == pytest.approx(
        metric.score(a, real, seed=5).value - metric.score(b, real, seed=5).value
    )
    assert comparison.difference == pytest.approx(-reversed_comparison.difference)
    assert comparison.p_value == pytest.approx(reversed_comparison.p_value)
    assert comparison.low < comparison.difference < comparison.high
    assert all((values == copy).all() for values, copy in zip((a, b, real), copies, strict=True))


SHIFTED = {
    **{"fvd": 3.0, "kvd": 3.0, "is": 6.0, "clipsim": -0.02},
    **{"precision": 8.0, "recall": 8.0, "density": 3.0, "coverage": 4.0},
}


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric.name in SHIFTED], ids=metric_id)
def test_a_shifted_copy_is_significantly_different(metric: PairedMetric) -> None:
    a, real = sample_for(metric, 100, seed=1), sample_for(metric, 100, seed=2)
    b = a + SHIFTED[metric.name] * (np.arange(a.shape[1]) == 0) + 0.001 * gaussian(100, a.shape[1], seed=9)
    comparison = metric.compare(a, b, real)
    assert comparison.p_value < 0.05
    assert (comparison.difference < 0) == (metric.better == "lower")


@pytest.mark.parametrize("metric", METRICS, ids=IDS)
def test_paired_intervals_of_similar_models_are_narrower(metric: PairedMetric) -> None:
    a, real = sample_for(metric, 100, seed=1), sample_for(metric, 100, seed=2)
    comparison, score = metric.compare(a, 0.95 * a, real), metric.score(a, real)
    assert 0 < comparison.high - comparison.low < 0.9 * (score.high - score.low)  # independent samples: 1.41


def test_fvd_notes_the_difference_at_infinite_n() -> None:
    a, b, real = gaussian(80, 4, seed=1), gaussian(80, 4, seed=2, scale=1.2), gaussian(90, 4, seed=3)
    limits = [fvd.build().score(each, real, seed=2).limit for each in (a, b)]
    assert limits[0] is not None
    assert limits[1] is not None
    assert fvd.build().compare(a, b, real, seed=2).note == f"at infinite N {limits[0] - limits[1]:.4g}"


def p_values(metric: PairedMetric, pairs: int) -> np.ndarray:
    """P-values (pairs,) of comparisons of equally good models with correlated samples."""
    values = []
    for k in range(pairs):
        shared, real = (sample_for(metric, 31, seed=4 * k + i) for i in (0, 1))
        a, b = (0.5 * shared + 0.5 * sample_for(metric, 31, seed=4 * k + i) for i in (2, 3))
        values.append(metric.compare(a, b, real, seed=k).p_value)
    return np.array(values)


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS, ids=IDS)
def test_equally_good_models_rarely_differ(metric: PairedMetric) -> None:
    """Expect 3 of 60 pairs below 5 %; more than 9 occur once in 1,000 tests. Neighbour metrics are conservative."""
    values = p_values(metric, 60)
    assert (values < 0.05).sum() <= 9
    assert (values < 0.6).sum() > 12 or metric in NEIGHBOURS  # the test has power


@pytest.mark.parametrize("metric", METRICS, ids=IDS)
def test_unusual_samples_of_a_comparison_get_a_note(metric: PairedMetric) -> None:
    constant, b, real = (
        np.full((60, 1), 0.3),
        sample_for(metric, 60, seed=1)[:, :1],
        sample_for(metric, 60, seed=2)[:, :1],
    )
    comparison = metric.compare(constant, b, real, groups=Groups(np.arange(60) // 4, np.arange(60)))
    assert "all 60 clips of A" in comparison.note
    assert "60 generated clips count as 15 independent" in comparison.note
    assert "only 15 independent generated clips" in comparison.note
    assert "of B" not in comparison.note


def test_what_varies_with_common_real_clips_cancels_in_an_unpaired_test() -> None:
    """Rows that are paired by chance share nothing: the paired test then is an unpaired one, made in another way."""
    metric = fvd.build()
    assert isinstance(metric, SharedRealClips)
    a, b, real = (gaussian(256, 8, seed=seed, scale=scale) for seed, scale in ((1, 0.8), (2, 0.8), (3, 1.0)))
    groups = Groups(np.arange(256), np.arange(256) // 2)
    influences = [metric.real_influence(each, real, groups=groups) for each in (a, b)]
    shared_variance = 128 * float(np.cov(np.stack(influences))[0, 1])
    first, second = (ScoreRecord.of(metric, metric.score(each, real, groups=groups)) for each in (a, b))
    paired = metric.compare(a, b, real, groups=groups)
    unpaired, alone = (difference.unpaired(first, second, shared) for shared in (shared_variance, 0.0))
    half_widths = [(test.high - test.low) / 2 for test in (paired, unpaired, alone)]
    assert half_widths[1] == pytest.approx(half_widths[0], rel=0.1)
    assert half_widths[2] > 1.2 * half_widths[0]
