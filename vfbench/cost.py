"""The cost ledger: what a clip costs, counted by running one, not guessed."""

from __future__ import annotations

import copy
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vfbench.diffusion.model import DiffusionModel
from vfbench.generate import sample
from vfbench.interfaces import Conditioning, Request, Sampler

PATIENCE = 10.0  # seconds a clip may take that is sampled once more only to tell the time


@dataclass(frozen=True)
class Cost:
    """Of one clip: floating-point operations (a multiply-add counts two) and calls of the denoising networks.

    `evaluations` is the largest number of times any one network saw the clip; guidance doubles it. `seconds` is what
    one clip took alone, an upper bound for clips made in batches.
    """

    parameters: int
    flops_per_clip: int
    evaluations: int
    calls: dict[str, int]
    seconds: float


def measure(sampler: Sampler, request: Request) -> Cost:
    """Sample one clip under torch's flop counter, with a hook on each network."""
    calls = dict.fromkeys(sampler.networks, 0)
    parameters = {id(p): p.numel() for network in sampler.networks.values() for p in network.parameters()}
    with ExitStack() as stack:
        for name, network in sampler.networks.items():
            handle = network.register_forward_pre_hook(_count(calls, name))
            stack.callback(handle.remove)
        counter = stack.enter_context(counting())
        seconds = _timed(sampler, request)
    if seconds < PATIENCE:  # the first time also loads what later ones find ready, and the counter slows it down
        seconds = _timed(sampler, request)
    evaluations = max((n for name, n in calls.items() if name != "condition"), default=0)
    return Cost(sum(parameters.values()), counter.get_total_flops(), evaluations, calls, seconds)


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Within, torch's flop counter sees all products of matrices and all convolutions; a meta tensor costs the same."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused encoder layer does its products out of its sight
    try:
        with FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def training_flops(model: DiffusionModel) -> int:
    """FLOPs of one clip in one training step, forward and backward, with a caption where the model reads words.

    A multiply-add counts two. The optimiser's own work is not counted, nor what fused attention computes a second time.
    What is counted is a copy of meta tensors: nothing is computed. Raises RuntimeError where clips of the configured
    shape do not pass through the network.
    """
    bare, words, shape = without_values(model), model.config.words, model.config.shape
    mode: Conditioning = "text" if words else "none"
    x = torch.empty(1, shape.frames, 3, shape.height, shape.width, device="meta")
    with counting() as counter:
        losses = bare.training_losses(x, [0], list(words[:1]) or [""], [mode], bare.draw(1, torch.Generator()))
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]  # torch has no type
    return int(counter.get_total_flops())


def training_flops_or_none(model: DiffusionModel) -> int | None:
    """Those FLOPs; None for a model that looks at values, of which there are none while counting."""
    try:
        return training_flops(model)
    except (RuntimeError, NotImplementedError, TypeError):
        return None


def without_values(model: DiffusionModel) -> DiffusionModel:
    """A copy whose parameters and buffers are meta tensors; what is no part of a module keeps its values."""
    tensors = (*model.parameters(), *model.buffers())
    memo = {id(tensor): _meta(tensor) for tensor in tensors}  # in place of copies: none of the values is held twice
    return copy.deepcopy(model, memo)


def _meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


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
