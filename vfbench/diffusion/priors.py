"""Noise priors: how the noise of a clip's frames hangs together.

A prior is used in training, for the initial noise and for the fresh noise of stochastic solvers; the marginal of every
frame is N(0, I) in all of them. Noise has the clip's shape (B, T, C, H, W).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from vfbench.errors import UserError, unknown
from vfbench.interfaces import ClipShape

LARGEST = 1e6  # alpha: beyond it float32 hardly holds what a frame has of its own
Normal = Callable[[tuple[int, ...]], Tensor]  # shape without batch -> (B, *shape) of independent N(0, 1)


def per_clip(seeds: Sequence[int], device: torch.device) -> Normal:
    """One generator per clip, on the CPU: a clip's noise is bit for bit the same in any batch and on any device."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def normal(shape: tuple[int, ...]) -> Tensor:
        return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)

    return normal


def batched(batch: int, generator: torch.Generator) -> Normal:
    """One generator for the whole batch, for training; draws on the generator's device."""
    return lambda shape: torch.randn((batch, *shape), generator=generator, device=generator.device)


@runtime_checkable
class Prior(Protocol):
    """What every noise prior offers."""

    def noise(self, normal: Normal, shape: ClipShape) -> Tensor:
        """Noise (B, T, 3, H, W) made from independent normals."""
        ...


class Sharing(ABC):
    """A prior with noise that all frames of a clip share, b, and noise that each has of its own, r^i.

    Fixed b with fresh r is the same content moving otherwise (VideoFusion, arXiv 2303.08320, its discussion), and
    windows of a long clip that share b hang together. A subclass says how the two are combined.
    """

    @property
    def shares(self) -> bool:
        """Whether b has any weight in more than one frame."""
        return True

    @abstractmethod
    def combine(self, base: Tensor, residual: Tensor) -> Tensor:
        """The noise of all frames from b (B, 1, C, H, W) and r (B, T, C, H, W)."""

    def joins(self, overlap: int) -> bool:
        """Whether the last `overlap` frames of one clip and the first of the next can have one noise."""
        return True

    def parts(self, normal: Normal, shape: ClipShape) -> tuple[Tensor, Tensor]:
        """b (B, 1, 3, H, W) and r (B, T, 3, H, W): b is drawn first, so that a seed can fix it alone."""
        base = normal((1, 3, shape.height, shape.width))
        return base, normal((shape.frames, 3, shape.height, shape.width))

    def noise(self, normal: Normal, shape: ClipShape) -> Tensor:
        """Noise (B, T, 3, H, W) made from independent normals."""
        return self.combine(*self.parts(normal, shape))


class Independent:
    """Every frame its own noise: the usual prior (VDM, arXiv 2204.03458)."""

    def noise(self, normal: Normal, shape: ClipShape) -> Tensor:
        """Noise (B, T, 3, H, W), independent everywhere."""
        return normal((shape.frames, 3, shape.height, shape.width))


class Mixed(Sharing):
    """PYoCo's mixed noise (arXiv 2305.10474): eps^i = sqrt(s) b + sqrt(1 - s) r^i, with s = alpha^2 / (1 + alpha^2).

    b is shared by all frames, so s is the correlation of any two of them. `alpha` is 0 (independent) to `LARGEST`; the
    paper recommends 1.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = _alpha(alpha)

    @property
    def shares(self) -> bool:
        """Whether alpha is more than 0."""
        return self.alpha > 0

    def combine(self, base: Tensor, residual: Tensor) -> Tensor:
        """The noise of all frames from b (B, 1, C, H, W) and r (B, T, C, H, W)."""
        return (self.alpha * base + residual) / math.sqrt(1 + self.alpha**2)


class Progressive:
    """PYoCo's progressive noise (arXiv 2305.10474): eps^i = rho eps^{i-1} + sqrt(1 - rho^2) r^i from an eps^0 = r^0.

    rho = alpha / sqrt(1 + alpha^2), so frames i and j have the correlation rho^|i-j|. `alpha` is 0 (independent) to
    `LARGEST`; the paper recommends 2.
    """

    def __init__(self, alpha: float = 2.0) -> None:
        self.alpha = _alpha(alpha)

    def noise(self, normal: Normal, shape: ClipShape) -> Tensor:
        """Noise (B, T, 3, H, W)."""
        first, *others = normal((shape.frames, 3, shape.height, shape.width)).unbind(1)
        frames = [first]
        for own in others:
            frames.append((self.alpha * frames[-1] + own) / math.sqrt(1 + self.alpha**2))
        return torch.stack(frames, dim=1)


class Decomposed(Sharing):
    """VideoFusion's split (arXiv 2303.08320): eps^i = sqrt(lam_i) b + sqrt(1 - lam_i) r^i, b shared by all frames.

    `base` is the base frame, whose lam is 1: a place from 0 to T - 1, or `first`, `middle` or `last`. The paper counts
    frames from 1 and takes the middle one, floor(N/2): index 7 (from 0) of 16.

    `lam` is one value in [0, 1] for every other frame, or a list with the value of each frame, 1 for the base frame.
    One value is weighted by `schedule`, which the paper does not have: `constant` by 1, as there, `linear` by 1 - d and
    `cosine` by cos^2(d pi / 2), where d is the distance from the base frame over one more than the largest, so that
    the farthest frames still share something. Raises `UserError` naming what does not fit.
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

    @property
    def shares(self) -> bool:
        """Whether the lam of any frame but the base one is more than 0."""
        return int(self.lam.count_nonzero()) > 1

    def weights(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(lam_i) and sqrt(1 - lam_i), shaped (1, T, 1, 1, 1), in the dtype and device of `like`."""
        lam = self.lam.to(like).view(1, -1, 1, 1, 1)
        return lam.sqrt(), (1 - lam).sqrt()

    def combine(self, base: Tensor, residual: Tensor) -> Tensor:
        """The noise of all frames from b (B, 1, C, H, W) and r (B, T, C, H, W)."""
        of_base, of_residual = self.weights(residual)
        return of_base * base + of_residual * residual

    def joins(self, overlap: int) -> bool:
        """Whether the last `overlap` frames have the lambdas of the first, so that one noise can be that of both."""
        return torch.equal(self.lam[len(self.lam) - overlap :], self.lam[:overlap])


def _alpha(alpha: float) -> float:
    if not 0 <= alpha <= LARGEST:
        raise UserError(
            f"alpha {alpha}: choose a number from 0, where noise is independent, to {LARGEST:,.0f}, where frames have "
            "nothing of their own"
        )
    return float(alpha)


_PLACES: dict[str, Callable[[int], int]] = {
    "first": lambda frames: 0,
    "middle": lambda frames: max(frames // 2 - 1, 0),
    "last": lambda frames: frames - 1,
}
_SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {  # of the distance d from the base frame, in [0, 1)
    "constant": torch.ones_like,
    "linear": lambda d: 1 - d,
    "cosine": lambda d: torch.cos(d * math.pi / 2) ** 2,
}


def _base_frame(frames: int, base: int | str) -> int:
    """The place of the base frame from 0."""
    if isinstance(base, str):
        if base not in _PLACES:
            raise unknown("base frame", base, _PLACES)
        return _PLACES[base](frames)
    if not 0 <= base < frames:
        raise UserError(f"base frame {base}: a clip of {frames} frames has 0 to {frames - 1}")
    return base


def _lambdas(frames: int, lam: float | Sequence[float], base: int, schedule: str) -> Tensor:
    """lam_i of every frame, (T,) in float64."""
    if schedule not in _SCHEDULES:
        raise unknown("lambda schedule", schedule, _SCHEDULES)
    if isinstance(lam, Sequence):
        return _listed(frames, lam, base, schedule)
    _check(lam)
    distance = (torch.arange(frames, dtype=torch.float64) - base).abs()
    found = lam * _SCHEDULES[schedule](distance / (distance.max() + 1))
    found[base] = 1.0
    return found


def _listed(frames: int, lam: Sequence[float], base: int, schedule: str) -> Tensor:
    if len(lam) != frames:
        raise UserError(f"lambda {list(lam)} has {len(lam)} values for a clip of {frames} frames: give one a frame")
    for i, one in enumerate(lam):
        _check(one, f" of frame {i}")
    if lam[base] != 1:
        raise UserError(f"lambda {lam[base]} of frame {base}: that is the base frame, whose lambda is 1")
    if schedule != "constant":
        raise UserError(f"lambda schedule '{schedule}': a list says the lambda of every frame, give one value instead")
    return torch.tensor(lam, dtype=torch.float64)


def _check(lam: float, place: str = "") -> None:
    if not 0 <= lam <= 1:
        raise UserError(f"lambda {lam}{place}: it must lie in [0, 1]")
