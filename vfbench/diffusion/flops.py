"""FLOPs of a network, counted by torch on meta tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from vfbench.diffusion.model import DiffusionModel
from vfbench.interfaces import Conditioning


def _cpu_attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """FLOPs of fused attention on a CPU, from the shapes: torch up to 2.14 has no formula for it."""
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]  # torch has no type


_FORMULAS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention}


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Context manager: count the FLOPs of all matrix products and convolutions, of meta tensors as of real ones."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused encoder layer does its products out of its sight
    try:
        with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
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
