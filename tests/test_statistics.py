"""Tests of the statistics that all metrics share: samples, clusters, floors, standard errors, limits, paired tests."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from samples import FAKE, REAL, gaussian

from vfbench.errors import UserError
from vfbench.interfaces import Groups
from vfbench.metrics import _extrapolate
from vfbench.metrics._frechet import frechet_distance
from vfbench.metrics._two_sample import cluster_labels, cluster_rows, floor, sample_notes, shuffle_clusters, validate
from vfbench.metrics._uncertainty import (
    Influence,
    assign_blocks,
    bootstrap_error,
    comparison,
    influence_from_jackknife,
    influence_from_rows,
    interval_95,
)

# Samples.


def test_invalid_samples_are_refused() -> None:
    with pytest.raises(UserError, match=r"have shape \(4,\): give one row per clip"):
        validate(np.zeros(4), "features")
    with pytest.raises(UserError, match="have 1 rows, and at least 2"):
        validate(np.zeros((1, 3)), "features")


def test_without_groups_each_clip_is_a_cluster() -> None:
    fake, real = cluster_labels(None, 3, 4, "FVD")
    assert (fake.tolist(), real.tolist()) == ([0, 1, 2], [0, 1, 2, 3])


def test_groups_are_renumbered_from_zero() -> None:
    fake, real = cluster_labels(Groups(np.array([70, -1, 70]), np.array([5, 5, 9])), 3, 3, "FVD")
    assert (fake.tolist(), real.tolist()) == ([1, 0, 1], [0, 0, 1])
    assert [rows.tolist() for rows in cluster_rows(fake)] == [[1], [0, 2]]


def test_invalid_groups_are_refused() -> None:
    with pytest.raises(UserError, match="FVD: groups of generated clips are 2 numbers for 3 clips"):
        cluster_labels(Groups(np.arange(2), np.arange(3)), 3, 3, "FVD")
    with pytest.raises(UserError, match="FVD: groups of real clips put all 3 clips into one"):
        cluster_labels(Groups(np.arange(3), np.zeros(3, int)), 3, 3, "FVD")


def test_shuffling_keeps_clusters_together_and_mixes_them() -> None:
    labels = np.arange(40) % 10
    order = shuffle_clusters(labels, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(40))
    assert np.count_nonzero(np.diff(labels[order])) == 9
    assert labels[order].tolist() != sorted(labels.tolist())


def test_unusual_samples_get_a_note() -> None:
    fake, real = gaussian(40, 3, seed=1), gaussian(50, 3, seed=2)
    all_clusters = np.arange(40), np.arange(50)
    assert sample_notes(fake, real, *all_clusters) == []
    fake[:, 1] = 7
    assert sample_notes(fake, real, *all_clusters) == ["1 of 3 values are the same for all generated clips"]
    assert sample_notes(fake, real * 0, *all_clusters)[1] == "all 50 real clips have the same values"
    notes = sample_notes(real, fake[:, :1] * [[1.0, 2, 3]] + real[:40], np.arange(50) // 5, np.arange(40))
    assert notes == [
        "50 generated clips count as 10 independent ones",
        "rough standard error: only 10 independent generated clips",
    ]


# Floors.


def test_floor_has_the_number_of_generated_clips_if_possible() -> None:
    real = gaussian(200, 3, seed=1)
    value, n = floor(frechet_distance, real, None, 64, seed=0)
    assert n == 64
    assert floor(frechet_distance, real, None, 64, seed=0) == (value, n)
    assert floor(frechet_distance, real, None, 150, seed=0)[1] == 100
    assert value < 0.1 * frechet_distance(gaussian(64, 3, seed=2, shift=2), real)


def test_holdout_clips_give_the_floor_at_the_n_of_the_score() -> None:
    real, holdout = gaussian(300, 8, seed=1), gaussian(300, 8, seed=2)
    value, n = floor(frechet_distance, real, holdout, 300, seed=0)
    assert (value, n) == (frechet_distance(holdout, real), 300)
    halves, half = floor(frechet_distance, real, holdout[:299], 300, seed=0)
    assert half == 150
    assert halves > value  # fewer clips have more bias


def test_halves_of_the_floor_share_no_source_video() -> None:
    real, labels = np.repeat(np.arange(20.0), 5)[:, None], np.repeat(np.arange(20), 5)

    def shared(x: np.ndarray, y: np.ndarray) -> float:
        return float(len(set(x.ravel()) & set(y.ravel())))

    assert floor(shared, real, None, 50, labels=labels, seed=0)[0] == 0
    assert floor(shared, real, None, 50, seed=0)[0] > 10


def test_three_real_clips_have_no_floor() -> None:
    value, n = floor(frechet_distance, REAL[:3], None, 2, seed=0)
    assert np.isnan(value)
    assert n == 0


# Standard errors.


def test_interval_is_symmetric_about_the_value() -> None:
    assert interval_95(2.0, 1.0) == (2.0 - 1.96, 2.0 + 1.96)


def test_bootstrap_error_of_a_mean_is_sigma_over_sqrt_n() -> None:
    x = gaussian(400, 1, seed=1)
    assert bootstrap_error(np.mean, (x,), repeats=400, seed=2) == pytest.approx(x.std() / 20, rel=0.12)


def test_bootstrap_resamples_with_replacement_by_seed() -> None:
    x, y = gaussian(50, 1, seed=1), gaussian(60, 1, seed=2)
    counts: list[tuple[int, ...]] = []

    def recorded_difference(a: np.ndarray, b: np.ndarray) -> float:
        counts.append((len(a), len(b), len(set(a.ravel())), len(set(b.ravel()))))
        return float(a.mean() - b.mean())

    first = bootstrap_error(recorded_difference, (x, y), repeats=20, seed=1)
    assert {row[:2] for row in counts} == {(50, 60)}
    assert max(max(row[2:]) for row in counts) < 50
    assert len(set(counts)) > 5
    assert bootstrap_error(recorded_difference, (x, y), repeats=20, seed=1) == first
    assert bootstrap_error(recorded_difference, (x, y), repeats=20, seed=2) != first


def test_influence_jackknife_and_bootstrap_errors_agree() -> None:
    labels, real = np.arange(300) // 3, gaussian(200, 1, seed=3)
    fake = gaussian(100, 1, seed=1)[labels] + 0.3 * gaussian(300, 1, seed=2)

    def difference(x: np.ndarray, y: np.ndarray) -> float:
        return float(x.mean() - y.mean())

    influences = fake.ravel() - fake.mean(), real.mean() - real.ravel()
    by_rows = influence_from_rows(difference(fake, real), *influences, labels, np.arange(200)).error
    without_fake = np.array([difference(fake[labels != removed], real) for removed in range(100)])
    without_real = np.array([difference(fake, np.delete(real, removed, axis=0)) for removed in range(200)])
    by_jackknife = influence_from_jackknife(difference(fake, real), without_fake, without_real).error
    by_bootstrap = bootstrap_error(difference, (fake, real), (labels, np.arange(200)), repeats=800, seed=0)
    means = fake.reshape(100, 3).mean(axis=1)
    assert by_rows == pytest.approx(np.sqrt(means.var(ddof=1) / 100 + real.var(ddof=1) / 200))
    assert by_jackknife == pytest.approx(by_rows)
    assert by_bootstrap == pytest.approx(by_rows, rel=0.1)


def test_blocks_keep_clusters_together_and_are_balanced() -> None:
    labels = np.arange(90) // 2
    blocks = assign_blocks(labels, 8, np.random.default_rng(0))
    assert set(blocks.tolist()) == set(range(8))
    assert all(len(set(blocks[labels == cluster].tolist())) == 1 for cluster in range(45))
    assert max(np.bincount(blocks)) <= 12
    assert assign_blocks(labels, 100, np.random.default_rng(0)).max() == 44


# Limits.


def test_limit_is_exact_for_bias_quadratic_in_1_over_n() -> None:
    def statistic(x: np.ndarray, y: np.ndarray) -> float:
        return 3 + 5 / len(x) + 7 / len(x) ** 2 - 2 / len(y)

    arrays, labels = (np.zeros((64, 1)), np.zeros((160, 1))), (np.arange(64), np.arange(160))
    limit = _extrapolate.limit(statistic(*arrays), statistic, arrays, labels, seed=0)
    assert limit.value == pytest.approx(3)
    assert limit.noise == pytest.approx(0, abs=1e-12)


def test_limit_of_a_linear_statistic_has_no_noise() -> None:
    limit = _extrapolate.limit(float(FAKE.mean()), np.mean, (FAKE,), (np.arange(80),), seed=0)
    assert limit.value == pytest.approx(FAKE.mean(), rel=1e-12)
    assert limit.noise == pytest.approx(0, abs=1e-15)


def test_limit_of_a_squared_mean_is_unbiased_within_noise() -> None:
    x = gaussian(64, 1, seed=1).ravel()
    unbiased = (x.sum() ** 2 - (x**2).sum()) / (64 * 63)

    def square(rows: np.ndarray) -> float:
        return float(rows.mean() ** 2)

    limit_of = partial(_extrapolate.limit, square(x), square, (x,), (np.arange(64),))
    limits = [limit_of(seed=seed) for seed in range(30)]
    values, noise = [limit.value for limit in limits], np.mean([limit.noise for limit in limits])
    assert np.mean(values) == pytest.approx(unbiased, abs=4 * noise / np.sqrt(30))
    assert 0.6 < np.std(values, ddof=1) / noise < 1.6


def test_limit_keeps_clusters_together() -> None:
    labels = np.arange(320) % 40

    def rows_a_cluster(each: np.ndarray) -> float:
        return len(each) / len(set(each.ravel()))

    assert _extrapolate.limit(8.0, rows_a_cluster, (labels,), (labels,), seed=0).value == pytest.approx(8)


def test_a_missing_limit_gets_a_note() -> None:
    labels = np.arange(320) % 40
    assert _extrapolate.no_limit_notes(320, labels) == []
    assert _extrapolate.no_limit_notes(321, np.arange(400), labels) == ["no value at infinite N: that takes N >= 321"]
    assert _extrapolate.no_limit_notes(100, labels, labels % 31) == [
        "no value at infinite N: that takes 32 independent clips"
    ]


# Paired tests.


def test_p_value_and_interval_of_a_difference() -> None:
    difference = comparison(1.96, 1.0, "a note", "another")
    assert difference.p_value == pytest.approx(0.05, abs=1e-4)
    assert (difference.low, difference.high) == (0, 3.92)
    assert difference.note == "a note; another"
    assert comparison(-1.96, 1.0).p_value == difference.p_value


def test_without_error_only_zero_is_insignificant() -> None:
    assert comparison(0.0, 0.0).p_value == 1
    assert comparison(1e-9, 0.0).p_value == 0


def test_influences_are_subtracted_per_cluster() -> None:
    shared = gaussian(50, 1, seed=1).ravel()
    first = Influence(3.0, shared + 0.01 * gaussian(50, 1, seed=2).ravel(), shared)
    second = Influence(1.0, shared, shared)
    difference = first - second
    assert difference.value == 2
    assert difference.error < 0.05 * first.error
