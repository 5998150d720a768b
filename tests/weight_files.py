"""Stand-in checkpoints of a small I3D in every published format, and its table of CRCs."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import torch
from helpers import randn
from torch import Tensor, nn

from vfbench.utils import tensor_files
from vfbench.utils.files import file_sha256
from vfbench.weights import catalogue, i3d
from vfbench.weights.catalogue import Download, Source
from vfbench.weights.load import WeightInfo, load_weights

Arrays = Mapping[str, np.ndarray[Any, Any]]
State = dict[str, Tensor]

NAMES = (  # name in TensorFlow, piergiaj and hassony2; shape in PyTorch
    ("Conv3d_1a_7x7/conv_3d/w", "Conv3d_1a_7x7.conv3d.weight", "conv3d_1a_7x7.conv3d.weight", (6, 3, 2, 4, 5)),
    ("Conv3d_1a_7x7/batch_norm/beta", "Conv3d_1a_7x7.bn.bias", "conv3d_1a_7x7.batch3d.bias", (6,)),
    (
        "Conv3d_1a_7x7/batch_norm/moving_mean",
        "Conv3d_1a_7x7.bn.running_mean",
        "conv3d_1a_7x7.batch3d.running_mean",
        (6,),
    ),
    (
        "Conv3d_1a_7x7/batch_norm/moving_variance",
        "Conv3d_1a_7x7.bn.running_var",
        "conv3d_1a_7x7.batch3d.running_var",
        (6,),
    ),
    ("Mixed_3b/Branch_0/conv_3d/w", "Mixed_3b.b0.conv3d.weight", "mixed_3b.branch_0.conv3d.weight", (1, 1, 1, 1, 1)),
    ("Logits/Conv3d_0c_1x1/conv_3d/w", "logits.conv3d.weight", "conv3d_0c_1x1.conv3d.weight", (4, 6, 1, 1, 1)),
    ("Logits/Conv3d_0c_1x1/conv_3d/b", "logits.conv3d.bias", "conv3d_0c_1x1.conv3d.bias", (4,)),
)
GAMMA = "Conv3d_1a_7x7.bn.weight"


def arrays_of(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """TensorFlow variables of the network, kernels DHWIO."""
    return {
        i3d.PREFIX + variable: randn(*_tensorflow(shape), seed=seed + number).numpy()
        for number, (variable, _, _, shape) in enumerate(NAMES)
    }


def _tensorflow(shape: Sequence[int]) -> Sequence[int]:
    return [*shape[2:], shape[1], shape[0]] if len(shape) == 5 else shape


def state_of(seed: int = 0) -> State:
    """State dict of the network under the names of vfbench, which are those of piergiaj."""
    arrays = arrays_of(seed)
    state = {name: torch.from_numpy(_oidhw(arrays[i3d.PREFIX + variable])) for variable, name, _, _ in NAMES}
    return state | {GAMMA: torch.ones(6)}


def _oidhw(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(np.moveaxis(array, (4, 3), (0, 1))) if array.ndim == 5 else array


def hassony2(state: Mapping[str, Tensor]) -> State:
    """The state dict under the names of hassony2's port."""
    names = {GAMMA: "conv3d_1a_7x7.batch3d.weight"} | {row[1]: row[2] for row in NAMES}
    return {names[name]: tensor for name, tensor in state.items()}


def table(published: int = 0, imagenet: int = 1) -> tuple[i3d.TensorRow, ...]:
    """Rows like those of `i3d.csv`: CRCs of the networks with these two seeds."""
    published_arrays, imagenet_arrays = arrays_of(published), arrays_of(imagenet)
    rows = [(i3d.PREFIX + variable, name, hassony2_name, shape) for variable, name, hassony2_name, shape in NAMES]
    return tuple(
        i3d.TensorRow(*row, masked(published_arrays[row[0]].tobytes()), masked(imagenet_arrays[row[0]].tobytes()))
        for row in rows
    )


def masked(content: bytes) -> int:
    crc: int = google_crc32c.value(content)
    return ((crc >> 15) + (crc << 17) % 2**32 + 0xA282EAD8) % 2**32


def write_bundle(prefix: Path, arrays: Arrays, *, per_block: int = 3, kind: int = 0, shards: int = 1) -> Path:
    """Write a TensorFlow checkpoint; `kind` is the compression type stored with its blocks."""
    data, entries = b"", [(b"", _field(1, shards) + _field(2, 0))]
    for name, array in sorted(arrays.items()):
        raw = array.astype("<f4").tobytes()
        dims = b"".join(_sized(2, _field(1, size)) for size in array.shape)
        place = _field(4, len(data)) + _field(5, len(raw))
        crc = bytes([6 << 3 | 5]) + struct.pack("<I", masked(raw))
        entries.append((name.encode(), _field(1, 1) + _sized(2, dims) + place + crc))
        data += raw
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_name(f"{prefix.name}.index").write_bytes(_table(entries, per_block, kind))
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    return prefix


def _table(entries: Sequence[tuple[bytes, bytes]], per_block: int, kind: int) -> bytes:
    content, handles = b"", []
    for start in range(0, len(entries), per_block):
        some = entries[start : start + per_block]
        block = _block(some, kind)
        handles.append((some[-1][0], _varint(len(content)) + _varint(len(block) - 5)))
        content += block
    meta, index = _block([], 0), _block(handles, 0)
    places = (len(content), len(meta) - 5), (len(content) + len(meta), len(index) - 5)
    footer = b"".join(_varint(offset) + _varint(size) for offset, size in places)
    return content + meta + index + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def _block(entries: Sequence[tuple[bytes, bytes]], kind: int) -> bytes:
    content, previous = b"", b""
    for key, value in entries:
        shared = next(
            (i for i, (a, b) in enumerate(zip(key, previous, strict=False)) if a != b), min(map(len, (key, previous)))
        )
        content += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        previous = key
    content += struct.pack("<II", 0, 1) + bytes([kind])  # one restart, at 0
    return content + struct.pack("<I", masked(content))


def _varint(value: int) -> bytes:
    low = value & 0x7F
    return bytes([low]) if value < 0x80 else bytes([low | 0x80]) + _varint(value >> 7)


def _field(number: int, value: int) -> bytes:
    return bytes([number << 3]) + _varint(value) if value else b""


def _sized(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def write_torchscript(path: Path, state: Mapping[str, Tensor]) -> Path:
    """Write a TorchScript program that holds the tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(_Holder(state)).save(str(path))  # type: ignore[no-untyped-call]
    return path


class _Holder(nn.Module):
    """Nested modules as in the dotted tensor names."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        inner: dict[str, State] = {}
        for name, tensor in state.items():
            first, dot, rest = name.partition(".")
            if dot:
                inner.setdefault(first, {})[rest] = tensor
            else:
                self.register_buffer(name, tensor)
        for name, tensors in inner.items():
            self.add_module(name, _Holder(tensors))

    def forward(self, x: Tensor) -> Tensor:
        return x


def module_of(state: Mapping[str, Tensor]) -> nn.Module:
    """Module with zeros of these shapes, and a batch norm counter."""
    zeros = {name: torch.zeros(tensor.shape) for name, tensor in state.items()}
    return _Holder(zeros | {"Conv3d_1a_7x7.bn.num_batches_tracked": torch.tensor(7)})


def _safetensors(path: Path, state: State) -> Path:
    tensor_files.write(path, state)
    return path


COUNTER = {"conv3d_1a_7x7.batch3d.num_batches_tracked": torch.tensor(3)}
FORMATS: dict[str, Callable[[Path], Path]] = {
    "bundle": lambda to: write_bundle(to / "model.ckpt", arrays_of()),
    "tf_hub": lambda to: write_bundle(to / "variables" / "variables", _hub(arrays_of())).parent.parent,
    "safetensors": lambda to: _safetensors(to / "a.safetensors", state_of()),
    "piergiaj": lambda to: save(to / "i3d.pt", state_of()),
    "piergiaj_old": lambda to: save(to / "i3d.pth", state_of(), _use_new_zipfile_serialization=False),
    "hassony2": lambda to: save(to / "rgb.pth", {"state_dict": hassony2(state_of()) | COUNTER, "epoch": 3}),
    "torchscript": lambda to: write_torchscript(to / "i3d_torchscript.pt", hassony2(state_of())),
}


def _hub(arrays: Arrays) -> Arrays:
    """TF-Hub form of the arrays: batch norm vectors as 1x1x1x1xC."""
    return {name: a.reshape(1, 1, 1, 1, -1) if "batch_norm" in name else a for name, a in arrays.items()}


def publish(name: str, path: Path, patch: pytest.MonkeyPatch) -> None:
    """Register a file as the published one of a network."""
    source = Source((Download(path.name, (), file_sha256(path)),))
    patch.setitem(catalogue.NETWORKS, name, replace(catalogue.NETWORKS[name], sources=(source,)))


def save(path: Path, content: object, **options: Any) -> Path:
    """Write an object with `torch.save`; return the path."""
    torch.save(content, path, **options)
    return path


def load_and_check(name: str, state: Mapping[str, Tensor]) -> WeightInfo:
    """Load the imported weights into a module and check its tensors."""
    module = module_of(state)
    info = load_weights(module, name)
    loaded = module.state_dict()
    assert all(torch.equal(loaded[key], tensor.float()) for key, tensor in state.items())
    return info
