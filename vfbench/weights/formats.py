"""Published weight files: format detection by content, and readers that execute nothing."""

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

NESTED_KEYS = ("state_dict", "model", "module")  # keys under which training scripts save the weights
OTHER_FILES = (  # first bytes of frequent wrong downloads
    (b"\x1f\x8b", "is a gzip archive: unpack it, and give the folder"),
    (b"version https://git-lfs", "is only a pointer of Git LFS: get the file itself with `git lfs pull`"),
    (b"<", "is a web page, not weights: the link is dead, or asks for a login"),
)


def detect_format(path: Path) -> Format:
    """Format of a file by its first bytes; raises `MissingData` with the actual content if it holds no weights."""
    if tf_bundle.find_prefix(path):
        return "bundle"
    if not path.is_file():
        problem = "is a folder without a TensorFlow checkpoint" if path.is_dir() else "does not exist"
        raise MissingData(f"{path} {problem}")
    with path.open("rb") as file:
        start = file.read(64)
    if zipfile.is_zipfile(path):
        return _zip_format(path)
    if start[8:9] == b"{":
        return "safetensors"
    if start[:1] == b"\x80":  # a pickle, as torch wrote it before 1.6
        return "torch"
    for first_bytes, problem in OTHER_FILES:
        if start.lstrip().startswith(first_bytes):
            raise MissingData(f"{path} {problem}")
    raise MissingData(f"{path} is truncated, or in no known weight format: it begins with {start[:8]!r}")


def _zip_format(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # a damaged file can raise anything
        raise MissingData(f"{path} is a damaged zip archive ({error}): get it again") from error
    if any(name.endswith("/constants.pkl") for name in names):
        return "torchscript"
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise MissingData(f"{path} is a zip archive, but holds neither NumPy arrays nor a PyTorch state dict")


def read_torch(path: Path) -> dict[str, Tensor]:
    """Tensors of a saved state dict; raises `MissingData` for a file that is damaged or holds more than plain data."""
    try:
        with memory.require_memory(str(path)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except memory.NoMemory:
        raise
    except Exception as error:  # a damaged file can raise anything
        reason = f"{type(error).__name__}; nothing in it was executed"
        raise MissingData(f"{path} is damaged, or holds more than tensors ({reason}): get it again") from error
    return _state_dict(path, content)


def read_torchscript(path: Path, allowed_hashes: frozenset[str]) -> dict[str, Tensor]:
    """Tensors of a TorchScript archive whose SHA-256 is in `allowed_hashes`: opening any other could execute code.

    Raises `MissingData` for any other file.
    """
    if (sha256 := file_sha256(path)) not in allowed_hashes:
        raise MissingData(
            f"{path} is a TorchScript program with the unknown SHA-256 {sha256}; it could execute code, so it is not "
            "opened. Give a file of tensors, or see `python -m vfbench weights status`"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated, but this file is published in it
        content = torch.jit.load(path, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
    return _state_dict(path, content)


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Arrays of an npz file; raises `MissingData` for a damaged one, or one that holds Python objects."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except Exception as error:  # NumPy, zipfile, zlib and lzma have errors of their own
        raise MissingData(f"{path} is damaged, or holds more than numbers ({error}): get it again") from error


def _state_dict(path: Path, content: object) -> dict[str, Tensor]:
    """Named tensors, unpacked from `state_dict`, `model` or `module`; raises `MissingData` for any other content."""
    while isinstance(content, Mapping) and (inner := next((name for name in NESTED_KEYS if name in content), None)):
        content = content[inner]
    if not isinstance(content, Mapping) or not content:
        raise MissingData(f"{path} holds {type(content).__name__}, expected tensors by name")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise MissingData(f"{path}: '{name}' is {type(value).__name__}, expected a tensor")
    return {name: value.detach().clone() for name, value in content.items()}
