"""Clips per batch for `--batch-size auto`: on a GPU the fastest size that fits, found by trial and remembered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import torch

from vfbench.interfaces import Request, Sampler
from vfbench.pipeline.sample import NotFinite, sample
from vfbench.plugins import Spec
from vfbench.utils import source_cache
from vfbench.utils.files import cache_folder, one_at_a_time
from vfbench.utils.memory import MEMORY_ERRORS, exhausted_memory

USUAL = {"cpu": 32, "cuda": 256}  # clips of USUAL_FRAMES frames
USUAL_FRAMES = 16
LARGEST = 256  # workers share a run by chunks of this many clips
GAIN = 1.05  # a batch of twice the size must make this many times as many clips a second
LONGEST = 20.0  # seconds: a batch that takes longer is not doubled
TRIAL_SECONDS = 400.0  # to wait for the trial of another process on this machine


def choose_batch_size(
    size: int | Literal["auto"],
    model: Spec,
    sampler: Sampler,
    requests: Sequence[Request],
    device: torch.device,
    dtype: torch.dtype,
    *,
    begun: bool,
) -> int:
    """Clips per batch; `auto` is found by trial on a GPU, for a model with networks, and fixed elsewhere.

    The trial doubles the batch while that makes clips faster, fits, and takes less than `LONGEST`. Its result is kept
    in the cache folder for each GPU with its free memory, model with its options, clip size and precision. Work that
    has `begun` keeps its batches, and no trial is made.
    """
    if size != "auto":
        return size
    if device.type != "cuda" or not sampler.networks or begun:
        return max(1, USUAL[device.type] * USUAL_FRAMES // max(sampler.shape.frames, USUAL_FRAMES))
    gpu, largest = torch.cuda.get_device_properties(device), min(LARGEST, len(requests))
    key = [
        "batch size",
        gpu.name,
        round(torch.cuda.mem_get_info(device)[0] / 1e9),  # other programs may have filled the GPU
        str(model),
        sampler.weights,
        str(sampler.shape),
        str(dtype),
        largest,
    ]
    with one_at_a_time(cache_folder(), TRIAL_SECONDS):  # the workers of a run read what the first has found
        found: int = source_cache.cached(key, lambda: _fastest(sampler, requests[0], largest))
    return found


def _fastest(sampler: Sampler, request: Request, largest: int) -> int:
    size, rate = 1, 0.0
    while True:
        began = time.monotonic()
        try:
            sample(sampler, [request] * size)  # the first call of a size also chooses kernels and takes memory
            if size == 1 and (largest == 1 or time.monotonic() - began > LONGEST):
                return 1
            began = time.monotonic()
            sample(sampler, [request] * size)
        except (*MEMORY_ERRORS, NotFinite) as error:
            if not isinstance(error, NotFinite):
                exhausted_memory(error)  # raises any other error again
            return max(1, size // 2)  # the run itself says what is wrong, where a single clip fails
        seconds = time.monotonic() - began
        if size / seconds < GAIN * rate:
            return size // 2
        if 2 * size > largest or seconds > LONGEST:
            return size
        size, rate = 2 * size, size / seconds
