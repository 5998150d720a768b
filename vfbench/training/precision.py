"""How a step is computed: in which precision, by which kernels, and what is kept for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vfbench.errors import UserError
from vfbench.nets.recompute import Recomputing


def autocast(device: torch.device, dtype: str) -> AbstractContextManager[Any]:
    """Within, the networks compute in `dtype`; weights, their average and the optimiser stay in float32."""
    return torch.autocast(device.type, torch.bfloat16) if dtype == "bfloat16" else nullcontext()


@contextmanager
def kernels(device: torch.device, dtype: str) -> Iterator[None]:
    """Within, attention in bfloat16 on a CPU is plain matrix products.

    The fused kernel's backward pass is slow there, it took two fifths of a training step (torch 2.15, Xeon with AMX).
    Around the backward pass as well: what is computed again there must be computed alike.
    """
    if dtype != "bfloat16" or device.type != "cpu":
        yield
        return
    # Despite its name, the setting governs the CPU too: without it the products are made in float32.
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()  # type: ignore[no-untyped-call]
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


def recompute(model: nn.Module) -> None:
    """Let the networks compute their blocks again in the backward pass; raises `UserError` where none can."""
    found = [module for module in model.modules() if isinstance(module, Recomputing)]
    hub = [module for module in model.modules() if hasattr(module, "enable_gradient_checkpointing")]
    if not found and not hub:
        raise UserError("--checkpoint-activations: no network of this model has blocks that it could compute again")
    for module in found:
        module.recompute = True
    for network in hub:  # of the diffusers library
        network.enable_gradient_checkpointing()  # type: ignore[operator]
