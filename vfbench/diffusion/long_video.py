"""Clips longer than a model's training length, sampled as windows of that length that share their base noise.

The paper makes 512 frames this way (VideoFusion, arXiv 2303.08320, discussion): one b, fresh r for each window. Each
window has the noise of a short clip with the seed of `_window_seed` and the long clip's base noise. Without overlap, a
long clip is a sequence of such short clips, whatever the solver.

Windows may overlap. Shared frames have one noise, and at every step the mean of both windows' predictions, weighted by
a ramp from one window to the other. A step is linear in x0 and eps, so this is the mean of both steps, as in
MultiDiffusion (Bar-Tal et al., arXiv 2302.08113), here along time. Dynamic thresholding looks at one window at a time,
so the two predictions for a shared frame may be scaled differently before the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vfbench.diffusion.priors import NoiseGenerator, NoisePrior, SharedNoisePrior, normal_per_clip
from vfbench.diffusion.schedule import Prediction
from vfbench.diffusion.solvers import Denoiser
from vfbench.errors import UserError
from vfbench.interfaces import ClipShape, Request, derive_seed
from vfbench.utils.device import DeviceConstant

MAX_FRAMES = 10_000  # twenty times the paper's 512
NO_SHARED_NOISE = (
    "its frames share no noise; choose a model whose frames do: videofusion with lam above 0, or pyoco with mixed noise"
)


def require_shared_noise(noise_prior: NoisePrior, feature: str) -> SharedNoisePrior:
    """`noise_prior`, if frames share noise under it; else raise `UserError` naming the `feature` that needs it."""
    if isinstance(noise_prior, SharedNoisePrior) and noise_prior.shares_noise:
        return noise_prior
    raise UserError(f"{feature}: not possible with this model, {NO_SHARED_NOISE}")


@dataclass(frozen=True)
class LongVideoPlan:
    """Split of `frames` frames into windows of `length`, each sharing its first `overlap` frames with the one before.

    The last window may reach beyond `frames`.
    """

    length: int
    frames: int
    overlap: int = 0

    @classmethod
    def of(cls, noise_prior: NoisePrior, length: int, frames: int | None, overlap: int) -> LongVideoPlan:
        """The windows of a clip of `frames` frames for a model trained on `length` frames; None is that length.

        Raises `UserError` for fewer frames, for an overlap of more than half a window, and for a noise prior without
        shared noise.
        """
        frames = length if frames is None else frames
        if frames < length:
            raise UserError(f"frames {frames}: this model makes clips of {length} frames or longer")
        if frames > MAX_FRAMES:
            raise UserError(f"frames {frames}: choose at most {MAX_FRAMES:,}, a clip must fit into memory")
        if frames == length and overlap:
            raise UserError(f"overlap {overlap}: a clip of {length} frames is a single window; ask for more frames")
        if frames > length:
            _check_overlap(require_shared_noise(noise_prior, f"frames {frames}"), length, overlap)
        return cls(length, frames, overlap)

    @property
    def window_starts(self) -> range:
        """The first frame of each window."""
        step = self.length - self.overlap
        return range(0, self.frames - self.overlap, step)

    def noise(
        self,
        noise_prior: NoisePrior,
        shape: ClipShape,
        requests: Sequence[Request],
        device: torch.device,
        generator: NoiseGenerator = "mt19937",
    ) -> Callable[[], Tensor]:
        """A function that draws the noise of all windows, (B, T', 3, H, W), afresh at each call.

        `shape` is that of a window. Raises `UserError` for a request with another clip's base noise where the frames of
        the model share none.
        """
        window_normals = [
            normal_per_clip([_window_seed(request, window) for request in requests], device, generator)
            for window in range(len(self.window_starts))
        ]
        if len(window_normals) == 1 and all(request.base is None for request in requests):
            return lambda: noise_prior.noise(window_normals[0], shape)
        shared_prior = require_shared_noise(noise_prior, "the base noise of another clip")
        # Each seed draws both b and r, and one of them is used: it is then that of the short clip with the same seed.
        base_normal = normal_per_clip([request.base_seed for request in requests], device, generator)

        def draw() -> Tensor:
            base, _ = shared_prior.draw_parts(base_normal, shape)
            first, *others = (
                shared_prior.combine(base, shared_prior.draw_parts(normal, shape)[1]) for normal in window_normals
            )
            return torch.cat([first, *(noise[:, self.overlap :] for noise in others)], dim=1)

        return draw

    def denoiser(self, denoise: Denoiser) -> Denoiser:
        """A denoiser of the whole clip that runs the `denoise` of one window at a time, in the memory of a window."""
        if len(self.window_starts) == 1:
            return denoise
        blends = {start: DeviceConstant(self.blend_weights(start).to) for start in self.window_starts}

        def predict(z: Tensor, t: int) -> Prediction:
            x0, eps = torch.zeros_like(z), torch.zeros_like(z)
            for start in self.window_starts:
                frames, weights = slice(start, start + self.length), blends[start].like(z)
                prediction = denoise(z[:, frames], t)
                x0[:, frames] += weights * prediction.x0
                eps[:, frames] += weights * prediction.eps
            return Prediction(x0, eps)

        return predict

    def blend_weights(self, start: int) -> Tensor:
        """The weight of each frame of the window at `start`, (T, 1, 1, 1); the weights of a frame sum to 1."""
        weights = torch.ones(self.length, dtype=torch.float64)
        ramp = torch.arange(1, self.overlap + 1, dtype=torch.float64) / (self.overlap + 1)
        if start > 0:
            weights[: self.overlap] = ramp
        if start < self.window_starts[-1]:
            weights[self.length - self.overlap :] = 1 - ramp
        return weights.view(-1, 1, 1, 1)


def _window_seed(request: Request, window: int) -> int:
    return derive_seed(request.seed, window, "window") if window else request.seed


def _check_overlap(noise_prior: SharedNoisePrior, length: int, overlap: int) -> None:
    if not 0 <= overlap <= length // 2:
        raise UserError(f"overlap {overlap}: windows of {length} frames may share 0 to {length // 2}")
    if not noise_prior.can_overlap(overlap):
        possible = ", ".join(str(n) for n in range(length // 2 + 1) if noise_prior.can_overlap(n))
        raise UserError(
            f"overlap {overlap}: frames that two windows share need the same lambda in both, and the base frame must "
            f"lie in one window only; choose one of {possible}"
        )
