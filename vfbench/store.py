"""The run folder: what is on disk while a run works and after it.

    run.json       what was asked for and where it ran; its `id` hashes what determines the numbers
    chunks/        one safetensors file per chunk of requests: features, and the clips when asked for
    samples/       a few clips to look at
    results.json   the scores
    tables/        the table of this run

Every file is written under a temporary name and renamed, and a chunk carries the hash of its tensors, so that a run
killed at any moment resumes from what is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vfbench import weights
from vfbench.errors import BadEnvironment, UserError


def digest(content: object) -> str:
    """SHA-256 of an object's canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes, types and bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name}/{tensor.dtype}/{tuple(tensor.shape)}/".encode())
        total.update(tensor.view(torch.uint8).numpy().data if tensor.numel() else b"")
    return total.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], **metadata: str) -> None:
    """Write tensors with their hash, atomically."""
    weights.write(path, tensors, {**metadata, "sha256": tensor_digest(tensors)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file that `write_tensors` wrote; raises ValueError when a byte has changed."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"unreadable ({error})") from error
    if metadata.get("sha256") != tensor_digest(tensors):
        raise ValueError("its content does not match its hash")
    return tensors, metadata


class RunFolder:
    """One run on disk, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.chunks, self.samples, self.tables = path / "chunks", path / "samples", path / "tables"
        self.results = path / "results.json"

    @classmethod
    @contextlib.contextmanager
    def hold(cls, path: Path, specification: Mapping[str, Any]) -> Iterator[Self]:
        """Make or reopen the folder and lock it; the lock goes with the process, however it ends.

        Raises `BadEnvironment` where it cannot be written or another process holds it, and `UserError` where it holds
        another run. `specification["id"]` names the run.
        """
        folder = cls(path)
        try:
            for part in (folder.chunks, folder.samples, folder.tables):
                part.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path / ".lock", timeout=0)
            lock.acquire()
        except Timeout as error:
            raise BadEnvironment(f"{path} is in use by another run: wait for it, or choose another --output") from error
        except OSError as error:
            raise BadEnvironment(f"cannot write to {path} ({error.strerror}): choose another --output") from error
        try:
            folder._claim(specification)
            yield folder
        finally:
            lock.release()

    def _claim(self, specification: Mapping[str, Any]) -> None:
        file = self.path / "run.json"
        if file.exists():
            found = weights.read_json(file)
            if found.get("id") != specification["id"]:
                changed = _difference(found.get("determines", {}), specification["determines"])
                raise UserError(
                    f"{self.path} holds another run ({changed}): choose another --output, or remove the folder"
                )
            return
        weights.write_json(file, specification)

    @property
    def chunk_size(self) -> int:
        """Requests per chunk, as the run was begun."""
        return int(weights.read_json(self.path / "run.json")["chunk_size"])

    def chunk_path(self, index: int) -> Path:
        """Where chunk `index` is or will be."""
        return self.chunks / f"{index:06d}.safetensors"


def _difference(found: Any, wanted: Any) -> str:
    """The first thing in which two specifications differ."""
    if not isinstance(found, dict) or not isinstance(wanted, dict):
        return f"{found} there, {wanted} asked for"
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            return f"{key}: {_difference(found.get(key), wanted.get(key))}"
    return "an older version of this run"


def require_space(path: Path, needed: int) -> None:
    """Raise `BadEnvironment` when the disk that will hold `path` has less than `needed` bytes free."""
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise BadEnvironment(
            f"{path} needs about {needed / 1e6:,.0f} MB and its disk has {free / 1e6:,.0f} MB free: "
            "choose another --output, fewer --num-samples, or leave out --keep-clips"
        )
