"""What every score shares: checked and clustered samples, floors, standard errors, limits and paired tests."""

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


def test_arrays_that_are_no_samples_are_refused() -> None:
    with pytest.raises(UserError, match=r"have shape \(4,\): give one row per clip"):
        validate(np.zeros(4), "features")
    with pytest.raises(UserError, match="have 1 rows, and at least 2"):
        validate(np.zeros((1, 3)), "features")


def test_without_groups_each_clip_is_its_own() -> None:
    fake, real = cluster_labels(None, 3, 4, "FVD")
    assert (fake.tolist(), real.tolist()) == ([0, 1, 2], [0, 1, 2, 3])


def test_groups_are_numbered_from_zero_whatever_their_numbers() -> None:
    fake, real = cluster_labels(Groups(np.array([70, -1, 70]), np.array([5, 5, 9])), 3, 3, "FVD")
    assert (fake.tolist(), real.tolist()) == ([1, 0, 1], [0, 0, 1])
    assert [rows.tolist() for rows in cluster_rows(fake)] == [[1], [0, 2]]


def test_groups_that_do_not_fit_are_refused() -> None:
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


def test_what_is_odd_about_the_samples_is_said() -> None:
    fake, real = gaussian(40, 3, seed=1), gaussian(50, 3, seed=2)
    every = np.arange(40), np.arange(50)
    assert sample_notes(fake, real, *every) == []
    fake[:, 1] = 7
    assert sample_notes(fake, real, *every) == ["1 of 3 values are the same for all generated clips"]
    assert sample_notes(fake, real * 0, *every)[1] == "all 50 real clips have the same values"
    few = sample_notes(real, fake[:, :1] * [[1.0, 2, 3]] + real[:40], np.arange(50) // 5, np.arange(40))
    assert few == [
        "50 generated clips are 10 independent ones",
        "the error rests on 10 independent generated clips, and is rough",
    ]


# Floors.


def test_floor_uses_as_many_real_clips_as_were_generated_where_there_are_enough() -> None:
    real = gaussian(200, 3, seed=1)
    value, n = floor(frechet_distance, real, None, 64, seed=0)
    assert n == 64
    assert floor(frechet_distance, real, None, 64, seed=0) == (value, n)
    assert floor(frechet_distance, real, None, 150, seed=0)[1] == 100
    assert value < 0.1 * frechet_distance(gaussian(64, 3, seed=2, shift=2), real)


def test_spare_real_clips_give_the_floor_at_the_n_of_the_score() -> None:
    real, holdout = gaussian(300, 8, seed=1), gaussian(300, 8, seed=2)
    value, n = floor(frechet_distance, real, holdout, 300, seed=0)
    assert (value, n) == (frechet_distance(holdout, real), 300)
    halves, half = floor(frechet_distance, real, holdout[:299], 300, seed=0)
    assert half == 150
    assert halves > value  # the bias of half as many clips


def test_halves_of_the_floor_do_not_share_a_source_video() -> None:
    real, labels = np.repeat(np.arange(20.0), 5)[:, None], np.repeat(np.arange(20), 5)

    def shared(x: np.ndarray, y: np.ndarray) -> float:
        return float(len(set(x.ravel()) & set(y.ravel())))

    assert floor(shared, real, None, 50, labels=labels, seed=0)[0] == 0
    assert floor(shared, real, None, 50, seed=0)[0] > 10


def test_three_real_clips_have_no_floor() -> None:
    with pytest.raises(UserError, match="3 real clips, and at least 4"):
        floor(frechet_distance, REAL[:3], None, 2, seed=0)


# Standard errors.


def test_interval_is_symmetric_about_the_value() -> None:
    assert interval_95(2.0, 1.0) == (2.0 - 1.96, 2.0 + 1.96)


def test_bootstrap_error_of_a_mean_is_the_textbook_one() -> None:
    x = gaussian(400, 1, seed=1)
    assert bootstrap_error(np.mean, (x,), repeats=400, seed=2) == pytest.approx(x.std() / 20, rel=0.12)


def test_bootstrap_resamples_independently_with_replacement_and_by_the_seed_alone() -> None:
    x, y = gaussian(50, 1, seed=1), gaussian(60, 1, seed=2)
    seen: list[tuple[int, ...]] = []

    def look(a: np.ndarray, b: np.ndarray) -> float:
        seen.append((len(a), len(b), len(set(a.ravel())), len(set(b.ravel()))))
        return float(a.mean() - b.mean())

    first = bootstrap_error(look, (x, y), repeats=20, seed=1)
    assert {row[:2] for row in seen} == {(50, 60)}
    assert max(max(row[2:]) for row in seen) < 50
    assert len(set(seen)) > 5
    assert bootstrap_error(look, (x, y), repeats=20, seed=1) == first
    assert bootstrap_error(look, (x, y), repeats=20, seed=2) != first


def test_the_three_ways_to_an_error_agree_on_a_mean_of_clusters() -> None:
    labels, real = np.arange(300) // 3, gaussian(200, 1, seed=3)
    fake = gaussian(100, 1, seed=1)[labels] + 0.3 * gaussian(300, 1, seed=2)

    def difference(x: np.ndarray, y: np.ndarray) -> float:
        return float(x.mean() - y.mean())

    own = fake.ravel() - fake.mean(), real.mean() - real.ravel()
    by_rows = influence_from_rows(difference(fake, real), *own, labels, np.arange(200)).error
    left_fake = np.array([difference(fake[labels != out], real) for out in range(100)])
    left_real = np.array([difference(fake, np.delete(real, out, axis=0)) for out in range(200)])
    by_leaving = influence_from_jackknife(difference(fake, real), left_fake, left_real).error
    by_drawing = bootstrap_error(difference, (fake, real), (labels, np.arange(200)), repeats=800, seed=0)
    means = fake.reshape(100, 3).mean(axis=1)
    assert by_rows == pytest.approx(np.sqrt(means.var(ddof=1) / 100 + real.var(ddof=1) / 200))
    assert by_leaving == pytest.approx(by_rows)
    assert by_drawing == pytest.approx(by_rows, rel=0.1)


def test_blocks_hold_whole_clusters_of_about_equal_number() -> None:
    labels = np.arange(90) // 2
    found = assign_blocks(labels, 8, np.random.default_rng(0))
    assert set(found.tolist()) == set(range(8))
    assert all(len(set(found[labels == cluster].tolist())) == 1 for cluster in range(45))
    assert max(np.bincount(found)) <= 12
    assert assign_blocks(labels, 100, np.random.default_rng(0)).max() == 44


# Limits.


def test_limit_is_exact_where_the_bias_is_a_parabola_in_1_over_n() -> None:
    def statistic(x: np.ndarray, y: np.ndarray) -> float:
        return 3 + 5 / len(x) + 7 / len(x) ** 2 - 2 / len(y)

    arrays, labels = (np.zeros((64, 1)), np.zeros((160, 1))), (np.arange(64), np.arange(160))
    found = _extrapolate.limit(statistic(*arrays), statistic, arrays, labels, seed=0)
    assert found.value == pytest.approx(3)
    assert found.noise == pytest.approx(0, abs=1e-12)


def test_limit_adds_no_noise_to_what_is_linear_in_the_clips() -> None:
    found = _extrapolate.limit(float(FAKE.mean()), np.mean, (FAKE,), (np.arange(80),), seed=0)
    assert found.value == pytest.approx(FAKE.mean(), rel=1e-12)
    assert found.noise == pytest.approx(0, abs=1e-15)


def test_limit_of_a_square_is_the_unbiased_estimate_within_its_noise() -> None:
    x = gaussian(64, 1, seed=1).ravel()
    unbiased = (x.sum() ** 2 - (x**2).sum()) / (64 * 63)

    def square(rows: np.ndarray) -> float:
        return float(rows.mean() ** 2)

    find = partial(_extrapolate.limit, square(x), square, (x,), (np.arange(64),))
    limits = [find(seed=seed) for seed in range(30)]
    values, noise = [found.value for found in limits], np.mean([found.noise for found in limits])
    assert np.mean(values) == pytest.approx(unbiased, abs=4 * noise / np.sqrt(30))
    assert 0.6 < np.std(values, ddof=1) / noise < 1.6


def test_limit_cuts_between_clusters() -> None:
    labels = np.arange(320) % 40

    def rows_a_cluster(each: np.ndarray) -> float:
        return len(each) / len(set(each.ravel()))

    assert _extrapolate.limit(8.0, rows_a_cluster, (labels,), (labels,), seed=0).value == pytest.approx(8)


def test_without_a_limit_it_is_said_what_it_takes() -> None:
    labels = np.arange(320) % 40
    assert _extrapolate.no_limit_notes(320, labels) == []
    assert _extrapolate.no_limit_notes(321, np.arange(400), labels) == ["no limit: that takes N >= 321"]
    assert _extrapolate.no_limit_notes(100, labels, labels % 31) == ["no limit: that takes 32 independent clips"]


# Paired tests.


def test_p_value_and_interval_of_a_difference() -> None:
    found = comparison(1.96, 1.0, "a note", "another")
    assert found.p_value == pytest.approx(0.05, abs=1e-4)
    assert (found.low, found.high) == (0, 3.92)
    assert found.note == "a note; another"
    assert comparison(-1.96, 1.0).p_value == found.p_value


def test_without_any_spread_only_no_difference_is_no_difference() -> None:
    assert comparison(0.0, 0.0).p_value == 1
    assert comparison(1e-9, 0.0).p_value == 0


def test_influences_are_subtracted_cluster_by_cluster() -> None:
    shared = gaussian(50, 1, seed=1).ravel()
    first = Influence(3.0, shared + 0.01 * gaussian(50, 1, seed=2).ravel(), shared)
    second = Influence(1.0, shared, shared)
    difference = first - second
    assert difference.value == 2
    assert difference.error < 0.05 * first.error
