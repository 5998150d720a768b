"""Numerical precision, attention kernels and activation checkpointing of a training step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vfbench.errors import UserError
from vfbench.nets.recompute import Recomputing
from vfbench.utils.device import exact_float32


def autocast(device: torch.device, dtype: str) -> AbstractContextManager[Any]:
    """Context manager: run the networks in `dtype`; weights, EMA and optimiser stay in float32."""
    return torch.autocast(device.type, torch.bfloat16) if dtype == "bfloat16" else nullcontext()


@contextmanager
def kernels(device: torch.device, dtype: str) -> Iterator[None]:
    """Context manager: float32 in full on a GPU, and bfloat16 attention on a CPU by plain matrix products.

    The fused kernel's backward pass is slow on a CPU: two fifths of a training step (torch 2.15, Xeon with AMX). This
    must also enclose the backward pass, where recomputed activations must equal the first ones.
    """
    if device.type != "cpu":
        with exact_float32(device) if dtype == "float32" else nullcontext():
            yield
        return
    if dtype != "bfloat16":
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
    """Turn on activation checkpointing; raises `UserError` where no network of the model supports it."""
    networks = [module for module in model.modules() if isinstance(module, Recomputing)]
    diffusers_networks = [module for module in model.modules() if hasattr(module, "enable_gradient_checkpointing")]
    if not networks and not diffusers_networks:
        raise UserError("--checkpoint-activations: no network of this model supports it; leave the flag out")
    for module in networks:
        module.recompute = True
    for network in diffusers_networks:
        network.enable_gradient_checkpointing()  # type: ignore[operator]
