"""The run folder: the files of a run, while it works and afterwards.

    run.json       options and machine; its `id` hashes everything that determines the numbers
    chunks/        one safetensors file per chunk of requests: features, and the clips when asked for
    samples/       a few generated clips to look at, and in real/ a few real ones
    data.md        the real clips: copy of the dataset, counts, hashes
    manifest.csv   the real clips, one a line
    results.json   the scores
    tables/        the table of this run

Every file is written under a temporary name and renamed. A chunk records its run, its requests and a hash of its
content, so that a run killed at any moment resumes from the finished chunks.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from vfbench.errors import MissingData, UserError
from vfbench.utils import checkpoint
from vfbench.utils.environment import Environment
from vfbench.utils.files import json_digest, locked_folder, read_json, write_error, write_json

# Unfinished files of a killed process: `.<name>.<process>`, with `.tmp` for pictures.
_NAMES = r"\d{6}\.safetensors|(run|results)\.json|sheet\.png|clips\.webp|table\.\w+|manifest\.csv|data\.md"
_UNFINISHED = re.compile(rf"\.({_NAMES})\.\d+(\.tmp)?")
_TRAINING_FILES = ("training.pt", checkpoint.TENSORS)
RUNS = Path("runs")  # default parent folder of runs


@dataclass(frozen=True, kw_only=True)
class Specification:
    """Content of `run.json`: everything that the numbers follow from, the options with their origins, the machine."""

    determines: Mapping[str, object]
    options: Mapping[str, Mapping[str, str]]
    environment: Environment
    chunk_size: int | None = None  # requests per chunk; None for a score, which has no chunks

    @cached_property
    def id(self) -> str:
        """SHA-256 of `determines`: the id of the run."""
        return json_digest(self.determines)

    def to_json(self) -> dict[str, Any]:
        """The specification as JSON values."""
        chunks = {} if self.chunk_size is None else {"chunk_size": self.chunk_size}
        rest = {"options": self.options, "environment": self.environment.model_dump()}
        return {"id": self.id, "determines": self.determines, **chunks, **rest}


class RunFolder:
    """The folder of one run, locked by one process at a time."""

    def __init__(self, path: Path, run_id: str) -> None:
        self.path, self.run_id = path, run_id
        self.chunks, self.samples, self.tables = path / "chunks", path / "samples", path / "tables"
        self.results, self.manifest, self.card = path / "results.json", path / "manifest.csv", path / "data.md"

    @classmethod
    @contextlib.contextmanager
    def hold(cls, path: Path, specification: Specification) -> Iterator[Self]:
        """Context manager: make or reopen the folder and lock it until the process ends, however it ends.

        Raises `BadEnvironment` where it cannot be written or another process holds it, and `UserError` where it holds
        another run. Files that are not the run's are left alone.
        """
        folder = cls(path, specification.id)
        with locked_folder(path):
            folder._claim(specification)
            folder._tidy()
            yield folder

    def _claim(self, specification: Specification) -> None:
        file = self.path / "run.json"
        if not file.exists():
            if other := next((name for name in _TRAINING_FILES if (self.path / name).exists()), None):
                raise UserError(f"{self.path} holds a {other}, so it is a checkpoint: choose another --output")
            write_json(file, specification.to_json())
            return
        present = read_json(file)
        if present.get("id") != specification.id:
            changed = _difference(present.get("determines", {}), specification.determines)
            raise UserError(f"{self.path} holds another run ({changed}): choose another --output, or remove the folder")

    def _tidy(self) -> None:
        """Make the subfolders, and remove unfinished files of killed processes."""
        for part in (self.path, self.chunks, self.samples, self.samples / "real", self.tables):
            try:
                part.mkdir(exist_ok=True)
                for file in part.glob(".*"):
                    if _UNFINISHED.fullmatch(file.name):
                        file.unlink()
            except OSError as error:
                raise write_error(part, error) from error

    @property
    def chunk_size(self) -> int:
        """Requests per chunk, as `run.json` has it."""
        size = read_json(self.path / "run.json").get("chunk_size")
        if type(size) is not int or size < 1:
            raise MissingData(f"{self.path / 'run.json'}: chunk_size is {size!r}: choose another --output")
        return size

    def chunk_path(self, index: int) -> Path:
        """Path of chunk `index`."""
        return self.chunks / f"{index:06d}.safetensors"


def _difference(present: object, asked: object) -> str:
    """The first difference of two specifications, the user's choices before the version of the code."""
    if not isinstance(present, Mapping) or not isinstance(asked, Mapping):
        return f"{_short(present)} there, {_short(asked)} asked for"
    for key in sorted((present.keys() | asked.keys()) - {"id"}, key=lambda key: (key == "code", key)):
        if present.get(key) != asked.get(key):
            return f"{key}: {_difference(present.get(key), asked.get(key))}"
    return "an older version of this run"


def _short(value: object) -> str:
    """A value for a message, a hash by its first digits."""
    text = str(value)
    return f"{text[:12]}..." if re.fullmatch("[0-9a-f]{64}", text) else text
