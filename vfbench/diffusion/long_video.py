"""Clips longer than a model was trained for: windows of the trained length that share their base noise.

The paper makes 512 frames so (VideoFusion, arXiv 2303.08320, its discussion): one b, fresh r for each window. Window w
of a long clip is the clip of a request of its own, with the seed below and the long clip's base, so without overlap a
long clip is such clips one after another, whatever the solver.

Neighbours may overlap: the frames that they share have one noise, and at every step the mean of what both windows say
of them, weighed by a ramp from one to the other. A step is linear in x0 and eps, so this is the mean of both steps, as
in MultiDiffusion (Bar-Tal et al., arXiv 2302.08113), here along time. Dynamic thresholding looks at each window by
itself, so that the frames that two windows share may be scaled otherwise in one than in the other before the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vfbench.diffusion.priors import Prior, Sharing, per_clip
from vfbench.diffusion.schedule import Prediction
from vfbench.diffusion.solvers import Denoiser
from vfbench.errors import UserError
from vfbench.interfaces import ClipShape, Request, derive_seed

LONGEST = 10_000  # frames: twenty times the paper's
NOT_SHARED = (
    "no noise is common to all its frames; choose a model with such: videofusion with lam above 0, or pyoco with mixed "
    "noise"
)


def sharing(prior: Prior, what: str) -> Sharing:
    """The prior, if the frames of a clip share some of its noise; else a `UserError` naming `what` is not to be had."""
    if isinstance(prior, Sharing) and prior.shares:
        return prior
    raise UserError(f"{what} of this model: {NOT_SHARED}")


@dataclass(frozen=True)
class LongVideoPlan:
    """How `frames` frames are made of windows of `length`, each of which begins with the last `overlap` of the one
    before it; the last window may reach beyond the frames asked for."""

    length: int
    frames: int
    overlap: int = 0

    @classmethod
    def of(cls, prior: Prior, length: int, frames: int | None, overlap: int) -> LongVideoPlan:
        """The windows of a clip of a model trained for `length` frames; None is that length.

        Raises `UserError` for fewer frames, an overlap of more than half a window, and what the prior cannot do.
        """
        frames = length if frames is None else frames
        if frames < length:
            raise UserError(f"frames {frames}: this model makes clips of {length} frames or longer")
        if frames > LONGEST:
            raise UserError(f"frames {frames}: a clip has to fit into the memory; up to {LONGEST:,} are made")
        if frames == length and overlap:
            raise UserError(f"overlap {overlap}: a clip of {length} frames is a single window; ask for more frames")
        if frames > length:
            _check_overlap(sharing(prior, f"frames {frames}"), length, overlap)
        return cls(length, frames, overlap)

    @property
    def window_starts(self) -> range:
        """The first frame of each window."""
        step = self.length - self.overlap
        return range(0, self.frames - self.overlap, step)

    def noise(
        self, prior: Prior, shape: ClipShape, requests: Sequence[Request], device: torch.device
    ) -> Callable[[], Tensor]:
        """Draws the noise of all windows, (B, T', 3, H, W), a new one at each call; `shape` is that of a window.

        Raises `UserError` for a base of its own where the model's frames share none.
        """
        own = [per_clip([_seed(request, w) for request in requests], device) for w in range(len(self.window_starts))]
        if len(own) == 1 and all(request.base is None for request in requests):
            return lambda: prior.noise(own[0], shape)
        divided = sharing(prior, "the base noise of another clip for one")
        # Whole noise is drawn from each seed, and half of it used: b and r are then those of the clip with that seed.
        shared = per_clip([request.base_seed for request in requests], device)

        def draw() -> Tensor:
            base, _ = divided.parts(shared, shape)
            first, *others = (divided.combine(base, divided.parts(normal, shape)[1]) for normal in own)
            return torch.cat([first, *(noise[:, self.overlap :] for noise in others)], dim=1)

        return draw

    def denoiser(self, denoise: Denoiser) -> Denoiser:
        """What a denoiser of one window says of all of them, one after another: memory is that of a short clip."""
        if len(self.window_starts) == 1:
            return denoise

        def predict(z: Tensor, t: int) -> Prediction:
            x0, eps = torch.zeros_like(z), torch.zeros_like(z)
            for start in self.window_starts:
                frames, weights = slice(start, start + self.length), self.weights(start).to(z)
                found = denoise(z[:, frames], t)
                x0[:, frames] += weights * found.x0
                eps[:, frames] += weights * found.eps
            return Prediction(x0, eps)

        return predict

    def weights(self, start: int) -> Tensor:
        """What each frame of the window that begins at `start` counts, (T, 1, 1, 1): in all windows together 1."""
        found = torch.ones(self.length, dtype=torch.float64)
        ramp = torch.arange(1, self.overlap + 1, dtype=torch.float64) / (self.overlap + 1)
        if start > 0:
            found[: self.overlap] = ramp
        if start < self.window_starts[-1]:
            found[self.length - self.overlap :] = 1 - ramp
        return found.view(-1, 1, 1, 1)


def _seed(request: Request, window: int) -> int:
    return derive_seed(request.seed, window, "window") if window else request.seed


def _check_overlap(prior: Sharing, length: int, overlap: int) -> None:
    if not 0 <= overlap <= length // 2:
        raise UserError(f"overlap {overlap}: windows of {length} frames may share 0 to {length // 2}")
    if not prior.joins(overlap):
        possible = ", ".join(str(one) for one in range(length // 2 + 1) if prior.joins(one))
        raise UserError(
            f"overlap {overlap}: frames that two windows share must have the same lambda in both, and the base frame "
            f"is of one alone; for this model choose of {possible}"
        )
