"""Features -> scores: one score for each draw of real clips, averaged."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vfbench.errors import UserError
from vfbench.interfaces import Groups, Metric, Score
from vfbench.pipeline.features import RealFeatures, group_numbers
from vfbench.protocol.protocol import Protocol
from vfbench.report.result_parts import ScoreRecord


def scores(
    protocol: Protocol,
    metrics: Mapping[str, Metric],
    fake: Mapping[str, Tensor],
    reals: Sequence[RealFeatures],
    sources: Sequence[Hashable],
) -> dict[str, ScoreRecord]:
    """Score of every metric, averaged over the draws of real clips.

    `fake` holds the features of all generated clips, `n_fake` for each draw, one draw after the other. `sources` names
    for each the real clip that its prompt was taken from: clips of one source are not independent.
    """
    groups = group_numbers(sources)
    records = {}
    for name, metric in metrics.items():
        source, per_draw = protocol.measures[name].source, []
        for draw, real in enumerate(reals):
            part = slice(draw * protocol.n_fake, (draw + 1) * protocol.n_fake)
            per_draw.append(
                metric.score(
                    fake[source][part].numpy(),
                    real.clips[source].numpy(),
                    holdout=real.holdout[source].numpy() if real.holdout else None,
                    groups=Groups(group_numbers(groups[part].tolist()), real.groups),
                    seed=protocol.selection_seed + draw,
                )
            )
        records[name] = score_record(metric, mean_score(per_draw))
    return records


def scored_tensors(
    fake: Mapping[str, Tensor], reals: Sequence[RealFeatures], sources: Sequence[Hashable]
) -> dict[str, Tensor]:
    """Everything that scores are computed from, as named tensors, to compare two runs or to check a number.

    `fake.SOURCE` and `fake.groups` for the generated clips, `real.DRAW.SOURCE` and `real.DRAW.groups` for the real
    ones; equal numbers in `groups` stand for one source.
    """
    tensors = {f"fake.{source}": values for source, values in fake.items()}
    tensors["fake.groups"] = torch.from_numpy(group_numbers(sources))
    for draw, real in enumerate(reals):
        tensors |= {f"real.{draw}.{source}": values for source, values in real.clips.items()}
        tensors[f"real.{draw}.groups"] = torch.from_numpy(real.groups)
    return tensors


def mean_score(per_draw: Sequence[Score]) -> Score:
    """Mean of the scores of several draws.

    The draws share real clips, so the error is that of one draw (the root of the mean square): too large where they
    share none, never too small.
    """
    if len(per_draw) == 1:
        return per_draw[0]
    values = np.array([score.value for score in per_draw])
    notes = dict.fromkeys(score.note for score in per_draw)
    summary = f"mean of {len(per_draw)} draws, standard deviation {values.std(ddof=1):.4g}"
    limits = [score.limit for score in per_draw if score.limit is not None]
    all_limits = len(limits) == len(per_draw)
    return replace(
        per_draw[0],
        value=float(values.mean()),
        low=float(np.mean([score.low for score in per_draw])),
        high=float(np.mean([score.high for score in per_draw])),
        floor=float(np.mean([score.floor for score in per_draw])),
        note="; ".join(filter(None, [summary, *notes])),
        error=math.sqrt(np.mean([score.error**2 for score in per_draw])),
        limit=float(np.mean(limits)) if all_limits else None,
        limit_error=math.sqrt(np.mean([(score.limit_error or 0.0) ** 2 for score in per_draw])) if all_limits else None,
        slope=float(np.mean([score.slope or 0.0 for score in per_draw])) if all_limits else None,
    )


def score_record(metric: Metric, score: Score) -> ScoreRecord:
    """The record of a score; raises `UserError` as `require_finite`."""
    return ScoreRecord.of(metric, require_finite(metric, score))


def require_finite(metric: Metric, score: Score) -> Score:
    """Return the score; raise `UserError` where its value is not finite, or an interval or a limit is infinite."""
    interval = (score.low, score.high, score.error, score.limit or 0.0, score.limit_error or 0.0)
    if not math.isfinite(score.value) or any(math.isinf(bound) for bound in interval):
        raise UserError(
            f"{metric.title} is {score.value} in {score.low}..{score.high}: the features are too large to compute "
            "with, or broken; scale or extract them again"
        )
    return score
