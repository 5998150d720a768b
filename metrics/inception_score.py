"""IS: Inception Score of videos."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Annotated

import numpy as np
from jaxtyping import Float, Int
from scipy.special import entr, log_softmax

from vfbench.errors import UserError
from vfbench.interfaces import Better, Comparison, Groups, PairedMetric, Score
from vfbench.metrics import _extrapolate
from vfbench.metrics._two_sample import (
    NUM_SHUFFLES,
    REAL_FLOOR,
    Labels,
    check_paired,
    cluster_labels,
    join_notes,
    paired_sample_notes,
    sample_notes,
    shuffle_clusters,
    validate,
    validate_pair,
)
from vfbench.metrics._uncertainty import bootstrap_error, comparison, interval_95

HIGHER: Better = "higher"
SOURCE = "c3d.logits"  # default, unless the protocol names another source
CLIPS_PER_CLASS = 2  # needed in every quarter of the clips to extrapolate


def inception_score(logits: Float[np.ndarray, "n classes"], *, splits: int = 1, eps: float = 0.0) -> float:
    """Inception Score exp(mean KL(p(y|x) || p(y))) of logits (N, K), in 1..K: Salimans et al., arXiv 1606.03498, s. 4.

    Mean of `split_scores`, in float64.
    """
    return float(split_scores(logits, splits=splits, eps=eps).mean())


def split_scores(
    logits: Float[np.ndarray, "n classes"], *, splits: int = 1, eps: float = 0.0
) -> Float[np.ndarray, " splits"]:
    """Inception Score of each of `splits` consecutive parts of the rows; shuffle sorted clips first.

    Part i ends at row (i + 1) N // splits, as in StyleGAN-V and torch-fidelity. Parts of few clips score lower, so
    scores with different `splits` or N are not comparable. Without `eps` the log-probabilities come directly from the
    logits; TGAN adds 1e-7 to the probabilities in both logarithms, TGANv2 1e-20.

    Raises `UserError` for NaN or infinity, fewer than two rows, or fewer rows than splits.
    """
    _check_options(splits, eps)
    logits = validate(logits, "Inception Score: logits", min_rows=max(2, splits))
    return _split_scores(log_softmax(logits, axis=1), splits, eps)


def _split_scores(log_p: Float[np.ndarray, "n classes"], splits: int, eps: float) -> Float[np.ndarray, " splits"]:
    edges = [part * len(log_p) // splits for part in range(splits + 1)]
    return np.array([_score(log_p[start:end], eps) for start, end in pairwise(edges)])


def _score(log_p: Float[np.ndarray, "n classes"], eps: float) -> float:
    """Score of log-probabilities: exp(entropy of the mean prediction - mean entropy of the predictions)."""
    p = np.exp(log_p)
    mean = p.mean(axis=0)
    if eps:
        return float(np.exp((p * np.log(p + eps)).sum(axis=1).mean() - (mean * np.log(mean + eps)).sum()))
    return float(np.exp(entr(mean).sum() + (p * log_p).sum(axis=1).mean()))


def _check_options(splits: int, eps: float) -> None:
    """Raise `UserError` unless `splits` >= 1 and 0 <= `eps` < 0.01."""
    if splits < 1:
        raise UserError(f"splits = {splits}: give 1 (all clips together) or more, such as 10")
    if not 0 <= eps < 1e-2:
        raise UserError(f"eps = {eps}: give 0 or a small number below 0.01, such as 1e-7")


@dataclass(frozen=True)
class InceptionScore:
    """Inception Score from the logits of a video classifier; the convention since TGAN is C3D on UCF101.

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

        Value, bootstrap error and limit do not depend on `real`; the limit is that of all clips in one split. `floor`
        is the score of real clips at the same N, the score of a perfect model, so an upper bound here. It also
        calibrates the classifier. The limit needs two clips per class in each quarter of the clips, N >= 8 K: with
        fewer, each clip biases the mean prediction, and the error is too small (by 6 % at N = 5 K).
        Raises `UserError` for NaN or infinity, different widths, fewer rows than 2 or `splits`, or groups that do not
        fit the clips.
        """
        fake, real = self._validate(fake, real)
        labels = cluster_labels(groups, len(fake), len(real), self.title)
        log_p, log_real = log_softmax(fake, axis=1), log_softmax(real, axis=1)
        parts = _split_scores(log_p[self._row_order(len(fake), seed)], self.splits, self.eps)
        value = float(parts.mean())
        error = bootstrap_error(self._statistic, (log_p,), labels[:1], seed=seed)
        limit = self._limit(log_p, labels[0], seed)
        n = min(len(real), len(fake))
        notes = [f"standard deviation over {self.splits} splits {parts.std():.4g}"] if self.splits > 1 else []
        notes += _extrapolate.no_limit_notes(_min_clips_for_limit(fake), labels[0])
        return Score(
            value,
            *interval_95(value, error),
            self._real_score(log_real, n, labels[1], seed),
            len(real),
            len(fake),
            join_notes(n == len(fake), n, REAL_FLOOR, *notes, *sample_notes(fake, real, *labels)),
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
        """IS of `a` minus IS of `b` (N, K); row i of `a` and row i of `b` answer one request, `real` has no effect.

        The test is a paired bootstrap, which resamples the requests of both models together.
        Raises `UserError` as `score` does, and if `a` and `b` have different shapes.
        """
        check_paired(a, b, self.title)
        (a, real), (b, _) = self._validate(a, real), self._validate(b, real)
        labels, order = cluster_labels(groups, len(a), len(real), self.title), self._row_order(len(a), seed)

        def difference(pairs: Float[np.ndarray, "n 2 classes"]) -> float:
            return self._statistic(pairs[:, 0]) - self._statistic(pairs[:, 1])

        pairs = log_softmax(np.stack([a, b], axis=1), axis=2)
        error = bootstrap_error(difference, (pairs,), labels[:1], seed=seed)
        return comparison(difference(pairs[order]), error, *paired_sample_notes(a, b, real, *labels))

    @property
    def fewest_clips(self) -> tuple[int, int]:
        """Smallest numbers of generated and real clips: one for each split, and two."""
        return max(2, self.splits), max(2, self.splits)

    def _validate(
        self, fake: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"]
    ) -> tuple[Float[np.ndarray, "n classes"], Float[np.ndarray, "m classes"]]:
        fakes, reals = self.fewest_clips
        return validate_pair(fake, real, self.title, min_rows=fakes, min_real=reals)

    def _row_order(self, rows: int, seed: int) -> Int[np.ndarray, " _"]:
        """Row order before splitting; shuffled if there is more than one split."""
        if self.splits == 1:
            return np.arange(rows)
        if self.shuffle_seed is None:
            return np.random.default_rng(seed).permutation(rows)
        return np.random.RandomState(self.shuffle_seed).permutation(rows)

    def _statistic(self, log_p: Float[np.ndarray, "n classes"]) -> float:
        splits = min(self.splits, len(log_p))  # a bootstrap of videos may draw fewer clips
        return float(_split_scores(log_p, splits, self.eps).mean())

    def _limit(self, log_p: Float[np.ndarray, "n classes"], labels: Labels, seed: int) -> _extrapolate.Limit | None:
        if _extrapolate.no_limit_notes(_min_clips_for_limit(log_p), labels):
            return None
        score = partial(_score, eps=self.eps)
        return _extrapolate.limit(score(log_p), score, (log_p,), (labels,), seed=seed)

    def _real_score(self, log_real: Float[np.ndarray, "m classes"], n: int, labels: Labels, seed: int) -> float:
        """Mean score of n real clips over seeded shuffles."""
        rng = np.random.default_rng(seed)
        orders = [rng.permutation(shuffle_clusters(labels, rng)[:n]) for _ in range(NUM_SHUFFLES)]
        return float(np.mean([self._statistic(log_real[order]) for order in orders]))


def _min_clips_for_limit(logits: Float[np.ndarray, "n classes"]) -> int:
    """Number of clips needed to extrapolate."""
    return CLIPS_PER_CLASS * max(_extrapolate.NUM_PARTS) * int(logits.shape[1])


def build(
    *,
    splits: Annotated[int, "Parts of the clips to average over; 1 is all clips."] = 1,
    eps: Annotated[float, "Number added to the probabilities in both logarithms."] = 0.0,
    shuffle_seed: Annotated[
        int | None, "Seed of the shuffle before splitting; the seed of the score by default."
    ] = None,
) -> PairedMetric:
    """IS over all clips at once (`splits` 1, as in TGAN and TGANv2) or as the mean over parts (10 in StyleGAN-V).

    `shuffle_seed` seeds numpy's legacy generator for the shuffle before splitting (StyleGAN-V 42, torch-fidelity 2020);
    by default the seed of `score` is used. `eps`: see `split_scores`.
    """
    _check_options(splits, eps)
    return InceptionScore(splits, eps, shuffle_seed)
