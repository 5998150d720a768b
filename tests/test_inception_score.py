"""Tests of the Inception Score: published implementations, closed forms, error and limit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from samples import LOGITS, gaussian

from vfbench.errors import UserError
from vfbench.interfaces import Groups
from vfbench.metrics import inception_score
from vfbench.metrics.inception_score import inception_score as score_of_logits
from vfbench.metrics.inception_score import split_scores

# Golden values from the reference code of the named repositories (numpy 2.4.6).


@pytest.mark.parametrize(
    ("eps", "value"),
    [
        pytest.param(1e-7, 2.1953257541884135, id="TGAN eps 1e-7"),
        pytest.param(1e-20, 2.195325754206357, id="TGANv2 eps 1e-20"),
        pytest.param(0.0, 2.195325754206357, id="no eps"),
    ],
)
def test_the_score_equals_tgan(eps: float, value: float) -> None:
    assert score_of_logits(LOGITS, eps=eps) == pytest.approx(value, rel=1e-12)
    assert inception_score.build(eps=eps).score(LOGITS, LOGITS).value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("seed", "value", "deviation"),
    [
        pytest.param(42, 1.9839910365765685, 0.16278027971260614, id="StyleGAN-V"),
        pytest.param(2020, 1.9923230526656923, 0.18103656052716138, id="torch-fidelity"),
    ],
)
def test_ten_splits_of_shuffled_clips_equal_published_implementations(
    seed: int, value: float, deviation: float
) -> None:
    score = inception_score.build(splits=10, shuffle_seed=seed).score(LOGITS, LOGITS, seed=7)
    assert score.value == pytest.approx(value, rel=1e-9)
    assert f"10 splits {deviation:.4g}" in score.note
    order = np.random.RandomState(seed).permutation(100)
    assert split_scores(LOGITS[order], splits=10).std() == pytest.approx(deviation, rel=1e-9)


def test_splits_of_unequal_size_equal_stylegan_v_and_torch_fidelity() -> None:
    """Split i of 13 rows in five ends at 13 (i + 1) // 5; `numpy.array_split` differs."""
    ends = [0, 2, 5, 7, 10, 13]
    parts = [score_of_logits(LOGITS[start:end]) for start, end in pairwise(ends)]
    np.testing.assert_allclose(split_scores(LOGITS[:13], splits=5), parts, rtol=1e-12)


# Closed forms.


def test_confident_balanced_and_constant_predictions() -> None:
    one_hot = 1000.0 * np.tile(np.eye(7), (4, 1))
    assert score_of_logits(one_hot) == pytest.approx(7)
    assert score_of_logits(one_hot, splits=4) == pytest.approx(7)
    assert score_of_logits(np.tile(LOGITS[:1], (10, 1))) == pytest.approx(1)
    assert score_of_logits(LOGITS - 1e4) == pytest.approx(score_of_logits(LOGITS))  # invariant to shifts


# Scores.


def test_the_error_is_the_spread_of_repeated_samples() -> None:
    scores = [score_of_logits(gaussian(64, 5, seed=k, scale=2.0)) for k in range(200)]
    errors = [
        inception_score.build().score(gaussian(64, 5, seed=k, scale=2.0), LOGITS[:, :5], seed=k).error for k in range(8)
    ]
    assert 0.8 < np.mean(errors) / np.std(scores, ddof=1) < 1.2


def test_the_limit_reduces_the_bias_of_few_clips() -> None:
    truth = score_of_logits(gaussian(200_000, 5, seed=0, scale=2.0))
    scores = [
        inception_score.build().score(gaussian(64, 5, seed=k, scale=2.0), LOGITS[:, :5], seed=k) for k in range(1, 13)
    ]
    bias = np.mean([score.value for score in scores]) - truth
    limit_bias = np.mean([score.limit for score in scores if score.limit is not None]) - truth
    assert bias < 0
    assert abs(limit_bias) < 0.5 * abs(bias)


def test_the_limit_does_not_depend_on_the_splits() -> None:
    unsplit, split = (inception_score.build(splits=splits).score(LOGITS, LOGITS) for splits in (1, 4))
    assert split.limit == unsplit.limit
    assert split.value < unsplit.value
    assert split.limit is not None
    assert split.slope == pytest.approx(100 * (split.value - split.limit))


def test_too_few_clips_for_the_classes_have_no_limit() -> None:
    score = inception_score.build().score(LOGITS[:55], LOGITS)
    assert score.limit is None
    assert "N >= 56" in score.note
    assert inception_score.build().score(LOGITS[:56], LOGITS).limit is not None


def test_copies_of_one_prompt_count_as_one_clip() -> None:
    repeated = np.repeat(LOGITS, 4, axis=0)
    groups = Groups(np.repeat(np.arange(100), 4), np.arange(100))
    single = inception_score.build().score(LOGITS, LOGITS)
    grouped = inception_score.build().score(repeated, LOGITS, groups=groups)
    assert grouped.value == pytest.approx(single.value)
    assert grouped.error == pytest.approx(single.error, rel=0.2)  # 200 bootstrap samples each
    assert grouped.error > 1.6 * inception_score.build().score(repeated, LOGITS).error


def test_few_clips_of_large_groups_have_an_interval() -> None:
    groups = Groups(np.repeat([0, 1], [60, 4]), np.arange(64))  # a bootstrap may draw 8 clips, for 10 splits
    score = inception_score.build(splits=10).score(LOGITS[:64], LOGITS[:64], groups=groups)
    assert score.low <= score.value <= score.high


@pytest.mark.parametrize(
    ("options", "message"),
    [({"splits": 0}, "splits = 0"), ({"eps": -1e-7}, "eps = -1e-07"), ({"eps": 0.1}, "eps = 0.1")],
)
def test_invalid_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        inception_score.build(**options)  # type: ignore[arg-type]


def test_more_splits_than_clips_are_refused() -> None:
    with pytest.raises(UserError, match=r"100 rows.* 101"):
        score_of_logits(LOGITS, splits=101)
