"""Device, precision and CPU cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from vfbench.errors import BadEnvironment, unknown
from vfbench.utils.options import DEVICES, DTYPES


def choose_device(name: str) -> torch.device:
    """Device for `auto`, `cpu` or `cuda`; `auto` prefers CUDA. Raises `BadEnvironment` for `cuda` without a GPU."""
    if name not in DEVICES:
        raise unknown("--device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise BadEnvironment("--device cuda: torch sees no CUDA device; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Computation dtype by name; `auto` is bfloat16 (autocast) on a GPU and float32 on a CPU."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise unknown("--dtype", name, ["auto", *DTYPES])
    return torch.float32 if name == "float32" else torch.bfloat16


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Context manager: full float32, without TF32 in convolutions and matrix products, without autocast."""
    convolution, product = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolution, product


def precision(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Context manager: compute in full float32, or in bfloat16 where autocast finds it safe."""
    return exact_float32(device) if dtype == torch.float32 else torch.autocast(device.type, dtype)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on a device. The host does not wait for a copy to a GPU, which reads from pinned memory."""
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class DeviceConstant:
    """A constant in the dtype and on the device of other tensors; `compute` makes it on the CPU, once for each dtype.

    Copies are kept: the host waits for the GPU at each copy.
    """

    def __init__(self, compute: Callable[[torch.dtype], Tensor]) -> None:
        self._compute = compute
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def like(self, other: Tensor) -> Tensor:
        """The constant in the dtype and on the device of `other`."""
        key = other.device, other.dtype
        if key not in self._copies:
            with torch.inference_mode(False):  # a later training could not use an inference tensor
                self._copies[key] = to_device(self._compute(other.dtype), other.device)
        return self._copies[key]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Context manager: torch computes with `count` threads on the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_local_gpu(device: torch.device) -> None:
    """Let this process compute on the GPU of its number on this machine, where `LOCAL_RANK` says it."""
    local = os.environ.get("LOCAL_RANK", "")
    if device.type == "cuda" and local.isdecimal():
        torch.cuda.set_device(int(local) % torch.cuda.device_count())


def available_cores() -> int:
    """Number of CPU cores that this process may use; a scheduler may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
