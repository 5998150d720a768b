"""Whether the frames of a video follow each other at one rate, by the time stamps of its packets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from vfbench.video.header import opened

if TYPE_CHECKING:
    from av import Packet
    from av.video.stream import VideoStream

TOLERATED = 1.1  # how much longer than the shortest a frame may last


def uneven(path: Path, *, full: bool = False) -> str:
    """How long the frames of a video last, as `40 to 120 ms`; empty where they last equally long, or none says it.

    A container's index tells it at once, if it has one of all frames, as those of mp4 and mov; with `full`, the packets
    of any file are gone through. Raises `MissingData` for what is no video, and where it is damaged.
    """
    with opened(path) as (container, video):
        stamps = _stamps(container.demux(video)) if full else [one.timestamp for one in video.index_entries]
        known = full or len(stamps) == video.frames
        return _span(stamps, float(video.time_base)) if known and video.time_base else ""


def _stamps(packets: Iterable[Packet[VideoStream]]) -> list[int]:
    """When each frame is shown, or else decoded; packets that are empty, or passed over by an edit list, show none."""
    shown = [(packet.pts, packet.dts) for packet in packets if packet.size and not packet.is_discard]
    for stamps in zip(*shown, strict=True):
        if None not in stamps:
            return list(stamps)
    return []


def _span(stamps: Sequence[int], tick: float) -> str:
    """The shortest and the longest that a frame lasts, if these are further apart than rounding to `tick` seconds."""
    lasting = [after - before for before, after in pairwise(sorted(stamps))]
    shortest, longest = min(lasting, default=0), max(lasting, default=0)
    rounded = longest - shortest <= 1 and longest < 2 * shortest
    if longest <= TOLERATED * shortest or rounded:
        return ""
    return f"{shortest * tick * 1000:.4g} to {longest * tick * 1000:.4g} ms"
