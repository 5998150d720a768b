"""`train`: train a model on a dataset and write the checkpoint to a folder."""

from __future__ import annotations

import vfbench
from vfbench import plugins
from vfbench.cli._options import flags_from, next_command
from vfbench.training.options import TrainJob
from vfbench.utils import console
from vfbench.utils.options import values_of


@flags_from(TrainJob)
def train(job: TrainJob) -> None:
    """Train a model; Ctrl-C saves the state, and the same command resumes.

    On several GPUs or nodes: accelerate launch -m vfbench train ...
    """
    folder = vfbench.train(**values_of(job))

    from vfbench.training.distributed import is_main_process

    if is_main_process():
        console.info(f"checkpoint: {folder}  samples: {folder}/samples")
        root = ["--data-root", job.data_root] if job.data_root else []
        next_command(
            "run", "--model", plugins.parse(job.model).name, "--dataset", job.dataset, *root, "--checkpoint", folder
        )
