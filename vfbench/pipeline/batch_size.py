"""Clips per batch for `--batch-size auto`: on a GPU the fastest size that fits, found by trial and remembered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import torch

from vfbench.interfaces import Request, Sampler
from vfbench.pipeline.sample import sample
from vfbench.plugins import Spec
from vfbench.utils import console, source_cache
from vfbench.utils.memory import MEMORY_ERRORS, exhausted_memory

USUAL = {"cpu": 32, "cuda": 256}  # clips of USUAL_FRAMES frames
USUAL_FRAMES = 16
LARGEST = 1024
GAIN = 1.05  # a batch of twice the size must make this many times as many clips a second
PATIENCE = 20.0  # seconds: a batch that takes longer is not doubled


def choose_batch_size(
    size: int | Literal["auto"],
    model: Spec,
    sampler: Sampler,
    requests: Sequence[Request],
    device: torch.device,
    dtype: torch.dtype,
) -> int:
    """Clips per batch; `auto` is found by trial on a GPU, for a model with networks, and fixed elsewhere.

    The trial doubles the batch while that makes clips faster, fits, and takes less than `PATIENCE`. Its result is kept
    in the cache folder for each GPU, model with its options, clip size and precision. Raises the errors of `sample`.
    """
    if size != "auto":
        return size
    if device.type != "cuda" or not sampler.networks:
        return max(1, USUAL[device.type] * USUAL_FRAMES // max(sampler.shape.frames, USUAL_FRAMES))
    gpu = torch.cuda.get_device_properties(device)
    key = ["batch size", gpu.name, gpu.total_memory, str(model), sampler.weights, str(sampler.shape), str(dtype)]
    fastest: int = source_cache.cached(key, lambda: _try_sizes(sampler, requests[0]))
    return min(fastest, len(requests))


def _try_sizes(sampler: Sampler, request: Request) -> int:
    console.info("looking for the fastest batch size (--batch-size N saves that)")
    size, rate = 1, _clips_per_second(sampler, request, 1)
    while 2 * size <= LARGEST and size / rate < PATIENCE:
        try:
            doubled = _clips_per_second(sampler, request, 2 * size)
        except MEMORY_ERRORS as error:
            exhausted_memory(error)  # raises any other error
            break
        if doubled < GAIN * rate:
            break
        size, rate = 2 * size, doubled
    torch.cuda.empty_cache()
    return size


def _clips_per_second(sampler: Sampler, request: Request, size: int) -> float:
    """Rate of the second of two batches: the first also chooses kernels and takes memory."""
    batch = [request] * size
    sample(sampler, batch)
    began = time.monotonic()
    sample(sampler, batch)
    return size / (time.monotonic() - began)
