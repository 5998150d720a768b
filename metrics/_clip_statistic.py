"""Statistics over clips that need no real clips, such as a mean: score, interval, paired test, value of real clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vfbench.errors import UserError
from vfbench.interfaces import Better, Comparison, Groups, Score
from vfbench.metrics._two_sample import (
    REAL_FLOOR,
    Labels,
    check_paired,
    cluster_labels,
    cluster_notes,
    join_notes,
    num_clusters,
    paired_sample_notes,
    sample_notes,
    validate,
)
from vfbench.metrics._uncertainty import bootstrap_error, comparison, interval_95, interval_of_share

TOLERANCE = 1e-3  # a half-precision cosine may exceed 1 by this much


def mean(values: Float[np.ndarray, "n columns"]) -> float:
    """Mean over clips and columns."""
    return float(values.mean())


def _share_notes(fake_labels: Labels, real_labels: Labels) -> list[str]:
    """Notes for a share of clips: constant values are none, for all clips may well be right."""
    return [*cluster_notes("generated clips", fake_labels), *cluster_notes("real clips", real_labels)]


@dataclass(frozen=True, kw_only=True)
class ClipStatistic:
    """A statistic of the extractor output `output` over clips, by default its mean; no real clips are needed.

    `output` has `columns` values per clip, from `lowest` to `highest`, and `column` selects one of them. A mean is
    unbiased at any N, so it equals its limit; another statistic has no limit here. `minimum` 16: fewer clips give no
    reliable standard error. With `is_share` the value is a share of clips, whose interval stays within 0..1. `chance`
    is the value of clips made at random, and `part_of` the metric that this one details
    (`vfbench.interfaces.PartMetric`).
    """

    name: str
    title: str
    output: str
    statistic: Callable[[Float[np.ndarray, "n columns"]], float] = mean
    columns: int = 1
    column: int | None = None
    lowest: float = -1.0
    highest: float = 1.0
    advice: str = "extract them again"  # for values out of range
    better: Better = "higher"
    minimum: int = 16
    is_share: bool = False
    chance: float | None = None
    part_of: str = ""

    def score(
        self,
        fake: Float[np.ndarray, "n _"],
        real: Float[np.ndarray, "m _"],
        *,
        holdout: Float[np.ndarray, "k _"] | None = None,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Score:
        """Statistic of `fake` (N, columns); `floor` is that of all `real` (M, columns).

        The standard error comes from a bootstrap. `holdout` is unused, since a mean does not depend on N.
        Raises `UserError` for NaN or infinity, fewer than two rows, another number of columns, values out of range, or
        groups that do not fit the clips.
        """
        fake, real = self._validate(fake, "generated"), self._validate(real, "real")
        labels = cluster_labels(groups, len(fake), len(real), self.title)
        value, reference = self.statistic(fake), self.statistic(real)
        error = bootstrap_error(self.statistic, (fake,), labels[:1], seed=seed)
        remarks = _share_notes(*labels) if self.is_share else sample_notes(fake, real, *labels)
        notes = join_notes(True, len(fake), REAL_FLOOR, *remarks)
        share = interval_of_share(value, error, num_clusters(labels[0])) if self.is_share else None
        limit = {"limit": value, "limit_error": error, "slope": 0.0} if self.statistic is mean else {}
        return Score(
            value,
            *(share or interval_95(value, error)),
            reference,
            len(real),
            len(fake),
            notes,
            error,
            **limit,
            chance=self.chance,
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
        """Score of `a` minus score of `b` (N, columns); `real` has no effect.

        Row i of `a` and row i of `b` answer one request.

        The test is a paired bootstrap, which resamples the requests of both models together.
        Raises `UserError` as `score` does, and if `a` and `b` have different shapes.
        """
        check_paired(a, b, self.title)
        a, b, real = self._validate(a, "generated"), self._validate(b, "generated"), self._validate(real, "real")
        labels = cluster_labels(groups, len(a), len(real), self.title)

        def difference(pairs: Float[np.ndarray, "n 2 columns"]) -> float:
            return self.statistic(pairs[:, 0]) - self.statistic(pairs[:, 1])

        pairs = np.stack([a, b], axis=1)
        error = bootstrap_error(difference, (pairs,), labels[:1], seed=seed)
        notes = _share_notes(*labels) if self.is_share else paired_sample_notes(a, b, real, *labels)
        return comparison(difference(pairs), error, *notes)

    def _validate(self, values: Float[np.ndarray, "n _"], kind: str) -> Float[np.ndarray, "n _"]:
        context = f"{self.title}: values of {kind} clips"
        values = validate(values, context)
        if values.shape[1] != self.columns:
            raise UserError(
                f"{context} have {values.shape[1]} columns: give {self.columns} per clip, the output {self.output}"
            )
        for extreme in (float(values.min()), float(values.max())):
            if not self.lowest - TOLERANCE <= extreme <= self.highest + TOLERANCE:
                raise UserError(
                    f"{context} reach {extreme:g}, outside {self.lowest:g}..{self.highest:g}: {self.advice}"
                )
        return values if self.column is None else values[:, self.column, None]


def mean_cosine(name: str, title: str, output: str) -> ClipStatistic:
    """Mean of one cosine per clip, the mean over its frames."""
    return ClipStatistic(name=name, title=title, output=output, advice="divide by 100 or by the logit scale")
