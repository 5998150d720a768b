"""Tensors in safetensors files, each with the hash of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vfbench.errors import MissingData, UserError
from vfbench.utils.files import file_sha256, replacing


def digest(content: object) -> str:
    """SHA-256 of an object's canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def tensor_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of the metadata and of names, shapes, types and bytes of the tensors."""
    total = hashlib.sha256(digest(dict(metadata)).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name}/{tensor.dtype}/{tuple(tensor.shape)}/".encode())
        total.update(tensor.view(torch.uint8).numpy().data if tensor.numel() else b"")
    return total.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], **metadata: str) -> None:
    """Write tensors with their hash, whole or not at all; raises `BadEnvironment` when the disk does not take them."""
    write(path, tensors, {**metadata, "sha256": tensor_digest(tensors, metadata)})


def read_tensors(path: Path, **expected: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file that `write_tensors` wrote.

    Raises ValueError when a byte has changed, or when its metadata are not those expected: then it belongs elsewhere.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"unreadable ({error})") from error
    if metadata.pop("sha256", None) != tensor_digest(tensors, metadata):
        raise ValueError("its content does not match its hash")
    for key, value in expected.items():
        if metadata.get(key) != value:
            raise ValueError(f"it belongs to {key} {metadata.get(key)}, not {value}")
    return tensors, metadata


def read(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU; raises `MissingData` naming the file when it cannot be read."""
    if not path.is_file():
        raise MissingData(f"no weights at {path}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise MissingData(f"{path} is damaged or not a safetensors file ({error})") from error


def metadata(path: Path) -> dict[str, str]:
    """The texts beside the tensors of a safetensors file; none where it is not there, or damaged, as `read` says."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all; raises `BadEnvironment` when the disk does not take it."""
    whole = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with replacing(path) as file:
        file.write_bytes(save(whole, dict(metadata or {})))  # not save_file: it keeps others from reading the file


def load_into(module: nn.Module, path: Path, expected: str | None = None) -> str:
    """Fill `module` from a safetensors file, in the module's own dtype, and return the file's SHA-256.

    Raises `MissingData` naming what differs, the most telling first: a file that is damaged; the first tensor that is
    missing, unknown, of another shape or of another kind of number, as in a file of another model; the hash, as in a
    file of another training. Nothing is filled then.
    """
    tensors, wanted = read(path), module.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        if differs := _difference(tensors.get(name), wanted.get(name)):
            raise MissingData(f"{path} does not fit this model: '{name}' {differs}")
    found = verified(path, expected)
    if strange := [n for n, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]:
        raise MissingData(f"{path} holds NaN or infinity in '{strange[0]}': a training that diverged; train again")
    module.load_state_dict({name: tensors[name].to(wanted[name].dtype) for name in wanted})
    return found


def _difference(here: Tensor | None, needed: Tensor | None) -> str:
    """How a tensor of a file differs from the model's own; floating numbers may have any precision."""
    if here is None:
        return "is missing from the file"
    if needed is None:
        return "is not part of the model but stands in the file"
    if here.shape != needed.shape:
        return f"has shape {tuple(here.shape)}, needed {tuple(needed.shape)}"
    floating = here.is_floating_point() and needed.is_floating_point()
    return "" if floating or here.dtype == needed.dtype else f"holds {here.dtype}, needed {needed.dtype}"


def verified(path: Path, expected: str | None) -> str:
    """The SHA-256 of a file; raises `MissingData` where it is not the one that is expected, if any is."""
    found = file_sha256(path)
    if expected and found != expected:
        raise MissingData(f"{path} is damaged or of another training: its SHA-256 is {found}, expected {expected}")
    return found


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating tensors in half precision, for shipping, on the CPU: a training may fill the memory of its GPU.

    Raises `UserError` naming the first that holds a value beyond float16.
    """
    whole = {name: tensor.cpu() for name, tensor in state.items()}
    half = {name: t.half() if t.is_floating_point() else t for name, t in whole.items()}
    if bad := [name for name, t in half.items() if t.is_floating_point() and not torch.isfinite(t).all()]:
        found = f"'{bad[0]}' holds {float(whole[bad[0]].abs().max()):g}, which is not finite in half precision"
        most = f"{torch.finfo(torch.half).max:g}"
        raise UserError(
            f"{found} (up to {most}): go on with --resume and without --half, or train again with a lower --lr"
        )
    return half
