"""vfbench: the benchmark that makes video-generation numbers comparable.

    import vfbench
    result = vfbench.benchmark(model="videofusion", dataset="shapes", num_samples=256)

Importing vfbench loads nothing heavy; the vocabulary for plug-ins is in `vfbench.interfaces`.
"""

from __future__ import annotations

from typing import Any


def benchmark(**options: Any) -> dict[str, Any]:
    """Run the main job and return the result, as it is written to `results.json`.

    `options` are the fields of `vfbench.pipeline.plan.RunOptions`; a user's mistake raises `vfbench.errors.UserError`.
    """
    from vfbench.pipeline.job import run
    from vfbench.pipeline.plan import RunOptions, plan
    from vfbench.training import budget

    return run(plan(RunOptions(**options), budget.require_trained))
