"""Named tensors: comparison with expected names and shapes, and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vfbench.errors import MissingData

COUNTER = "num_batches_tracked"  # unused at inference; only some published files have it


def is_counter(name: str) -> bool:
    """True where `name` is a batch-norm counter, which a file may have or lack."""
    return name.rpartition(".")[2] == COUNTER


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict without the counters of batch norm."""
    return {name: tensor for name, tensor in state.items() if not is_counter(name)}


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, sorted by name; independent of the file format."""
    total = hashlib.sha256()
    for name, tensor in sorted(without_counters(state).items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def require_same_names(path: Path, names: Iterable[str], expected: Iterable[str], network: str) -> None:
    """Raise `MissingData` with the first tensor that the file lacks or has too many; ignores counters."""
    actual_names, expected_names = ({name for name in each if not is_counter(name)} for each in (names, expected))
    for name in sorted(actual_names ^ expected_names):
        problem = "is missing from" if name in expected_names else f"is no part of {network} but is in"
        raise MissingData(f"'{name}' {problem} {path}: the file is damaged, or holds another network")


def require_fit(path: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], network: str) -> None:
    """Raise `MissingData` with the first tensor whose name or shape is not that in `shapes`; ignores counters."""
    require_same_names(path, tensors, shapes, network)
    for name, tensor in sorted(without_counters(tensors).items()):
        if tuple(tensor.shape) != shapes[name]:
            mismatch = f"'{name}' in {path} has shape {tuple(tensor.shape)}, needed {shapes[name]}"
            raise MissingData(f"{mismatch}: the file holds another network than {network}")
