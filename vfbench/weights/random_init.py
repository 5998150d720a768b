"""Random weights for plumbing checks without a download: identical on every machine, useless for scores."""

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

NUM_LEVELS = 1 << 16


def random_tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Float32 tensors for the given names and shapes; each depends on its own name and shape alone.

    Kernels and matrices are normal with He's scale, sqrt(2 / inputs) (https://arxiv.org/abs/1502.01852). The scale and
    the running variance of a normalisation layer are 1, all other tensors are 0.
    """
    return {name: _init_tensor(name, shape) for name, shape in shapes.items()}


def _init_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    suffix = name.rpartition(".")[2]
    if suffix == "weight" and len(shape) > 1:
        return torch.from_numpy(_normal_values(name, shape) * np.float32(math.sqrt(2 / math.prod(shape[1:]))))
    return torch.ones(shape) if suffix in ("weight", "running_var") else torch.zeros(shape)


def _normal_values(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Normal numbers looked up by 16 random bits each: a computed logarithm differs between machines."""
    seed = int.from_bytes(hashlib.sha256(f"vfbench/{name}".encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(math.ceil(math.prod(shape) / 4))
    bits = raw.astype("<u8").view("<u2")[: math.prod(shape)]
    values: npt.NDArray[np.float32] = _normal_quantiles()[bits].reshape(shape)
    return values


@functools.cache
def _normal_quantiles() -> npt.NDArray[np.float32]:
    """Midpoints of 65,536 equally likely intervals of the normal distribution."""
    quantiles: npt.NDArray[np.float32] = ndtri((np.arange(NUM_LEVELS) + 0.5) / NUM_LEVELS).astype(np.float32)
    return quantiles
