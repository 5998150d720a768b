"""Tests of `vfbench.metrics._prdc`: published values, hand calculations, definitions, and jackknife errors."""

from __future__ import annotations

import numpy as np
import pytest
from samples import FAKE, REAL, gaussian

from vfbench.errors import UserError
from vfbench.interfaces import Groups, PairedMetric
from vfbench.metrics import coverage, density, precision, recall
from vfbench.metrics._prdc import coverage as coverage_of
from vfbench.metrics._prdc import density as density_of
from vfbench.metrics._prdc import precision as precision_of
from vfbench.metrics._prdc import recall as recall_of
from vfbench.metrics._prdc_metric import Measure, NeighbourMetric
from vfbench.metrics._uncertainty import Influence, influence_from_jackknife

MEASURES = [precision_of, recall_of, density_of, coverage_of]
# On a line: the real balls of k = 1 reach 1 around 0, 1 around 1 and 4 around 5.
LINE, POINTS = np.array([[0.0], [1], [5]]), np.array([[-0.5], [0.5], [8], [20]])


def value_of(measure: Measure, fake: np.ndarray, real: np.ndarray, k: int) -> float:
    return measure(fake, real, k, np.arange(len(fake)) % 2, np.arange(len(real)) % 2).value


def test_values_equal_torch_fidelity() -> None:  # which got REAL as generated features
    assert precision.build(k=3).score(REAL, FAKE).value == pytest.approx(0.2604166567325592, abs=1e-7)
    assert recall.build(k=3).score(REAL, FAKE).value == pytest.approx(0.9624999761581421, abs=1e-7)


@pytest.mark.parametrize(
    ("measure", "expected"), [(precision_of, 3 / 4), (density_of, 4 / 4), (coverage_of, 3 / 3), (recall_of, 1)]
)
def test_four_clips_by_hand(measure: Measure, expected: float) -> None:
    # -0.5 lies in one ball, 0.5 in two, 8 in one; the balls of the points themselves reach 1, 1, 7.5 and 12.
    real = np.concatenate([LINE, LINE + 100])  # a copy far away keeps neighbours in the jackknife
    points = np.concatenate([POINTS, POINTS + 100])
    assert value_of(measure, points, real, 1) == pytest.approx(expected)


def by_definition(fake: np.ndarray, real: np.ndarray, k: int) -> dict[Measure, float]:
    """The four values by the rule of the package `prdc`: a ball holds what lies strictly below its radius."""

    def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        lengths: np.ndarray = np.linalg.norm(x[:, None] - y[None], axis=2)
        return lengths

    reach_real, reach_fake = (np.sort(distances(x, x), axis=1)[:, k] for x in (real, fake))
    across = distances(fake, real)
    inside = across < reach_real
    return {
        precision_of: inside.any(axis=1).mean(),
        recall_of: (reach_fake > across.T).any(axis=1).mean(),
        density_of: inside.sum(axis=1).mean() / k,
        coverage_of: inside.any(axis=0).mean(),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("measure", MEASURES)
def test_values_follow_the_definitions_in_the_papers(measure: Measure, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vfbench.metrics._prdc.CHUNK_ROWS", 7)
    fake, real = gaussian(30, 4, seed=1, scale=0.8, shift=0.4), gaussian(40, 4, seed=2)
    assert value_of(measure, fake, real, k) == pytest.approx(by_definition(fake, real, k)[measure])


@pytest.mark.pitfall("generated clips that copy real ones")
@pytest.mark.parametrize("measure", MEASURES)
def test_ties_of_exact_copies_count_as_outside(measure: Measure) -> None:
    fake, real = gaussian(60, 75, seed=1, shift=3), gaussian(80, 75, seed=2)
    fake[:40] = real[:40]
    fake[50:], real[70:] = fake[:10], real[:10]  # a ball that reaches to a copy of its centre holds nothing
    assert value_of(measure, fake, real, 1) == pytest.approx(by_definition(fake, real, 1)[measure])
    assert value_of(measure, fake, real, 3) == pytest.approx(by_definition(fake, real, 3)[measure])


@pytest.mark.parametrize("measure", MEASURES)
def test_jackknife_leaves_out_each_block(measure: Measure) -> None:
    fake, real = gaussian(20, 3, seed=3, scale=0.8), gaussian(24, 3, seed=4)
    fake_blocks, real_blocks = np.arange(20) // 4, np.arange(24) % 6
    without_fake_block = [by_definition(fake[fake_blocks != block], real, 2)[measure] for block in range(5)]
    without_real_block = [by_definition(fake, real[real_blocks != block], 2)[measure] for block in range(6)]
    influence = measure(fake, real, 2, fake_blocks, real_blocks)
    expected = influence_from_jackknife(influence.value, np.array(without_fake_block), np.array(without_real_block))
    np.testing.assert_allclose(influence.fake, expected.fake, atol=1e-12)
    np.testing.assert_allclose(influence.real, expected.real, atol=1e-12)


def test_measures_separate_low_precision_from_low_recall() -> None:
    real = np.concatenate([gaussian(64, 4, seed=1), gaussian(64, 4, seed=2, shift=9)])
    low_recall = gaussian(64, 4, seed=3)
    low_precision = np.concatenate([gaussian(32, 4, seed=4), gaussian(32, 4, seed=5, shift=9), real[:64] - 30])
    assert value_of(precision_of, low_recall, real, 3) > 0.8
    assert value_of(recall_of, low_recall, real, 3) < 0.55
    assert value_of(coverage_of, low_recall, real, 3) < 0.55
    assert value_of(precision_of, low_precision, real, 3) < 0.55
    assert value_of(coverage_of, low_precision, real, 3) > 0.6


def test_a_real_outlier_raises_precision_but_not_density() -> None:
    real = np.concatenate([gaussian(60, 2, seed=1), [[1e3, 0]]])  # whose ball covers all clips
    fake = gaussian(60, 2, seed=2, shift=20)
    assert value_of(precision_of, fake, real, 3) == 1
    assert value_of(density_of, fake, real, 3) == pytest.approx(1 / 3)


def test_identical_clips_get_a_note() -> None:
    score = precision.build().score(np.ones((20, 3)), np.ones((30, 3)))
    assert score.value == 0  # balls of radius 0 hold nothing
    assert "all 20 generated clips have the same values" in score.note


@pytest.mark.one_case
@pytest.mark.parametrize("module", [density, coverage])
def test_standard_error_predicts_the_spread(module: object) -> None:
    metric: PairedMetric = module.build()  # type: ignore[attr-defined]
    pairs = [(gaussian(64, 4, seed=2 * k, scale=0.8, shift=0.5), gaussian(64, 4, seed=2 * k + 1)) for k in range(50)]
    scores = [metric.score(*pair, seed=k) for k, pair in enumerate(pairs)]
    observed = np.std([score.value for score in scores], ddof=1)
    predicted = np.sqrt(np.mean([score.error**2 for score in scores]))
    assert 0.7 < predicted / observed < 1.5


def test_groups_are_left_out_together() -> None:
    block_arguments: list[np.ndarray] = []

    def spy(fake: np.ndarray, real: np.ndarray, k: int, fake_blocks: np.ndarray, real_blocks: np.ndarray) -> Influence:
        block_arguments.extend([fake_blocks, real_blocks])
        return precision_of(fake, real, k, fake_blocks, real_blocks)

    fake, real = gaussian(120, 3, seed=1), gaussian(160, 3, seed=2)
    groups = Groups(np.arange(120) % 30, np.arange(160) % 40)
    score = NeighbourMetric("spy", "Spy", spy, 3).score(fake, real, groups=groups)
    for blocks, clusters, count in ((block_arguments[0], groups.fake, 30), (block_arguments[1], groups.real, 32)):
        assert len(set(blocks.tolist())) == count
        assert all(len(set(blocks[clusters == cluster].tolist())) == 1 for cluster in range(30))
    assert score.error == spy(fake, real, 3, *block_arguments[:2]).error


def test_groups_that_leave_too_few_neighbours_are_refused() -> None:
    groups = Groups(np.arange(20), np.arange(20) // 17)
    with pytest.raises(UserError, match=r"k = 5: fewer than 5 of 20 clips"):
        density.build().score(gaussian(20, 3, seed=1), gaussian(20, 3, seed=2), groups=groups)


def test_zero_neighbours_are_refused() -> None:
    with pytest.raises(UserError, match="k = 0"):
        recall.build(k=0)
