"""Partial parser of MPEG-4 part 2: detects packets of exactly one coded frame (ISO/IEC 14496-2, 6.2.3 and 6.2.5)."""

from __future__ import annotations

import re
from functools import cache

VOP_START_CODE = b"\0\0\1\xb6"  # of a frame (video object plane)
VOP_HEAD, VOL_HEAD = 8, 32  # bytes parsed of a frame and of a layer header
_VOL = re.compile(rb"\x00\x00\x01[\x20-\x2f]")  # start code of a layer header (video object layer)
_LAYER = re.compile(
    "[01]{9}(?:0|1[01]{7})"  # type; version
    "(?:1111[01]{16}|(?!1111)[01]{4})"  # pixel aspect ratio
    "(?:0|1[01]{3}(?:0|1[01]{79}))"  # bit rate and buffer sizes
    "001([01]{16})1"  # rectangular; time ticks per second
)


def time_bits(content: bytes, default: int = 0) -> int:
    """Bits of a frame's time stamp, from the last layer header in `content`; `default` without one.

    0 for a layer that is not rectangular or cannot be parsed.
    """
    layers = list(_VOL.finditer(content)) if content else []
    if not layers:
        return default
    place = layers[-1].end()
    layer = _LAYER.match(_bits(content[place : place + VOL_HEAD].ljust(VOL_HEAD, b"\0")))
    return max((int(layer[1], 2) - 1).bit_length(), 1) if layer else 0


def coded_frame_bits(packet: bytes, bits: int) -> int:
    """Time stamp bits of a packet that is exactly one coded I- or P-frame; 0 for any other packet.

    `bits` is the value of the packets before, used where this packet has no layer header.
    """
    head, _, frame = packet.partition(VOP_START_CODE)
    bits = time_bits(head, bits)
    single = bits and len(frame) >= VOP_HEAD and VOP_START_CODE not in frame
    return bits if single and _coded(bits).match(_bits(frame[:VOP_HEAD])) else 0


@cache
def _coded(bits: int) -> re.Pattern[str]:
    """Pattern of the header bits of a coded I- or P-frame."""
    return re.compile(f"0[01]1*01[01]{{{bits}}}11")  # type, seconds, marker, time, marker, vop_coded


def _bits(content: bytes) -> str:
    return f"{int.from_bytes(content):0{8 * len(content)}b}"
