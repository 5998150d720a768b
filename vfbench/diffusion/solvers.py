"""Solvers: from noise to a clip in a few calls of a denoiser.

All work with x0 and eps together (`Prediction`), so they are safe where a_t is almost 0, and in float32 or float64. The
fresh noise of the stochastic ones comes from the model's own prior, as VideoFusion's one-step equation requires.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vfbench.diffusion.schedule import STEPS, Prediction, Schedule
from vfbench.errors import UserError, unknown

Denoiser = Callable[[Tensor, int], Prediction]  # (z_t, t) -> what it says of z_t
SOLVERS = ("ddim", "ddpm", "dpm++2m")


def check(steps: int, solver: str, eta: float | None = None, *, most: int = STEPS) -> None:
    """Raise `UserError` naming what `solve` would not take, for a schedule of `most` steps."""
    if solver not in SOLVERS:
        raise unknown("solver", solver, SOLVERS)
    if not 1 <= steps <= most:
        raise UserError(f"--steps {steps}: choose 1 to {most} sampling steps")
    if eta is None:
        return
    if solver != "ddim":
        why = "it is ddim at eta 1" if solver == "ddpm" else "it solves an equation without fresh noise"
        raise UserError(f"eta {eta}: solver {solver} has none to choose, {why}; leave eta out, or choose solver ddim")
    if not 0 <= eta <= 1:
        raise UserError(f"eta {eta}: it must lie in [0, 1], from no fresh noise (ddim) to as much as ddpm has")


def solve(
    denoiser: Denoiser,
    z: Tensor,
    schedule: Schedule,
    *,
    steps: int,
    solver: str,
    fresh: Callable[[], Tensor],
    eta: float | None = None,
) -> Tensor:
    """Integrate from noise `z` (any shape) to data in `steps` calls of `denoiser`; returns x of z's shape.

    `ddim` (arXiv 2010.02502; deterministic unless `eta` says how much of ddpm's noise it adds, from 0 to 1), `ddpm`
    (ancestral: the same formula with eta 1) and `dpm++2m` (arXiv 2211.01095, algorithm 2) land on the clean clip at
    the end of the grid. `fresh` draws the noise that a stochastic step adds. Raises `UserError` as `check` does.
    """
    check(steps, solver, eta, most=schedule.steps)
    eta = float(solver == "ddpm") if eta is None else eta
    grid = schedule.grid(steps)
    alpha_bar = [float(schedule.alpha_bar[t]) for t in grid] + [1.0]
    previous: Tensor | None = None
    for i, t in enumerate(grid):
        now, then = alpha_bar[i], alpha_bar[i + 1]
        prediction = denoiser(z, t)
        if then == 1.0:
            return prediction.x0
        if solver == "dpm++2m":
            x0 = prediction.x0 if previous is None else _extrapolate(prediction.x0, previous, alpha_bar[i - 1 : i + 2])
            z, previous = _exponential_step(z, x0, now, then), prediction.x0
        else:
            z = _ddim_step(prediction, now, then, eta=eta, fresh=fresh)
    return z


def _ddim_step(prediction: Prediction, now: float, then: float, *, eta: float, fresh: Callable[[], Tensor]) -> Tensor:
    """Equation 12 and 16 of arXiv 2010.02502; eta 1 is the DDPM posterior."""
    variance = eta**2 * (1 - then) / (1 - now) * (1 - now / then)
    z: Tensor = then**0.5 * prediction.x0 + (1 - then - variance) ** 0.5 * prediction.eps
    return z + variance**0.5 * fresh() if eta else z


def _exponential_step(z: Tensor, x0: Tensor, now: float, then: float) -> Tensor:
    """One step of the probability-flow ODE, exact for a constant x0."""
    ratio = ((1 - then) / (1 - now)) ** 0.5
    moved: Tensor = ratio * z + (then**0.5 - ratio * now**0.5) * x0
    return moved


def _extrapolate(x0: Tensor, previous: Tensor, alpha_bar: list[float]) -> Tensor:
    """The second-order estimate of x0 from this call and the one before, in steps of half the log signal-to-noise."""
    a = torch.tensor(alpha_bar, dtype=torch.float64)
    half_log_snr = 0.5 * (a / (1 - a)).log()
    before, step = (half_log_snr[1:] - half_log_snr[:-1]).tolist()
    ratio = step / before / 2
    ahead: Tensor = (1 + ratio) * x0 - ratio * previous
    return ahead


Conditional = Callable[[Tensor, Tensor, Tensor], Prediction]  # (z, t, condition)


def guided(predict: Conditional, z: Tensor, t: Tensor, condition: Tensor, null: Tensor, weight: float) -> Prediction:
    """unconditional + weight (conditional - unconditional), both in one call of the network on a doubled batch.

    Weight 1 is the plain conditional model and costs one half.
    """
    if weight == 1.0:
        return predict(z, t, condition)
    both = predict(torch.cat([z, z]), torch.cat([t, t]), torch.cat([condition, null]))
    given, free = zip(*(part.chunk(2) for part in both), strict=True)
    return Prediction(*(torch.lerp(without, with_, weight) for without, with_ in zip(free, given, strict=True)))
