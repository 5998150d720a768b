"""Array files of clips and features: `.npy`, `.npz`, `.safetensors`, read without pickle.

Clips are uint8 (B, T, H, W, 3), as TATS, LVDM and cd-fvd save them; features are floats (N, D). Any other type or shape
raises an error, because swapped axes, or 0..1 instead of 0..255, would still give a score.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import struct
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from jaxtyping import UInt8
from safetensors import safe_open

from vfbench.errors import MissingData, UserError
from vfbench.utils.files import require_file

ARRAY_SUFFIXES = (".npy", ".npz", ".safetensors")
ARRAY_NAMES = ("clips", "videos", "features", "arr_0")  # read first where a file holds several
GROUPS = "groups"  # a number for each row of features, equal for clips of one video
FLOAT_DTYPES = ("float16", "bfloat16", "float32", "float64")
EXPECTED = "needed: clips as uint8 (B, T, H, W, 3) in 0..255, or features as floats (N, D)"
_DTYPES = {
    "U8": "uint8",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}  # safetensors names
_OPEN_LOCK = threading.Lock()  # without it, each thread would read a compressed file into memory
_ZIP_HEADER_BYTES = 30  # of a local file header before the file name (PKWARE APPNOTE 4.3.7)
_COMPRESSIONS = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}  # that NumPy writes, and how much they can save


@dataclass(frozen=True)
class ArrayFile:
    """The array read from a file: its name in the file, shape and dtype.

    `mapped` is True where it can be memory-mapped, not read as a whole; `grouped`, where the file has `GROUPS`;
    `others` names the arrays that are not read.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    mapped: bool
    grouped: bool = False
    others: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["arrays", "features"]:
        """`arrays` for clips, `features` for features."""
        return "arrays" if self.dtype == "uint8" else "features"


def examine(path: Path) -> ArrayFile:
    """Read the header of an array file.

    Raises `MissingData` for a damaged file, for Python objects, for several arrays of which not exactly one has a name
    in `ARRAY_NAMES`, and for an array that holds neither clips nor features, naming its dtype and shape.
    """
    with reading_errors(path):
        headers = _headers(path)
        name = _pick(path, headers)
        mapped = path.suffix.lower() == ".npy" or (path.suffix.lower() == ".npz" and _offset(path, name) is not None)
    shape, dtype = headers[name]
    grouped = headers.get(GROUPS) == (shape[:1], "I64")
    read = {name, GROUPS} if grouped else {name}
    file = ArrayFile(path, name, shape, dtype, mapped, grouped, tuple(sorted(headers.keys() - read)))
    if 0 in shape or not shape:
        raise MissingData(f"{path}: {dtype} {shape} is empty; {EXPECTED}")
    clips = dtype == "uint8" and len(shape) == 5 and shape[-1] == 3
    if path.suffix.lower() == ".safetensors" and clips:
        raise MissingData(
            f"{path}: clips are read from .npy or .npz files; this format may hold features, floats (N, D)"
        )
    if not clips and not (dtype in FLOAT_DTYPES and len(shape) == 2):
        raise MissingData(f"{path}: {dtype} {shape}{_range(file)}; {EXPECTED}{_hint(file)}")
    return file


def open_clips(path: Path) -> np.ndarray:
    """Clips of a file, uint8 (B, T, H, W, 3), memory-mapped; a file that cannot be mapped is read and cached."""
    with reading_errors(path):
        stat = path.stat()
    with _OPEN_LOCK:
        return _open(path, (stat.st_size, stat.st_mtime_ns))


def open_shard(path: Path) -> UInt8[np.ndarray, "n 3 height width"]:
    """Frames of a shard that `vfbench data prepare` wrote, (N, 3, H, W), memory-mapped.

    Raises `MissingData` naming a file that is missing, truncated, or not a shard.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise MissingData(f"{path}: {error.strerror}; prepare this folder again") from error
    return _shard(path, (stat.st_size, stat.st_mtime_ns))


def shard_size(frames: int, height: int, width: int) -> int:
    """Size of a shard file in bytes."""
    return len(shard_header(frames, height, width)) + frames * 3 * height * width


def shard_header(frames: int, height: int, width: int) -> bytes:
    """Header of a shard file, npy format version 1.0."""
    header = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (frames, 3, height, width)}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


@contextlib.contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Context manager: turn the errors of a damaged file, and of a path that is no file, into `MissingData`."""
    require_file(path)
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # NumPy, zipfile, zlib and safetensors have errors of their own, and raise many others
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise MissingData(f"{path}: no readable {path.suffix} file ({reason}); get or save this file again") from error


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """(shape, dtype) of every array of a file by name; the name is empty for a .npy file."""
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            return {"": _header(file, path.stat().st_size)[0]}
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            size = path.stat().st_size
            return {member.filename.removesuffix(".npy"): _member_header(archive, member, size) for member in members}
    with safe_open(path, framework="pt") as content:
        slices = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118  # not a mapping
        return {
            name: (tuple(part.get_shape()), _DTYPES.get(part.get_dtype(), part.get_dtype()))
            for name, part in slices.items()
        }


def _member_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> tuple[tuple[int, ...], str]:
    """(shape, dtype) of an array in an .npz file of `size` bytes; raises ValueError where it cannot hold its claim."""
    if member.compress_type not in _COMPRESSIONS:
        raise ValueError(f"{member.filename} is compressed in a way that NumPy does not write")
    if member.file_size > min(member.compress_size, size) * _COMPRESSIONS[member.compress_type]:
        raise ValueError(f"{member.filename} claims {member.file_size:,} bytes, the file has {size:,}")
    with archive.open(member) as file:
        return _header(file, member.file_size)[0]


def _header(
    file: IO[bytes] | zipfile.ZipExtFile, size: int
) -> tuple[tuple[tuple[int, ...], str], np.dtype[Any], Literal["C", "F"]]:
    """Read the npy header of a file of `size` bytes, ((shape, dtype name), dtype, order), up to the first value.

    Raises ValueError for a header that claims a negative shape, or more bytes than the file holds.
    """
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"npy version {version}")
    shape, fortran, dtype = readers[version](file)
    claimed, held = dtype.itemsize * math.prod(shape), size - file.tell()
    if min(shape, default=0) < 0 or (claimed > held and not dtype.hasobject):
        raise ValueError(f"its header claims {dtype.name} {shape}, {claimed:,} bytes, and {held:,} follow")
    return (shape, dtype.name), dtype, "F" if fortran else "C"


def _pick(path: Path, headers: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    """Name of the array to read: the only one, or the one in `ARRAY_NAMES`."""
    candidates = list(headers) if len(headers) == 1 else [name for name in ARRAY_NAMES if name in headers]
    if len(candidates) == 1:
        return candidates[0]
    contents = ", ".join(f"{name} {dtype} {shape}" for name, (shape, dtype) in headers.items()) or "no array"
    raise MissingData(f"{path} holds {contents}: keep one array, or name it one of {', '.join(ARRAY_NAMES)}")


def _offset(path: Path, name: str) -> int | None:
    """Byte offset of an array in an .npz file; None where it is compressed, so that it cannot be mapped."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as file:
        file.seek(member.header_offset)
        name_length, extra_length = struct.unpack("<HH", file.read(_ZIP_HEADER_BYTES)[26:])
    return member.header_offset + _ZIP_HEADER_BYTES + int(name_length) + int(extra_length)


@functools.lru_cache(maxsize=2)  # real and generated clips
def _open(path: Path, stamp: tuple[int, int]) -> np.ndarray:
    """Array of a file; `stamp` is its size and mtime, so that a changed file is read again."""
    file = examine(path)
    with reading_errors(path):
        if file.mapped:
            return _map(file)
        with np.load(path, allow_pickle=False) as content:
            array: np.ndarray = content[file.name]
            return array


@functools.lru_cache(maxsize=128)  # open files; a hundred of the default size are 30 GB
def _shard(path: Path, stamp: tuple[int, int]) -> UInt8[np.ndarray, "n 3 height width"]:
    """Frames of a shard; `stamp` is its size and mtime, so that a changed file is read again."""
    require_file(path)
    try:
        frames: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)  # faster to slice
    except Exception as error:  # NumPy raises many errors for a damaged file
        raise MissingData(f"{path}: no readable shard ({error}); remove it and prepare this folder again") from error
    shape = frames.shape
    if frames.dtype != np.uint8 or len(shape) != 4 or shape[1] != 3 or stamp[0] != shard_size(shape[0], *shape[2:]):
        content = f"{frames.dtype} {shape} in {stamp[0]:,} bytes"
        raise MissingData(f"{path}: {content}, needed: uint8 (N, 3, H, W); remove it and prepare this folder again")
    return frames


def _map(file: ArrayFile) -> np.ndarray:
    start = _offset(file.path, file.name) if file.path.suffix.lower() == ".npz" else 0
    with file.path.open("rb") as source:
        source.seek(start or 0)
        (shape, _), dtype, order = _header(source, file.path.stat().st_size)
        return np.memmap(file.path, dtype, "r", source.tell(), shape, order)


def _range(file: ArrayFile) -> str:
    """Value range of the first clip of float pixels: it tells 0..1 from -1..1 and 0..255."""
    if file.dtype not in FLOAT_DTYPES or len(file.shape) < 4 or not file.mapped:
        return ""
    with reading_errors(file.path):
        first = _map(file)[0]
    return f", {first.min():g} to {first.max():g} in the first"


def _hint(file: ArrayFile) -> str:
    """Advice for the commonest arrays that are not yet clips."""
    shape = file.shape
    if file.dtype in FLOAT_DTYPES and len(shape) >= 4:
        return ": scale them to 0..1 and save vfbench.video.to_uint8(x)"
    if file.dtype != "uint8" or len(shape) not in (4, 5):
        return ""
    if len(shape) == 4:
        return ": save x[None] if it is one clip" if shape[-1] == 3 else ""
    axes = {2: (0, 1, 3, 4, 2), 1: (0, 2, 3, 4, 1)}
    channels_last = next((order for axis, order in axes.items() if shape[axis] == 3), None)
    return f": save x.transpose{channels_last}" if channels_last else ""
