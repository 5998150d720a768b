"""Ranges of the sampling options, checked without torch so that a wrong flag is refused at once."""

from __future__ import annotations

from vfbench.errors import UserError, unknown

DIFFUSION_STEPS = 1000  # of the noise schedule
SOLVERS = ("ddim", "ddpm", "dpm++2m")
MAX_GUIDANCE = 1000.0  # 10 is already strong; far beyond it clips are saturated noise


def check_solver_options(
    steps: int, solver: str, eta: float | None = None, *, max_steps: int = DIFFUSION_STEPS
) -> None:
    """Raise `UserError` naming the option of `solve` that is out of range, for a schedule of `max_steps` steps."""
    if solver not in SOLVERS:
        raise unknown("solver", solver, SOLVERS)
    if not 1 <= steps <= max_steps:
        raise UserError(f"--steps {steps}: choose 1 to {max_steps} sampling steps")
    if eta is None:
        return
    if solver != "ddim":
        reason = "its eta is always 1" if solver == "ddpm" else "it is deterministic"
        raise UserError(f"eta {eta}: solver {solver} has no eta, {reason}; leave eta out, or choose solver='ddim'")
    if not 0 <= eta <= 1:
        raise UserError(f"eta {eta}: choose a number in [0, 1], from deterministic ddim to the noise of ddpm")


def check_guidance(guidance: float) -> None:
    """Raise `UserError` for a guidance weight that is negative, not finite, or far beyond use."""
    if not 0 <= guidance <= MAX_GUIDANCE:
        raise UserError(f"guidance {guidance}: choose 0 to {MAX_GUIDANCE:g}; 1 is none, 0 ignores the prompt")


def check_threshold(threshold: float | None) -> None:
    """Raise `UserError` for a quantile of dynamic thresholding outside (0, 1); None is static thresholding."""
    if threshold is not None and not 0 < threshold < 1:
        raise UserError(
            f"threshold {threshold}: choose a quantile between 0 and 1, such as 0.995; leave it out to clamp at [-1, 1]"
        )
