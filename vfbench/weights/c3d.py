"""The C3D of the video Inception Score: Chainer's arrays under PyTorch's names.

`conv3d_deepnetA_ucf.npz` and `mean2.npz` of https://github.com/pfnet-research/tgan2 were made from the Caffe model
`c3d_ucf101_finetune_whole_iter_20000`. Chainer lays its kernels and matrices out as PyTorch does.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vfbench.errors import MissingData
from vfbench.weights import formats
from vfbench.weights.tensors import fit

NAME = "C3D"
MEAN = (3, 16, 128, 171)  # BGR, frames, height, width; 0..255

_CHANNELS = {
    "conv1a": (64, 3),
    "conv2a": (128, 64),
    "conv3a": (256, 128),
    "conv3b": (256, 256),
    "conv4a": (512, 256),
    "conv4b": (512, 512),
    "conv5a": (512, 512),
    "conv5b": (512, 512),
}
_LINEAR = {"fc6": (4096, 8192), "fc7": (4096, 4096), "fc8": (101, 4096)}
_KERNELS = {name: (*channels, 3, 3, 3) for name, channels in _CHANNELS.items()} | _LINEAR


def shapes() -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor: `conv1a.weight` (OIDHW), `conv1a.bias`, ... `fc8.bias`, `mean`."""
    kernels = {f"{name}.weight": shape for name, shape in _KERNELS.items()}
    return kernels | {f"{name}.bias": shape[:1] for name, shape in _KERNELS.items()} | {"mean": MEAN}


def from_npz(path: Path, mean: Path) -> dict[str, Tensor]:
    """The state dict, float32, from the network's file and the mean's.

    Raises `MissingData` naming file and array that do not fit.
    """
    ours = {f"{name}/{theirs}": f"{name}.{suffix}" for name in _KERNELS for theirs, suffix in _SUFFIXES}
    arrays = formats.read_npz(path)
    state = {ours.get(name, name): _tensor(path, name, array) for name, array in arrays.items()}
    fit(path, state, {name: shape for name, shape in shapes().items() if name != "mean"}, NAME)
    return state | {"mean": _mean(mean)}


_SUFFIXES = (("W", "weight"), ("b", "bias"))


def _mean(path: Path) -> Tensor:
    """The mean clip. TGAN reshapes what the file holds, so any shape with as many numbers will do."""
    arrays = formats.read_npz(path)
    if "mean" not in arrays or arrays["mean"].size != math.prod(MEAN):
        found = ", ".join(f"'{name}' {array.shape}" for name, array in arrays.items()) or "nothing"
        raise MissingData(f"{path} holds {found}, expected 'mean' with {math.prod(MEAN)} numbers, shape {MEAN}")
    return _tensor(path, "mean", arrays["mean"]).reshape(MEAN)


def _tensor(path: Path, name: str, array: npt.NDArray[Any]) -> Tensor:
    if not np.issubdtype(array.dtype, np.floating):
        raise MissingData(f"{path}: '{name}' is {array.dtype}, expected floating numbers")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
