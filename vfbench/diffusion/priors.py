"""Noise priors: the correlation of noise between the frames of a clip.

A noise prior draws the noise of training, the initial noise of sampling and the fresh noise of stochastic solvers. The
marginal of every frame is N(0, I) under all of them. Noise has the clip's shape (B, T, C, H, W).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from vfbench.diffusion.philox import NormalStreams
from vfbench.errors import UserError, unknown
from vfbench.interfaces import ClipShape
from vfbench.utils.device import DeviceConstant

MAX_ALPHA = 1e6  # beyond it, float32 hardly resolves the residual noise of a frame
Normal = Callable[[tuple[int, ...]], Tensor]  # shape without batch -> (B, *shape) of independent N(0, 1)
# torch's Mersenne Twister runs on a CPU alone; Philox runs on the device of the clips. Their numbers differ.
NoiseGenerator: TypeAlias = Literal["mt19937", "philox"]


def noise_generator(device: torch.device) -> NoiseGenerator:
    """The generator of noise for clips on a device: a GPU draws its own."""
    return "philox" if device.type == "cuda" else "mt19937"


def normal_per_clip(seeds: Sequence[int], device: torch.device, generator: NoiseGenerator = "mt19937") -> Normal:
    """Draw from one generator per clip, so that a clip's noise does not depend on its batch.

    With `mt19937` the noise is bit for bit the same on every device. With `philox` only the random integers are: the
    normal values may differ in the last digit, since devices round logarithm and cosine differently.
    """
    if generator == "philox":
        return NormalStreams(seeds, device)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def normal(shape: tuple[int, ...]) -> Tensor:
        return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)

    return normal


def normal_per_batch(batch: int, generator: torch.Generator) -> Normal:
    """Draw a training batch from one generator, on its device."""
    return lambda shape: torch.randn((batch, *shape), generator=generator, device=generator.device)


@runtime_checkable
class NoisePrior(Protocol):
    """Interface of a noise prior."""

    def noise(self, normal: Normal, shape: ClipShape) -> Tensor:
        """Noise (B, T, 3, H, W) made from independent normals."""
        ...


class SharedNoisePrior(ABC):
    """A noise prior of base noise b, shared by all frames of a clip, and residual noise r^i of each frame.

    Fixed b with fresh r gives the same content with another motion (VideoFusion, arXiv 2303.08320, discussion), and
    windows of a long clip that share b are consistent. A subclass implements `combine`.
    """

    @property
    def shares_noise(self) -> bool:
        """True where b has weight in more than one frame."""
        return True

    @abstractmethod
    def combine(self, base: Tensor, residual: Tensor) -> Tensor:
        """The noise of all frames from b (B, 1, C, H, W) and r (B, T, C, H, W)."""

    def can_overlap(self, overlap: int) -> bool:
        """True where the last `overlap` frames of one clip and the first of the next can have the same noise."""
        return True

    def draw_parts(self, normal: Normal, shape: ClipShape) -> tuple[Tensor, Tensor]:
        """b (B, 1, 3, H, W) and r (B, T, 3, H, W); b is drawn first, so that a seed can fix it alone."""
        base = normal((1, 3, shape.height, shape.width))
        return base, normal((shape.frames, 3, shape.height, shape.width))

    def noise(self, normal: Normal, shape: ClipShape) -> Tensor:
        """Noise (B, T, 3, H, W) made from independent normals."""
        return self.combine(*self.draw_parts(normal, shape))


class Independent:
    """Independent noise for every frame, as in VDM (arXiv 2204.03458)."""

    def noise(self, normal: Normal, shape: ClipShape) -> Tensor:
        """Noise (B, T, 3, H, W), independent everywhere."""
        return normal((shape.frames, 3, shape.height, shape.width))


class Mixed(SharedNoisePrior):
    """PYoCo's mixed noise (arXiv 2305.10474): eps^i = sqrt(s) b + sqrt(1 - s) r^i, with s = alpha^2 / (1 + alpha^2).

    All frames share b, so s is the correlation of any two frames. `alpha` is 0 (independent) to `MAX_ALPHA`; the paper
    recommends 1.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = _checked_alpha(alpha)

    @property
    def shares_noise(self) -> bool:
        """True where alpha is more than 0."""
        return self.alpha > 0

    def combine(self, base: Tensor, residual: Tensor) -> Tensor:
        """The noise of all frames from b (B, 1, C, H, W) and r (B, T, C, H, W)."""
        return (self.alpha * base + residual) / math.sqrt(1 + self.alpha**2)


class Progressive:
    """PYoCo's progressive noise (arXiv 2305.10474): eps^i = rho eps^{i-1} + sqrt(1 - rho^2) r^i, with eps^0 = r^0.

    rho = alpha / sqrt(1 + alpha^2), so frames i and j have the correlation rho^|i-j|. `alpha` is 0 (independent) to
    `MAX_ALPHA`; the paper recommends 2.
    """

    def __init__(self, alpha: float = 2.0) -> None:
        self.alpha = _checked_alpha(alpha)

    def noise(self, normal: Normal, shape: ClipShape) -> Tensor:
        """Noise (B, T, 3, H, W)."""
        first, *others = normal((shape.frames, 3, shape.height, shape.width)).unbind(1)
        frames = [first]
        for residual in others:
            frames.append((self.alpha * frames[-1] + residual) / math.sqrt(1 + self.alpha**2))
        return torch.stack(frames, dim=1)


class Decomposed(SharedNoisePrior):
    """VideoFusion's noise (arXiv 2303.08320): eps^i = sqrt(lam_i) b + sqrt(1 - lam_i) r^i, b shared by all frames.

    `base` is the base frame, whose lam is 1: an index from 0 to T - 1, or `first`, `middle` or `last`. The paper counts
    frames from 1 and takes the middle one, floor(N/2): index 7 (from 0) of 16.

    `lam` is one value in [0, 1] for every other frame, or a list with the value of each frame, 1 for the base frame.
    `schedule`, an addition to the paper, weights a single value by the distance from the base frame: `constant` by 1,
    as in the paper, `linear` by 1 - d and `cosine` by cos^2(d pi / 2). d is the distance divided by one more than the
    largest distance, so the farthest frames still share noise. Raises `UserError` for values out of range.
    """

    def __init__(
        self,
        frames: int,
        lam: float | Sequence[float] = 0.5,
        *,
        base: int | str = "middle",
        schedule: str = "constant",
    ) -> None:
        self.base = _base_frame(frames, base)
        self.lam = _lambdas(frames, lam, self.base, schedule)  # (T,) in float64
        self._weights = DeviceConstant(self._amplitudes)

    @property
    def shares_noise(self) -> bool:
        """True where a frame other than the base frame has lam above 0."""
        return int(self.lam.count_nonzero()) > 1

    def weights(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(lam_i) and sqrt(1 - lam_i), shaped (1, T, 1, 1, 1), in the dtype and device of `like`."""
        base_weight, residual_weight = self._weights.like(like)
        return base_weight, residual_weight

    def _amplitudes(self, dtype: torch.dtype) -> Tensor:
        """Weights of the base and of the residual noise, (2, 1, T, 1, 1, 1)."""
        lam = self.lam.to(dtype).view(1, -1, 1, 1, 1)
        return torch.stack([lam.sqrt(), (1 - lam).sqrt()])

    def combine(self, base: Tensor, residual: Tensor) -> Tensor:
        """The noise of all frames from b (B, 1, C, H, W) and r (B, T, C, H, W)."""
        base_weight, residual_weight = self.weights(residual)
        return base_weight * base + residual_weight * residual

    def can_overlap(self, overlap: int) -> bool:
        """True where the last `overlap` frames have the lambdas of the first ones."""
        return torch.equal(self.lam[len(self.lam) - overlap :], self.lam[:overlap])


def covariance(prior: NoisePrior, frames: int) -> Tensor:
    """Exact covariance of the noise of one pixel between frames, (frames, frames) in float64."""
    shapes: list[tuple[int, ...]] = []

    def record(shape: tuple[int, ...]) -> Tensor:
        shapes.append(shape)
        return torch.zeros(1, *shape, dtype=torch.float64)

    prior.noise(record, ClipShape(frames, 1, 1))
    sizes = [math.prod(shape) for shape in shapes]
    # A clip for each independent normal that is drawn, in which it is 1 and all others are 0.
    parts = iter(torch.split(torch.eye(sum(sizes), dtype=torch.float64), sizes, dim=1))
    weights = prior.noise(lambda shape: next(parts).reshape(-1, *shape), ClipShape(frames, 1, 1))[:, :, 0, 0, 0]
    return weights.T @ weights


def motion_information(prior: NoisePrior, frames: int) -> float:
    """Information of a noisy clip on motion, relative to independent noise of the same strength; 1 for one frame.

    Mean of s' C^-1 s / s' s over all signals s of a pixel that an object covers in some consecutive frames, not all; C
    is the covariance of the noise. Shared noise hides what stands still and shows what moves.
    """
    precision = torch.linalg.pinv(covariance(prior, frames), hermitian=True)
    spans = [(start, end) for start in range(frames) for end in range(start + 1, frames + 1) if end - start < frames]
    gains = [float(precision[start:end, start:end].sum()) / (end - start) for start, end in spans]
    return sum(gains) / len(gains) if gains else 1.0


def _checked_alpha(alpha: float) -> float:
    if not 0 <= alpha <= MAX_ALPHA:
        raise UserError(
            f"alpha {alpha}: choose a number from 0 (independent noise) to {MAX_ALPHA:,.0f} (equal noise in all frames)"
        )
    return float(alpha)


BASE_FRAMES: dict[str, Callable[[int], int]] = {
    "first": lambda frames: 0,
    "middle": lambda frames: max(frames // 2 - 1, 0),
    "last": lambda frames: frames - 1,
}
LAMBDA_SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {  # of the distance d from the base frame, in [0, 1)
    "constant": torch.ones_like,
    "linear": lambda d: 1 - d,
    "cosine": lambda d: torch.cos(d * math.pi / 2) ** 2,
}


def _base_frame(frames: int, base: int | str) -> int:
    """Index of the base frame, from 0."""
    if isinstance(base, str):
        if base not in BASE_FRAMES:
            raise unknown("base frame", base, BASE_FRAMES)
        return BASE_FRAMES[base](frames)
    if not 0 <= base < frames:
        raise UserError(f"base frame {base}: a clip of {frames} frames has 0 to {frames - 1}")
    return base


def _lambdas(frames: int, lam: float | Sequence[float], base: int, schedule: str) -> Tensor:
    """lam_i of every frame, (T,) in float64."""
    if schedule not in LAMBDA_SCHEDULES:
        raise unknown("lambda schedule", schedule, LAMBDA_SCHEDULES)
    if isinstance(lam, Sequence):
        return _listed_lambdas(frames, lam, base, schedule)
    _check_lambda(lam)
    distance = (torch.arange(frames, dtype=torch.float64) - base).abs()
    lambdas = lam * LAMBDA_SCHEDULES[schedule](distance / (distance.max() + 1))
    lambdas[base] = 1.0
    return lambdas


def _listed_lambdas(frames: int, lam: Sequence[float], base: int, schedule: str) -> Tensor:
    if len(lam) != frames:
        raise UserError(f"lambda {list(lam)} has {len(lam)} values, the clip {frames} frames: give one value per frame")
    for i, value in enumerate(lam):
        _check_lambda(value, f" of frame {i}")
    if lam[base] != 1:
        raise UserError(f"lambda {lam[base]} of frame {base}: it is the base frame, give it lambda 1")
    if schedule != "constant":
        raise UserError(f"lambda schedule '{schedule}': it needs a single lambda, not a list; give one value")
    return torch.tensor(lam, dtype=torch.float64)


def _check_lambda(lam: float, position: str = "") -> None:
    if not 0 <= lam <= 1:
        raise UserError(f"lambda {lam}{position}: it must lie in [0, 1]")
