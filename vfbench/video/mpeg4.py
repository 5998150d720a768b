"""Packets of MPEG-4 part 2, read as far as they say whether each is one frame (ISO/IEC 14496-2, 6.2.3 and 6.2.5)."""

from __future__ import annotations

import re
from functools import cache

VOP = b"\0\0\1\xb6"  # the start code of a frame
VOP_HEAD, VOL_HEAD = 8, 32  # bytes that hold what is read of a frame, and of a layer
_VOL = re.compile(rb"\x00\x00\x01[\x20-\x2f]")  # that of the layer, which says how many bits the time of a frame has
_LAYER = re.compile(
    "[01]{9}(?:0|1[01]{7})"  # its type; its version
    "(?:1111[01]{16}|(?!1111)[01]{4})"  # the shape of its pixels
    "(?:0|1[01]{3}(?:0|1[01]{79}))"  # its rate of bits and buffers
    "001([01]{16})1"  # rectangular; ticks a second
)


def time_bits(content: bytes, before: int = 0) -> int:
    """How many bits a frame's time has by the last layer that `content` describes, and `before` where there is none.

    0 for a layer that is not rectangular, or not understood.
    """
    layers = list(_VOL.finditer(content)) if content else []
    if not layers:
        return before
    place = layers[-1].end()
    found = _LAYER.match(_bits(content[place : place + VOL_HEAD].ljust(VOL_HEAD, b"\0")))
    return max((int(found[1], 2) - 1).bit_length(), 1) if found else 0


def one_frame(packet: bytes, bits: int) -> int:
    """The bits of its time, if a packet is a single I- or P-frame that says it is coded; else 0.

    `bits` are those of the packets before it, for one that does not describe the layer again.
    """
    head, _, frame = packet.partition(VOP)
    bits = time_bits(head, bits)
    whole = bits and len(frame) >= VOP_HEAD and VOP not in frame
    return bits if whole and _coded(bits).match(_bits(frame[:VOP_HEAD])) else 0


@cache
def _coded(bits: int) -> re.Pattern[str]:
    return re.compile(f"0[01]1*01[01]{{{bits}}}11")  # type, seconds, marker, time, marker, vop_coded


def _bits(content: bytes) -> str:
    return f"{int.from_bytes(content):0{8 * len(content)}b}"
