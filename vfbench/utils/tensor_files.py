"""Safetensors files: read, write, hash, and load into a module."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vfbench.errors import MissingData, UserError
from vfbench.utils.files import atomic_path, file_sha256, json_digest, require_file


def tensor_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of the metadata and of the names, shapes, dtypes and bytes of the tensors."""
    sha256 = hashlib.sha256(json_digest(dict(metadata)).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha256.update(f"{name}/{tensor.dtype}/{tuple(tensor.shape)}/".encode())
        sha256.update(tensor.view(torch.uint8).numpy().data if tensor.numel() else b"")
    return sha256.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], **metadata: str) -> None:
    """Write tensors with their hash, atomically; raises `BadEnvironment` where the file cannot be written."""
    write(path, tensors, {**metadata, "sha256": tensor_digest(tensors, metadata)})


def read_tensors(path: Path, **expected: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a file that `write_tensors` wrote.

    Raises ValueError where a byte has changed, or the metadata differ from `expected`.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        metadata = dict(file.metadata() or {})
    if metadata.pop("sha256", None) != tensor_digest(tensors, metadata):
        raise ValueError("its content does not match its hash")
    _require_metadata(metadata, expected)
    return tensors, metadata


def read_shapes(path: Path, **expected: str) -> dict[str, list[int]]:
    """Shapes of the tensors of a file that `write_tensors` wrote, without reading or hashing their content.

    Raises ValueError where the file is damaged or not whole, or the metadata differ from `expected`.
    """
    with _opened(path) as file:
        _require_metadata(dict(file.metadata() or {}), expected)
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  # not a dict


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Context manager: a safetensors file; raises ValueError where it cannot be read."""
    try:
        require_file(path)
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, MissingData, SafetensorError) as error:
        raise ValueError(f"unreadable ({error})") from error


def _require_metadata(metadata: Mapping[str, str], expected: Mapping[str, str]) -> None:
    for key, value in expected.items():
        if metadata.get(key) != value:
            raise ValueError(f"it belongs to {key} {metadata.get(key)}, not {value}")


def read(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU; raises `MissingData` naming a file that cannot be read."""
    if not path.is_file():
        raise MissingData(f"no weights at {path}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise MissingData(f"{path} is damaged or not a safetensors file ({error})") from error


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file; empty for a missing or damaged file, for which `read` raises the error."""
    try:
        require_file(path)
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, MissingData, OSError):
        return {}


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically; raises `BadEnvironment` where it cannot be written."""
    on_cpu = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with atomic_path(path) as file:  # save_file would deny other users read access
        file.write_bytes(_in_order(save(on_cpu, dict(metadata or {})), metadata or {}))


def _in_order(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with its metadata sorted: the library writes them in another order each time."""
    if len(metadata) < 2:
        return content
    end = 8 + int.from_bytes(content[:8], "little")
    header = {**json.loads(content[8:end]), "__metadata__": dict(sorted(metadata.items()))}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(content)[end:]])


def load_into(
    module: nn.Module,
    path: Path,
    expected: str | None = None,
    *,
    optional: Collection[str] = (),
    repeated: Collection[str] = (),
) -> str:
    """Load a safetensors file into `module`, in the module's dtypes, and return the file's SHA-256.

    `optional` tensors keep their values where the file has none. Of `repeated` tensors, a file with one row fills all.

    Raises `MissingData`, before anything is loaded, for a damaged file; for the first tensor that is missing, unknown,
    or of another shape or kind of number; for a hash other than `expected`; and for NaN or infinity.
    """
    tensors, state = read(path), module.state_dict()
    state = {name: tensor for name, tensor in state.items() if name in tensors or name not in optional}
    for name in repeated:
        if name in tensors and len(tensors[name]) == 1:
            tensors[name] = tensors[name].expand(len(state[name]), *tensors[name].shape[1:])
    for name in sorted(state.keys() | tensors.keys()):
        if difference := _difference(tensors.get(name), state.get(name)):
            raise MissingData(f"{path} does not fit this model: '{name}' {difference}")
    sha256 = verify_sha256(path, expected)
    if bad := [n for n, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]:
        raise MissingData(f"{path} holds NaN or infinity in '{bad[0]}': the training diverged; train again")
    loaded = {name: tensors[name].to(tensor.dtype) for name, tensor in state.items()}
    module.load_state_dict({**module.state_dict(), **loaded})
    return sha256


def _difference(tensor: Tensor | None, needed: Tensor | None) -> str:
    """Difference of a tensor in the file from the model's; empty for none. Floats may have any precision."""
    if tensor is None:
        return "is missing from the file"
    if needed is None:
        return "is not part of the model but is in the file"
    if tensor.shape != needed.shape:
        return f"has shape {tuple(tensor.shape)}, needed {tuple(needed.shape)}"
    floating = tensor.is_floating_point() and needed.is_floating_point()
    return "" if floating or tensor.dtype == needed.dtype else f"holds {tensor.dtype}, needed {needed.dtype}"


def verify_sha256(path: Path, expected: str | None) -> str:
    """SHA-256 of a file; raises `MissingData` where it differs from `expected`, if given."""
    sha256 = file_sha256(path)
    if expected and sha256 != expected:
        raise MissingData(f"{path} is damaged or of another training: its SHA-256 is {sha256}, expected {expected}")
    return sha256


def to_half(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State with float tensors in half precision, on the CPU because training may fill the GPU.

    Raises `UserError` naming the first tensor with a value beyond the range of float16.
    """
    on_cpu = {name: tensor.cpu() for name, tensor in state.items()}
    half = {name: t.half() if t.is_floating_point() else t for name, t in on_cpu.items()}
    if bad := [name for name, t in half.items() if t.is_floating_point() and not torch.isfinite(t).all()]:
        largest, limit = float(on_cpu[bad[0]].abs().max()), torch.finfo(torch.half).max
        raise UserError(
            f"'{bad[0]}' holds {largest:g}, which is not finite in half precision (up to {limit:g}): "
            "continue with --resume and without --half, or train again with a lower --lr"
        )
    return half
