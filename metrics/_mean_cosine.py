"""Mean of one cosine per clip as a metric: score, interval, value of the real clips, and paired test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vfbench.errors import UserError
from vfbench.interfaces import Better, Comparison, Groups, Score
from vfbench.metrics._two_sample import (
    check_paired,
    cluster_labels,
    join_notes,
    paired_sample_notes,
    sample_notes,
    validate,
)
from vfbench.metrics._uncertainty import bootstrap_error, comparison, interval_95

HIGHER: Better = "higher"
TOLERANCE = 1e-3  # a half-precision cosine may exceed 1 by this much


def mean(cosines: Float[np.ndarray, "n 1"]) -> float:
    """Mean over clips, in -1..1."""
    return float(cosines.mean())


@dataclass(frozen=True)
class MeanCosine:
    """Mean of the extractor output `output` over clips; higher is better.

    A mean of cosines is unbiased at any N, so it equals its limit. `minimum` 16: fewer clips give no reliable standard
    error.
    """

    name: str
    title: str
    output: str
    better = HIGHER
    minimum = 16

    def score(
        self,
        fake: Float[np.ndarray, "n _"],
        real: Float[np.ndarray, "m _"],
        *,
        holdout: Float[np.ndarray, "k _"] | None = None,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Score:
        """Mean of `fake` (N, 1), in -1..1; `floor` is the mean of all `real` (M, 1).

        The standard error comes from a bootstrap. `holdout` is unused, since a mean does not depend on N.
        Raises `UserError` for NaN or infinity, fewer than two rows, several columns, values outside -1..1, or groups
        that do not fit the clips.
        """
        fake, real = self._validate(fake, "generated"), self._validate(real, "real")
        labels = cluster_labels(groups, len(fake), len(real), self.title)
        value, reference = mean(fake), mean(real)
        error = bootstrap_error(mean, (fake,), labels[:1], seed=seed)
        notes = join_notes(True, len(fake), "floor: real clips' own score", *sample_notes(fake, real, *labels))
        interval = interval_95(value, error)
        return Score(value, *interval, reference, len(real), len(fake), notes, error, value, error, slope=0.0)

    def compare(
        self,
        a: Float[np.ndarray, "n _"],
        b: Float[np.ndarray, "l _"],
        real: Float[np.ndarray, "m _"],
        *,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Comparison:
        """Score of `a` minus score of `b` (N, 1); `real` has no effect.

        Row i of `a` and row i of `b` answer one request.

        The test is a paired bootstrap of the differences.
        Raises `UserError` as `score` does, and if `a` and `b` have different shapes.
        """
        check_paired(a, b, self.title)
        a, b, real = self._validate(a, "generated"), self._validate(b, "generated"), self._validate(real, "real")
        difference = a - b
        labels = cluster_labels(groups, len(a), len(real), self.title)
        error = bootstrap_error(mean, (difference,), labels[:1], seed=seed)
        return comparison(mean(difference), error, *paired_sample_notes(a, b, real, *labels))

    def _validate(self, values: Float[np.ndarray, "n _"], kind: str) -> Float[np.ndarray, "n 1"]:
        context = f"{self.title}: values of {kind} clips"
        values = validate(values, context)
        if values.shape[1] != 1:
            raise UserError(
                f"{context} have {values.shape[1]} columns: give one {self.output} per clip, its mean over frames"
            )
        extreme = float(np.abs(values).max())
        if extreme > 1.0 + TOLERANCE:
            raise UserError(f"{context} reach {extreme:g}, outside -1..1: divide by 100 or by the logit scale")
        return values
