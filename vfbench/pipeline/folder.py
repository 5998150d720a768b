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
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from vfbench.errors import UserError
from vfbench.utils import checkpoint
from vfbench.utils.files import held, read_json, unwritable, write_json

# What a killed process leaves of a file of ours that it had not finished: `.<name>.<process>`, `.tmp` for pictures.
_NAMES = r"\d{6}\.safetensors|(run|results)\.json|sheet\.png|clips\.webp|table\.\w+|manifest\.csv|data\.md"
_UNFINISHED = re.compile(rf"\.({_NAMES})\.\d+(\.tmp)?")


_OF_TRAININGS = ("training.pt", checkpoint.TENSORS)


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


RUNS = Path("runs")  # where a run goes that is not told where
