"""Solvers, from noise to a clip in a few calls of a denoiser, and classifier-free guidance.

Solvers carry x0 and eps together (`Prediction`), so they are safe where a_t is almost 0, in float32 and float64. The
fresh noise of stochastic solvers comes from the model's noise prior, as VideoFusion's one-step equation requires.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vfbench.diffusion.schedule import Prediction, Schedule
from vfbench.diffusion.solver_options import check_solver_options

Denoiser = Callable[[Tensor, int], Prediction]  # (z_t, t)


def solve(
    denoiser: Denoiser,
    z: Tensor,
    schedule: Schedule,
    *,
    steps: int,
    solver: str,
    fresh_noise: Callable[[], Tensor],
    eta: float | None = None,
) -> Tensor:
    """Integrate from noise `z` (any shape) to data in `steps` calls of `denoiser`; returns x of z's shape.

    `ddim` (arXiv 2010.02502) is deterministic unless `eta`, in [0, 1], adds a part of ddpm's noise. `ddpm` is ancestral
    sampling: the same formula with eta 1. `dpm++2m` is algorithm 2 of arXiv 2211.01095. All land on the clean clip
    after the last step. `fresh_noise` draws the noise of a stochastic step. Raises `UserError` as
    `check_solver_options` does.
    """
    check_solver_options(steps, solver, eta, max_steps=schedule.steps)
    eta = float(solver == "ddpm") if eta is None else eta
    timesteps = schedule.timesteps(steps)
    alpha_bars = [float(schedule.alpha_bar[t]) for t in timesteps] + [1.0]
    previous_x0: Tensor | None = None
    for i, t in enumerate(timesteps):
        now, next_ = alpha_bars[i], alpha_bars[i + 1]
        prediction = denoiser(z, t)
        if next_ == 1.0:
            return prediction.x0
        if solver == "dpm++2m":
            recent = alpha_bars[i - 1 : i + 2]
            x0 = prediction.x0 if previous_x0 is None else _extrapolate(prediction.x0, previous_x0, recent)
            z, previous_x0 = _exponential_step(z, x0, now, next_), prediction.x0
        else:
            z = _ddim_step(prediction, now, next_, eta=eta, fresh_noise=fresh_noise)
    return z


def _ddim_step(
    prediction: Prediction, now: float, next_: float, *, eta: float, fresh_noise: Callable[[], Tensor]
) -> Tensor:
    """Equations 12 and 16 of arXiv 2010.02502, from alpha_bar `now` to `next_`; eta 1 is the DDPM posterior."""
    variance = eta**2 * (1 - next_) / (1 - now) * (1 - now / next_)
    z: Tensor = next_**0.5 * prediction.x0 + (1 - next_ - variance) ** 0.5 * prediction.eps
    return z + variance**0.5 * fresh_noise() if eta else z


def _exponential_step(z: Tensor, x0: Tensor, now: float, next_: float) -> Tensor:
    """One step of the probability-flow ODE from alpha_bar `now` to `next_`, exact for a constant x0."""
    ratio = ((1 - next_) / (1 - now)) ** 0.5
    next_z: Tensor = ratio * z + (next_**0.5 - ratio * now**0.5) * x0
    return next_z


def _extrapolate(x0: Tensor, previous_x0: Tensor, alpha_bars: list[float]) -> Tensor:
    """The second-order estimate of x0 from the last two calls, in steps of half the log signal-to-noise ratio."""
    a = torch.tensor(alpha_bars, dtype=torch.float64)
    half_log_snr = 0.5 * (a / (1 - a)).log()
    previous_step, step = (half_log_snr[1:] - half_log_snr[:-1]).tolist()
    ratio = step / previous_step / 2
    estimate: Tensor = (1 + ratio) * x0 - ratio * previous_x0
    return estimate


ConditionalDenoiser = Callable[[Tensor, Tensor, Tensor], Prediction]  # (z, t, cond)


def guided(denoise: ConditionalDenoiser, z: Tensor, t: Tensor, cond: Tensor, null: Tensor, weight: float) -> Prediction:
    """Classifier-free guidance: unconditional + weight (conditional - unconditional), in one call on a doubled batch.

    `null` (B, width) is the null conditioning. Weight 1 is the plain conditional model, at half the cost.
    """
    if weight == 1.0:
        return denoise(z, t, cond)
    both = denoise(torch.cat([z, z]), torch.cat([t, t]), torch.cat([cond, null]))
    halves = (part.chunk(2) for part in both)
    return Prediction(*(torch.lerp(unconditional, conditional, weight) for conditional, unconditional in halves))
