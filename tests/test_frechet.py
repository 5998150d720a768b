"""Tests of `vfbench.metrics._frechet`: published implementations, closed forms, and influence against derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from samples import FAKE, REAL, gaussian, with_moments

from vfbench.errors import UserError
from vfbench.metrics._frechet import frechet_distance, frechet_influence

# Golden values from the reference code of the named repositories (numpy 2.4.6, scipy 1.17.1).


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(5.700442078680346, id="TATS frechet_distance float64"),
        pytest.param(5.700442078680302, id="common_metrics_on_video_quality frechet_distance"),
        pytest.param(5.700442078680325, id="pytorch-fid calculate_frechet_distance"),
    ],
)
def test_the_distance_equals_published_implementations(value: float) -> None:
    assert frechet_distance(FAKE, REAL) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(REAL, FAKE) == pytest.approx(value, rel=1e-9)


def test_ddof_0_equals_stylegan_v_and_cd_fvd() -> None:
    value = 5.667400786211527  # FeatureStats casts the features to float32
    assert frechet_distance(FAKE, REAL, ddof=0) == pytest.approx(value, rel=1e-6)
    in_float32 = frechet_distance(FAKE.astype(np.float32), REAL.astype(np.float32), ddof=0)
    assert in_float32 == pytest.approx(value, rel=1e-9)


def tensorflow_gan_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Recipe of TensorFlow-GAN: symmetric roots of the covariances, where values below 1e-10 are kept unchanged."""

    def root(values: np.ndarray) -> np.ndarray:
        return np.where(values < 1e-10, values, np.sqrt(np.abs(values)))

    s, t = np.cov(x.T), np.cov(y.T)
    u, values, vt = np.linalg.svd(s)
    half = (u * root(values)) @ vt
    trace = root(np.linalg.svd(half @ t @ half, compute_uv=False)).sum()
    shift = x.mean(axis=0) - y.mean(axis=0)
    return float(shift @ shift + np.trace(s + t) - 2 * trace)


@pytest.mark.parametrize(("n", "m"), [(80, 96), (20, 96), (15, 12)])
def test_the_distance_equals_tensorflow_gan_also_for_singular_covariances(n: int, m: int) -> None:
    assert frechet_distance(FAKE[:n], REAL[:m]) == pytest.approx(tensorflow_gan_distance(FAKE[:n], REAL[:m]), rel=1e-6)


# Closed forms.


def test_gaussians_with_diagonal_covariances() -> None:
    means, sds = (np.array([0.0, 1, 2]), np.array([3.0, 1, -1])), (np.array([1.0, 2, 0.5]), np.array([2.0, 2, 3]))
    x, y = (with_moments(n, m, np.diag(s**2), seed=n) for n, m, s in zip((40, 50), means, sds, strict=True))
    expected = ((means[0] - means[1]) ** 2).sum() + ((sds[0] - sds[1]) ** 2).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)


def test_gaussians_whose_covariances_do_not_commute() -> None:
    s, t = np.array([[2.0, 0.9], [0.9, 1]]), np.array([[1.0, -0.5], [-0.5, 3]])
    x, y = with_moments(30, np.zeros(2), s, seed=1), with_moments(20, np.array([1.0, 2]), t, seed=2)
    root = np.sqrt(np.trace(s @ t) + 2 * np.sqrt(np.linalg.det(s @ t)))  # trace of the root of a 2 x 2 matrix
    assert frechet_distance(x, y) == pytest.approx(5 + np.trace(s + t) - 2 * root, rel=1e-10)


def test_fewer_clips_than_features() -> None:
    rotation = np.linalg.qr(gaussian(60, 60, seed=0))[0]
    x, y = gaussian(12, 5, seed=1), gaussian(9, 5, seed=2, shift=1)
    low_dimensional = frechet_distance(x, y)
    assert frechet_distance(x @ rotation[:5], y @ rotation[:5]) == pytest.approx(low_dimensional, rel=1e-10)
    z = gaussian(9, 60, seed=3)
    assert frechet_distance(z + 0.5, z) == pytest.approx(60 * 0.25, rel=1e-10)
    assert 0 <= frechet_distance(z, z) < 1e-10


@pytest.mark.pitfall("a matrix root that spoils the distance")
@pytest.mark.parametrize("spectrum", [np.ones(100), np.logspace(3, -12, 100), np.r_[np.ones(5), np.zeros(95)]])
@pytest.mark.parametrize("count", [4, 32, 150])
def test_the_distance_is_accurate_for_any_spectrum(
    spectrum: np.ndarray, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(scipy.linalg, "sqrtm")
    real = gaussian(count, 100, seed=1) * spectrum
    assert frechet_distance(real + 0.5, real) == pytest.approx(100 * 0.25, rel=1e-6)
    moments = (real.mean(axis=0) ** 2).sum() + real.var(axis=0, ddof=1).sum()
    assert frechet_distance(1.5 * real, real) == pytest.approx(0.25 * moments, rel=1e-6)


def test_rows_are_samples() -> None:
    tall = np.array([[0.0, 0], [0, 0], [6, 0]])  # means (2, 0), variances (12, 0)
    constant = np.zeros((3, 2))
    assert frechet_distance(tall, constant) == pytest.approx(4 + 12)
    assert frechet_distance(tall, constant, ddof=0) == pytest.approx(4 + 8)


# Influence.


def weighted_distance(x: np.ndarray, y: np.ndarray, w: np.ndarray, v: np.ndarray) -> float:
    """Frechet distance of weighted samples, whose weights sum to 1."""
    shift = w @ x - v @ y
    a, b = np.sqrt(w)[:, None] * (x - w @ x), np.sqrt(v)[:, None] * (y - v @ y)
    return float(shift @ shift + (a**2).sum() + (b**2).sum() - 2 * np.linalg.norm(a @ b.T, "nuc"))


SINGULAR = [
    pytest.param(FAKE, REAL, id="regular"),
    pytest.param(FAKE[:15], REAL, id="fewer generated clips than features"),
    pytest.param(FAKE, REAL[:12], id="fewer real clips than features"),
    pytest.param(FAKE[:10], REAL[:12], id="fewer of both"),
]


@pytest.mark.parametrize(("x", "y"), SINGULAR)
def test_influence_is_the_derivative_with_respect_to_a_clips_weight(x: np.ndarray, y: np.ndarray) -> None:
    influences = frechet_influence(x, y, ddof=0)
    for side, row in ((0, 3), (0, 7), (1, 5), (1, 0)):
        distances = []
        for step in (1e-5, -1e-5):
            weights = [np.full(len(each), 1 / len(each)) for each in (x, y)]
            weights[side] *= 1 - step
            weights[side][row] += step
            distances.append(weighted_distance(x, y, *weights))
        assert influences[side][row] == pytest.approx((distances[0] - distances[1]) / 2e-5, abs=1e-4)


def test_influence_equals_the_optimal_transport_formula() -> None:
    def root(matrix: np.ndarray, power: float = 0.5) -> np.ndarray:
        values, vectors = np.linalg.eigh(matrix)
        powered: np.ndarray = (vectors * values**power) @ vectors.T
        return powered

    s, t = np.cov(FAKE.T), np.cov(REAL.T)
    transport = root(s, -0.5) @ root(root(s) @ t @ root(s)) @ root(s, -0.5)
    x = FAKE - FAKE.mean(axis=0)
    expected = 2 * x @ (FAKE.mean(axis=0) - REAL.mean(axis=0)) + (x * (x @ (np.eye(24) - transport))).sum(axis=1)
    np.testing.assert_allclose(frechet_influence(FAKE, REAL)[0], expected - expected.mean(), rtol=1e-8, atol=1e-10)


def test_influence_has_mean_zero_and_is_symmetric() -> None:
    fake_influence, real_influence = frechet_influence(FAKE, REAL)
    swapped = frechet_influence(REAL, FAKE)
    assert abs(fake_influence.mean()) < 1e-12
    np.testing.assert_allclose(swapped[1], fake_influence, atol=1e-9)
    np.testing.assert_allclose(swapped[0], real_influence, atol=1e-9)


def test_influence_of_identical_clips_is_zero() -> None:
    fake_influence, real_influence = frechet_influence(np.ones((9, 24)), REAL)
    assert np.abs(fake_influence).max() == 0
    assert np.abs(real_influence).max() > 1  # the real clips differ


def test_the_influence_predicts_the_spread_of_repeated_samples() -> None:
    pairs = [(gaussian(120, 4, seed=2 * k, scale=1.3), gaussian(200, 4, seed=2 * k + 1)) for k in range(120)]
    spread = np.std([frechet_distance(x, y) for x, y in pairs], ddof=1)
    influences = [frechet_influence(x, y) for x, y in pairs[:20]]
    predicted = np.sqrt(
        np.mean(
            [fake_influence.var() / 120 + real_influence.var() / 200 for fake_influence, real_influence in influences]
        )
    )
    assert 0.8 < predicted / spread < 1.2  # 120 repeats measure the spread to 6 %


@pytest.mark.parametrize("function", [frechet_distance, frechet_influence])
def test_nan_features_and_invalid_ddof_are_refused(function: object) -> None:
    assert callable(function)
    bad = FAKE.copy()
    bad[3, 2] = np.nan
    with pytest.raises(UserError, match=r"generated clips .*NaN .* 1 of 80 rows.* row 3"):
        function(bad, REAL)
    with pytest.raises(UserError, match="ddof = 2"):
        function(FAKE, REAL, ddof=2)
