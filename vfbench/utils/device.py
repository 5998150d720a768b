"""Where work runs, in what precision, and how many clips at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from vfbench.errors import BadEnvironment, UserError, unknown

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BATCH = {"cpu": 32, "cuda": 256}  # clips of BATCH_FRAMES frames that `auto` makes at once
BATCH_FRAMES = 16


def choose(name: str) -> torch.device:
    """`auto` is CUDA where there is one; asking for CUDA where there is none raises `BadEnvironment`."""
    if name not in ("auto", "cpu", "cuda"):
        raise unknown("--device", name, ["auto", "cpu", "cuda"])
    if name == "cuda" and not torch.cuda.is_available():
        raise BadEnvironment("--device cuda: torch sees no CUDA device here; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def precision(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 (by autocast) on a GPU and float32 on a CPU."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise unknown("--dtype", name, ["auto", *DTYPES])
    return DTYPES[name]


def batch_size(asked: int | Literal["auto"], device: torch.device, frames: int = BATCH_FRAMES) -> int:
    """How many clips are made at once: by `auto` fewer, the longer they are; raises `UserError` for none."""
    if asked == "auto":
        return max(1, BATCH[device.type] * BATCH_FRAMES // max(frames, BATCH_FRAMES))
    if asked < 1:
        raise UserError(f"--batch-size {asked}: at least 1, or auto")
    return asked


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Within, float32 is float32: no TF32 in convolutions or matrix products, no autocast. For feature networks."""
    convolution, product = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolution, product


def cores() -> int:
    """How many cores this process may use, which a scheduler may have made fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
