"""Where memory is full: how errors tell it, and work that goes on with fewer things at once.

A full GPU is a `torch.OutOfMemoryError` only where torch itself asks for the memory: what CUDA, cuBLAS and cuDNN take
for themselves fails as a RuntimeError in their words. The memory of a machine is full where the system grants no more,
by a limit that is set on the process (`ulimit -v`) or for a piece larger than all there is; where it grants more than
there is, it ends the process later, and nothing here can know.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from vfbench.errors import BadEnvironment

ERRORS = (RuntimeError, MemoryError, OSError)  # among which are those that tell of full memory

_GPU, _MACHINE = "the memory of the GPU", "the memory of this machine"
_SAYINGS = {
    r"CUDA (driver )?error: out of memory": _GPU,
    r"CU(BLAS|DNN)_STATUS_ALLOC_FAILED": _GPU,
    r"CUDNN_STATUS_\w*DEVICE_ALLOCATION_FAILED": _GPU,  # of cuDNN 9
    r"CUDNN_STATUS_\w*HOST_ALLOCATION_FAILED": _MACHINE,
    r"DefaultCPUAllocator: can't allocate memory": _MACHINE,
    r"std::bad_alloc": _MACHINE,
    r"could not create a primitive$": _MACHINE,  # oneDNN's; with "descriptor" behind it something is not supported
}
_WAYS = {
    _GPU: (
        "compute in half precision (--dtype bfloat16), keep the networks of a pipeline off the GPU "
        "(--model \"diffusers(offload='model')\"), or take --device cpu"
    ),
    _MACHINE: "lift a limit that is set on it (ulimit -v), or take a machine with more",
}

Item = TypeVar("Item")
Made = TypeVar("Made")


class NoMemory(BadEnvironment):
    """The least that must be in memory at once does not fit, such as a single clip."""


def full(error: Exception) -> str:
    """Which memory is full by this error of `ERRORS`, in words; raises every other error again."""
    if isinstance(error, torch.OutOfMemoryError):
        return _GPU
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return _MACHINE
    for saying, memory in _SAYINGS.items():
        if re.search(saying, str(error)):
            return memory
    raise error


@contextmanager
def needed(what: str) -> Iterator[None]:
    """Within, full memory raises `NoMemory`: `what` does not fit. For what cannot be done with less at once."""
    try:
        yield
    except ERRORS as error:
        raise no_memory(what, full(error)) from error


def no_memory(what: str, memory: str) -> NoMemory:
    """The error for what does not fit into a memory, with what helps."""
    return NoMemory(f"{what} does not fit into {memory}: end what else runs there, {_WAYS[memory]}")


@dataclass
class AdaptiveBatches:
    """At most `size` things at once, halved for good, and told so, where there is too little memory for as many."""

    size: int = sys.maxsize

    def each(
        self, items: Sequence[Item], work: Callable[[Sequence[Item]], Made], named: Callable[[Sequence[Item]], str]
    ) -> Iterator[tuple[Sequence[Item], Made]]:
        """Batches of `items`, each with what `work` makes of it; `named` says what a batch is.

        Raises `NoMemory` where there is too little memory for a single one.
        """
        start = 0
        while start < len(items):
            batch = items[start : start + self.size]
            try:
                made = work(batch)
            except ERRORS as error:
                self._halve(len(batch), named(batch), error)
            else:
                yield batch, made
                start += len(batch)
                continue
            torch.cuda.empty_cache()  # here, where the error is gone, and with it what it held of the failed batch

    def _halve(self, count: int, named: str, error: Exception) -> None:
        memory = full(error)
        if count == 1:
            raise no_memory(named, memory) from error
        self.size = count // 2
        print(f"{named} do not fit into {memory}: batches of {self.size} from here on", file=sys.stderr)
