"""Reader of TensorFlow checkpoints without TensorFlow; checks the CRC-32C of every block and every tensor.

`<prefix>.index` is a LevelDB table (https://github.com/google/leveldb/blob/main/doc/table_format.md) whose values are
protocol buffers (`BundleEntryProto` of tensorflow/core/protobuf/tensor_bundle.proto).
`<prefix>.data-00000-of-00001` holds the tensors, little-endian and contiguous.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import google_crc32c
import numpy as np
import numpy.typing as npt

from vfbench.errors import MissingData
from vfbench.utils.files import open_file

INDEX, DATA = ".index", ".data-00000-of-00001"
MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
FOOTER_SIZE = 48  # bytes
FLOAT32 = 1  # value in the enum DataType
UNCOMPRESSED, SNAPPY = 0, 1

Array: TypeAlias = npt.NDArray[np.float32]
Message: TypeAlias = dict[int, list[int | bytes]]  # raw values of each field of a protocol buffer


@dataclass(frozen=True)
class TensorEntry:
    """Index entry of a tensor: data type, shape, offset and size in bytes, masked CRC-32C of its bytes."""

    dtype: int
    shape: tuple[int, ...]
    offset: int
    size: int
    crc: int


def masked_crc(content: bytes | memoryview) -> int:
    """CRC-32C, rotated and shifted as LevelDB and TensorFlow store it."""
    crc: int = google_crc32c.value(bytes(content))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def find_prefix(path: Path) -> Path | None:
    """Prefix of the checkpoint at `path`: a prefix, index, data file, or folder with one checkpoint; else None.

    Raises `MissingData` for a folder that holds several.
    """
    if path.is_dir():
        indices = sorted([*path.glob(f"*{INDEX}"), *path.glob(f"variables/*{INDEX}")])  # TF-Hub has `variables`
        if len(indices) > 1:
            raise MissingData(f"{path} holds several checkpoints: name one of {', '.join(map(str, indices))}")
        return Path(str(indices[0]).removesuffix(INDEX)) if indices else None
    prefix = Path(str(path).removesuffix(INDEX).removesuffix(DATA))
    return prefix if prefix != path or _with_suffix(prefix, INDEX).is_file() else None


def data_file(prefix: Path) -> Path:
    """Path of the file that holds the tensors."""
    return _with_suffix(prefix, DATA)


def read_index(prefix: Path) -> dict[str, TensorEntry]:
    """Index entry of every tensor by name; raises `MissingData` with the file that is missing or damaged."""
    path = _with_suffix(prefix, INDEX)
    table = _read_bytes(path)
    if table[-8:] != MAGIC or len(table) < FOOTER_SIZE:
        raise MissingData(f"{path} is truncated, or no TensorFlow checkpoint index: its last 8 bytes are wrong")
    try:
        values = dict(_read_table(table))
        _check_header(_parse_message(values.pop("", b"")))
        return {name: _parse_entry(_parse_message(value)) for name, value in values.items()}
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise MissingData(f"{path} is damaged ({error}): get it again") from error


def read_tensors(prefix: Path, entries: Mapping[str, TensorEntry]) -> dict[str, Array]:
    """Float32 array of each entry; raises `MissingData` with the file and the tensor whose type or CRC is wrong."""
    path = data_file(prefix)
    content = memoryview(_read_bytes(path))
    return {name: _to_array(path, name, entry, content) for name, entry in entries.items()}


def _to_array(path: Path, name: str, entry: TensorEntry, content: memoryview) -> Array:
    raw = content[entry.offset : entry.offset + entry.size]
    if entry.dtype != FLOAT32 or entry.size != 4 * math.prod(entry.shape):
        raise MissingData(f"{path}: '{name}' is no float32 tensor of shape {entry.shape}: the file is another network")
    if len(raw) != entry.size:
        raise MissingData(f"{path} is truncated: '{name}' ends at byte {entry.offset + entry.size} of {len(content)}")
    if (crc := masked_crc(raw)) != entry.crc:
        raise MissingData(f"{path} is damaged: '{name}' has CRC {crc}, its index says {entry.crc}; get it again")
    return np.frombuffer(raw, "<f4").reshape(entry.shape).astype(np.float32)


def _with_suffix(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(prefix.name + suffix)


def _read_bytes(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            return file.read()
    except OSError as error:
        required = f"a TensorFlow checkpoint is two files, {INDEX} and {DATA}"
        raise MissingData(f"{path} cannot be read ({error.strerror}): {required}") from error


def _read_table(table: bytes) -> Iterator[tuple[str, bytes]]:
    """Keys and values of all data blocks; the footer points to the index block, which points to them."""
    footer = table[-FOOTER_SIZE:]
    _, position = _read_varint(footer, 0)  # skip the handle of the meta block, which TensorFlow leaves empty
    _, position = _read_varint(footer, position)
    for _, handle in _key_values(_read_block(table, footer[position:])):
        for key, value in _key_values(_read_block(table, handle)):
            yield key.decode(), value


def _read_block(table: bytes, handle: bytes) -> bytes:
    """Content of the block at a handle (offset, size), without its trailer of compression type and CRC."""
    offset, position = _read_varint(handle, 0)
    size, _ = _read_varint(handle, position)
    content, compression = table[offset : offset + size], table[offset + size]
    (crc,) = struct.unpack_from("<I", table, offset + size + 1)
    if masked_crc(table[offset : offset + size + 1]) != crc:
        raise ValueError(f"the CRC of the block at byte {offset} is wrong")
    if compression != UNCOMPRESSED:
        method = "snappy" if compression == SNAPPY else f"method {compression}"
        raise ValueError(f"the block at byte {offset} is compressed with {method}; only plain blocks are supported")
    return content


def _key_values(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Entries of a block; each key stores only the part after its common prefix with the previous key."""
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end, position, key = len(block) - 4 * (restarts + 1), 0, b""
    while position < end:
        shared, position = _read_varint(block, position)
        unshared, position = _read_varint(block, position)
        length, position = _read_varint(block, position)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + length]
        position += length


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    """Decode a little-endian base-128 integer; returns the value and the position after it."""
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def _parse_message(content: bytes) -> Message:
    """Fields of a protocol buffer: varints and fixed 32-bit values as int, length-delimited values as bytes."""
    fields: Message = {}
    position = 0
    while position < len(content):
        tag, position = _read_varint(content, position)
        value: int | bytes
        match tag & 7:
            case 0:
                value, position = _read_varint(content, position)
            case 2:
                length, position = _read_varint(content, position)
                value, position = content[position : position + length], position + length
            case 5:
                (value,), position = struct.unpack_from("<I", content, position), position + 4
            case wire_type:
                raise ValueError(f"a field of wire type {wire_type}, which no entry has")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _parse_entry(fields: Message) -> TensorEntry:
    """Decode a BundleEntryProto: dtype 1, shape 2, shard 3, offset 4, size 5, crc32c 6; a missing field is 0."""
    dtype, offset, size, crc = (_integer_field(fields, field) for field in (1, 4, 5, 6))
    dims = _bytes_fields(_parse_message(_bytes_fields(fields, 2)[0]), 2) if 2 in fields else []
    return TensorEntry(dtype, tuple(_integer_field(_parse_message(dim), 1) for dim in dims), offset, size, crc)


def _check_header(fields: Message) -> None:
    """Raise `ValueError` unless the BundleHeaderProto has one shard (field 1), little-endian (field 2 is 0)."""
    shards, endianness = _integer_field(fields, 1), _integer_field(fields, 2)
    if (shards, endianness) != (1, 0):
        raise ValueError(f"{shards} shards, endianness {endianness}: only one little-endian data file is supported")


def _integer_field(fields: Message, field: int) -> int:
    value = fields.get(field, [0])[-1]
    if not isinstance(value, int):
        raise TypeError(f"field {field} is no integer")
    return value


def _bytes_fields(fields: Message, field: int) -> list[bytes]:
    return [value for value in fields.get(field, []) if isinstance(value, bytes)]
