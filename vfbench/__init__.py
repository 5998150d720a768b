"""vfbench: the benchmark that makes video-generation numbers comparable.

    import vfbench
    result = vfbench.benchmark(model="videofusion", dataset="shapes", num_samples=256)
    print(result.scores["fvd"].value)

Importing vfbench loads nothing heavy; the vocabulary for plug-ins is in `vfbench.interfaces`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vfbench.report.results import Result


def benchmark(**options: Any) -> Result:
    """Run the main job and return the result, as `results.json` holds it.

    `options` are the fields of `vfbench.pipeline.options.RunOptions`. A user's mistake raises
    `vfbench.errors.UserError`.
    """
    from vfbench.pipeline.job import run
    from vfbench.pipeline.options import RunOptions
    from vfbench.pipeline.plan import plan
    from vfbench.training.budget import training_advice

    chosen = RunOptions(**options)
    named = (chosen.model, chosen.dataset, chosen.data_root, chosen.checkpoint, chosen.protocol)
    with training_advice(*named, smoke=chosen.smoke):
        planned = plan(chosen)
    return run(planned)
