"""The compute of a clip, counted while one is sampled."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vfbench.diffusion.flops import count_flops
from vfbench.interfaces import Request, Sampler
from vfbench.pipeline.sample import sample

MAX_REPEAT_SECONDS = 10.0  # a clip that took less is sampled again, to time it without the counter's overhead


@dataclass(frozen=True)
class ClipCost:
    """Compute of one clip: FLOPs (a multiply-add counts two) and calls of the denoising networks.

    `evaluations` is the largest number of times any one network saw the clip; guidance doubles it. `seconds` is what
    one clip took alone, an upper bound for clips made in batches.
    """

    parameters: int
    flops_per_clip: int
    evaluations: int
    calls: dict[str, int]
    seconds: float


def measure(sampler: Sampler, request: Request) -> ClipCost:
    """Cost of one clip, measured by sampling it: FLOPs in total, and calls of each network."""
    calls = dict.fromkeys(sampler.networks, 0)
    parameters = {id(p): p.numel() for network in sampler.networks.values() for p in network.parameters()}
    with ExitStack() as stack:
        for name, network in sampler.networks.items():
            handle = network.register_forward_pre_hook(_count(calls, name))
            stack.callback(handle.remove)
        counter = stack.enter_context(count_flops())
        seconds = _timed(sampler, request)
    if seconds < MAX_REPEAT_SECONDS:
        seconds = _timed(sampler, request)
    evaluations = max((n for name, n in calls.items() if name != "condition"), default=0)
    return ClipCost(sum(parameters.values()), counter.get_total_flops(), evaluations, calls, seconds)


def _timed(sampler: Sampler, request: Request) -> float:
    started = time.monotonic()
    sample(sampler, [request])
    return time.monotonic() - started


def _count(calls: dict[str, int], name: str) -> Any:
    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        # Rows of the batch: guidance shows the network the same clip twice in one call.
        calls[name] += len(inputs[0])

    return hook


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that CUDA held for this process, or on a CPU the most that the process itself held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
