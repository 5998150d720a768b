"""IS: the Inception Score of videos."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float
from scipy.special import entr, log_softmax

from vfbench.errors import UserError
from vfbench.interfaces import Better, Metric, Score
from vfbench.metrics._bootstrap import SHUFFLES, Statistic, checked, checked_pair, interval, note

HIGHER: Better = "higher"


def inception_score(logits: Float[np.ndarray, "n classes"], *, splits: int = 1) -> float:
    """exp(mean KL(p(y|x) || p(y))) of class logits (N, K), between 1 and K: Salimans et al., arXiv 1606.03498, sec. 4.

    The mean over `splits` consecutive parts of the rows as given, in float64; a caller whose clips are sorted shuffles
    them first. Parts of few clips score lower, so numbers of different splits or N do not compare. The logarithm of
    the probabilities is taken directly from the logits, which needs no epsilon (TGAN adds 1e-7, TGANv2 1e-20).

    Raises `UserError` for NaN or infinity, fewer than two rows, or fewer rows than splits.
    """
    check_splits(splits)
    log_p = log_softmax(checked(logits, "Inception Score: logits", least=max(2, splits)), axis=1)
    return float(np.mean([_exp_divergence(part) for part in np.array_split(log_p, splits)]))


def _exp_divergence(log_p: Float[np.ndarray, "n classes"]) -> float:
    """exp of the entropy of the mean prediction less the mean entropy of the predictions."""
    p = np.exp(log_p)
    return float(np.exp(entr(p.mean(axis=0)).sum() + (p * log_p).sum(axis=1).mean()))


def check_splits(splits: int) -> None:
    """Raise `UserError` unless `splits` is at least 1."""
    if splits < 1:
        raise UserError(f"splits = {splits}: give 1 (all clips together) or more, such as 10")


@dataclass(frozen=True)
class InceptionScore:
    """The Inception Score, from the logits of a video classifier (C3D on UCF101 in the field, as TGAN began it).

    `minimum` 64: the score cannot exceed N, and is biased downward until each class has several clips.
    """

    splits: int = 1
    name = "is"
    title = "IS"
    better = HIGHER
    output = "logits"
    minimum = 64

    def score(
        self,
        fake: Float[np.ndarray, "n _"],
        real: Float[np.ndarray, "m _"],
        *,
        spare: Float[np.ndarray, "k _"] | None = None,
        seed: int = 0,
    ) -> Score:
        """Score `fake` (N, K), shuffled by `seed` if split; `real` (M, K) are the logits of real clips.

        The value and its interval do not depend on `real`. `floor` is the score of real clips at the same N: what a
        perfect model reaches, thus a ceiling here. It calibrates the classifier, too.
        Raises `UserError` for NaN or infinity, different widths, or fewer rows than 2 or `splits`.
        """
        fake, real = checked_pair(fake, real, self.title)
        statistic = partial(inception_score, splits=self.splits)
        rng = np.random.default_rng(seed)
        fake = fake if self.splits == 1 else fake[rng.permutation(len(fake))]
        value = statistic(fake)
        low, high = interval(value, statistic, (fake,), seed=seed)
        n = min(len(real), len(fake))
        ceiling = _ceiling(statistic, real, n, rng)
        return Score(
            value, low, high, ceiling, len(real), len(fake), note(n == len(fake), n, "floor: real clips' own score")
        )


def _ceiling(statistic: Statistic, real: Float[np.ndarray, "m _"], n: int, rng: np.random.Generator) -> float:
    return float(np.mean([statistic(real[rng.permutation(len(real))[:n]]) for _ in range(SHUFFLES)]))


def build(*, splits: int = 1) -> Metric:
    """IS over all clips at once (`splits` 1, as TGANv2) or as the mean over parts (10 in StyleGAN-V)."""
    check_splits(splits)
    return InceptionScore(splits)
