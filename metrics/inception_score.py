"""IS: the Inception Score of videos."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from scipy.special import entr, log_softmax

from vfbench.errors import UserError
from vfbench.interfaces import Better, Comparison, Groups, PairedMetric, Score
from vfbench.metrics import _extrapolate
from vfbench.metrics._two_sample import (
    SHUFFLES,
    Labels,
    check_paired,
    checked,
    checked_pair,
    clusters,
    note,
    paired_remarks,
    remarks,
    shuffled,
)
from vfbench.metrics._uncertainty import around, bootstrap_error, compared

HIGHER: Better = "higher"
SOURCE = "c3d.logits"  # where the protocol does not say
A_CLASS = 2  # clips for each class in every quarter of the clips, for a limit


def inception_score(logits: Float[np.ndarray, "n classes"], *, splits: int = 1, eps: float = 0.0) -> float:
    """exp(mean KL(p(y|x) || p(y))) of class logits (N, K), between 1 and K: Salimans et al., arXiv 1606.03498, sec. 4.

    The mean of `split_scores`, in float64.
    """
    return float(split_scores(logits, splits=splits, eps=eps).mean())


def split_scores(
    logits: Float[np.ndarray, "n classes"], *, splits: int = 1, eps: float = 0.0
) -> Float[np.ndarray, " splits"]:
    """The Inception Score of each of `splits` consecutive parts of the rows as given; sorted clips are shuffled first.

    Part i ends at row (i + 1) N // splits, as in StyleGAN-V and torch-fidelity: where N is no multiple of `splits`, the
    longer parts stand among the shorter ones.
    Parts of few clips score lower, so numbers of different splits or N do not compare. Without `eps` the logarithm of
    the probabilities is taken directly from the logits; TGAN adds 1e-7 to the probabilities in both logarithms, TGANv2
    1e-20.

    Raises `UserError` for NaN or infinity, fewer than two rows, or fewer rows than splits.
    """
    _check_options(splits, eps)
    logits = checked(logits, "Inception Score: logits", least=max(2, splits))
    return _split_scores(log_softmax(logits, axis=1), splits, eps)


def _split_scores(log_p: Float[np.ndarray, "n classes"], splits: int, eps: float) -> Float[np.ndarray, " splits"]:
    edges = [part * len(log_p) // splits for part in range(splits + 1)]
    return np.array([_score(log_p[start:end], eps) for start, end in pairwise(edges)])


def _score(log_p: Float[np.ndarray, "n classes"], eps: float) -> float:
    """exp of the entropy of the mean prediction less the mean entropy of the predictions."""
    p = np.exp(log_p)
    mean = p.mean(axis=0)
    if eps:
        return float(np.exp((p * np.log(p + eps)).sum(axis=1).mean() - (mean * np.log(mean + eps)).sum()))
    return float(np.exp(entr(mean).sum() + (p * log_p).sum(axis=1).mean()))


def _check_options(splits: int, eps: float) -> None:
    """Raise `UserError` unless `splits` is at least 1 and `eps` a small number that is not negative."""
    if splits < 1:
        raise UserError(f"splits = {splits}: give 1 (all clips together) or more, such as 10")
    if not 0 <= eps < 1e-2:
        raise UserError(f"eps = {eps}: what is added to probabilities is 0 or little, such as 1e-7")


@dataclass(frozen=True)
class InceptionScore:
    """The Inception Score, from the logits of a video classifier (C3D on UCF101 in the field, as TGAN began it).

    `minimum` 64: the score cannot exceed N, and is biased downward until each class has several clips.
    """

    splits: int = 1
    eps: float = 0.0
    shuffle_seed: int | None = None
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
        holdout: Float[np.ndarray, "k _"] | None = None,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Score:
        """Score `fake` (N, K), shuffled if split; `real` (M, K) are the logits of real clips.

        The value, its bootstrap error and its limit, that of all clips in one split, do not depend on `real`. `floor`
        is the score of real clips at the same N: what a perfect model reaches, thus a ceiling here. It calibrates the
        classifier, too. The limit is given where each quarter of the clips has two for every class, N >= 8 K: with
        fewer, each clip pulls the mean prediction towards itself, and the error is too small (at N = 5 K by 6 %).
        Raises `UserError` for NaN or infinity, different widths, fewer rows than 2 or `splits`, or groups that do not
        fit the clips.
        """
        fake, real = self._checked(fake, real)
        labels = clusters(groups, len(fake), len(real), self.title)
        log_p, log_real = log_softmax(fake, axis=1), log_softmax(real, axis=1)
        parts = _split_scores(log_p[self._order(len(fake), seed)], self.splits, self.eps)
        value = float(parts.mean())
        error = bootstrap_error(self._statistic, (log_p,), labels[:1], seed=seed)
        limit = self._limit(log_p, labels[0], seed)
        n = min(len(real), len(fake))
        said = [f"standard deviation over {self.splits} splits {parts.std():.4g}"] if self.splits > 1 else []
        said += _extrapolate.missing(_least(fake), labels[0])
        return Score(
            value,
            *around(value, error),
            self._ceiling(log_real, n, labels[1], seed),
            len(real),
            len(fake),
            note(n == len(fake), n, "floor: real clips' own score", *said, *remarks(fake, real, *labels)),
            error,
            *((limit.value, limit.error(error), len(fake) * (value - limit.value)) if limit else ()),
        )

    def compare(
        self,
        a: Float[np.ndarray, "n _"],
        b: Float[np.ndarray, "l _"],
        real: Float[np.ndarray, "m _"],
        *,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Comparison:
        """IS of `a` minus IS of `b` (N, K), row i of both for the same request; the real clips do not matter.

        Tested by a paired bootstrap: what is drawn of a request is drawn of both.
        Raises `UserError` as `score` does, and where `a` and `b` have different shapes.
        """
        check_paired(a, b, self.title)
        (a, real), (b, _) = self._checked(a, real), self._checked(b, real)
        labels, order = clusters(groups, len(a), len(real), self.title), self._order(len(a), seed)

        def difference(both: Float[np.ndarray, "n 2 classes"]) -> float:
            return self._statistic(both[:, 0]) - self._statistic(both[:, 1])

        both = log_softmax(np.stack([a, b], axis=1), axis=2)
        error = bootstrap_error(difference, (both,), labels[:1], seed=seed)
        return compared(difference(both[order]), error, *paired_remarks(a, b, real, *labels))

    def _checked(
        self, fake: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"]
    ) -> tuple[Float[np.ndarray, "n classes"], Float[np.ndarray, "m classes"]]:
        least = max(2, self.splits)
        return checked_pair(fake, real, self.title, least=least, least_real=least)

    def _order(self, rows: int, seed: int) -> Int[np.ndarray, " _"]:
        """The rows in the order in which they are cut: shuffled where there is anything to cut."""
        if self.splits == 1:
            return np.arange(rows)
        if self.shuffle_seed is None:
            return np.random.default_rng(seed).permutation(rows)
        return np.random.RandomState(self.shuffle_seed).permutation(rows)

    def _statistic(self, log_p: Float[np.ndarray, "n classes"]) -> float:
        return float(_split_scores(log_p, self.splits, self.eps).mean())

    def _limit(self, log_p: Float[np.ndarray, "n classes"], labels: Labels, seed: int) -> _extrapolate.Limit | None:
        if _extrapolate.missing(_least(log_p), labels):
            return None
        whole = partial(_score, eps=self.eps)
        return _extrapolate.limit(whole(log_p), whole, (log_p,), (labels,), seed=seed)

    def _ceiling(self, log_real: Float[np.ndarray, "m classes"], n: int, labels: Labels, seed: int) -> float:
        """The mean score of n real clips over seeded shuffles."""
        rng = np.random.default_rng(seed)
        orders = [rng.permutation(shuffled(labels, rng)[:n]) for _ in range(SHUFFLES)]
        return float(np.mean([self._statistic(log_real[order]) for order in orders]))


def _least(logits: Float[np.ndarray, "n classes"]) -> int:
    """The clips that a limit takes."""
    return A_CLASS * max(_extrapolate.PARTS) * int(logits.shape[1])


def build(*, splits: int = 1, eps: float = 0.0, shuffle_seed: int | None = None) -> PairedMetric:
    """IS over all clips at once (`splits` 1, as TGAN and TGANv2) or as the mean over parts (10 in StyleGAN-V).

    `shuffle_seed` shuffles before the cut as numpy's legacy generator does (StyleGAN-V 42, torch-fidelity 2020);
    without it the seed of the score does. `eps`: see `split_scores`.
    """
    _check_options(splits, eps)
    return InceptionScore(splits, eps, shuffle_seed)
