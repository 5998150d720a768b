"""Weights on disk: find, read and write them. Only safetensors is opened; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vfbench import memory
from vfbench.errors import MissingData, UserError
from vfbench.files import read_json, replacing

SHIPPED = Path(__file__).parent / "checkpoints"
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


def sha256(path: Path) -> str:
    """The hash of a file's bytes, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU; raises `MissingData` naming the file when it cannot be read."""
    if not path.is_file():
        raise MissingData(f"no weights at {path}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise MissingData(f"{path} is damaged or not a safetensors file ({error})") from error


def metadata(path: Path) -> dict[str, str]:
    """The texts beside the tensors of a safetensors file; none where it is not there, or damaged, as `read` says."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all; raises `BadEnvironment` when the disk does not take it."""
    whole = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with replacing(path) as file:
        file.write_bytes(save(whole, dict(metadata or {})))  # not save_file: it keeps others from reading the file


def load_into(module: nn.Module, path: Path, expected: str | None = None) -> str:
    """Fill `module` from a safetensors file, in the module's own dtype, and return the file's SHA-256.

    Raises `MissingData` naming what differs, the most telling first: a file that is damaged; the first tensor that is
    missing, unknown, of another shape or of another kind of number, as in a file of another model; the hash, as in a
    file of another training. Nothing is filled then.
    """
    tensors, wanted = read(path), module.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        if differs := _difference(tensors.get(name), wanted.get(name)):
            raise MissingData(f"{path} does not fit this model: '{name}' {differs}")
    found = verified(path, expected)
    if strange := [n for n, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]:
        raise MissingData(f"{path} holds NaN or infinity in '{strange[0]}': a training that diverged; train again")
    module.load_state_dict({name: tensors[name].to(wanted[name].dtype) for name in wanted})
    return found


def _difference(here: Tensor | None, needed: Tensor | None) -> str:
    """How a tensor of a file differs from the model's own; floating numbers may have any precision."""
    if here is None:
        return "is missing from the file"
    if needed is None:
        return "is not part of the model but stands in the file"
    if here.shape != needed.shape:
        return f"has shape {tuple(here.shape)}, needed {tuple(needed.shape)}"
    floating = here.is_floating_point() and needed.is_floating_point()
    return "" if floating or here.dtype == needed.dtype else f"holds {here.dtype}, needed {needed.dtype}"


def verified(path: Path, expected: str | None) -> str:
    """The SHA-256 of a file; raises `MissingData` where it is not the one that is expected, if any is."""
    found = sha256(path)
    if expected and found != expected:
        raise MissingData(f"{path} is damaged or of another training: its SHA-256 is {found}, expected {expected}")
    return found


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating tensors in half precision, for shipping, on the CPU: a training may fill the memory of its GPU.

    Raises `UserError` naming the first that holds a value beyond float16.
    """
    whole = {name: tensor.cpu() for name, tensor in state.items()}
    half = {name: t.half() if t.is_floating_point() else t for name, t in whole.items()}
    if bad := [name for name, t in half.items() if t.is_floating_point() and not torch.isfinite(t).all()]:
        found = f"'{bad[0]}' holds {float(whole[bad[0]].abs().max()):g}, which is not finite in half precision"
        most = f"{torch.finfo(torch.half).max:g}"
        raise UserError(
            f"{found} (up to {most}): go on with --resume and without --half, or train again with a lower --lr"
        )
    return half
