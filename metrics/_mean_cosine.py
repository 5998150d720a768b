"""A metric that is the mean of one cosine per clip: score, interval, the real clips' own value, and paired test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vfbench.errors import UserError
from vfbench.interfaces import Better, Comparison, Groups, Score
from vfbench.metrics._two_sample import check_paired, checked, clusters, note, paired_remarks, remarks
from vfbench.metrics._uncertainty import around, bootstrap_error, compared

HIGHER: Better = "higher"
ROUNDING = 1e-3  # a cosine from half precision may pass 1 by this much


def mean(cosines: Float[np.ndarray, "n 1"]) -> float:
    """The mean over clips, in -1..1."""
    return float(cosines.mean())


@dataclass(frozen=True)
class MeanCosine:
    """The mean of `output` over clips, higher being better.

    A mean of cosines is unbiased at any N, and so its own limit. `minimum` 16: the fewest clips whose standard error
    can be believed.
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
        """The mean of `fake` (N, 1), in -1..1; `floor` is that of all `real` (M, 1), whatever their number.

        The standard error is a bootstrap's. `holdout` is not needed: a mean does not depend on N.
        Raises `UserError` for NaN or infinity, fewer than two rows, several columns, values that are no cosines, or
        groups that do not fit the clips.
        """
        fake, real = self._checked(fake, "generated"), self._checked(real, "real")
        labels = clusters(groups, len(fake), len(real), self.title)
        value, reference = mean(fake), mean(real)
        error = bootstrap_error(mean, (fake,), labels[:1], seed=seed)
        said = note(True, len(fake), "floor: real clips' own score", *remarks(fake, real, *labels))
        interval = around(value, error)
        return Score(value, *interval, reference, len(real), len(fake), said, error, value, error, slope=0.0)

    def compare(
        self,
        a: Float[np.ndarray, "n _"],
        b: Float[np.ndarray, "l _"],
        real: Float[np.ndarray, "m _"],
        *,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Comparison:
        """The score of `a` minus that of `b` (N, 1), row i of both for the same request; `real` does not matter.

        Tested by a paired bootstrap, that of the differences.
        Raises `UserError` as `score` does, and where `a` and `b` have different shapes.
        """
        check_paired(a, b, self.title)
        a, b, real = self._checked(a, "generated"), self._checked(b, "generated"), self._checked(real, "real")
        difference = a - b
        labels = clusters(groups, len(a), len(real), self.title)
        error = bootstrap_error(mean, (difference,), labels[:1], seed=seed)
        return compared(mean(difference), error, *paired_remarks(a, b, real, *labels))

    def _checked(self, values: Float[np.ndarray, "n _"], kind: str) -> Float[np.ndarray, "n 1"]:
        place = f"{self.title}: values of {kind} clips"
        values = checked(values, place)
        if values.shape[1] != 1:
            raise UserError(
                f"{place} have {values.shape[1]} columns: give one {self.output} per clip, its mean over frames"
            )
        extreme = float(np.abs(values).max())
        if extreme > 1.0 + ROUNDING:
            raise UserError(f"{place} reach {extreme:g}, but a cosine lies in -1..1: divide by 100 or the logit scale")
        return values
