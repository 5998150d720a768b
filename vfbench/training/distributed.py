"""Data-parallel training in the processes started by `accelerate launch` or `torchrun`; also in a single process.

Each process learns from its share of every batch, and all hold the same weights after each step. A condition that only
one process detects must reach all of them before the next step: otherwise the others wait for it forever.
"""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed.nn.functional  # imported before a group exists, which it would keep as a default argument
from torch import distributed, nn

from vfbench.errors import UserError

_SUPPORTED = ("NO", "MULTI_CPU", "MULTI_GPU")


def is_main_process() -> bool:
    """True in the process of rank 0, by the environment alone: usable before the process group exists."""
    return os.environ.get("RANK", "0") == "0"


class ProcessGroup:
    """All processes of a training run; `is_main` is True in the one that writes, logs and shows progress."""

    def __init__(self, device: str) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        # A batch without captions leaves the caption encoder without gradients.
        parallel = DistributedDataParallelKwargs(find_unused_parameters=True)
        # accelerate would apply its own mixed precision to the whole process, whatever --dtype says.
        self._accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no", kwargs_handlers=[parallel])
        kind = self._accelerator.distributed_type.value
        if kind not in _SUPPORTED:
            raise UserError(f"accelerate is configured for {kind}; supported: {', '.join(_SUPPORTED)}. Use torchrun")
        device_of_rank: torch.device = self._accelerator.device
        # accelerate numbers CPUs by process, as in cpu:1.
        self.device = torch.device("cpu") if device_of_rank.type == "cpu" else device_of_rank
        self.world_size: int = self._accelerator.num_processes
        self.rank: int = self._accelerator.process_index
        self.is_main: bool = self._accelerator.is_main_process
        if self.world_size > 1:
            atexit.register(_destroy_process_group)

    def share(self, batch_size: int, parts: int) -> slice:
        """Slice of a batch that this process learns from; raises `UserError` where it has no `parts` equal parts."""
        if batch_size % (self.world_size * parts):
            accumulate = f"--accumulate {parts}"
            split = f"{self.world_size} processes with {accumulate}" if self.world_size > 1 else accumulate
            raise UserError(f"--batch-size {batch_size}: {split} needs a multiple of {self.world_size * parts}")
        size = batch_size // self.world_size
        return slice(self.rank * size, (self.rank + 1) * size)

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """Wrap model and optimiser so that gradients are averaged over all processes."""
        prepared: tuple[Any, Any] = self._accelerator.prepare(model, optimizer)
        return prepared

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """Context manager: accumulate gradients without averaging them over the processes."""
        context: AbstractContextManager[None] = self._accelerator.no_sync(model)
        return context

    def any_rank(self, *flags: bool) -> list[bool]:
        """Logical or of each flag over all processes."""
        if self.world_size == 1:
            return list(flags)
        reduced = torch.tensor(flags, dtype=torch.int32, device=self.device)
        distributed.all_reduce(reduced, op=distributed.ReduceOp.MAX)
        return [bool(value) for value in reduced.tolist()]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over all processes; overwrites `values`."""
        if self.world_size > 1:
            distributed.all_reduce(values)
        return values / self.world_size

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Collective section: an exception on any rank ends all ranks; also acts as a barrier.

        A rank that failed raises its own exception, the others raise `UserError` with its rank and message.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        if not any(self.any_rank(failure is not None)):
            return
        if self.world_size > 1:
            messages: list[str | None] = [None] * self.world_size
            distributed.all_gather_object(messages, None if failure is None else str(failure))
            rank, message = next((rank, text) for rank, text in enumerate(messages) if text is not None)
            raise failure or UserError(f"process {rank} of {self.world_size} stopped: {message}")
        assert failure is not None
        raise failure


def _destroy_process_group() -> None:
    """End gloo's threads: one that frees a tensor while Python shuts down aborts the process.

    They end with the last reference to the group. Trained objects refer to it in cycles, so these are collected first.
    """
    if distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()
