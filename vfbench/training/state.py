"""What a training leaves behind to go on from: `training.pt` and the log."""

from __future__ import annotations

import json
import pickle  # only for the name of an error
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from zipfile import BadZipFile, ZipFile

import torch

from vfbench import files, hub, memory, weights
from vfbench.errors import MissingData, UserError
from vfbench.training import changes

FILE, LOG = "training.pt", "log.jsonl"
_DAMAGED = (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError)  # what reading such a file raises


@runtime_checkable
class Part(Protocol):
    """A model or an optimiser."""

    def state_dict(self) -> Any:
        """All that it must not forget."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Take it back."""
        ...


def write(folder: Path, parts: Mapping[str, Part], step: int, seconds: float, spec: Mapping[str, Any]) -> None:
    """Write the state of each part after a step, and the `seconds` that took.

    `spec` is what must be the same when it is taken up.
    """
    state = {name: part.state_dict() for name, part in parts.items()}
    try:
        with files.replacing(folder / FILE) as file, memory.needed(str(folder / FILE)):
            torch.save({**state, "step": step, "seconds": seconds, "spec": json.dumps(spec)}, file)
    except RuntimeError as error:  # what torch makes of a full disk
        raise files.unwritable(folder / FILE, error) from error


def take_up(folder: Path, parts: Mapping[str, Part], spec: Mapping[str, Any]) -> tuple[int, float]:
    """Fill each part, and return the step after which it was written, and the seconds that had taken.

    Raises `MissingData` where there is nothing, or it is damaged, and `UserError` naming what has changed since.
    """
    path = folder / FILE
    if not path.is_file():
        begin = f"begin from the weights there, --init-from {folder} and another --output"
        mend = begin if (folder / weights.TENSORS).is_file() else "start without --resume"
        raise MissingData(f"nothing to resume at {path}: {mend}")
    try:
        with memory.needed(str(path)):
            if broken := ZipFile(path).testzip():  # torch itself does not look at the sums
                raise ValueError(f"{broken} has another checksum")
            state = torch.load(path, map_location="cpu", weights_only=True)  # each part has its own device
        found, step, seconds = json.loads(state["spec"]), int(state["step"]), float(state.get("seconds", 0))
    except (*_DAMAGED, pickle.UnpicklingError, BadZipFile) as error:
        raise MissingData(f"{path} is damaged ({error}): train again into another --output") from error
    if changed := changes.told(found, json.loads(json.dumps(spec))):
        raise UserError(
            f"{path} is of another training ({'; '.join(changed)}): give what it began with again, or begin anew from "
            f"its weights with --init-from {folder} and another --output"
        )
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return step, seconds


def there(folder: Path) -> bool:
    """Whether a folder holds a training that can be resumed."""
    return (folder / FILE).exists()


def require_new(folder: Path) -> None:
    """Raise `UserError` where a folder holds a training, or what one would write over."""
    if there(folder):
        raise UserError(f"{folder} holds a training run already: add --resume to go on, or choose another --output")
    if found := next((name for name in (*hub.FILES, "run.json") if (folder / name).exists()), None):
        raise UserError(f"{folder} holds a {found}, which is not written over: choose another --output")


def log(folder: Path, entry: Mapping[str, Any]) -> None:
    """Add a line to the log."""
    with (folder / LOG).open("a") as file:
        file.write(json.dumps(entry) + "\n")


def forget_later(folder: Path, step: int) -> None:
    """Drop from the log the steps that were made after the checkpoint and lost: they will be made again."""
    path = folder / LOG
    if path.exists():
        steps = {line: _logged_step(line) for line in path.read_text(encoding="utf-8").splitlines()}
        files.write_text(path, "".join(f"{line}\n" for line, at in steps.items() if 0 < at <= step))


def _logged_step(line: str) -> int:
    """The step of a line of the log, 0 for one that a killed process did not finish."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 0
