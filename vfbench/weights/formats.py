"""Files of weights as others publish them, told apart by their content and read without executing anything in them."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vfbench.errors import MissingData
from vfbench.utils import memory
from vfbench.utils.files import file_sha256
from vfbench.weights import tf_bundle

Format = Literal["bundle", "safetensors", "npz", "torch", "torchscript"]

NESTED = ("state_dict", "model", "module")  # where trainers put the weights among other things
STRANGERS = (  # what a download often is instead
    (b"\x1f\x8b", "is a gzip archive: unpack it, and give the folder"),
    (b"version https://git-lfs", "is only a pointer of Git LFS: get the file itself with `git lfs pull`"),
    (b"<", "is a web page, not weights: the link has died, or asks for a login"),
)


def recognise(path: Path) -> Format:
    """The format of a file, by its first bytes; raises `MissingData` saying what it is instead."""
    if tf_bundle.find(path):
        return "bundle"
    if not path.is_file():
        what = "is a folder without a TensorFlow checkpoint" if path.is_dir() else "does not exist"
        raise MissingData(f"{path} {what}")
    with path.open("rb") as file:
        start = file.read(64)
    if zipfile.is_zipfile(path):
        return _archive(path)
    if start[8:9] == b"{":
        return "safetensors"
    if start[:1] == b"\x80":  # a pickle, as torch wrote it before 1.6
        return "torch"
    for beginning, what in STRANGERS:
        if start.lstrip().startswith(beginning):
            raise MissingData(f"{path} {what}")
    raise MissingData(f"{path} is truncated, or no format that holds weights: it begins with {start[:8]!r}")


def _archive(path: Path) -> Format:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        return "torchscript"
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise MissingData(f"{path} is a zip archive, but holds neither numpy arrays nor a state dict of PyTorch")


def read_torch(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict; raises `MissingData` for a file that is damaged or holds more than plain data."""
    try:
        with memory.needed(str(path)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except memory.NoMemory:
        raise
    except Exception as error:  # whatever a damaged file makes the reader stumble over
        reason = f"{type(error).__name__}; nothing in it was executed"
        raise MissingData(f"{path} is damaged, or holds more than tensors ({reason}): get it again") from error
    return _state(path, content)


def read_torchscript(path: Path, known: frozenset[str]) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive whose SHA-256 is known, for only of those is it certain what they execute.

    Raises `MissingData` for any other.
    """
    if (found := file_sha256(path)) not in known:
        raise MissingData(
            f"{path} is a TorchScript program with SHA-256 {found}, which is not a known one: opening it could execute "
            "anything, so it is not opened. Give a file of tensors, or see `python -m vfbench weights where`"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch would have it replaced, and the file is as it is
        content = torch.jit.load(path, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
    return _state(path, content)


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an npz file; raises `MissingData` for a damaged one, or one that holds Python objects."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise MissingData(f"{path} is damaged, or holds more than numbers ({error}): get it again") from error


def _state(path: Path, content: object) -> dict[str, Tensor]:
    """The tensors themselves, from under `state_dict`, `model` or `module` if they are there."""
    while isinstance(content, Mapping) and (inner := next((name for name in NESTED if name in content), None)):
        content = content[inner]
    if not isinstance(content, Mapping) or not content:
        raise MissingData(f"{path} holds {type(content).__name__}, expected tensors by name")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise MissingData(f"{path}: '{name}' is {type(value).__name__}, expected a tensor")
    return {name: value.detach().clone() for name, value in content.items()}
