"""Tests of the kernel distance (`vfbench.metrics._mmd`, `kvd`): published implementations, hand computation, error."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from samples import FAKE, REAL, gaussian

from vfbench import plugins
from vfbench.errors import UserError
from vfbench.interfaces import Groups
from vfbench.metrics import kvd
from vfbench.metrics._mmd import kernel_difference, kernel_distance, kernel_sums, polynomial_kernel, subset_distances
from vfbench.metrics._uncertainty import influence_from_jackknife

# Golden values from the reference code of the named repositories (numpy 2.4.6).


def test_the_distance_equals_tats_polynomial_mmd() -> None:
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
def test_the_biased_distance_equals_jedi(x: np.ndarray, y: np.ndarray, degree: int, coef0: float, value: float) -> None:
    assert kernel_distance(x, y, degree=degree, coef0=coef0, estimator="biased") == pytest.approx(value, rel=1e-9)


def test_subset_distances_equal_torch_fidelity() -> None:
    distances = subset_distances(REAL, FAKE, subsets=10, size=50, seed=2020)  # torch-fidelity's order of arguments
    assert distances.mean() == pytest.approx(0.24483642238165007, rel=1e-9)
    assert distances.std() == pytest.approx(0.04663093817530782, rel=1e-9)
    score = kvd.build(subsets=10, subset_size=50).score(REAL, FAKE)
    assert score.value == pytest.approx(0.24483642238165007, rel=1e-9)
    assert "10 subsets 0.04663" in score.note


# Hand computation.


def test_the_distance_is_unbiased_and_may_be_negative() -> None:
    values = [kernel_distance(gaussian(20, 3, seed=2 * k), gaussian(30, 3, seed=2 * k + 1)) for k in range(60)]
    assert min(values) < 0
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)


def test_the_distance_of_two_and_three_clips() -> None:
    x, y = np.array([[1.0], [2]]), np.array([[0.0], [3], [1]])
    within_x, within_y = (1 * 2 + 1) ** 3, ((0 + 1) ** 3 + (0 + 1) ** 3 + (3 + 1) ** 3) / 3
    expected = within_x + within_y - 2 * np.mean([1, 4**3, 2**3, 1, 7**3, 3**3])
    assert kernel_distance(x, y) == pytest.approx(expected)


def test_the_block_size_does_not_change_the_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = kernel_distance(FAKE, REAL)
    monkeypatch.setattr("vfbench.metrics._mmd_sums.BLOCK_ROWS", 7)
    assert kernel_distance(FAKE, REAL) == pytest.approx(expected, rel=1e-12)


# Standard error.

CLUSTERED = FAKE[:14], REAL[:15], np.arange(14) % 5, np.arange(15) // 2  # clusters of 2 and 3, 1 and 2 clips


def by_definition(x: np.ndarray, y: np.ndarray, x_labels: np.ndarray, y_labels: np.ndarray, estimator: str) -> float:
    """Kernel distance by its definition, from explicit pairs."""
    excluded_pairs = {
        "biased": lambda x: np.zeros((len(x), len(x)), bool),
        "unbiased": lambda x: np.eye(len(x), dtype=bool),
    }
    means = []
    for values, labels in ((x, x_labels), (y, y_labels)):
        excluded = excluded_pairs[estimator](values) if estimator in excluded_pairs else labels[:, None] == labels
        means.append(polynomial_kernel(values, values)[~excluded].mean())
    return float(sum(means) - 2 * polynomial_kernel(x, y).mean())


def second_order(kernel: np.ndarray, symmetric: bool) -> float:
    """Second-order variance of a sum over pairs of clusters: residuals of a regression on cluster effects."""
    g, h = kernel.shape
    pairs = [(i, j) for i in range(g) for j in (range(i) if symmetric else range(h))]
    design = np.zeros((len(pairs), g if symmetric else g + h))
    for row, (i, j) in enumerate(pairs):
        design[row, [i, j if symmetric else g + j]] = 1
    values = np.array([kernel[pair] for pair in pairs])
    residuals = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    mean_square = (residuals**2).sum() / (len(pairs) - np.linalg.matrix_rank(design))
    return float(mean_square * len(pairs) * (4 if symmetric else 1))


def sum_clusters(kernel: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    sums: np.ndarray = np.eye(rows.max() + 1)[rows].T @ kernel @ np.eye(columns.max() + 1)[columns]
    return sums


@pytest.mark.parametrize("estimator", ["unbiased", "biased", "independent"])
def test_the_error_is_the_cluster_jackknife_with_pair_terms_counted_once(
    estimator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vfbench.metrics._mmd_sums.BLOCK_ROWS", 4)
    x, y, i, j = CLUSTERED
    distance = partial(by_definition, estimator=estimator)
    without_x = [distance(x[i != k], y, i[i != k], j) for k in range(5)]
    without_y = [distance(x, y[j != k], i, j[j != k]) for k in range(8)]
    jackknife = influence_from_jackknife(distance(*CLUSTERED), np.array(without_x), np.array(without_y)).error ** 2
    excluded = {"biased": (0, 0), "unbiased": (14, 15), "independent": ((np.bincount(i) ** 2).sum(), 7 * 4 + 1)}
    n, m = (len(each) ** 2 - count for each, count in zip((x, y), excluded[estimator], strict=True))
    pairs = second_order(sum_clusters(polynomial_kernel(x, x), i, i), True) / n**2
    pairs += second_order(sum_clusters(polynomial_kernel(y, y), j, j), True) / m**2
    pairs += 4 * second_order(sum_clusters(polynomial_kernel(x, y), i, j), False) / (14 * 15) ** 2
    sums = kernel_sums(*CLUSTERED)
    assert sums.distance(estimator) == pytest.approx(distance(*CLUSTERED))
    assert 0 < pairs < jackknife / 2
    assert sums.error(estimator) == pytest.approx(np.sqrt(jackknife - pairs))


@pytest.mark.parametrize("shift", [0.0, 0.6])
def test_the_error_is_the_spread_of_repeated_samples(shift: float) -> None:
    pairs = [(gaussian(80, 3, seed=2 * k, shift=shift), gaussian(120, 3, seed=2 * k + 1)) for k in range(120)]
    spread = np.std([kernel_distance(x, y) for x, y in pairs], ddof=1)
    labels = np.arange(80), np.arange(120)
    predicted = np.sqrt(np.mean([kernel_sums(x, y, *labels).error("unbiased") ** 2 for x, y in pairs[:40]]))
    assert 0.8 < predicted / spread < 1.25


def test_a_paired_difference_has_a_smaller_error_than_its_distances() -> None:
    a, b = FAKE[:70], 0.9 * FAKE[:70]
    labels = np.arange(70) // 2, np.arange(96) % 40
    difference = kernel_difference(a, b, REAL, *labels)
    first, second = kernel_sums(a, REAL, *labels), kernel_sums(b, REAL, *labels)
    for estimator in ("unbiased", "biased", "independent"):
        expected = first.distance(estimator) - second.distance(estimator)
        assert difference.distance(estimator) == pytest.approx(expected)
        assert difference.error(estimator) < 0.5 * first.error(estimator)


def test_the_limit_of_grouped_clips_is_unbiased() -> None:
    values, limits = [], []
    for seed in range(60):
        prompts, real = gaussian(12, 3, seed=2 * seed), gaussian(60, 3, seed=2 * seed + 1)
        score = kvd.build().score(np.repeat(prompts, 5, axis=0), real, groups=Groups(np.arange(60) // 5, np.arange(60)))
        assert score.limit is not None
        values.append(score.value)
        limits.append(score.limit)
    assert np.mean(values) > 0.5
    assert abs(np.mean(limits)) < 3 * np.std(limits) / np.sqrt(60)


def test_two_groups_have_an_error_but_no_limit() -> None:
    score = kvd.build().score(FAKE, REAL, groups=Groups(np.arange(80) % 2, np.arange(96)))
    assert (score.limit, score.slope) == (None, None)
    assert score.error > 0
    assert "2 independent generated clips" in score.note


def test_a_group_of_all_clips_but_one_is_refused() -> None:
    with pytest.raises(UserError, match="too few of 80 clips"):
        kvd.build().score(FAKE, REAL, groups=Groups(np.arange(80) // 79, np.arange(96)))


def test_the_limit_of_the_biased_estimator_is_the_unbiased_distance() -> None:
    score = kvd.build(degree=2, coef0=0.0, estimator="biased").score(FAKE, REAL)
    assert score.limit == pytest.approx(kernel_distance(FAKE, REAL, degree=2, coef0=0.0))
    assert score.slope is not None
    assert score.slope > 0
    plain = kvd.build().score(FAKE, REAL)
    assert (plain.limit, plain.slope) == (plain.value, 0)


def test_subsets_widen_the_error() -> None:
    full, subsets = kvd.build().score(FAKE, REAL), kvd.build(subsets=4, subset_size=20).score(FAKE, REAL)
    assert subsets.error > full.error
    assert subsets.limit == full.value


def test_an_unknown_estimator_is_refused() -> None:
    with pytest.raises(UserError, match=r"estimator.*'best'"):
        plugins.load("metric", "kvd(estimator='best')")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degree": 0}, "degree = 0"),
        ({"subsets": 10}, "subset_size = 0"),
        ({"subsets": -1, "subset_size": -1}, "subsets = -1"),
        ({"subsets": 3, "subset_size": 9, "estimator": "biased"}, "subsets .*unbiased"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        kvd.build(**options)  # type: ignore[arg-type]


def test_a_subset_larger_than_the_samples_is_refused() -> None:
    with pytest.raises(UserError, match=r"subset_size = 81: .*2 to 80"):
        kvd.build(subsets=2, subset_size=81).score(FAKE, REAL)
