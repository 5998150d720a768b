"""The plan of a score: clips or features of both sides found, and everything loaded and checked."""

from __future__ import annotations

from vfbench.clips import detect
from vfbench.scoring import clips, given_features
from vfbench.scoring.job import ScorePlan
from vfbench.scoring.options import ScoreOptions


def plan(options: ScoreOptions) -> ScorePlan:
    """Find the clips or features of both sides, and load and check everything that scoring them needs.

    Raises `UserError` where a side does not fit the protocol or the other side, or is too small, and `MissingData`
    where files are missing or cannot be read.
    """
    fake = detect(options.fake, listing=options.listing)
    return given_features.plan(options, fake) if fake.kind == "features" else clips.plan(options, fake)
