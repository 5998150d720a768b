"""Cascade: a model of small clips, and a super-resolution model that enlarges them (Ho et al., arXiv 2106.15282).

    python -m vfbench run --model "cascade(base='videofusion', sr='runs/sr')" --dataset "shapes(height=64, width=64)"

The paper of VideoFusion makes clips of 64 pixels and enlarges them by diffusion, too, without saying how. `base` and
`sr` are checkpoints or models; with `base='real'` real clips are made small and enlarged. A cascade may be the base of
another one. Steps, solver, guidance and conditioning are for both stages, unless a stage has options of its own, as in
`base='videofusion(steps=50)'`.
"""

from __future__ import annotations

from typing import Annotated

from vfbench.diffusion import solver_options
from vfbench.diffusion.cascade import CascadeSampler, build_cascade
from vfbench.diffusion.super_resolution import LEVEL
from vfbench.errors import UserError
from vfbench.interfaces import BuildContext, Conditioning


def build(
    context: BuildContext,
    *,
    base: Annotated[
        str | None, "Checkpoint that makes the small clips (DIR, hub:owner/name), or a shipped model."
    ] = None,
    sr: Annotated[str | None, "Checkpoint of super_resolution that enlarges them."] = None,
    level: Annotated[float, "Noise in the small clips, from 0 to 1: hides their mistakes."] = LEVEL,
    steps: Annotated[int | None, "Sampling steps of each stage."] = None,
    solver: Annotated[str | None, solver_options.SOLVERS, "Sampling algorithm."] = None,
    guidance: Annotated[float | None, "Classifier-free guidance weight; 1 is none."] = None,
    condition: Annotated[Conditioning | None, "Conditioning; by default each stage's own."] = None,
    eta: Annotated[float | None, "Fresh noise of ddim: 0 is none, 1 as much as ddpm."] = None,
    threshold: Annotated[float | None, "Dynamic thresholding: a quantile of each clip, e.g. 0.995."] = None,
) -> CascadeSampler:
    """The chain of both stages; None is the default of each. Raises as `build_cascade`, and for a missing stage."""
    if base is None or sr is None:
        missing = "base" if base is None else "sr"
        raise UserError(f"cascade needs two models, and {missing} is missing: write cascade(base=DIR, sr=DIR)")
    options = {"steps": steps, "solver": solver, "guidance": guidance}
    options |= {"condition": condition, "eta": eta, "threshold": threshold}
    return build_cascade(context, base, sr, level, options)
