"""Score what others made: clips or features in a folder, by the rules of any protocol.

    options -> look -> Scoring: what was found, checked before any network runs -> score -> result

The result is that of a run, with clips instead of a model: it stands in the same tables where the protocol id is equal.
"""

from __future__ import annotations

from vfbench.clips import detect
from vfbench.scoring import clips, given_features
from vfbench.scoring.job import ScoreOptions, ScorePlan, score

__all__ = ["ScoreOptions", "ScorePlan", "look", "score"]


def look(options: ScoreOptions) -> ScorePlan:
    """Find the clips or features of both sides, and load and check all that scoring them needs.

    Raises `UserError` for what does not fit the protocol or the other side, or is too little, and `MissingData` for
    what is not here or cannot be read.
    """
    fake = detect(options.fake, listing=options.listing)
    return given_features.look(options, fake) if fake.kind == "features" else clips.look(options, fake)
