"""Frame FID: Frechet distance of single frames, insensitive to motion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float

from vfbench.errors import UserError
from vfbench.interfaces import PairedMetric
from vfbench.metrics._frechet import Ddof, check_ddof, frechet_distance, frechet_influence
from vfbench.metrics._frechet_metric import FrechetMetric
from vfbench.metrics._two_sample import Labels
from vfbench.metrics._uncertainty import Influence, influence_from_rows

SOURCE = "inception.features"  # default, unless the protocol names another source
FRAME_DIM = 2048  # features of a frame: those of Inception, also the maximum for one frame per clip


@dataclass(frozen=True)
class FID(FrechetMetric):
    """Frechet distance of frame features: Heusel et al., arXiv 1706.08500, on one or more frames of each clip.

    A row holds the features of `frames` frames of one clip, concatenated. The Gaussian is fitted to the frames of all
    clips, but these are not independent: counting and resampling treat a clip with all its frames as one unit. So 2048
    clips of 16 frames are a sample of 2048, and N in a score is the number of clips.

    `minimum` 256: with fewer clips even real ones score far from 0. FID falls as N grows: compare scores at equal N and
    equal `frames`, and against their floor. It has no limit at infinite N, which would need 8192 clips.
    """

    name: str = "fid"
    title: str = "FID"
    frames: int = 1
    minimum = 256
    extrapolates = False

    def _influence(
        self, fake: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"], labels: tuple[Labels, Labels]
    ) -> Influence:
        frame_labels = (np.repeat(each, self.frames) for each in labels)
        frame_features = self._split_frames(fake), self._split_frames(real)
        return influence_from_rows(
            self._distance(fake, real), *frechet_influence(*frame_features, ddof=self.ddof), *frame_labels
        )

    def _distance(self, fake: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"]) -> float:
        return frechet_distance(self._split_frames(fake), self._split_frames(real), ddof=self.ddof)

    def _split_frames(self, clips: Float[np.ndarray, "n width"]) -> Float[np.ndarray, "rows dim"]:
        """Reshape one row per clip to one row per frame; raises `UserError` if the width does not fit `frames`."""
        width = clips.shape[1]
        fits = width <= FRAME_DIM if self.frames == 1 else width == self.frames * FRAME_DIM
        if not fits:
            raise UserError(
                f"{self.title}: {width} values per clip are not those of {self.frames} frames, {FRAME_DIM} each: "
                "fid(frames=K) needs inception(frames='all', count=K), and fid any other choice of frames; "
                "for K frames add --extractor \"inception=inception(frames='all', count=K)\" to the command"
            )
        return clips.reshape(len(clips) * self.frames, width // self.frames)

    def _warnings(
        self, fake: Float[np.ndarray, "n width"], real: Float[np.ndarray, "m width"], labels: tuple[Labels, Labels]
    ) -> list[str]:
        clips, dim = min(len(fake), len(real)), fake.shape[1] // self.frames
        multi_frame = [f"{self.frames} frames of each clip, N counts clips"] if self.frames > 1 else []
        biased = [f"N = {clips} clips for D = {dim}: strongly biased upward"] if clips <= dim else []
        return [*multi_frame, *biased]


def build(*, frames: Annotated[int, "Frames per clip in the features."] = 1, ddof: Ddof = 1) -> PairedMetric:
    """FID with covariances divided by N - 1 (`ddof` 1: pytorch-fid, torch-fidelity) or N (0: StyleGAN-V's fid50k_full).

    `frames` is the number of frames per clip in the features: K for `inception(frames='all', count=K)`, else 1.
    """
    check_ddof(ddof)
    if frames < 1:
        raise UserError(f"frames = {frames}: give the number of frames per clip in the features, at least 1")
    return FID(ddof=ddof, frames=frames)
