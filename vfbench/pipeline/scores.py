"""Features -> scores. Real features go the same way as generated ones and are cached by what determines them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vfbench.errors import UserError
from vfbench.interfaces import Groups, Metric, Score
from vfbench.pipeline.features import Real, numbered
from vfbench.protocol.protocol import Protocol


def scores(
    protocol: Protocol,
    metrics: Mapping[str, Metric],
    fake: Mapping[str, Tensor],
    reals: Sequence[Real],
    sources: Sequence[Hashable],
) -> dict[str, dict[str, Any]]:
    """Every metric's score as it stands in results.json: one a draw of real clips, averaged.

    `fake` holds the features of as many clips for each draw, one after the other; `sources` says for each what it
    shares with others (the real clip that its prompt was taken from).
    """
    groups = numbered(sources)
    found = {}
    for name, metric in metrics.items():
        source, drawn = protocol.measures[name].source, []
        for draw, real in enumerate(reals):
            part = slice(draw * protocol.n_fake, (draw + 1) * protocol.n_fake)
            drawn.append(
                metric.score(
                    fake[source][part].numpy(),
                    real.clips[source].numpy(),
                    holdout=real.holdout[source].numpy() if real.holdout else None,
                    groups=Groups(numbered(groups[part].tolist()), real.groups),
                    seed=protocol.selection_seed + draw,
                )
            )
        found[name] = told(metric, averaged(drawn))
    return found


def made_of(fake: Mapping[str, Tensor], reals: Sequence[Real], sources: Sequence[Hashable]) -> dict[str, Tensor]:
    """All that scores are made of, as tensors with names, for whoever compares two runs or checks a number.

    `fake.SOURCE` and `fake.groups` for the generated clips, `real.DRAW.SOURCE` and `real.DRAW.groups` for the real
    ones; equal numbers in `groups` stand for one source.
    """
    found = {f"fake.{source}": values for source, values in fake.items()}
    found["fake.groups"] = torch.from_numpy(numbered(sources))
    for draw, real in enumerate(reals):
        found |= {f"real.{draw}.{source}": values for source, values in real.clips.items()}
        found[f"real.{draw}.groups"] = torch.from_numpy(real.groups)
    return found


def averaged(drawn: Sequence[Score]) -> Score:
    """The mean of the scores of several draws of clips.

    The draws share real clips, so the error is that of one draw (the root of the mean square): too large where they
    share none, never too small.
    """
    if len(drawn) == 1:
        return drawn[0]
    values = np.array([score.value for score in drawn])
    error = math.sqrt(np.mean([score.error**2 for score in drawn]))
    notes = dict.fromkeys(score.note for score in drawn)
    limits = [score.limit for score in drawn if score.limit is not None]
    whole = len(limits) == len(drawn)
    said = f"mean of {len(drawn)} draws, standard deviation {values.std(ddof=1):.4g}"
    return replace(
        drawn[0],
        value=float(values.mean()),
        low=float(np.mean([score.low for score in drawn])),
        high=float(np.mean([score.high for score in drawn])),
        floor=float(np.mean([score.floor for score in drawn])),
        note="; ".join(filter(None, [said, *notes])),
        error=error,
        limit=float(np.mean(limits)) if whole else None,
        limit_error=math.sqrt(np.mean([(score.limit_error or 0.0) ** 2 for score in drawn])) if whole else None,
        slope=float(np.mean([score.slope or 0.0 for score in drawn])) if whole else None,
    )


def told(metric: Metric, score: Score) -> dict[str, Any]:
    """A score as it stands in results.json; raises `UserError` where the value is no number."""
    if not math.isfinite(score.value):
        raise UserError(f"{metric.title} is {score.value}: the features are too large to compute with, or broken")
    return {**plain(score), "title": metric.title, "better": metric.better}


def plain(score: Score) -> dict[str, Any]:
    """A score for JSON, which knows no NaN and no infinity: a number that is none is null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(score).items()
    }
