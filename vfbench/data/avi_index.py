"""Frame counts of an AVI file: the number declared in its header and the number listed in its index.

A decoder that trusts a header with too low a number silently drops the remaining frames.
RIFF chunks: Microsoft, "AVI RIFF File Reference" (strh, idx1).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

UNKNOWN_LENGTHS = (0, 0xFFFFFFFF)  # placeholders of a writer that could not go back to fill in the length
LISTS_ENTERED = (b"hdrl", b"strl")  # LIST chunks to descend into; the frame list (movi) is skipped
WORDS_PER_ENTRY = 4  # 4-byte words of an index entry: chunk id, flags, offset, size


def frame_counts(path: Path) -> tuple[int, int] | None:
    """Frames of the first video stream as (declared in the header, listed in the index).

    None where either is unknown: other formats, a missing or cut-off index, and large files with several indices.
    Raises OSError where the file cannot be read.
    """
    stream, declared, index = 0, 0, b""
    with path.open("rb") as file:
        for name, size in _chunks(file):
            if name == b"strh" and not declared:
                header = file.read(min(size, 36))
                declared = int.from_bytes(header[32:36], "little") if header[:4] == b"vids" else 0
                stream += header[:4] != b"vids"
            elif name == b"idx1":
                index = file.read(size)
            elif name == b"RIFF":
                return None
    if declared in UNKNOWN_LENGTHS or not index:
        return None
    chunk_ids = np.frombuffer(index, "S4", count=len(index) // 4 // WORDS_PER_ENTRY * WORDS_PER_ENTRY)
    frame_ids = [b"%02ddc" % stream, b"%02ddb" % stream]  # compressed or uncompressed frames
    return declared, int(np.isin(chunk_ids[::WORDS_PER_ENTRY], frame_ids).sum())


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name and size of each chunk of an AVI, with the file positioned at the chunk's content."""
    start = file.read(12)
    offset = 12 if start[:4] == b"RIFF" and start[8:] == b"AVI " else None
    while offset is not None:
        file.seek(offset)
        header = file.read(12)
        if len(header) < 8:
            return
        name, size = header[:4], int.from_bytes(header[4:8], "little")
        file.seek(offset + 8)
        yield name, size
        offset += 12 if name == b"LIST" and header[8:] in LISTS_ENTERED else 8 + size + size % 2
