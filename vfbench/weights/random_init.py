"""Weights for trying the path without a download: the same on every machine, and of no use for a number."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtri
from torch import Tensor

LEVELS = 1 << 16


def tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A float32 tensor for each name and shape; each depends on its own name and shape alone.

    Kernels and matrices are normal with He's scale, sqrt(2 / inputs) (https://arxiv.org/abs/1502.01852); the scale and
    the running variance of a normalisation are 1, all else is 0.
    """
    return {name: _tensor(name, shape) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    last = name.rpartition(".")[2]
    if last == "weight" and len(shape) > 1:
        return torch.from_numpy(_normal(name, shape) * np.float32(math.sqrt(2 / math.prod(shape[1:]))))
    return torch.ones(shape) if last in ("weight", "running_var") else torch.zeros(shape)


def _normal(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Normal numbers from a table, by 16 random bits each: a logarithm's last digit would depend on the machine."""
    seed = int.from_bytes(hashlib.sha256(f"vfbench/{name}".encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(math.ceil(math.prod(shape) / 4))
    bits = raw.astype("<u8").view("<u2")[: math.prod(shape)]
    values: npt.NDArray[np.float32] = _quantiles()[bits].reshape(shape)
    return values


@functools.cache
def _quantiles() -> npt.NDArray[np.float32]:
    """The middle of each of 65,536 equally likely intervals of the normal distribution."""
    quantiles: npt.NDArray[np.float32] = ndtri((np.arange(LEVELS) + 0.5) / LEVELS).astype(np.float32)
    return quantiles
