"""Array files of clips and features: `.npy`, `.npz`, `.safetensors`. Nothing is unpickled.

Clips are uint8 (B, T, H, W, 3), as TATS, LVDM and cd-fvd save them; features are floats (N, D). Whatever else an array
holds is refused with its type and shape: an axis taken for another, or 0..1 for 0..255, gives a number all the same.
"""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vfbench.errors import MissingData

SUFFIXES = (".npy", ".npz", ".safetensors")
NAMES = ("clips", "videos", "features", "arr_0")  # which array is meant where a file holds several
FLOATS = ("float16", "bfloat16", "float32", "float64")
NEEDED = "needed: clips as uint8 (B, T, H, W, 3) in 0..255, or features as floats (N, D)"
_TYPES = {"U8": "uint8", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}  # of safetensors
_OPENING = threading.Lock()  # threads that want one file would each read it into memory
_LOCAL_HEADER = 30  # bytes before the name of a file within a ZIP archive (APPNOTE 4.3.7)
_DAMAGE = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, SafetensorError)


@dataclass(frozen=True)
class ArrayFile:
    """The one array of a file that counts: its name there, and what its header says.

    `others` are arrays of the file that are not read. One that is not `mapped` is read into memory as a whole.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    mapped: bool
    others: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["arrays", "features"]:
        """Clips, or features."""
        return "arrays" if self.dtype == "uint8" else "features"


def examine(path: Path) -> ArrayFile:
    """What a file holds, from its header alone.

    Raises `MissingData` for a file that is damaged, that holds Python objects, several arrays none of which has one of
    the `NAMES`, or an array that is neither clips nor features, naming its type and shape.
    """
    with _reading(path):
        headers = _headers(path)
        name = _chosen(path, headers)
        mapped = path.suffix.lower() == ".npy" or (path.suffix.lower() == ".npz" and _offset(path, name) is not None)
    shape, dtype = headers[name]
    file = ArrayFile(path, name, shape, dtype, mapped, tuple(sorted(headers.keys() - {name})))
    if 0 in shape or not shape:
        raise MissingData(f"{path}: {dtype} {shape} is empty; {NEEDED}")
    clips = dtype == "uint8" and len(shape) == 5 and shape[-1] == 3
    if path.suffix.lower() == ".safetensors" and clips:
        raise MissingData(f"{path}: clips stand in .npy or .npz files; this one may hold features, floats (N, D)")
    if not clips and not (dtype in FLOATS and len(shape) == 2):
        raise MissingData(f"{path}: {dtype} {shape}{_range(file)}; {NEEDED}{_hint(file)}")
    return file


def rows(path: Path) -> np.ndarray:
    """The array of clips of a file, read where it is indexed: mapped, or kept for the next call where it cannot be."""
    with _reading(path):
        stat = path.stat()
    with _OPENING:
        return _open(path, (stat.st_size, stat.st_mtime_ns))


def shard(path: Path) -> UInt8[np.ndarray, "n 3 height width"]:
    """The frames of a shard that `vfbench data prepare` made, (N, 3, H, W), mapped: read where they are indexed.

    Raises `MissingData` naming a file that is missing, cut off, or no shard.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise MissingData(f"{path}: {error.strerror}; prepare this folder again") from error
    return _shard(path, (stat.st_size, stat.st_mtime_ns))


def shard_size(frames: int, height: int, width: int) -> int:
    """The bytes of a shard file."""
    return len(shard_header(frames, height, width)) + frames * 3 * height * width


def shard_header(frames: int, height: int, width: int) -> bytes:
    """What stands in a shard file before its frames, in the npy format."""
    header = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": (frames, 3, height, width)}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


def features(path: Path) -> Float[Tensor, "n dim"]:
    """The features of a file, (N, D) float32 or float64; raises `MissingData` naming a row that is not finite."""
    file = examine(path)
    with _reading(path):
        if path.suffix.lower() == ".safetensors":
            with safe_open(path, framework="pt") as content:
                found: Tensor = content.get_tensor(file.name)
        else:
            found = torch.from_numpy(np.array(rows(path), dtype=file.dtype))
    found = found if found.dtype == torch.float64 else found.float()
    if bad := (~torch.isfinite(found)).any(dim=1).nonzero()[:, 0].tolist():
        raise MissingData(f"{path}: row {bad[0]} holds NaN or infinity ({len(bad)} such rows): extract these again")
    return found


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes its reader raise, as `MissingData` that names the file."""
    try:
        yield
    except _DAMAGE as error:
        raise MissingData(f"{path}: no readable {path.suffix} file ({error}); get or save this file again") from error


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of every array of a file by its name, which is empty in a .npy."""
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            return {"": _header(file)[0]}
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            return {name.removesuffix(".npy"): _header(archive.open(name))[0] for name in members}
    with safe_open(path, framework="pt") as content:
        slices = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118  # it is no mapping
        return {
            name: (tuple(part.get_shape()), _TYPES.get(part.get_dtype(), part.get_dtype()))
            for name, part in slices.items()
        }


def _header(
    file: IO[bytes] | zipfile.ZipExtFile,
) -> tuple[tuple[tuple[int, ...], str], np.dtype[Any], Literal["C", "F"]]:
    """Read the header of the npy format, leaving the file at its first value."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"npy version {version}")
    shape, fortran, dtype = readers[version](file)
    return (shape, dtype.name), dtype, "F" if fortran else "C"


def _chosen(path: Path, headers: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    named = list(headers) if len(headers) == 1 else [name for name in NAMES if name in headers]
    if len(named) == 1:
        return named[0]
    held = ", ".join(f"{name} {dtype} {shape}" for name, (shape, dtype) in headers.items()) or "no array"
    raise MissingData(f"{path}: holds {held}: which one is meant? Keep one, or call it one of {', '.join(NAMES)}")


def _offset(path: Path, name: str) -> int | None:
    """Where in an .npz the array's own file begins; None if it is compressed, so that it cannot be mapped."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as file:
        file.seek(member.header_offset)
        name_length, extra_length = struct.unpack("<HH", file.read(_LOCAL_HEADER)[26:])
    return member.header_offset + _LOCAL_HEADER + int(name_length) + int(extra_length)


@functools.lru_cache(maxsize=2)  # the real and the generated side
def _open(path: Path, stamp: tuple[int, int]) -> np.ndarray:
    """The array of a file that has not changed since its `stamp` of size and time."""
    file = examine(path)
    with _reading(path):
        if file.mapped:
            return _map(file)
        with np.load(path, allow_pickle=False) as content:
            whole: np.ndarray = content[file.name]
            return whole


@functools.lru_cache(maxsize=128)  # files held open; a hundred of the usual size are 30 GB
def _shard(path: Path, stamp: tuple[int, int]) -> UInt8[np.ndarray, "n 3 height width"]:
    """The frames of a shard that has not changed since its `stamp` of size and time."""
    try:
        frames: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)  # faster to slice
    except _DAMAGE as error:
        raise MissingData(f"{path}: no readable shard ({error}); remove it and prepare this folder again") from error
    shape = frames.shape
    if frames.dtype != np.uint8 or len(shape) != 4 or shape[1] != 3 or stamp[0] != shard_size(shape[0], *shape[2:]):
        said = f"{frames.dtype} {shape} in {stamp[0]:,} bytes"
        raise MissingData(f"{path}: {said}, needed: uint8 (N, 3, H, W); remove it and prepare this folder again")
    return frames


def _map(file: ArrayFile) -> np.ndarray:
    start = _offset(file.path, file.name) if file.path.suffix.lower() == ".npz" else 0
    with file.path.open("rb") as source:
        source.seek(start or 0)
        (shape, _), dtype, order = _header(source)
        return np.memmap(file.path, dtype, "r", source.tell(), shape, order)


def _range(file: ArrayFile) -> str:
    """The range of the first clip where floats stand for pixels: it tells 0..1 from -1..1 and from 0..255."""
    if file.dtype not in FLOATS or len(file.shape) < 4 or not file.mapped:
        return ""
    with _reading(file.path):
        first = _map(file)[0]
    return f", {first.min():g} to {first.max():g} in the first"


def _hint(file: ArrayFile) -> str:
    """How to turn the commonest other arrays into clips."""
    shape = file.shape
    if file.dtype in FLOATS and len(shape) >= 4:
        return ": bring them to 0..1 and save vfbench.video.to_uint8(x)"
    if file.dtype != "uint8" or len(shape) not in (4, 5):
        return ""
    if len(shape) == 4:
        return ": save x[None] if it is one clip" if shape[-1] == 3 else ""
    axes = {2: (0, 1, 3, 4, 2), 1: (0, 2, 3, 4, 1)}
    turned = next((order for axis, order in axes.items() if shape[axis] == 3), None)
    return f": save x.transpose{turned}" if turned else ""
