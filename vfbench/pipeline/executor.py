"""Choice of where the work of a command runs: this process, several on this machine, or Ray actors."""

from __future__ import annotations

from pathlib import Path

from vfbench.pipeline import launch, worker_job
from vfbench.pipeline.options import SamplingOptions
from vfbench.pipeline.workers import Rank
from vfbench.utils.options import values_of


def share(function: str, options: SamplingOptions) -> Path | None:
    """Let the workers that the options ask for call a function, named as `module:name`, and wait for the end.

    Returns the folder where all of the work is done; None where this process is to do it. Raises `UserError` for
    environment variables of a rank that do not fit together, and the error of a worker that could not begin.
    """
    Rank.from_environment()
    if worker_job.is_worker():
        return None
    if options.executor == "ray":
        from vfbench.pipeline import ray_actors  # imports ray, which is optional

        return ray_actors.launch(function, values_of(options), options.workers, options.ray_address)
    return launch.launch(function, values_of(options), options.workers) if options.workers > 1 else None
