"""What a training leaves behind to go on from: `training.pt` and the log."""

from __future__ import annotations

import json
import pickle  # only for the name of an error
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from zipfile import BadZipFile, ZipFile

import torch

from vfbench.diffusion import hub
from vfbench.diffusion.model import flag_of
from vfbench.errors import MissingData, UserError
from vfbench.training.match_flops import MATCHED
from vfbench.utils import checkpoint as weights
from vfbench.utils import files, memory

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


def load_state(folder: Path, parts: Mapping[str, Part], spec: Mapping[str, Any]) -> tuple[int, float]:
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
    if changed := told(found, json.loads(json.dumps(spec))):
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


_CLIPS = ("config.classes", "config.words", "data")
_BRINGS = {  # what changes with a change of the first, and is not to be told beside it
    "config.model": ("config.preset", "config.options."),
    "config.preset": ("config.options.",),
    "config.match_flops": ("config.options.",),
    "config.dataset": ("config.shape.", *_CLIPS, "options.crop", "options.flip"),
    "config.shape.": _CLIPS,
    "config.options.base_sha256": ("config.options.new_condition", "config.options.new_embedding"),
    "data": _CLIPS[:2],
    "options.steps": ("options.warmup",),  # which may be a part of them
}
_FLAGS = {
    "config.model": "--model",
    "config.preset": "--preset",
    "config.match_flops": "--match-flops",
    "config.dataset": "--dataset",
    "config.conditions": "--conditions",
    "config.options.base_init": "--base-init",
    "config.options.base_sha256": "--base-from",
    "data": "--dataset or --data-root with the clips",
}


def told(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each difference of two records of a training, such as `--lr 0.001 there, 0.01 now`; none where they are alike.

    A record has `config` (of the model), `data` (the fingerprint of the clips) and `options`, as JSON has them.
    """
    before, after = (_flat(_as_given(record)) for record in (there, now))
    changed = [key for key in {**after, **before} if before.get(key) != after.get(key)]
    brought = tuple(
        key for first, keys in _BRINGS.items() if any(each.startswith(first) for each in changed) for key in keys
    )
    return [_told(key, before.get(key), after.get(key)) for key in changed if not key.startswith(brought)]


def _as_given(record: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with what a user gives as one thing in one place."""
    config = dict(record.get("config", {}))
    config["preset"], _, reference = str(config.get("preset")).partition(MATCHED)
    if reference:
        config["match_flops"] = reference.replace(" ", ":", 1)
    if weights := config.get("conditions"):
        config["conditions"] = flag_of(weights)
    if embedding := config.get("options", {}).get("embedding"):
        named = " ".join(filter(None, (embedding["encoder"], embedding.get("sha256", "")[:12])))
        config["options"] = {**config["options"], "embedding": named}
    return {**record, "config": config}


def _told(key: str, there: Any, now: Any) -> str:
    if key == "options.flip" and None not in (there, now):
        yes, no = "--flip", "--no-flip"
        return f"{yes if there else no} there, {yes if now else no} now"
    values = ["none" if value is None else value for value in (there, now)]
    return f"{_flag(key)} {values[0]} there, {values[1]} now"


def _flag(key: str) -> str:
    """Where a user says what a record has under `key`."""
    if key in _FLAGS:
        return _FLAGS[key]
    if key.startswith("options."):
        return f"--{key.removeprefix('options.').replace('_', '-')}"
    if key.startswith("config.options."):
        return f"--model with {key.removeprefix('config.options.')}"
    return f"--dataset with {key.rpartition('.')[2]}"


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, child in tree.items() for k, v in _flat(child, f"{prefix}.{key}".lstrip(".")).items()}
