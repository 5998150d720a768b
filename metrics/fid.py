"""Frame FID: the Frechet distance of the pictures that clips are made of, blind to motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vfbench.errors import UserError
from vfbench.interfaces import PairedMetric
from vfbench.metrics._frechet import check_ddof, frechet_distance, frechet_influence
from vfbench.metrics._frechet_metric import FrechetMetric
from vfbench.metrics._two_sample import Labels
from vfbench.metrics._uncertainty import Influence, of_rows

SOURCE = "inception.features"  # where the protocol does not say
WIDEST = 2048  # numbers of a frame: Inception's, the widest that any frame metric reads, and the only one of several


@dataclass(frozen=True)
class FID(FrechetMetric):
    """The Frechet distance of frame features: Heusel et al., arXiv 1706.08500, on one or more frames of each clip.

    A row holds the features of `frames` frames of one clip, side by side. The frames of all clips make the Gaussian,
    but they are not independent: what is counted, drawn and left out is always a clip with all its frames. So 2048
    clips of 16 frames are a sample of 2048, and N in a score is the number of clips.

    `minimum` 256: with fewer, even real clips score far from 0. FID falls as N grows; compare only equal N and equal
    `frames`, and read it against its floor. It has no limit at infinite N: with 2048 features that takes 8192 clips.
    """

    name: str = "fid"
    title: str = "FID"
    frames: int = 1
    minimum = 256
    extrapolates = False

    def _influence(
        self, fake: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"], labels: tuple[Labels, Labels]
    ) -> Influence:
        of_frames = (np.repeat(each, self.frames) for each in labels)
        shown = self._apart(fake), self._apart(real)
        return of_rows(self._distance(fake, real), *frechet_influence(*shown, ddof=self.ddof), *of_frames)

    def _distance(self, fake: Float[np.ndarray, "n _"], real: Float[np.ndarray, "m _"]) -> float:
        return frechet_distance(self._apart(fake), self._apart(real), ddof=self.ddof)

    def _apart(self, clips: Float[np.ndarray, "n width"]) -> Float[np.ndarray, "rows dim"]:
        """One row a frame, from one row a clip."""
        width = clips.shape[1]
        fits = width <= WIDEST if self.frames == 1 else width == self.frames * WIDEST  # else it would cut one frame up
        if not fits:
            raise UserError(
                f"{self.title}: {width} values per clip are not those of {self.frames} frames, {WIDEST} each: "
                "fid(frames=K) reads inception(frames='all', count=K), and fid the other choices of frames; "
                "for K frames add --extractor \"inception=inception(frames='all', count=K)\" to the command"
            )
        return clips.reshape(len(clips) * self.frames, width // self.frames)

    def _warnings(
        self, fake: Float[np.ndarray, "n width"], real: Float[np.ndarray, "m width"], labels: tuple[Labels, Labels]
    ) -> list[str]:
        clips, dim = min(len(fake), len(real)), fake.shape[1] // self.frames
        of_clips = [f"{self.frames} frames of each clip, N counts clips"] if self.frames > 1 else []
        biased = [f"N = {clips} clips for D = {dim}: strongly biased upward"] if clips <= dim else []
        return [*of_clips, *biased]


def build(*, frames: int = 1, ddof: int = 1) -> PairedMetric:
    """FID with covariances over N - 1 (`ddof` 1: pytorch-fid, torch-fidelity) or N (0: StyleGAN-V's fid50k_full).

    `frames` is how many frames of each clip the extractor gives: 1, but for `inception(frames='all', count=K)`.
    """
    check_ddof(ddof)
    if frames < 1:
        raise UserError(f"frames = {frames}: give the number of frames of each clip whose features the extractor gives")
    return FID(ddof=ddof, frames=frames)
