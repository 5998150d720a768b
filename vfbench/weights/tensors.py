"""Named tensors: do they fit, and what is their hash?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vfbench.errors import MissingData

COUNTER = "num_batches_tracked"  # batch norm's own, of no use once trained: some files have it and some have not


def counted(name: str) -> bool:
    """Whether a name is one of the counters that may be missing from a file, or too many in it."""
    return name.rpartition(".")[2] == COUNTER


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that a network computes with."""
    return {name: tensor for name, tensor in state.items() if not counted(name)}


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes in the order of the names: the same whatever file they came from."""
    total = hashlib.sha256()
    for name, tensor in sorted(without_counters(state).items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def same_names(path: Path, found: Iterable[str], wanted: Iterable[str], network: str) -> None:
    """Raises `MissingData` naming a tensor that the file lacks, or has too many; counters do not matter."""
    here, needed = ({name for name in names if not counted(name)} for names in (found, wanted))
    for name in sorted(here ^ needed):
        where = "is missing from" if name in needed else f"is no part of {network} but stands in"
        raise MissingData(f"'{name}' {where} {path}: the file is damaged, or holds another network")


def fit(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], network: str) -> None:
    """Raises `MissingData` naming the first tensor whose name or shape is not as wanted; counters do not matter."""
    same_names(path, found, wanted, network)
    for name, tensor in sorted(without_counters(found).items()):
        if tuple(tensor.shape) != wanted[name]:
            here = f"'{name}' in {path} has shape {tuple(tensor.shape)}, needed {wanted[name]}"
            raise MissingData(f"{here}: the file holds another network than {network}")
