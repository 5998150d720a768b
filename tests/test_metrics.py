"""The formulas against published implementations and closed forms, and the scores built on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from vfbench.errors import UserError
from vfbench.interfaces import Metric
from vfbench.metrics import clipsim, fvd, inception_score, kvd
from vfbench.metrics._bootstrap import around, checked, draws, floor, interval, multiplicities
from vfbench.metrics._frechet import frechet_distance
from vfbench.metrics._kernel import kernel_distance, polynomial_kernel, weighted_distances
from vfbench.metrics.inception_score import inception_score as score_of_logits

# The golden inputs: features of real and of generated clips, and logits.
REAL = np.random.RandomState(11).standard_normal((96, 24))
FAKE = 0.8 * np.random.RandomState(12).standard_normal((80, 24)) + 0.3
LOGITS = 2 * np.random.RandomState(13).standard_normal((100, 7))

METRICS = [fvd.build(), kvd.build(), inception_score.build(), inception_score.build(splits=4), clipsim.build()]


def gaussian(n: int, dim: int, *, seed: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    white: np.ndarray = np.random.default_rng(seed).standard_normal((n, dim))
    return scale * white + shift


def sample_for(metric: Metric, n: int, seed: int) -> np.ndarray:
    if metric.output == "similarity":
        return np.random.default_rng(seed).uniform(0.2, 0.4, (n, 1))
    return gaussian(n, 5, seed=seed, scale=2.0)


def with_moments(n: int, mean: np.ndarray, covariance: np.ndarray, *, seed: int) -> np.ndarray:
    """Samples whose mean and covariance (over N - 1) are exactly the given ones."""
    white = gaussian(n, len(mean), seed=seed)
    white -= white.mean(axis=0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T
    exact: np.ndarray = mean + white @ np.linalg.cholesky(covariance).T
    return exact


# Golden values, made with the reference code of the named repositories (numpy 2.4.6, scipy 1.17.1).


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(5.700442078680346, id="TATS frechet_distance float64"),
        pytest.param(5.700442078680302, id="common_metrics_on_video_quality frechet_distance"),
        pytest.param(5.700442078680325, id="pytorch-fid calculate_frechet_distance"),
    ],
)
def test_frechet_equals_the_published_implementations(value: float) -> None:
    assert frechet_distance(FAKE, REAL) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(REAL, FAKE) == pytest.approx(value, rel=1e-9)


def test_frechet_ddof_0_equals_stylegan_v_and_cd_fvd() -> None:
    value = 5.667400786211527  # FeatureStats, which casts the features to float32 first
    assert frechet_distance(FAKE, REAL, ddof=0) == pytest.approx(value, rel=1e-6)
    as_there = frechet_distance(FAKE.astype(np.float32), REAL.astype(np.float32), ddof=0)
    assert as_there == pytest.approx(value, rel=1e-9)


def test_kernel_distance_equals_tats_polynomial_mmd() -> None:
    assert kernel_distance(FAKE, REAL) == pytest.approx(0.22924936898839077, rel=1e-9)
    assert kernel_distance(FAKE.astype(np.float32), REAL.astype(np.float32)) == pytest.approx(0.2292494773864746, 1e-5)


TOY = np.arange(1.0, 10.0).reshape(3, 3), np.array([[7.0, 6, 5], [4, 3, 2], [1, 1, 8], [0, 2, 5]])


@pytest.mark.parametrize(
    ("x", "y", "degree", "coef0", "value"),
    [
        pytest.param(*TOY, 3, 1.0, 23088.08333333333, id="toy, degree 3, coef0 1"),
        pytest.param(*TOY, 2, 0.0, 270.72222222222206, id="toy, degree 2, coef0 0"),
        pytest.param(FAKE, REAL, 2, 0.0, 0.0277305678176356, id="features, degree 2, coef0 0"),
    ],
)
def test_polynomial_kernel_equals_jedi(x: np.ndarray, y: np.ndarray, degree: int, coef0: float, value: float) -> None:
    kernel = partial(polynomial_kernel, degree=degree, coef0=coef0)
    biased = kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()  # mmd_poly
    assert biased == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(
    "value",
    [pytest.param(2.1953257541884135, id="TGAN eps 1e-7"), pytest.param(2.195325754206357, id="TGANv2 eps 1e-20")],
)
def test_inception_score_equals_tgan(value: float) -> None:
    assert score_of_logits(LOGITS) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(
    ("seed", "value"),
    [
        pytest.param(42, 1.9839910365765685, id="StyleGAN-V"),
        pytest.param(2020, 1.9923230526656923, id="torch-fidelity"),
    ],
)
def test_inception_score_in_ten_splits_of_shuffled_clips(seed: int, value: float) -> None:
    order = np.random.RandomState(seed).permutation(100)
    assert score_of_logits(LOGITS[order], splits=10) == pytest.approx(value, rel=1e-9)


# Closed forms.


def test_frechet_of_gaussians_with_diagonal_covariances() -> None:
    means, sds = (np.array([0.0, 1, 2]), np.array([3.0, 1, -1])), (np.array([1.0, 2, 0.5]), np.array([2.0, 2, 3]))
    x, y = (with_moments(n, m, np.diag(s**2), seed=n) for n, m, s in zip((40, 50), means, sds, strict=True))
    expected = ((means[0] - means[1]) ** 2).sum() + ((sds[0] - sds[1]) ** 2).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)


def test_frechet_of_gaussians_whose_covariances_do_not_commute() -> None:
    s, t = np.array([[2.0, 0.9], [0.9, 1]]), np.array([[1.0, -0.5], [-0.5, 3]])
    x, y = with_moments(30, np.zeros(2), s, seed=1), with_moments(20, np.array([1.0, 2]), t, seed=2)
    root = np.sqrt(np.trace(s @ t) + 2 * np.sqrt(np.linalg.det(s @ t)))  # trace of the root of a 2 x 2 matrix
    assert frechet_distance(x, y) == pytest.approx(5 + np.trace(s + t) - 2 * root, rel=1e-10)


def test_frechet_with_fewer_clips_than_features() -> None:
    rotation = np.linalg.qr(gaussian(60, 60, seed=0))[0]
    x, y = gaussian(12, 5, seed=1), gaussian(9, 5, seed=2, shift=1)
    narrow = frechet_distance(x, y)
    assert frechet_distance(x @ rotation[:5], y @ rotation[:5]) == pytest.approx(narrow, rel=1e-10)
    z = gaussian(9, 60, seed=3)
    assert frechet_distance(z + 0.5, z) == pytest.approx(60 * 0.25, rel=1e-10)
    assert 0 <= frechet_distance(z, z) < 1e-10


def test_frechet_is_one_row_a_clip() -> None:
    tall = np.array([[0.0, 0], [0, 0], [6, 0]])  # means (2, 0), variances (12, 0)
    still = np.zeros((3, 2))
    assert frechet_distance(tall, still) == pytest.approx(4 + 12)
    assert frechet_distance(tall, still, ddof=0) == pytest.approx(4 + 8)


def test_kernel_distance_is_unbiased_and_may_be_negative() -> None:
    values = [kernel_distance(gaussian(20, 3, seed=2 * k), gaussian(30, 3, seed=2 * k + 1)) for k in range(60)]
    assert min(values) < 0
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)


def test_kernel_distance_by_hand() -> None:
    x, y = np.array([[1.0], [2]]), np.array([[0.0], [3], [1]])
    within_x, within_y = (1 * 2 + 1) ** 3, ((0 + 1) ** 3 + (0 + 1) ** 3 + (3 + 1) ** 3) / 3
    expected = within_x + within_y - 2 * np.mean([1, 4**3, 2**3, 1, 7**3, 3**3])
    assert kernel_distance(x, y) == pytest.approx(expected)


def test_inception_score_of_confident_balanced_and_of_constant_predictions() -> None:
    one_hot = 1000.0 * np.tile(np.eye(7), (4, 1))
    assert score_of_logits(one_hot) == pytest.approx(7)
    assert score_of_logits(one_hot, splits=4) == pytest.approx(7)
    assert score_of_logits(np.tile(LOGITS[:1], (10, 1))) == pytest.approx(1)
    assert score_of_logits(LOGITS - 1e4) == pytest.approx(score_of_logits(LOGITS))  # logits have no origin


# Scores.


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_score_is_pure_and_says_what_it_used(metric: Metric) -> None:
    assert isinstance(metric, Metric)
    fake, real = sample_for(metric, 70, seed=1).astype(np.float32), sample_for(metric, 90, seed=2).astype(np.float32)
    copies = fake.copy(), real.copy()
    score = metric.score(fake, real, seed=3)
    assert metric.score(fake, real, seed=3) == score
    np.testing.assert_array_equal(fake, copies[0])
    np.testing.assert_array_equal(real, copies[1])
    assert (score.n_fake, score.n_real) == (70, 90)
    assert score.low < score.value < score.high
    assert ("floor at N = 45" in score.note) == (metric.name in ("fvd", "kvd"))


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_better_points_to_the_better_model(metric: Metric) -> None:
    real = sample_for(metric, 80, seed=1)
    good, bad = sample_for(metric, 64, seed=2), sample_for(metric, 64, seed=3) * 0.2
    gain = metric.score(bad, real).value - metric.score(good, real).value
    assert gain > 0 if metric.better == "lower" else gain < 0


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_floor_is_the_score_of_real_clips(metric: Metric) -> None:
    real, fake = sample_for(metric, 160, seed=1), sample_for(metric, 64, seed=2) * 0.2
    score = metric.score(fake, real, spare=sample_for(metric, 64, seed=4))
    as_real = metric.score(sample_for(metric, 64, seed=3), real).value
    assert abs(score.floor - as_real) < 0.5 * abs(score.value - as_real)
    assert "floor at" not in score.note


def test_note_says_when_the_floor_has_fewer_clips_or_the_covariance_is_singular() -> None:
    score = fvd.build().score(gaussian(40, 50, seed=1), gaussian(60, 50, seed=2))
    assert "floor at N = 30: too few real clips" in score.note
    assert "N = 40 for D = 50: singular covariance" in score.note


@pytest.mark.parametrize("metric", METRICS, ids=repr)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_by_row(metric: Metric, value: float) -> None:
    good, bad = sample_for(metric, 20, seed=1), sample_for(metric, 20, seed=2)
    bad[[5, 7], 0] = value
    with pytest.raises(UserError, match=rf"{metric.title}.* generated clips .* in 2 of 20 rows, the first is row 5"):
        metric.score(bad, good)
    with pytest.raises(UserError, match=r"real clips .* in 2 of 20 rows, the first is row 5"):
        metric.score(good, bad)


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_too_few_clips_and_other_widths_are_refused(metric: Metric) -> None:
    real = sample_for(metric, 20, seed=1)
    with pytest.raises(UserError, match="generated clips have 1 rows, and at least 2"):
        metric.score(real[:1], real)
    with pytest.raises(UserError, match="real clips have 1 rows, and at least"):
        metric.score(real, real[:1])
    with pytest.raises(UserError, match=r"6 values per generated clip but 5|have 2 columns: give one similarity"):
        metric.score(np.hstack([real, real[:, :1]]), real)


def test_helpers_refuse_nan_too() -> None:
    bad = FAKE.copy()
    bad[3, 2] = np.nan
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(UserError, match=r"generated clips hold NaN or infinity in 1 of 80 rows, .* row 3"):
            distance(bad, REAL)
    with pytest.raises(UserError, match=r"have shape \(4,\): give one row per clip"):
        checked(np.zeros(4), "features")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(fvd.build, ddof=2), "ddof = 2"),
        (partial(kvd.build, degree=0), "degree = 0"),
        (partial(inception_score.build, splits=0), "splits = 0"),
        (partial(score_of_logits, LOGITS, splits=101), "have 100 rows, and at least 101"),
        (partial(clipsim.build().score, np.full((20, 1), 29.3), np.full((20, 1), 0.3)), "reach 29.3, but a cosine"),
        (partial(floor, frechet_distance, REAL[:3], None, 2, seed=0), "3 real clips, and at least 4"),
    ],
)
def test_impossible_requests_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


# Intervals and floors.


@pytest.mark.parametrize("statistic", [frechet_distance, kernel_distance])
def test_interval_of_a_distance_is_as_wide_as_its_spread(statistic: Callable[..., float]) -> None:
    samples = [(gaussian(150, 3, seed=2 * k, shift=0.6), gaussian(120, 3, seed=2 * k + 1)) for k in range(80)]
    values = [statistic(*pair) for pair in samples]
    spans = [interval(v, statistic, p, repeats=40, seed=1) for v, p in zip(values[:6], samples, strict=False)]
    error = float(np.mean([(high - low) / (2 * 1.96) for low, high in spans]))
    assert 1 / 1.5 < error / np.std(values) < 1.5


def test_interval_of_a_mean_is_the_textbook_one() -> None:
    x = gaussian(400, 1, seed=1)
    low, high = interval(x.mean(), np.mean, (x,), repeats=400, seed=2)
    assert (low + high) / 2 == pytest.approx(x.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * x.std() / 20, rel=0.12)


def test_interval_depends_on_the_seed_alone() -> None:
    first = interval(1.0, frechet_distance, (FAKE, REAL), repeats=5, seed=1)
    assert interval(1.0, frechet_distance, (FAKE, REAL), repeats=5, seed=1) == first
    assert interval(1.0, frechet_distance, (FAKE, REAL), repeats=5, seed=2) != first


def test_the_samples_are_resampled_independently_with_replacement() -> None:
    rows = list(draws((50, 60), repeats=3, seed=0))
    assert [len(each) for each in rows[0]] == [50, 60]
    assert not (rows[0][0] == rows[0][1][:50]).all()
    assert len(set(rows[0][0].tolist())) < 50
    assert all(len(set(i.tolist())) == 2 for (i,) in draws((2,), repeats=20, seed=0))


def test_weights_are_the_resamples_without_pairs_of_a_row_with_itself() -> None:
    x, y = FAKE[:20], REAL[:15]
    x_weights, y_weights = multiplicities((20, 15), repeats=1, seed=4)
    ((i, j),) = draws((20, 15), repeats=1, seed=4)
    within = [polynomial_kernel(a[r], a[r])[np.not_equal.outer(r, r)].mean() for a, r in ((x, i), (y, j))]
    expected = sum(within) - 2 * polynomial_kernel(x[i], y[j]).mean()
    assert weighted_distances(x, y, x_weights, y_weights)[0] == pytest.approx(expected)


def test_blocks_do_not_change_the_kernel_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = kernel_distance(FAKE, REAL)
    monkeypatch.setattr("vfbench.metrics._kernel.BLOCK", 7)
    assert kernel_distance(FAKE, REAL) == pytest.approx(whole, rel=1e-12)


def test_floor_uses_as_many_real_clips_as_were_generated_where_there_are_enough() -> None:
    real = gaussian(200, 3, seed=1)
    value, n = floor(frechet_distance, real, None, 64, seed=0)
    assert n == 64
    assert floor(frechet_distance, real, None, 64, seed=0) == (value, n)
    assert floor(frechet_distance, real, None, 150, seed=0)[1] == 100
    assert value < 0.1 * frechet_distance(gaussian(64, 3, seed=2, shift=2), real)


def test_interval_is_symmetric_about_the_value() -> None:
    assert around(2.0, [0.0, 1.0, 2.0]) == (2.0 - 1.96, 2.0 + 1.96)


def test_spare_real_clips_give_the_floor_at_the_n_of_the_score() -> None:
    real, spare = gaussian(300, 8, seed=1), gaussian(300, 8, seed=2)
    value, n = floor(frechet_distance, real, spare, 300, seed=0)
    assert (value, n) == (frechet_distance(spare, real), 300)
    halves, half = floor(frechet_distance, real, spare[:299], 300, seed=0)
    assert half == 150
    assert halves > value  # the bias of half as many clips


@pytest.mark.parametrize("metric", [fvd.build(), kvd.build()], ids=repr)
def test_a_score_uses_its_spare_clips(metric: Metric) -> None:
    fake, real, spare = (gaussian(80, 6, seed=seed) for seed in (1, 2, 3))
    assert metric.score(fake, real, spare=spare).floor == metric.score(spare, real).value
    assert "too few" not in metric.score(fake, real, spare=spare).note
