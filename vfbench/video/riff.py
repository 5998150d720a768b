"""RIFF files, read without decoding: header and index of an AVI, and chunks of a WebP.

RIFF chunks: Microsoft, "AVI RIFF File Reference" (strh, strf, idx1); `dwLength` of strh counts the frames.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import UInt32

from vfbench.video.properties import Header

UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # in a file whose writer could not seek back to fill them in
BUFFER_BYTES = 1 << 15  # read at a time: the headers of most files; UCF101 needs 9 KB
LISTS_ENTERED = (b"hdrl", b"strl")  # LIST chunks to descend into; the list of frames (movi) is skipped
WORDS_PER_ENTRY = 4  # 4-byte words of an index entry: chunk id, flags, offset, size
MPEG4_FOURCCS = ("XVID", "DIVX", "DX50", "FMP4", "MP4V")  # of MPEG-4 part 2 in AVI files, in any case
STAND_IN_BYTES = 16  # at most, of an MPEG-4 packet without a picture
PACKED = re.compile(rb"DivX\d+(?:b|Build)\d+p")  # note in the first frame: two frames share a packet, then one is empty


class Avi(NamedTuple):
    """First video stream of an AVI: its number, `strh` and `strf`, the offset of the first frame and the entries of
    the index.

    `complete` is False for a file that is shorter than it declares, `parts` counts its RIFF parts.
    """

    stream: int
    strh: bytes
    strf: bytes
    frames_offset: int
    entries: bytes
    complete: bool
    parts: int

    @property
    def declared(self) -> int:
        """Number of frames by the header; one of `UNKNOWN_SIZES` where its writer left it open."""
        return int.from_bytes(self.strh[32:36], "little")

    def sizes(self) -> UInt32[np.ndarray, " frames"]:
        """Size in bytes of each frame in the index; empty without one."""
        words = np.frombuffer(self.entries, "<u4", count=len(self.entries) // 4 // WORDS_PER_ENTRY * WORDS_PER_ENTRY)
        rows = words.reshape(-1, WORDS_PER_ENTRY)
        compressed, plain = (int.from_bytes(b"%02d" % self.stream + kind, "little") for kind in (b"dc", b"db"))
        sizes: np.ndarray = rows[(rows[:, 0] == compressed) | (rows[:, 0] == plain), 3]
        return sizes


def read_avi(path: Path) -> Avi | None:
    """First video stream of an AVI; None for any other file. Raises OSError where the file cannot be read."""
    stream, strh, strf, offset, index, parts = 0, b"", b"", 0, b"", 1
    with path.open("rb", BUFFER_BYTES) as file:
        start = file.read(12)
        if start[:4] != b"RIFF" or start[8:] != b"AVI ":
            return None
        length, file_size = int.from_bytes(start[4:8], "little"), os.fstat(file.fileno()).st_size
        complete = length in UNKNOWN_SIZES or length + 8 <= file_size
        for name, size in _file_chunks(file):
            if name == b"strh" and not strh:
                header = file.read(min(size, 56))
                strh, stream = (header, stream) if header[:4] == b"vids" else (b"", stream + 1)
            elif name == b"strf" and strh and not strf:
                strf = file.read(min(size, 40))
            elif name == b"movi" and not offset:
                offset = file.tell()
            elif name == b"idx1":
                index = file.read(min(size, file_size))
            parts += name == b"RIFF"
    return Avi(stream, strh, strf, offset, index, complete, parts) if strh else None


def _file_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name (of a list: its type) and size of each chunk of an AVI, with the file positioned at the chunk's content."""
    offset = 12
    while len(header := _read_at(file, offset, 12)) >= 8:
        name, size = header[:4], int.from_bytes(header[4:8], "little")
        name = header[8:] if name == b"LIST" else name
        if name in LISTS_ENTERED:
            offset += 12
            continue
        file.seek(offset + 8)
        yield name, size
        offset += 8 + size + size % 2


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def frame_counts(path: Path) -> tuple[int, int] | None:
    """Frames of the first video stream of an AVI as (declared in the header, listed in the index).

    A decoder that trusts a header with too low a number silently drops the remaining frames. None where either is
    unknown: other formats, a missing or cut-off index, and large files with several indices. Raises OSError where the
    file cannot be read.
    """
    avi = read_avi(path)
    if avi is None or avi.declared in UNKNOWN_SIZES or not avi.entries or avi.parts > 1:
        return None
    return avi.declared, len(avi.sizes())


def avi_header(path: Path) -> Header | None:
    """Header of an AVI of MPEG-4, whose pixel format is known without decoding.

    None for any other file, and where frames may be fewer than packets: empty packets show no frame.
    """
    avi = read_avi(path)
    if avi is None or len(avi.strh) < 36 or len(avi.strf) < 20 or avi.declared in UNKNOWN_SIZES:
        return None
    if avi.strf[16:20].upper().decode("latin-1") not in MPEG4_FOURCCS or _has_empty_packets(path, avi):
        return None
    scale, rate = struct.unpack_from("<2I", avi.strh, 20)
    width, height = struct.unpack_from("<2i", avi.strf, 4)
    return Header(avi.declared, abs(height), width, rate / scale if rate and scale else None, "mpeg4", "yuv420p")


def _has_empty_packets(path: Path, avi: Avi) -> bool:
    """True where a packet may hold no picture, other than those that stand in for a frame of the packet before."""
    if not avi.entries:
        return avi.complete
    sizes = avi.sizes()
    if not len(sizes) or sizes.min() > STAND_IN_BYTES:
        return False
    with path.open("rb") as file:
        return bool(sizes.min() == 0 or not PACKED.search(_read_at(file, avi.frames_offset, BUFFER_BYTES)))


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each chunk at the start of a RIFF file; the last content may be cut off."""
    offset = 12
    while offset + 8 <= len(data):
        name, size = data[offset : offset + 4], int.from_bytes(data[offset + 4 : offset + 8], "little")
        yield name, data[offset + 8 : offset + 8 + size]
        offset += 8 + size + size % 2
