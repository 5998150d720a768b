"""Packets of a video that show a frame: others hold a hidden frame, a comment, or no picture at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from vfbench.video.riff import STAND_IN_BYTES

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

GIF_HEAD_BYTES, GIF_EXTENSION, GIF_IMAGE = 13, 0x21, 0x2C


class Shown(NamedTuple):
    """A packet that shows a frame: its time in the container's ticks, where known, whether a keyframe, and its size."""

    time: int | None
    keyframe: bool
    size: int


def shown(packet: Packet[VideoStream], codec: str) -> Shown | None:
    """The packet's record, or None where it is empty, dropped by an edit list, or shows no frame by its codec."""
    if not packet.size or packet.is_discard or (codec in _HIDES and _HIDES[codec](memoryview(packet))):
        return None
    return Shown(packet.pts, packet.is_keyframe, packet.size)


def one_frame_each(packets: Sequence[Shown], codec: str) -> bool:
    """True where each packet is known to show one frame.

    It is not where the first packet is no keyframe or not shown first (its followers may not decode), where two are
    shown at one time (parts of one frame, or hidden), and where one of MPEG-4 is small enough to hold no picture.
    """
    if not packets or not packets[0].keyframe:
        return not packets
    times = [packet.time for packet in packets if packet.time is not None]
    ordered = not times or (times[0] == min(times) and len(set(times)) == len(times))
    return ordered and (codec != "mpeg4" or min(packet.size for packet in packets) > STAND_IN_BYTES)


def _hides_vp8(data: memoryview) -> bool:
    return not data[0] & 0x10  # show_frame (RFC 6386, 9.1)


def _hides_vp9(data: memoryview) -> bool:
    """True for a hidden frame outside a superframe: a superframe shows its last frame (VP9 specification, annex B)."""
    if data[-1] & 0xE0 == 0xC0:
        return False
    reserved = data[0] & 0x30 == 0x30  # profile 3 has a reserved bit before the flags
    show_existing, show = (0x04, 0x01) if reserved else (0x08, 0x02)
    return not data[0] & (show_existing | show)


def _hides_gif(data: memoryview) -> bool:
    """True for a packet of extensions alone, such as a comment after the last frame (GIF89a, 12 and 20 to 26)."""
    place = 0
    if bytes(data[:3]) == b"GIF" and len(data) >= GIF_HEAD_BYTES:
        colours = 2 << (data[10] & 7) if data[10] & 0x80 else 0
        place = GIF_HEAD_BYTES + 3 * colours
    while place + 2 < len(data) and data[place] == GIF_EXTENSION:
        place += 2
        while place < len(data) and data[place]:  # blocks, each after its size
            place += data[place] + 1
        place += 1
    return place >= len(data) or data[place] != GIF_IMAGE


_HIDES: Mapping[str, Callable[[memoryview], bool]] = {"vp8": _hides_vp8, "vp9": _hides_vp9, "gif": _hides_gif}
