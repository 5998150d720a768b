"""Weights on disk: find, read and write them. Only safetensors is opened; nothing is ever unpickled."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vfbench.errors import MissingData, UserError
from vfbench.utils import memory
from vfbench.utils.files import read_json

SHIPPED = Path(__file__).parent.parent / "checkpoints"
CONFIG, TENSORS = "config.json", "model.safetensors"  # what a checkpoint is
HUB_NAME = r"[\w-][\w.-]*/[\w-][\w.-]*"  # owner/name


def shipped(dataset: str, name: str) -> Path | None:
    """The folder of a checkpoint that comes with vfbench, if there is one: `checkpoints/<dataset>/<name>`."""
    folder = SHIPPED / dataset / name
    return folder if (folder / CONFIG).is_file() else None


def require_checkpoint(folder: Path, model: str | None = None) -> None:
    """Raise `MissingData` where a folder is not a checkpoint, or not that of `model`, with the command that mends it.

    Only what stands there is looked at; `load_into` looks into it.
    """
    if not folder.is_dir():
        raise MissingData(f"{folder} {_no_folder(folder)}")
    if not (folder / CONFIG).is_file():
        raise MissingData(f"{folder} {_another_folder(folder)}")
    content = read_json(folder / CONFIG)
    found, other = content.get("model"), content.get("_class_name") or content.get("model_type")
    if not isinstance(found, str):
        of = f"describes a '{other}' of another library" if other else "names no model"
        raise MissingData(f"{folder / CONFIG} {of}: a checkpoint is what `vfbench train` writes")
    if model and found != model:
        raise MissingData(f"{folder} is a checkpoint of '{found}', not of '{model}': say --model {found}")
    if not (folder / TENSORS).is_file():
        raise MissingData(f"{folder} has a {CONFIG} and no {TENSORS}: copy that file too, or train again")


def _no_folder(path: Path) -> str:
    if path.name in (CONFIG, TENSORS) and path.is_file():
        return f"is a file of a checkpoint: give its folder, {path.parent}"
    if path.exists():
        return f"is a file: a checkpoint is a folder with {CONFIG} and {TENSORS}"
    of_hub = f", or hub:{path} for one of the hub" if re.fullmatch(HUB_NAME, str(path)) else ""
    return f"does not exist: give the --output of a `python -m vfbench train`{of_hub}"


def _another_folder(folder: Path) -> str:
    """What a folder without configuration is."""
    if (folder / "model_index.json").is_file():
        return f"is a pipeline of diffusers: say --model \"diffusers(id='{folder}')\" and no --checkpoint"
    if (folder / "run.json").is_file():
        options = read_json(folder / "run.json").get("options", {})
        used = options.get("checkpoint", {}).get("value", "None")
        instead = "leave out --checkpoint, as it did" if used == "None" else f"say --checkpoint {used}, as it did"
        return f"is the folder of a run, which holds scores and no weights: {instead}"
    what = f"holds no {CONFIG}" if any(folder.iterdir()) else "is empty"
    return f"{what}: give the --output of a `python -m vfbench train` that has saved"


@contextmanager
def describing(path: Path, model: str) -> Iterator[None]:
    """Within, a model is built of what a file says: a value that is missing or out of range names the file."""
    try:
        with memory.needed(f"the {model} of {path}"):
            yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, UserError) as error:
        if isinstance(error, UserError) and type(error) is not UserError:
            raise  # not about a value: a library is missing, or another file
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise MissingData(f"{path} does not describe a {model} ({reason})") from error
