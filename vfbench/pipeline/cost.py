"""The compute of a clip, counted while one is sampled."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vfbench.diffusion.flops import count_flops
from vfbench.interfaces import Request, Sampler, Staged
from vfbench.pipeline.sample import sample

MAX_REPEAT_SECONDS = 10.0  # a clip that took less is sampled again, to time it without the counter's overhead


@dataclass(frozen=True)
class ClipCost:
    """Compute of one clip: FLOPs (a multiply-add counts two) and calls of the denoising networks.

    `evaluations` is the largest number of times any one network saw the clip; guidance doubles it. `seconds` is what
    one clip took alone, an upper bound for clips made in batches. `stages` has the FLOPs of each stage of a sampler
    that is a chain of others, and is empty for any other.
    """

    parameters: int
    flops_per_clip: int
    evaluations: int
    calls: dict[str, int]
    seconds: float
    stages: Mapping[str, int] = field(default_factory=dict)


def measure(sampler: Sampler, request: Request) -> ClipCost:
    """Cost of one clip, measured by sampling it: FLOPs in total, and calls of each network."""
    calls = dict.fromkeys(sampler.networks, 0)
    parameters = {id(p): p.numel() for network in sampler.networks.values() for p in network.parameters()}

    def count(name: str, rows: int) -> None:
        calls[name] += rows

    with on_network_call(sampler, count), count_flops() as counter, _flops_by_stage(sampler, counter) as stages:
        seconds = _timed(sampler, request)
    if seconds < MAX_REPEAT_SECONDS:
        seconds = _timed(sampler, request)
    evaluations = max((n for name, n in calls.items() if name.rpartition(".")[2] != "condition"), default=0)
    return ClipCost(sum(parameters.values()), counter.get_total_flops(), evaluations, calls, seconds, stages)


@contextmanager
def _flops_by_stage(sampler: Sampler, counter: FlopCounterMode) -> Iterator[dict[str, int]]:
    """Context manager: FLOPs of the networks of each stage, summed while the block runs."""
    flops = dict.fromkeys(sampler.stages, 0) if isinstance(sampler, Staged) else {}
    with ExitStack() as stack:
        for name, network in sampler.networks.items() if flops else ():
            stage = name.partition(".")[0]

            def before(*_: Any, stage: str = stage) -> None:
                flops[stage] -= counter.get_total_flops()

            def after(*_: Any, stage: str = stage) -> None:
                flops[stage] += counter.get_total_flops()

            stack.callback(network.register_forward_pre_hook(before).remove)
            stack.callback(network.register_forward_hook(after).remove)
        yield flops


def _timed(sampler: Sampler, request: Request) -> float:
    started = time.monotonic()
    sample(sampler, [request])
    return time.monotonic() - started


@contextmanager
def on_network_call(sampler: Sampler, report: Callable[[str, int], None]) -> Iterator[None]:
    """Context manager: before each call of a sampler's network, call `report` with its name and the rows of the batch.

    With guidance a network may see the same clip twice in one call: two rows.
    """
    with ExitStack() as stack:
        for name, network in sampler.networks.items():
            hook = partial(_report_rows, report, name)
            stack.callback(network.register_forward_pre_hook(hook).remove)
        yield


def _report_rows(report: Callable[[str, int], None], name: str, _: nn.Module, inputs: tuple[Any, ...]) -> None:
    report(name, len(inputs[0]))


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that CUDA held for this process, or on a CPU the most that the process itself held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
