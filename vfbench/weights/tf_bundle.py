"""TensorFlow checkpoints, read without TensorFlow: every block and every tensor is checked by its CRC-32C.

`<prefix>.index` is a table of LevelDB (https://github.com/google/leveldb/blob/main/doc/table_format.md), whose values
are protocol buffers (`BundleEntryProto` of tensorflow/core/protobuf/tensor_bundle.proto).
`<prefix>.data-00000-of-00001` is the tensors, little-endian, one behind the other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import google_crc32c
import numpy as np
import numpy.typing as npt

from vfbench.errors import MissingData

INDEX, DATA = ".index", ".data-00000-of-00001"
MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
FOOTER = 48
FLOAT32 = 1  # of the enum DataType
UNCOMPRESSED, SNAPPY = 0, 1

Array: TypeAlias = npt.NDArray[np.float32]
Message: TypeAlias = dict[int, list[int | bytes]]  # the values of each field of a protocol buffer, undecoded


@dataclass(frozen=True)
class Entry:
    """Where a tensor stands in the data file, and the masked CRC-32C of its bytes."""

    dtype: int
    shape: tuple[int, ...]
    offset: int
    size: int
    crc: int


def masked_crc(content: bytes | memoryview) -> int:
    """The CRC-32C of some bytes, rotated and shifted as LevelDB and TensorFlow store it."""
    crc: int = google_crc32c.value(bytes(content))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def find(path: Path) -> Path | None:
    """The prefix of the bundle that `path` means: prefix, index, data file, or a folder that holds one; else None.

    Raises `MissingData` for a folder that holds several.
    """
    if path.is_dir():
        found = sorted([*path.glob(f"*{INDEX}"), *path.glob(f"variables/*{INDEX}")])  # the latter: TF-Hub
        if len(found) > 1:
            raise MissingData(f"{path} holds several checkpoints: name one of {', '.join(map(str, found))}")
        return Path(str(found[0]).removesuffix(INDEX)) if found else None
    prefix = Path(str(path).removesuffix(INDEX).removesuffix(DATA))
    return prefix if prefix != path or _beside(prefix, INDEX).is_file() else None


def data(prefix: Path) -> Path:
    """The file that holds the tensors."""
    return _beside(prefix, DATA)


def entries(prefix: Path) -> dict[str, Entry]:
    """All tensors of a bundle by name; raises `MissingData` naming the file that is missing or damaged."""
    path = _beside(prefix, INDEX)
    table = _content(path)
    if table[-8:] != MAGIC or len(table) < FOOTER:
        raise MissingData(f"{path} is truncated, or no index of a TensorFlow checkpoint: its last 8 bytes are wrong")
    try:
        values = dict(_table(table))
        _check_header(_message(values.pop("", b"")))
        return {name: _entry(_message(value)) for name, value in values.items()}
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise MissingData(f"{path} is damaged ({error}): get it again") from error


def read(prefix: Path, chosen: Mapping[str, Entry]) -> dict[str, Array]:
    """The chosen tensors as float32 arrays; raises `MissingData` naming file and tensor whose type or CRC is wrong."""
    path = data(prefix)
    content = memoryview(_content(path))
    return {name: _array(path, name, entry, content) for name, entry in chosen.items()}


def _array(path: Path, name: str, entry: Entry, content: memoryview) -> Array:
    raw = content[entry.offset : entry.offset + entry.size]
    if entry.dtype != FLOAT32 or entry.size != 4 * np.prod(entry.shape, dtype=int):
        raise MissingData(f"{path}: '{name}' is no float32 tensor of shape {entry.shape}, so this is another network")
    if len(raw) != entry.size:
        raise MissingData(f"{path} is truncated: '{name}' ends at byte {entry.offset + entry.size} of {len(content)}")
    if (found := masked_crc(raw)) != entry.crc:
        raise MissingData(f"{path} is damaged: '{name}' has CRC {found}, its index says {entry.crc}; get it again")
    return np.frombuffer(raw, "<f4").reshape(entry.shape).astype(np.float32)


def _beside(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(prefix.name + suffix)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        need = f"a TensorFlow checkpoint is two files, {INDEX} and {DATA}"
        raise MissingData(f"{path} cannot be read ({error.strerror}): {need}") from error


def _table(table: bytes) -> Iterator[tuple[str, bytes]]:
    """All keys and values: the footer names the block of blocks, which names the others."""
    footer = table[-FOOTER:]
    _, place = _varint(footer, 0)  # where the meta block is: TensorFlow leaves it empty
    _, place = _varint(footer, place)
    for _, handle in _pairs(_block(table, footer[place:])):
        for key, value in _pairs(_block(table, handle)):
            yield key.decode(), value


def _block(table: bytes, handle: bytes) -> bytes:
    """The block that a handle (offset, size) points to, without its trailer of one byte and a CRC."""
    offset, place = _varint(handle, 0)
    size, _ = _varint(handle, place)
    content, kind = table[offset : offset + size], table[offset + size]
    (crc,) = struct.unpack_from("<I", table, offset + size + 1)
    if masked_crc(table[offset : offset + size + 1]) != crc:
        raise ValueError(f"the CRC of the block at byte {offset} is wrong")
    if kind != UNCOMPRESSED:
        how = "snappy" if kind == SNAPPY else f"method {kind}"
        raise ValueError(f"the block at byte {offset} is compressed with {how}, and only plain ones are read")
    return content


def _pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a block: each key shares its beginning with the one before."""
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end, place, key = len(block) - 4 * (restarts + 1), 0, b""
    while place < end:
        shared, place = _varint(block, place)
        unshared, place = _varint(block, place)
        length, place = _varint(block, place)
        key = key[:shared] + block[place : place + unshared]
        place += unshared
        yield key, block[place : place + length]
        place += length


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, low ones first, and the place behind it."""
    value = shift = 0
    while True:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place


def _message(content: bytes) -> Message:
    """The fields of a protocol buffer: varints and fixed 32 bits as numbers, everything with a length as bytes."""
    fields: Message = {}
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        value: int | bytes
        match tag & 7:
            case 0:
                value, place = _varint(content, place)
            case 2:
                length, place = _varint(content, place)
                value, place = content[place : place + length], place + length
            case 5:
                (value,), place = struct.unpack_from("<I", content, place), place + 4
            case wire:
                raise ValueError(f"a field of wire type {wire}, which no entry has")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _entry(fields: Message) -> Entry:
    """BundleEntryProto: dtype 1, shape 2, shard 3, offset 4, size 5, crc32c 6; what is 0 is left out of the file."""
    dtype, offset, size, crc = (_number(fields, field) for field in (1, 4, 5, 6))
    shape = tuple(_number(_message(dim), 1) for dim in _parts(_message(_parts(fields, 2)[0]), 2)) if 2 in fields else ()
    return Entry(dtype, shape, offset, size, crc)


def _check_header(fields: Message) -> None:
    """BundleHeaderProto: shards 1, endianness 2 (0 is little)."""
    shards, endianness = _number(fields, 1), _number(fields, 2)
    if (shards, endianness) != (1, 0):
        raise ValueError(f"{shards} shards, endianness {endianness}: only one little-endian data file is read")


def _number(fields: Message, field: int) -> int:
    value = fields.get(field, [0])[-1]
    if not isinstance(value, int):
        raise TypeError(f"field {field} is no number")
    return value


def _parts(fields: Message, field: int) -> list[bytes]:
    return [value for value in fields.get(field, []) if isinstance(value, bytes)]
