"""Choice of where the work of a command runs: this process, several on this machine, or Ray actors."""

from __future__ import annotations

from pathlib import Path

from vfbench.pipeline import launch, worker_job
from vfbench.pipeline.options import SamplingOptions
from vfbench.pipeline.workers import Rank
from vfbench.utils.options import values_of


def run_workers(function: str, options: SamplingOptions) -> Path | None:
    """Start the workers that the options ask for, let each call `function`, `module:name`, and wait for them.

    Returns the folder with the finished work, or None where this process must do the work itself. Raises `UserError`
    for inconsistent `RANK`, `WORLD_SIZE` or `SLURM_ARRAY_*`, and the error of a worker that failed at its start.
    """
    Rank.from_environment()
    if worker_job.is_worker():
        return None
    if options.executor == "ray":
        from vfbench.pipeline import ray_actors  # imports ray, which is optional

        return ray_actors.launch(function, values_of(options), options.workers, options.ray_address)
    return launch.launch(function, values_of(options), options.workers) if options.workers > 1 else None
