"""The run folder: what is on disk while a run works and after it.

    run.json       what was asked for and where it ran; its `id` hashes what determines the numbers
    chunks/        one safetensors file per chunk of requests: features, and the clips when asked for
    samples/       a few clips to look at, in real/ of those that they are scored against
    data.md        what these are: copy, counts, hashes
    manifest.csv   which they are, each
    results.json   the scores
    tables/        the table of this run

Every file is written under a temporary name and renamed, and a chunk carries the run and the requests it belongs to
and a hash of all it holds, so that a run killed at any moment resumes from what is whole.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vfbench import weights
from vfbench.errors import BadEnvironment, UserError
from vfbench.files import held, read_json, unwritable, write_json

# What a killed process leaves of a file of ours that it had not finished: `.<name>.<process>`, `.tmp` for pictures.
_NAMES = r"\d{6}\.safetensors|(run|results)\.json|sheet\.png|clips\.webp|table\.\w+|manifest\.csv|data\.md"
_UNFINISHED = re.compile(rf"\.({_NAMES})\.\d+(\.tmp)?")


@functools.cache
def code_version() -> str:
    """SHA-256 of this package's source files and of torch's version: results of another program are not taken up."""
    total = hashlib.sha256(torch.__version__.encode())
    root = Path(__file__).parent
    for path in sorted((*root.glob("*.py"), *root.glob("*/*.py"))):  # metrics and baselines are folders or links here
        total.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return total.hexdigest()


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
    weights.write(path, tensors, {**metadata, "sha256": tensor_digest(tensors, metadata)})


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


_OF_TRAININGS = ("training.pt", weights.TENSORS)
SCORED = "scored.safetensors"  # what the scores of a run were made of


class RunFolder:
    """One run on disk, held by one process at a time."""

    def __init__(self, path: Path, run_id: str) -> None:
        self.path, self.run_id = path, run_id
        self.chunks, self.samples, self.tables = path / "chunks", path / "samples", path / "tables"
        self.results, self.manifest, self.card = path / "results.json", path / "manifest.csv", path / "data.md"

    @classmethod
    @contextlib.contextmanager
    def hold(cls, path: Path, specification: Mapping[str, Any]) -> Iterator[Self]:
        """Make or reopen the folder and lock it; the lock goes with the process, however it ends.

        Raises `BadEnvironment` where it cannot be written or another process holds it, and `UserError` where it holds
        another run. `specification["id"]` names the run. Files of others are left alone.
        """
        folder = cls(path, specification["id"])
        with held(path):
            folder._claim(specification)
            folder._tidy()
            yield folder

    def _claim(self, specification: Mapping[str, Any]) -> None:
        file = self.path / "run.json"
        if not file.exists():
            if other := next((name for name in _OF_TRAININGS if (self.path / name).exists()), None):
                raise UserError(f"{self.path} holds a {other}, so it is a checkpoint: choose another --output")
            write_json(file, specification)
            return
        found = read_json(file)
        if found.get("id") != specification["id"]:
            changed = _difference(found.get("determines", {}), specification["determines"])
            raise UserError(f"{self.path} holds another run ({changed}): choose another --output, or remove the folder")

    def _tidy(self) -> None:
        """Make the parts of the folder, and remove what killed processes left unfinished in them."""
        for part in (self.path, self.chunks, self.samples, self.samples / "real", self.tables):
            try:
                part.mkdir(exist_ok=True)
                for file in part.glob(".*"):
                    if _UNFINISHED.fullmatch(file.name):
                        file.unlink()
            except OSError as error:
                raise unwritable(part, error) from error

    @property
    def chunk_size(self) -> int:
        """Requests per chunk, as the run was begun."""
        return int(read_json(self.path / "run.json")["chunk_size"])

    def chunk_path(self, index: int) -> Path:
        """Where chunk `index` is or will be."""
        return self.chunks / f"{index:06d}.safetensors"


def _difference(found: Any, wanted: Any) -> str:
    """The first thing in which two specifications differ; an id differs only because something else does."""
    if not isinstance(found, dict) or not isinstance(wanted, dict):
        return " there, ".join(_short(value) for value in (found, wanted)) + " asked for"
    # What a user asked for before vfbench's own code, which is another after every change.
    for key in sorted((found.keys() | wanted.keys()) - {"id"}, key=lambda key: (key == "code", key)):
        if found.get(key) != wanted.get(key):
            return f"{key}: {_difference(found.get(key), wanted.get(key))}"
    return "an older version of this run"


def _short(value: Any) -> str:
    """A value for a message, a hash by its first digits."""
    text = str(value)
    return f"{text[:12]}..." if re.fullmatch("[0-9a-f]{64}", text) else text


def require_writable(path: Path) -> None:
    """Raise `BadEnvironment` unless `path` is, or could be made, a folder that can be written to."""
    existing = _existing(path)
    if not existing.is_dir():
        raise BadEnvironment(f"cannot write to {path}: {existing} is not a folder; choose another --output")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise BadEnvironment(f"cannot write to {path}: no permission to write in {existing}; choose another --output")


def require_space(path: Path, needed: int) -> None:
    """Raise `BadEnvironment` when the disk of a run folder cannot hold `needed` bytes, its present chunks included."""
    there = sum(chunk.stat().st_size for chunk in (path / "chunks").glob("*.safetensors"))
    free = shutil.disk_usage(_existing(path)).free
    if free + there < needed:
        raise BadEnvironment(
            f"{path} needs about {(needed - there) / 1e6:,.0f} MB and its disk has {free / 1e6:,.0f} MB free: "
            "choose another --output, fewer --num-samples, or leave out --keep-clips"
        )


def _existing(path: Path) -> Path:
    """`path` or the nearest folder above it that exists."""
    absolute = path.absolute()
    return next(place for place in (absolute, *absolute.parents) if os.access(place, os.F_OK))
