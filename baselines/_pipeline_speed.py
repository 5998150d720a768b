"""Faster sampling of a diffusers pipeline: its attention backend, and a lossy cache of its transformer's blocks."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from vfbench.errors import BadEnvironment, UserError, unknown


def enable_block_cache(pipe: Any, threshold: float) -> str:
    """Turn on First Block Cache (github.com/chengzeyi/ParaAttention) in a pipeline; return a remark for tables.

    A step in which the first block changes by less than `threshold`, relative to its output, skips the other blocks and
    reuses what they added a step before. Raises `UserError` for a pipeline whose transformer does not take the cache.
    """
    import diffusers

    library: Any = diffusers  # partly untyped
    parts = (pipe.components.get(part) for part in ("transformer", "transformer_2"))
    transformers = [part for part in parts if hasattr(part, "enable_cache")]
    if not transformers or "cache_context" not in inspect.unwrap(type(pipe).__call__).__code__.co_names:
        raise UserError(f"diffusers(block_cache={threshold}): {type(pipe).__name__} does not take it; leave it out")
    for transformer in transformers:
        try:
            transformer.enable_cache(library.FirstBlockCacheConfig(threshold))
        except (ValueError, LookupError) as error:  # blocks that the library does not know, or only one
            name = type(transformer).__name__
            raise UserError(f"diffusers(block_cache={threshold}): {name} does not take it ({error})") from error
    return f"sampled with a lossy cache (block_cache {threshold:g}): other clips than the pipeline's own"


@contextmanager
def clean_cache(pipe: Any) -> Iterator[None]:
    """Context manager: reset the caches of a pipeline if a call fails; a call that succeeds resets them itself."""
    try:
        yield
    except Exception:
        for part in pipe.components.values():
            if hasattr(part, "_reset_stateful_cache"):
                part._reset_stateful_cache()
        raise


def check_attention(name: str, device: torch.device, dtype: torch.dtype, pipe: Any) -> None:
    """Raise `UserError` for a backend of diffusers that is unknown, or that would fail or be ignored here.

    Backends named after the hub download code and run it: they are unknown here. Raises `BadEnvironment` for one whose
    package is missing.
    """
    from diffusers.models.attention_dispatch import AttentionBackendName

    if name not in (names := sorted(each.value for each in AttentionBackendName if "hub" not in each.value)):
        raise unknown("attention of diffusers", name, names)
    with attention_backend(name):
        pass
    if not name.lstrip("_").startswith(("native", "flex")) and (device.type != "cuda" or dtype == torch.float32):
        raise UserError(f"diffusers(attention='{name}') needs a GPU and half precision: add --dtype bfloat16")
    networks = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    processors = [getattr(module, "processor", None) for network in networks for module in network.modules()]
    if not any(hasattr(processor, "_attention_backend") for processor in processors):
        raise UserError(f"diffusers(attention='{name}'): {type(pipe).__name__} has one attention; leave it out")


@contextmanager
def attention_backend(name: str | None) -> Iterator[None]:
    """Context manager: compute attention by a backend of diffusers, such as `flash` or `sage`; None is the library's.

    Raises `BadEnvironment` for one whose package is missing.
    """
    with ExitStack() as stack:
        if name is not None:
            from diffusers.models import attention_dispatch as library

            try:
                stack.enter_context(library.attention_backend(library.AttentionBackendName(name)))
            except (RuntimeError, ImportError) as error:
                raise BadEnvironment(f"diffusers(attention='{name}'): {error}") from error
        yield
