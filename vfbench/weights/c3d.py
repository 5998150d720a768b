"""C3D of the video Inception Score: the Chainer arrays under PyTorch names.

`conv3d_deepnetA_ucf.npz` and `mean2.npz` of https://github.com/pfnet-research/tgan2 were made from the Caffe model
`c3d_ucf101_finetune_whole_iter_20000`. Chainer and PyTorch share the layout of kernels and matrices.
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
from vfbench.weights.tensors import require_fit

NAME = "C3D"
MEAN_SHAPE = (3, 16, 128, 171)  # BGR, frames, height, width; values 0..255

_CONV_CHANNELS = {
    "conv1a": (64, 3),
    "conv2a": (128, 64),
    "conv3a": (256, 128),
    "conv3b": (256, 256),
    "conv4a": (512, 256),
    "conv4b": (512, 512),
    "conv5a": (512, 512),
    "conv5b": (512, 512),
}
_LINEAR_SHAPES = {"fc6": (4096, 8192), "fc7": (4096, 4096), "fc8": (101, 4096)}
_WEIGHT_SHAPES = {name: (*channels, 3, 3, 3) for name, channels in _CONV_CHANNELS.items()} | _LINEAR_SHAPES
_SUFFIXES = (("W", "weight"), ("b", "bias"))  # of Chainer, of PyTorch


def shapes() -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by name: `conv1a.weight` (OIDHW), `conv1a.bias`, ... `fc8.bias`, `mean`."""
    kernels = {f"{name}.weight": shape for name, shape in _WEIGHT_SHAPES.items()}
    return kernels | {f"{name}.bias": shape[:1] for name, shape in _WEIGHT_SHAPES.items()} | {"mean": MEAN_SHAPE}


def from_npz(path: Path, mean: Path) -> dict[str, Tensor]:
    """State dict, float32, from the npz files of the network and of the mean clip.

    Raises `MissingData` with the file and the array that do not fit.
    """
    pytorch_names = {f"{name}/{theirs}": f"{name}.{ours}" for name in _WEIGHT_SHAPES for theirs, ours in _SUFFIXES}
    arrays = formats.read_npz(path)
    state = {pytorch_names.get(name, name): _to_float32(path, name, array) for name, array in arrays.items()}
    require_fit(path, state, {name: shape for name, shape in shapes().items() if name != "mean"}, NAME)
    return state | {"mean": _read_mean(mean)}


def _read_mean(path: Path) -> Tensor:
    """Mean clip. TGAN reshapes the array of the file, so any shape of the right size is accepted."""
    arrays = formats.read_npz(path)
    if "mean" not in arrays or arrays["mean"].size != math.prod(MEAN_SHAPE):
        content = ", ".join(f"'{name}' {array.shape}" for name, array in arrays.items()) or "nothing"
        expected = f"'mean' with {math.prod(MEAN_SHAPE)} numbers, shape {MEAN_SHAPE}"
        raise MissingData(f"{path} holds {content}, expected {expected}")
    return _to_float32(path, "mean", arrays["mean"]).reshape(MEAN_SHAPE)


def _to_float32(path: Path, name: str, array: npt.NDArray[Any]) -> Tensor:
    if not np.issubdtype(array.dtype, np.floating):
        raise MissingData(f"{path}: '{name}' is {array.dtype}, expected floating-point numbers")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
