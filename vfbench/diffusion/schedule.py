"""Noise schedules and the two parametrisations of a denoiser, eps and v.

Notation: `alpha_bar` is the cumulative signal power a_t; z_t = sqrt(a_t) x + sqrt(1 - a_t) eps. Time is an integer
0..steps-1, from nearly clean to nearly pure noise.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from vfbench.diffusion.priors import NoisePrior, motion_information
from vfbench.diffusion.solver_options import DIFFUSION_STEPS
from vfbench.errors import UserError, unknown
from vfbench.interfaces import ClipShape
from vfbench.utils.device import DeviceConstant

Parametrisation = Literal["eps", "v"]
# Option of `create` in several models; None is the preset's.
ParametrisationOption: TypeAlias = Annotated[
    str | None, get_args(Parametrisation), "Target of training: the noise (eps), or v."
]


AUTO = "auto"  # value of the option `time_shift`
# Options of `create` in every model. Hoogeboom et al., arXiv 2301.11093, divide the ratio to adapt to larger images.
TimeShiftOption: TypeAlias = Annotated[
    float | str | None,
    "Divisor of the signal-to-noise ratio, at least 1, to train and sample in more noise; or auto.",
]
ShiftedShareOption: TypeAlias = Annotated[
    float | None, "Share of the training clips, 0 to 1, whose times are shifted; the others are uniform."
]


def natural_time_shift(shape: ClipShape, prior: NoisePrior) -> float:
    """Default `time_shift` for a clip shape and a noise prior: at least 1, rounded to three digits.

    It is the product of three factors: the number of frames, since frames that show one thing average the noise out;
    the pixels relative to 64x64, the size that schedules were tuned for (Hoogeboom et al., arXiv 2301.11093); and
    `motion_information`, since noise that frames share hides less of the motion.
    """
    pixels = max(1.0, shape.height * shape.width / 64**2)
    return max(1.0, float(f"{shape.frames * pixels * motion_information(prior, shape.frames):.3g}"))


def check_parametrisation(name: str) -> Parametrisation:
    """`name` as a `Parametrisation`; raises `UserError` with the nearest name for an unknown one."""
    if name not in get_args(Parametrisation):
        raise unknown("parametrisation", name, get_args(Parametrisation))
    return name  # type: ignore[return-value]  # checked above


class Prediction(NamedTuple):
    """A denoiser's prediction for z_t: the clean clip and the noise, both of z's shape.

    Carrying both avoids the division by sqrt(a_t), which loses every digit where a_t is almost 0.
    """

    x0: Tensor
    eps: Tensor


class Schedule:
    """`alpha_bar` (steps,) in float64, decreasing from nearly 1 to nearly 0.

    `time_shift`, at least 1, divides the signal-to-noise ratio of the times that sampling visits, and of a share
    `shifted_share` of the times of training. Raises `UserError` for a value out of range.
    """

    def __init__(
        self, name: str = "cosine", steps: int = DIFFUSION_STEPS, *, time_shift: float = 1.0, shifted_share: float = 1.0
    ) -> None:
        if name not in BETAS:
            raise unknown("noise schedule", name, BETAS)
        if isinstance(time_shift, str) or not 1 <= time_shift < math.inf:
            raise UserError(f"time_shift {time_shift}: choose a finite number of at least 1, or {AUTO}")
        if not 0 <= shifted_share <= 1:
            raise UserError(f"shifted_share {shifted_share}: choose a share from 0 to 1")
        self.name, self.steps, self.time_shift, self.shifted_share = name, steps, time_shift, shifted_share
        self.alpha_bar = torch.cumprod(1.0 - BETAS[name](steps), dim=0)
        self._table = DeviceConstant(self.alpha_bar.to)  # `at` runs several times a step

    def at(self, t: Tensor, like: Tensor) -> Tensor:
        """a_t for each time (B,), shaped (B, 1, 1, ...) to broadcast against `like`, in its dtype and device."""
        return self._table.like(like)[t].view(-1, *[1] * (like.ndim - 1))

    def timesteps(self, count: int) -> list[int]:
        """`count` times, from the noisiest down to (but not including) clean data: evenly spaced, then shifted."""
        if not 1 <= count <= self.steps:
            raise ValueError(f"sampling steps must lie in 1..{self.steps}, got {count}")
        times = [round(self.steps - 1 - i * self.steps / count) for i in range(count)]
        for i, t in enumerate(self.shifted(torch.tensor(times)).tolist()):
            times[i] = t if i == 0 else min(t, times[i - 1] - 1)
        return times

    def training_times(self, count: int, generator: torch.Generator) -> Tensor:
        """Random times (count,) of a batch, one in each of `count` equal intervals, and a share of them shifted."""
        strata = torch.randperm(count, generator=generator) + torch.rand(
            count, generator=generator, dtype=torch.float64
        )
        t = (strata * self.steps / count).long().clamp(max=self.steps - 1)
        chance = float(torch.rand(1, generator=generator))
        shifted = int(self.shifted_share * count + chance)  # rounded at random, so that a batch of any size is unbiased
        return torch.cat([self.shifted(t[:shifted]), t[shifted:]])

    def shifted(self, t: Tensor) -> Tensor:
        """The nearest times to those where the signal-to-noise ratio is that of `t` divided by `time_shift`."""
        if self.time_shift == 1:
            return t
        noise = -torch.logit(self.alpha_bar)  # log of the noise-to-signal ratio, increasing
        wanted = noise[t] + math.log(self.time_shift)
        above = torch.searchsorted(noise, wanted).clamp(1, self.steps - 1)
        return above - (wanted - noise[above - 1] < noise[above] - wanted).long()


def _cosine(steps: int, offset: float = 0.008) -> Tensor:
    """Nichol and Dhariwal, arXiv 2102.09672, equation 17; betas clipped at 0.999."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    f = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


def _linear(steps: int) -> Tensor:
    """Ho et al., arXiv 2006.11239, section 4; scaled so that any number of steps ends at the same noise."""
    scale = 1000 / steps
    return torch.linspace(1e-4 * scale, 0.02 * scale, steps, dtype=torch.float64)


BETAS = {"cosine": _cosine, "linear": _linear}


def to_prediction(
    output: Tensor, z: Tensor, signal: Tensor, noise: Tensor, parametrisation: Parametrisation
) -> Prediction:
    """Read a network's output as eps or v (Salimans and Ho, arXiv 2202.00512): z = signal x0 + noise eps.

    `signal` and `noise` are amplitudes. For v they are scaled to signal^2 + noise^2 = 1 first, so that noise may have
    any strength (VideoFusion's residual noise is weaker than the schedule's).
    """
    if parametrisation == "eps":
        return Prediction(x0=(z - noise * output) / signal, eps=output)
    norm = torch.sqrt(signal**2 + noise**2)
    signal, noise, z = signal / norm, noise / norm, z / norm
    return Prediction(x0=signal * z - noise * output, eps=noise * z + signal * output)


def v_target(x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """v = sqrt(a) eps - sqrt(1 - a) x0."""
    return alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x0


def clip_x0(prediction: Prediction, z: Tensor, alpha_bar: Tensor, threshold: float | None = None) -> Prediction:
    """Limit x0 (B, ...) to the range of pixels, [-1, 1], and recompute eps to match z.

    Static thresholding (`threshold` None) clamps x0. Dynamic thresholding (Imagen, arXiv 2205.11487, section 2.3) takes
    the quantile `threshold`, between 0 and 1, of |x0| over all frames of each clip. Where the quantile exceeds 1, the
    clip is clamped there and divided by it, which keeps the contrast that guidance has driven out of range. Every frame
    then depends on all frames, VideoFusion's base frame as well.
    """
    x0 = prediction.x0.clamp(-1, 1) if threshold is None else _dynamic_threshold(prediction.x0, threshold)
    return Prediction(x0, (z - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt())


def _dynamic_threshold(x0: Tensor, quantile: float) -> Tensor:
    limit = x0.flatten(1).abs().quantile(quantile, dim=1).clamp(min=1).view(-1, *[1] * (x0.ndim - 1))
    return x0.clamp(-limit, limit) / limit
