"""What the two ends of an AVI say: its head declares how many frames there are, its index lists each of them.

Whoever trusts the head reads no more frames than it declares, so that too low a number hides the rest without an error.
RIFF chunks: Microsoft, "AVI RIFF File Reference" (strh, idx1).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

UNKNOWN = (0, 0xFFFFFFFF)  # a length that its writer could not go back to fill in
ENTERED = (b"hdrl", b"strl")  # lists whose chunks are looked at; that of the frames is passed over
WORDS = 4  # of 4 bytes in an entry of the index: what it is, flags, place, size


def counts(path: Path) -> tuple[int, int] | None:
    """How many frames the head of an AVI declares for its first video stream, and how many its index lists.

    None where either is not said: in any other file, in one without an index or cut off before it, and in one so large
    that it has several. Raises OSError where the file cannot be read.
    """
    stream, declared, index = 0, 0, b""
    with path.open("rb") as file:
        for name, size in _chunks(file):
            if name == b"strh" and not declared:
                head = file.read(min(size, 36))
                declared = int.from_bytes(head[32:36], "little") if head[:4] == b"vids" else 0
                stream += head[:4] != b"vids"
            elif name == b"idx1":
                index = file.read(size)
            elif name == b"RIFF":
                return None
    if declared in UNKNOWN or not index:
        return None
    kinds = np.frombuffer(index, "S4", count=len(index) // 4 // WORDS * WORDS)[::WORDS]
    return declared, int(np.isin(kinds, [b"%02ddc" % stream, b"%02ddb" % stream]).sum())  # packed or plain pictures


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name and size of each chunk of an AVI, the file standing at its content."""
    start = file.read(12)
    place = 12 if start[:4] == b"RIFF" and start[8:] == b"AVI " else None
    while place is not None:
        file.seek(place)
        head = file.read(12)
        if len(head) < 8:
            return
        name, size = head[:4], int.from_bytes(head[4:8], "little")
        file.seek(place + 8)
        yield name, size
        place += 12 if name == b"LIST" and head[8:] in ENTERED else 8 + size + size % 2
