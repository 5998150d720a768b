"""Checkpoint folders: find and check them. Only safetensors files are read; nothing is unpickled."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vfbench.errors import MissingData, UserError
from vfbench.utils.files import read_json

SHIPPED_FOLDER = Path(__file__).parent.parent / "checkpoints"
CONFIG, TENSORS = "config.json", "model.safetensors"  # the two files of a checkpoint
HUB_NAME = r"[\w-][\w.-]*/[\w-][\w.-]*"  # owner/name


def shipped(dataset: str, name: str, preset: str | None = None) -> Path | None:
    """Folder of a checkpoint shipped with vfbench, of a preset where one is given; None where there is none.

    It is `checkpoints/<dataset>/<name>`, and `<name>-<preset>` for a further preset of that model.
    """
    for each in [name, f"{name}-{preset}"] if preset else [name]:
        folder = SHIPPED_FOLDER / dataset / each
        if (folder / CONFIG).is_file() and preset in (None, read_json(folder / CONFIG).get("preset")):
            return folder
    return None


def require_checkpoint(folder: Path, model: str | None = None) -> None:
    """Raise `MissingData` where a folder is not a checkpoint, or not one of `model`, with the flag that mends it.

    Reads only the configuration; `load_into` checks the tensors.
    """
    if not folder.is_dir():
        raise MissingData(f"{folder} {_not_a_folder(folder)}")
    if not (folder / CONFIG).is_file():
        raise MissingData(f"{folder} {_not_a_checkpoint(folder)}")
    content = read_json(folder / CONFIG)
    saved_model, other = content.get("model"), content.get("_class_name") or content.get("model_type")
    if not isinstance(saved_model, str) or not re.fullmatch(r"[\w.-]+", saved_model):
        reason = f"describes a '{other}' of another library" if other else "names no model"
        raise MissingData(f"{folder / CONFIG} {reason}: needed is a checkpoint of `vfbench train`")
    if model and saved_model != model:
        raise MissingData(f"{folder} is a checkpoint of '{saved_model}', not of '{model}': use --model {saved_model}")
    if not (folder / TENSORS).is_file():
        raise MissingData(f"{folder} has a {CONFIG} and no {TENSORS}: copy that file too, or train again")


def _not_a_folder(path: Path) -> str:
    """Reason and advice for a path that is not a folder."""
    if path.name in (CONFIG, TENSORS) and path.is_file():
        return f"is a file of a checkpoint: give its folder, {path.parent}"
    if path.exists():
        return f"is a file: a checkpoint is a folder with {CONFIG} and {TENSORS}"
    hub_name = f", or hub:{path} for a checkpoint on the hub" if re.fullmatch(HUB_NAME, str(path)) else ""
    return f"does not exist: give the --output of a `python -m vfbench train`{hub_name}"


def _not_a_checkpoint(folder: Path) -> str:
    """Reason and advice for a folder without a configuration file."""
    if (folder / "model_index.json").is_file():
        return f"is a pipeline of diffusers: use --model \"diffusers(id='{folder}')\" without --checkpoint"
    if (folder / "run.json").is_file():
        checkpoint = _checkpoint_of_run(folder / "run.json")
        advice = f"use --checkpoint {checkpoint}" if checkpoint else "leave out --checkpoint"
        return f"is the folder of a run, which holds scores and no weights: {advice}, as that run did"
    reason = f"holds no {CONFIG}" if any(folder.iterdir()) else "is empty"
    return f"{reason}: give the --output of a `python -m vfbench train` that has saved"


def _checkpoint_of_run(path: Path) -> str:
    """The --checkpoint that a run was given; empty for none."""
    try:
        value = read_json(path)["options"]["checkpoint"]["value"]
    except (KeyError, TypeError, MissingData):
        return ""
    return shlex.quote(value) if isinstance(value, str) and value != "None" else ""


@contextmanager
def config_errors(path: Path, model: str) -> Iterator[None]:
    """Context manager: turn errors of building `model` from the file `path` into `MissingData` naming the file."""
    from vfbench.utils import memory, records  # torch and pydantic, which a refused folder does not need

    try:
        with memory.require_memory(f"the {model} of {path}"):
            yield
    except Exception as error:  # a value that nobody foresaw may raise anything
        if isinstance(error, UserError) and type(error) is not UserError:
            raise  # a missing library or another file, not a bad value
        reason = f"{error} is missing" if isinstance(error, KeyError) else records.first_problem(error)
        raise MissingData(f"{path} does not describe a {model} ({reason})") from error
