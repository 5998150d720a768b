"""FLOPs of a network, counted by torch on meta tensors, and the same on every device and version of torch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vfbench.diffusion.model import DiffusionModel
from vfbench.interfaces import Conditioning
from vfbench.utils.source_cache import cached

Shape: TypeAlias = Sequence[int]
_Count = TypeVar("_Count")


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """FLOPs of attention, from the shapes (..., L, E), (..., S, E) and (..., S, V): its two matrix products."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _attention_backward(_: Any, query: Shape, key: Shape, value: Shape, *__: Any, **___: Any) -> int:
    """FLOPs of its derivative: two products for each one forward. A fused kernel's recomputation is not counted."""
    return 2 * _attention(query, key, value)


# A device has kernels of its own for attention; torch has no formula for some, and counts recomputation of others.
_FUSED_ATTENTION = (
    "flash_attention",
    "flash_attention_for_cpu",
    "efficient_attention",
    "cudnn_attention",
    "fused_attention_overrideable",
    "attention_math_for_mps",
)
_FORMULAS = {
    getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}{suffix}"): formula
    for kernel in _FUSED_ATTENTION
    for suffix, formula in (("", _attention), ("_backward", _attention_backward))
    if hasattr(torch.ops.aten, f"_scaled_dot_product_{kernel}{suffix}")
}


@contextmanager
def count_flops() -> Iterator[FlopCounterMode]:
    """Context manager: count the FLOPs of all matrix products and convolutions, on meta or real tensors."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not see the products of the fused encoder layer
    try:
        with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)


def training_flops(model: DiffusionModel) -> int:
    """FLOPs of one clip in one training step, forward and backward, with a caption if the model has a vocabulary.

    A multiply-add counts two. The optimiser and the recomputation in fused attention are not counted. The count uses a
    copy on the meta device, so nothing is computed. Raises RuntimeError where clips of the configured shape do not fit
    the network.
    """
    return cached_count("training", model, lambda: _count_training_flops(model))


def cached_count(what: str, model: DiffusionModel, count: Callable[[], _Count]) -> _Count:
    """Result of `count`, cached for the built-in models, whose FLOPs follow from class and configuration alone."""
    kind = type(model)
    built_in = f"{kind.__module__}.{kind.__qualname__}" if kind.__module__.startswith("vfbench.") else ""
    return cached([what, built_in, asdict(model.config)], count) if built_in else count()


def _count_training_flops(model: DiffusionModel) -> int:
    meta_model, words, shape = meta_copy(model), model.config.words, model.config.shape
    conditioning: Conditioning = "text" if words else "none"
    x = torch.empty(1, shape.frames, 3, shape.height, shape.width, device="meta")
    captions, draws = list(words[:1]) or [""], meta_model.draw(1, torch.Generator())
    with count_flops() as counter:
        losses = meta_model.training_losses(x, [0], captions, [conditioning], draws)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]  # torch has no type
    return int(counter.get_total_flops())


def training_flops_or_none(model: DiffusionModel) -> int | None:
    """FLOPs as of `training_flops`; None for a model that reads values of tensors, or cannot take such clips."""
    try:
        return training_flops(model)
    except (RuntimeError, NotImplementedError, TypeError):
        return None


def meta_copy(model: DiffusionModel) -> DiffusionModel:
    """A copy whose parameters and buffers are meta tensors; tensors outside modules keep their values."""
    tensors = (*model.parameters(), *model.buffers())
    memo = {id(tensor): _to_meta(tensor) for tensor in tensors}  # in place of copies: no value is held twice
    return copy.deepcopy(model, memo)


def _to_meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
