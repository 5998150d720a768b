"""Faster sampling of a diffusers pipeline: its attention backend, and a lossy cache of its transformer's blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

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
    if not transformers:
        raise UserError(f"diffusers(block_cache={threshold}): {type(pipe).__name__} has no transformer that takes it")
    for transformer in transformers:
        try:
            transformer.enable_cache(library.FirstBlockCacheConfig(threshold))
        except (ValueError, LookupError) as error:  # blocks that the library does not know, or only one
            name = type(transformer).__name__
            raise UserError(f"diffusers(block_cache={threshold}): {name} does not take it ({error})") from error
    return f"sampled with a lossy cache (block_cache {threshold:g}): other clips than the pipeline's own"


@contextmanager
def attention_backend(name: str | None) -> Iterator[None]:
    """Context manager: compute attention by a backend of diffusers, such as `flash` or `sage`; None is the library's.

    Raises `UserError` for an unknown backend, and `BadEnvironment` for one whose package is missing.
    """
    with ExitStack() as stack:
        if name is not None:
            from diffusers.models import attention_dispatch as library

            names = sorted(backend.value for backend in library.AttentionBackendName)
            if name not in names:
                raise unknown("attention of diffusers", name, names)
            try:
                stack.enter_context(library.attention_backend(library.AttentionBackendName(name)))
            except (RuntimeError, ImportError) as error:
                raise BadEnvironment(f"diffusers(attention='{name}'): {error}") from error
        yield
