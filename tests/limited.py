"""A process that is granted little memory makes clips and trains.

`python tests/limited.py FOLDER` leaves `made.pt` there: clips and weights, each made with little memory and with
enough. `test_memory.py` starts it, so that no other test meets the limit, and in `ENVIRONMENT`, so that what is freed
is given back, and no thread takes address space of its own.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path

import torch
from helpers import CPU, UNET, tiny_dataset
from torch import Tensor

from vfbench.baselines import vdm
from vfbench.baselines.vdm import VDM
from vfbench.diffusion.model import ModelConfig
from vfbench.interfaces import BuildContext, Request
from vfbench.training.train import TrainOptions, train
from vfbench.utils.memory import AdaptiveBatches

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16), "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
DATA = tiny_dataset(frames=8, side=32)
OPTIONS = TrainOptions(steps=2, batch_size=64, lr=1e-2, warmup=1, save_every=100, sample_every=100)
ROOM = 200 << 20  # bytes


@contextmanager
def little_memory() -> Iterator[None]:
    """Within, the system grants `ROOM` bytes more than it has granted before."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + ROOM, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def learnt(folder: Path, accumulate: int = 1) -> dict[str, Tensor]:
    """The weights after a training, which are also left in the folder."""
    config = ModelConfig.from_preset("vdm", "tiny", vdm.PRESETS, DATA)
    torch.manual_seed(0)
    model = VDM(replace(config, options={**config.options, "network": UNET}))
    train(model, DATA, replace(OPTIONS, accumulate=accumulate), folder)
    found: dict[str, Tensor] = torch.load(folder / "training.pt", weights_only=True)["model"]
    return found


def main(folder: Path) -> None:
    learnt(folder / "whole", accumulate=2)
    sampler = vdm.build(BuildContext(DATA, CPU, checkpoint=folder / "whole"), steps=2)
    asked = [Request(i, i, 0, "a red circle") for i in range(256)]
    clips, batches = sampler.sample(asked), AdaptiveBatches(256)
    with little_memory():
        parts = [part for _, part in batches.each(asked, sampler.sample, lambda batch: f"{len(batch)} clips")]
    with little_memory(), redirect_stderr(StringIO()) as said:
        found = learnt(folder / "little")
    print(said.getvalue(), file=sys.stderr)
    expected = learnt(
        folder / "parts", accumulate=int(re.findall(r"continuing with --accumulate (\d+)", said.getvalue())[-1])
    )
    torch.save({"clips": [torch.cat(parts), clips], "weights": [found, expected]}, folder / "made.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
