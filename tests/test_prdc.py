"""Precision, recall, density and coverage against a published implementation, by hand, and their jackknife."""

from __future__ import annotations

import numpy as np
import pytest
from samples import FAKE, REAL, gaussian

from vfbench.errors import UserError
from vfbench.interfaces import Groups, PairedMetric
from vfbench.metrics import coverage, density, precision, recall
from vfbench.metrics._prdc import coverage as covered
from vfbench.metrics._prdc import density as dense
from vfbench.metrics._prdc import precision as precise
from vfbench.metrics._prdc import recall as recalled
from vfbench.metrics._prdc_metric import Measure, NeighbourMetric
from vfbench.metrics._uncertainty import Influence, influence_from_jackknife

MEASURES = [precise, recalled, dense, covered]
# On a line: the real balls of k = 1 reach 1 around 0, 1 around 1 and 4 around 5.
LINE, POINTS = np.array([[0.0], [1], [5]]), np.array([[-0.5], [0.5], [8], [20]])


def value_of(measure: Measure, fake: np.ndarray, real: np.ndarray, k: int) -> float:
    return measure(fake, real, k, np.arange(len(fake)) % 2, np.arange(len(real)) % 2).value


def test_they_equal_torch_fidelity() -> None:  # its generated features are our REAL, its real ones our FAKE
    assert precision.build(k=3).score(REAL, FAKE).value == pytest.approx(0.2604166567325592, abs=1e-7)
    assert recall.build(k=3).score(REAL, FAKE).value == pytest.approx(0.9624999761581421, abs=1e-7)


@pytest.mark.parametrize(("measure", "expected"), [(precise, 3 / 4), (dense, 4 / 4), (covered, 3 / 3), (recalled, 1)])
def test_four_clips_by_hand(measure: Measure, expected: float) -> None:
    # -0.5 lies in one ball, 0.5 in two, 8 in one; the balls of the points themselves reach 1, 1, 7.5 and 12.
    real = np.concatenate([LINE, LINE + 100])  # a second set far away, so that leaving out leaves neighbours
    points = np.concatenate([POINTS, POINTS + 100])
    assert value_of(measure, points, real, 1) == pytest.approx(expected)


def by_definition(fake: np.ndarray, real: np.ndarray, k: int) -> dict[Measure, float]:
    def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        lengths: np.ndarray = np.linalg.norm(x[:, None] - y[None], axis=2)
        return lengths

    reach_real, reach_fake = (np.sort(distances(x, x), axis=1)[:, k] for x in (real, fake))
    across = distances(fake, real)
    inside = across <= reach_real
    return {
        precise: inside.any(axis=1).mean(),
        recalled: (reach_fake >= across.T).any(axis=1).mean(),
        dense: inside.sum(axis=1).mean() / k,
        covered: inside.any(axis=0).mean(),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("measure", MEASURES)
def test_they_are_what_the_papers_define(measure: Measure, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vfbench.metrics._prdc.CHUNK_ROWS", 7)
    fake, real = gaussian(30, 4, seed=1, scale=0.8, shift=0.4), gaussian(40, 4, seed=2)
    assert value_of(measure, fake, real, k) == pytest.approx(by_definition(fake, real, k)[measure])


@pytest.mark.parametrize("measure", MEASURES)
def test_jackknife_is_that_of_leaving_out_each_block(measure: Measure) -> None:
    fake, real = gaussian(20, 3, seed=3, scale=0.8), gaussian(24, 3, seed=4)
    fake_blocks, real_blocks = np.arange(20) // 4, np.arange(24) % 6
    left_fake = [by_definition(fake[fake_blocks != out], real, 2)[measure] for out in range(5)]
    left_real = [by_definition(fake, real[real_blocks != out], 2)[measure] for out in range(6)]
    found = measure(fake, real, 2, fake_blocks, real_blocks)
    expected = influence_from_jackknife(found.value, np.array(left_fake), np.array(left_real))
    np.testing.assert_allclose(found.fake, expected.fake, atol=1e-12)
    np.testing.assert_allclose(found.real, expected.real, atol=1e-12)


def test_they_tell_a_model_that_invents_from_one_that_forgets() -> None:
    real = np.concatenate([gaussian(64, 4, seed=1), gaussian(64, 4, seed=2, shift=9)])
    forgetful = gaussian(64, 4, seed=3)
    inventive = np.concatenate([gaussian(32, 4, seed=4), gaussian(32, 4, seed=5, shift=9), real[:64] - 30])
    assert value_of(precise, forgetful, real, 3) > 0.8
    assert value_of(recalled, forgetful, real, 3) < 0.55
    assert value_of(covered, forgetful, real, 3) < 0.55
    assert value_of(precise, inventive, real, 3) < 0.55
    assert value_of(covered, inventive, real, 3) > 0.6


def test_one_far_real_clip_carries_precision_but_not_density() -> None:
    real = np.concatenate([gaussian(60, 2, seed=1), [[1e3, 0]]])  # its ball reaches over everything
    fake = gaussian(60, 2, seed=2, shift=20)
    assert value_of(precise, fake, real, 3) == 1
    assert value_of(dense, fake, real, 3) == pytest.approx(1 / 3)


def test_clips_that_are_all_the_same_are_found_and_said() -> None:
    score = precision.build().score(np.ones((20, 3)), np.ones((30, 3)))
    assert score.value == 1
    assert "all 20 generated clips have the same values" in score.note


@pytest.mark.parametrize("module", [density, coverage])
def test_standard_error_is_the_spread_seen(module: object) -> None:
    metric: PairedMetric = module.build()  # type: ignore[attr-defined]
    pairs = [(gaussian(64, 4, seed=2 * k, scale=0.8, shift=0.5), gaussian(64, 4, seed=2 * k + 1)) for k in range(50)]
    scores = [metric.score(*pair, seed=k) for k, pair in enumerate(pairs)]
    seen = np.std([score.value for score in scores], ddof=1)
    predicted = np.sqrt(np.mean([score.error**2 for score in scores]))
    assert 0.7 < predicted / seen < 1.5


def test_a_group_is_left_out_as_a_whole() -> None:
    seen: list[np.ndarray] = []

    def spy(fake: np.ndarray, real: np.ndarray, k: int, fake_blocks: np.ndarray, real_blocks: np.ndarray) -> Influence:
        seen.extend([fake_blocks, real_blocks])
        return precise(fake, real, k, fake_blocks, real_blocks)

    fake, real = gaussian(120, 3, seed=1), gaussian(160, 3, seed=2)
    groups = Groups(np.arange(120) % 30, np.arange(160) % 40)
    score = NeighbourMetric("spy", "Spy", spy, 3).score(fake, real, groups=groups)
    for blocks, clusters, count in ((seen[0], groups.fake, 30), (seen[1], groups.real, 32)):
        assert len(set(blocks.tolist())) == count
        assert all(len(set(blocks[clusters == cluster].tolist())) == 1 for cluster in range(30))
    assert score.error == spy(fake, real, 3, *seen[:2]).error


def test_a_group_without_which_no_neighbours_are_left_is_refused() -> None:
    groups = Groups(np.arange(20), np.arange(20) // 17)
    with pytest.raises(UserError, match="k = 5: without the largest group fewer than 5 of 20 clips"):
        density.build().score(gaussian(20, 3, seed=1), gaussian(20, 3, seed=2), groups=groups)


def test_no_neighbours_are_refused() -> None:
    with pytest.raises(UserError, match="k = 0"):
        recall.build(k=0)
