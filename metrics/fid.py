"""Frame FID: the Frechet distance of the pictures that clips are made of, blind to motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vfbench.errors import UserError
from vfbench.interfaces import Better, Comparison, Groups, PairedMetric, Score
from vfbench.metrics._frechet import check_ddof, frechet_distance, frechet_influence
from vfbench.metrics._samples import (
    Labels,
    check_paired,
    checked_pair,
    clusters,
    enough,
    floor,
    note,
    paired_remarks,
    remarks,
)
from vfbench.metrics._uncertainty import Influence, around, compared, of_rows

LOWER: Better = "lower"
SOURCE = "inception.features"  # where the protocol does not say
WIDEST = 2048  # numbers of a frame: Inception's, the widest that any frame metric reads, and the only one of several


@dataclass(frozen=True)
class FID:
    """The Frechet distance of frame features: Heusel et al., arXiv 1706.08500, on one or more frames of each clip.

    A row holds the features of `frames` frames of one clip, side by side. The frames of all clips make the Gaussian,
    but they are not independent: what is counted, drawn and left out is always a clip with all its frames. So 2048
    clips of 16 frames are a sample of 2048, and N in a score is the number of clips.

    `minimum` 256: with fewer, even real clips score far from 0. FID falls as N grows; compare only equal N and equal
    `frames`, and read it against its floor. It has no limit at infinite N: with 2048 features that takes 8192 clips.
    """

    frames: int = 1
    ddof: int = 1
    name = "fid"
    title = "FID"
    better = LOWER
    output = "features"
    minimum = 256

    def score(
        self,
        fake: Float[np.ndarray, "n _"],
        real: Float[np.ndarray, "m _"],
        *,
        spare: Float[np.ndarray, "k _"] | None = None,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Score:
        """Score `fake` (N, frames * D) against `real` (M, frames * D): a value >= 0; `floor` is that of real clips.

        The standard error is that of the influence function, summed over each clip, or over each of the `groups`.
        Raises `UserError` for NaN or infinity, different widths, or widths that are not `frames` frames of Inception;
        for fewer than 2 generated or 4 real clips, or groups that do not fit the clips.
        """
        fake, real = checked_pair(fake, real, self.title, least_real=4)
        labels = clusters(groups, len(fake), len(real), self.title)
        found = self._influence(fake, real, labels)
        base, base_n = floor(self._distance, real, spare, len(fake), labels=labels[1], seed=seed)
        said = note(enough(spare, len(fake)), base_n, *self._warnings(fake, real), *remarks(fake, real, *labels))
        return Score(
            found.value, *around(found.value, found.error), base, len(real), len(fake), said, error=found.error
        )

    def compare(
        self,
        a: Float[np.ndarray, "n _"],
        b: Float[np.ndarray, "n _"],
        real: Float[np.ndarray, "m _"],
        *,
        groups: Groups | None = None,
        seed: int = 0,
    ) -> Comparison:
        """FID of `a` minus FID of `b` (N, frames * D), row i of both for the same request, against the same `real`.

        Tested by the differences of the influence of each request and of each real clip.
        Raises `UserError` as `score` does, and where `a` and `b` have different shapes.
        """
        check_paired(a, b, self.title)
        (a, real), (b, _) = checked_pair(a, real, self.title), checked_pair(b, real, self.title)
        labels = clusters(groups, len(a), len(real), self.title)
        difference = self._influence(a, real, labels) - self._influence(b, real, labels)
        said = [*self._warnings(a, real), *paired_remarks(a, b, real, *labels)]
        return compared(difference.value, difference.error, *said)

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

    def _warnings(self, fake: Float[np.ndarray, "n width"], real: Float[np.ndarray, "m width"]) -> list[str]:
        clips, dim = min(len(fake), len(real)), fake.shape[1] // self.frames
        said = [f"{self.frames} frames of each clip, N counts clips"] if self.frames > 1 else []
        if clips <= dim:
            said.append(f"N = {clips} clips for D = {dim}: strongly biased upward")
        return said


def build(*, frames: int = 1, ddof: int = 1) -> PairedMetric:
    """FID with covariances over N - 1 (`ddof` 1: pytorch-fid, torch-fidelity) or N (0: StyleGAN-V's fid50k_full).

    `frames` is how many frames of each clip the extractor gives: 1, but for `inception(frames='all', count=K)`.
    """
    check_ddof(ddof)
    if frames < 1:
        raise UserError(f"frames = {frames}: give the number of frames of each clip whose features the extractor gives")
    return FID(frames, ddof)
