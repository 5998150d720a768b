"""Out-of-memory errors: detect them, and continue with smaller batches.

A full GPU raises `torch.OutOfMemoryError` only for memory that torch allocates. CUDA, cuBLAS and cuDNN allocate memory
of their own and fail as a RuntimeError with their own message. The main memory gives an error only where the system
refuses an allocation: one beyond the limit of the process (`ulimit -v`) or beyond all memory of the machine. A system
that overcommits kills the process later, which cannot be detected here.
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
from vfbench.utils import console

MEMORY_ERRORS = (RuntimeError, MemoryError, OSError)  # classes of out-of-memory errors, among others

_GPU, _MACHINE = "the memory of the GPU", "the memory of this machine"
_MESSAGES = {
    r"CUDA (driver )?error: out of memory": _GPU,
    r"CU(BLAS|DNN)_STATUS_ALLOC_FAILED": _GPU,
    r"CUDNN_STATUS_\w*DEVICE_ALLOCATION_FAILED": _GPU,  # cuDNN 9
    r"CUDNN_STATUS_\w*HOST_ALLOCATION_FAILED": _MACHINE,
    r"DefaultCPUAllocator: can't allocate memory": _MACHINE,
    r"std::bad_alloc": _MACHINE,
    r"could not create a primitive$": _MACHINE,  # oneDNN; followed by "descriptor" it is another error
}
_ADVICE = {
    _GPU: (
        "compute in half precision (--dtype bfloat16), keep the networks of a pipeline off the GPU "
        "(--model \"diffusers(offload='model')\"), or use --device cpu"
    ),
    _MACHINE: "raise the limit of the process (ulimit -v), or use a machine with more memory",
}

Item = TypeVar("Item")
Output = TypeVar("Output")


class NoMemory(BadEnvironment):
    """The smallest unit of work, such as a single clip, does not fit into memory."""


def exhausted_memory(error: Exception) -> str:
    """Name of the memory that ran out, for an exception caught as one of `MEMORY_ERRORS`; re-raises any other."""
    if isinstance(error, torch.OutOfMemoryError):
        return _GPU
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return _MACHINE
    for message, memory in _MESSAGES.items():
        if re.search(message, str(error)):
            return memory
    raise error


@contextmanager
def require_memory(what: str) -> Iterator[None]:
    """Context manager: turn out-of-memory errors into `NoMemory` naming `what`, for work that cannot be split."""
    try:
        yield
    except MEMORY_ERRORS as error:
        raise no_memory(what, exhausted_memory(error)) from error


def no_memory(what: str, memory: str) -> NoMemory:
    """Error for `what` that does not fit into `memory`, with advice."""
    return NoMemory(f"{what} does not fit into {memory}: end other programs that use it, {_ADVICE[memory]}")


@dataclass
class AdaptiveBatches:
    """Batches of at most `size` items; out of memory halves `size` for the rest of the work and prints a warning."""

    size: int = sys.maxsize

    def each(
        self,
        items: Sequence[Item],
        work: Callable[[Sequence[Item]], Output],
        describe: Callable[[Sequence[Item]], str],
    ) -> Iterator[tuple[Sequence[Item], Output]]:
        """Iterate over (batch of `items`, `work(batch)`); `describe` names a batch in messages.

        Raises `NoMemory` where a single item does not fit.
        """
        start = 0
        while start < len(items):
            batch = items[start : start + self.size]
            try:
                output = work(batch)
            except MEMORY_ERRORS as error:
                self._halve(len(batch), describe(batch), error)
            else:
                yield batch, output
                start += len(batch)
                continue
            torch.cuda.empty_cache()  # after the except block: the error keeps the tensors of the failed batch alive

    def _halve(self, count: int, description: str, error: Exception) -> None:
        memory = exhausted_memory(error)
        if count == 1:
            raise no_memory(description, memory) from error
        self.size = count // 2
        console.warn(f"{description} do not fit into {memory}: batches of {self.size} from here on")
