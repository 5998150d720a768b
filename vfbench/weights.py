"""Weights on disk: find, read and write them. Only safetensors is opened; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vfbench.errors import MissingData
from vfbench.files import replacing

SHIPPED = Path(__file__).parent / "checkpoints"


def shipped(dataset: str, name: str) -> Path | None:
    """The folder of a checkpoint that comes with vfbench, if there is one: `checkpoints/<dataset>/<name>`."""
    folder = SHIPPED / dataset / name
    return folder if (folder / "config.json").is_file() else None


def sha256(path: Path) -> str:
    """The hash of a file's bytes, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU; raises `MissingData` naming the file when it cannot be read."""
    if not path.is_file():
        raise MissingData(f"no weights at {path}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise MissingData(f"{path} is damaged or not a safetensors file ({error})") from error


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all; raises `BadEnvironment` when the disk does not take it."""
    whole = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with replacing(path) as file:
        file.write_bytes(save(whole, dict(metadata or {})))  # not save_file: it keeps others from reading the file


def load_into(module: nn.Module, path: Path, expected: str | None = None) -> str:
    """Fill `module` from a safetensors file, in the module's own dtype, and return the file's SHA-256.

    Every tensor must be there and fit, and the hash must be the `expected` one; else `MissingData` names what differs.
    """
    tensors, wanted = read(path), module.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors or name not in wanted:
            where = "is missing from" if name not in tensors else "is not part of the model but stands in"
            raise MissingData(f"{path} does not fit this model: '{name}' {where} the file")
        if tensors[name].shape != wanted[name].shape:
            here, needed = tuple(tensors[name].shape), tuple(wanted[name].shape)
            raise MissingData(f"{path} does not fit this model: '{name}' has shape {here}, needed {needed}")
    found = sha256(path)
    if expected and found != expected:
        raise MissingData(f"{path} is damaged or of another training: its SHA-256 is {found}, expected {expected}")
    module.load_state_dict({name: tensors[name].to(wanted[name].dtype) for name in wanted})
    return found


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating tensors in half precision, for shipping; raises when a value does not fit float16."""
    half = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    if bad := [name for name, t in half.items() if t.is_floating_point() and not torch.isfinite(t).all()]:
        raise ValueError(f"'{bad[0]}' does not fit half precision")
    return half
