"""CLIPSIM: how well a clip matches its caption."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vfbench.errors import UserError
from vfbench.interfaces import Better, Metric, Score
from vfbench.metrics._bootstrap import checked, interval, note

HIGHER: Better = "higher"
ROUNDING = 1e-3  # a cosine from half precision may pass 1 by this much


def clip_similarity(similarity: Float[np.ndarray, "n 1"]) -> float:
    """The mean of per-clip similarities (N, 1), each the mean over frames of the cosine of image and text; in -1..1.

    SIM of GODIVA, arXiv 2104.14806; not clipped at 0, without CLIP's temperature, and not times 100.
    """
    return float(similarity.mean())


def cosines(values: Float[np.ndarray, "n _"], place: str) -> Float[np.ndarray, "n 1"]:
    """`values` checked; raises `UserError` naming `place` unless they are finite cosines (N, 1), N at least 2."""
    values = checked(values, place)
    if values.shape[1] != 1:
        raise UserError(f"{place} have {values.shape[1]} columns: give one similarity per clip, its mean over frames")
    extreme = float(np.abs(values).max())
    if extreme > 1.0 + ROUNDING:
        raise UserError(f"{place} reach {extreme:g}, but a cosine lies in -1..1: divide by 100 or the logit scale")
    return values


@dataclass(frozen=True)
class ClipSim:
    """CLIPSIM: the mean cosine of CLIP image and text embeddings over frames and clips.

    Values of different CLIP models do not compare. `minimum` 16: a mean of cosines is unbiased at any N, and
    16 clips are the fewest whose standard error can be believed.
    """

    name = "clipsim"
    title = "CLIPSIM"
    better = HIGHER
    output = "similarity"
    minimum = 16

    def score(
        self,
        fake: Float[np.ndarray, "n _"],
        real: Float[np.ndarray, "m _"],
        *,
        spare: Float[np.ndarray, "k _"] | None = None,
        seed: int = 0,
    ) -> Score:
        """The mean of `fake` (N, 1), in -1..1; `real` (M, 1) are real clips with their own captions.

        `floor` is the mean of all real clips, which a perfect model reaches: a ceiling here. A mean does not depend on
        N, so no subset of the real clips is drawn.
        Raises `UserError` for NaN or infinity, fewer than two rows, several columns, or values that are no cosines.
        """
        fake = cosines(fake, "CLIPSIM: similarities of generated clips")
        real = cosines(real, "CLIPSIM: similarities of real clips")
        value = clip_similarity(fake)
        low, high = interval(value, clip_similarity, (fake,), seed=seed)
        said = note(True, len(fake), "floor: real clips' own score")
        return Score(value, low, high, clip_similarity(real), len(real), len(fake), said)


def build() -> Metric:
    """CLIPSIM; it has no options, the CLIP model is the extractor's choice."""
    return ClipSim()
