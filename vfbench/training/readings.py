"""Losses of training steps, read from the device without making the host wait for each step of a GPU."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor


class Reading(NamedTuple):
    """Losses of a step, by name, on the host."""

    step: int
    values: dict[str, float]


class Readings:
    """Losses in the order of the steps: read at once on a CPU, and one step late on a GPU, so that no step waits."""

    def __init__(self, device: torch.device) -> None:
        self._late = device.type == "cuda"
        self._waiting: deque[tuple[int, list[str], Tensor, torch.cuda.Event | None]] = deque()

    def add(self, step: int, names: list[str], values: Tensor) -> None:
        """Begin to copy the values (N,) of a step, which have these names."""
        event = None
        if self._late:
            values = values.to("cpu", non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no type
            event.record()
        self._waiting.append((step, names, values, event))

    def read(self, *, wait: bool = False) -> list[Reading]:
        """The readings that are due: all of them with `wait`, else those but the last of a GPU."""
        readings = []
        while len(self._waiting) > (self._late and not wait):
            step, names, values, event = self._waiting.popleft()
            if event is not None:
                event.synchronize()  # ended long ago but for the last step
            readings.append(Reading(step, dict(zip(names, values.tolist(), strict=True))))
        return readings
