"""Script that samples and trains under a memory limit.

`python tests/limited.py FOLDER` writes `FOLDER/tensors.pt`: clips and weights, each computed under the limit and
without it. `test_memory.py` starts it as a subprocess, so that the limit reaches no other test, and in `ENVIRONMENT`,
so that freed memory returns to the system and threads reserve no address space.
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
from vfbench.diffusion.model_config import ModelConfig
from vfbench.interfaces import BuildContext, Request
from vfbench.training.train import TrainOptions, train
from vfbench.utils.memory import AdaptiveBatches

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16), "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
DATA = tiny_dataset(frames=8, side=16)
OPTIONS = TrainOptions(steps=2, batch_size=64, lr=1e-2, warmup=1, save_every=100, sample_every=100)
HEADROOM = 70 << 20  # bytes


@contextmanager
def memory_limit() -> Iterator[None]:
    """Context manager: limit the address space to `HEADROOM` bytes above the current use."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + HEADROOM, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def train_weights(folder: Path, accumulate: int = 1) -> dict[str, Tensor]:
    """Train a tiny VDM in this folder and return its weights."""
    config = ModelConfig.from_preset("vdm", "tiny", vdm.PRESETS, DATA)
    torch.manual_seed(0)
    model = VDM(replace(config, options={**config.options, "network": UNET}))
    train(model, DATA, replace(OPTIONS, accumulate=accumulate), folder)
    weights: dict[str, Tensor] = torch.load(folder / "training.pt", weights_only=True)["model"]
    return weights


def main(folder: Path) -> None:
    train_weights(folder / "unlimited", accumulate=2)
    sampler = vdm.build(BuildContext(DATA, CPU, checkpoint=folder / "unlimited"), steps=2)
    requests = [Request(i, i, 0, "a red circle") for i in range(384)]
    expected_clips, batches = sampler.sample(requests), AdaptiveBatches(384)
    with memory_limit():
        parts = [part for _, part in batches.each(requests, sampler.sample, lambda batch: f"{len(batch)} clips")]
    with memory_limit(), redirect_stderr(StringIO()) as stderr:
        weights = train_weights(folder / "limited")
    print(stderr.getvalue(), file=sys.stderr)
    accumulate = int(re.findall(r"continuing with --accumulate (\d+)", stderr.getvalue())[-1])
    expected_weights = train_weights(folder / "accumulated", accumulate=accumulate)
    tensors = {"clips": [torch.cat(parts), expected_clips], "weights": [weights, expected_weights]}
    torch.save(tensors, folder / "tensors.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
