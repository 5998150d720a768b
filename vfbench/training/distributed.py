"""The processes that train one model together, started by `accelerate launch` or `torchrun`; one alone is a team, too.

Each does its part of every step, and holds the same weights after it. What one of them finds out alone, all must hear
of before the next step: else the others would wait for it in vain.
"""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed.nn.functional  # before there is a group, which it would take for a default, and keep
from torch import distributed, nn

from vfbench.errors import UserError

_KINDS = ("NO", "MULTI_CPU", "MULTI_GPU")


def first() -> bool:
    """Whether this process is the one that speaks, which it knows before it has met the others."""
    return os.environ.get("RANK", "0") == "0"


class Team:
    """All processes of a training. `main` is true in the one that writes, logs and shows progress."""

    def __init__(self, device: str) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        # A batch without captions leaves the caption encoder without gradients.
        parallel = DistributedDataParallelKwargs(find_unused_parameters=True)
        # Its own precision would be that of the whole process, whatever --dtype says.
        self._accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no", kwargs_handlers=[parallel])
        kind = self._accelerator.distributed_type.value
        if kind not in _KINDS:
            raise UserError(
                f"accelerate is set up for {kind}, this trains with one of {', '.join(_KINDS)}: see torchrun"
            )
        place: torch.device = self._accelerator.device
        self.device = torch.device("cpu") if place.type == "cpu" else place  # which accelerate numbers by process
        self.count: int = self._accelerator.num_processes
        self.rank: int = self._accelerator.process_index
        self.main: bool = self._accelerator.is_main_process
        if self.count > 1:
            atexit.register(_part)

    def share(self, batch: int, parts: int) -> slice:
        """What this process learns from of a batch; raises `UserError` where it does not split into equal parts."""
        if batch % (self.count * parts):
            split = f"{self.count} processes with --accumulate {parts}" if self.count > 1 else f"--accumulate {parts}"
            raise UserError(f"--batch-size {batch}: {split} needs a multiple of {self.count * parts}")
        own = batch // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """Both as the team uses them: gradients are averaged over all processes."""
        prepared: tuple[Any, Any] = self._accelerator.prepare(model, optimizer)
        return prepared

    def alone(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within, gradients are kept and not averaged yet."""
        kept: AbstractContextManager[None] = self._accelerator.no_sync(model)
        return kept

    def agree(self, *said: bool) -> list[bool]:
        """Of each thing, whether any process says so."""
        if self.count == 1:
            return list(said)
        told = torch.tensor(said, dtype=torch.int32, device=self.device)
        distributed.all_reduce(told, op=distributed.ReduceOp.MAX)
        return [bool(value) for value in told.tolist()]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over all processes."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values / self.count

    @contextmanager
    def as_one(self) -> Iterator[None]:
        """What fails in one process within ends all: there with its own error, elsewhere with `UserError` telling it.

        All must come by, and no process goes on before.
        """
        fault: Exception | None = None
        try:
            yield
        except Exception as error:
            fault = error
        if not any(self.agree(fault is not None)):
            return
        if self.count > 1:
            told: list[str | None] = [None] * self.count
            distributed.all_gather_object(told, None if fault is None else str(fault))
            rank, why = next((rank, why) for rank, why in enumerate(told) if why is not None)
            raise fault or UserError(f"process {rank} of {self.count} stopped: {why}")
        assert fault is not None
        raise fault


def _part() -> None:
    """End the threads of gloo: one that lets go of a tensor while Python ends aborts the process.

    They end with the last who knows the group, and what has been trained does, in circles.
    """
    if distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()
