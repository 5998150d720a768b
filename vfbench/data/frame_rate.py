"""Detection of variable frame rates from the time stamps of a video's packets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from vfbench.video.header import open_video

if TYPE_CHECKING:
    from av import Packet
    from av.video.stream import VideoStream

MAX_DURATION_RATIO = 1.1  # of the longest to the shortest frame, at a constant rate


def uneven_durations(path: Path, *, full: bool = False) -> str:
    """Range of frame durations, such as `40 to 120 ms`; empty where all are equal or the file has no time stamps.

    Reads the container's index if it lists every frame, as in mp4 and mov; with `full`, reads the packets of any file.
    Raises `MissingData` for a file that is no video or is damaged.
    """
    with open_video(path) as (container, video):
        times = _frame_times(container.demux(video)) if full else [entry.timestamp for entry in video.index_entries]
        complete = full or len(times) == video.frames
        return _duration_range(times, float(video.time_base)) if complete and video.time_base else ""


def _frame_times(packets: Iterable[Packet[VideoStream]]) -> list[int]:
    """Presentation time of each frame, or else decoding time; skips empty packets and those dropped by an edit list."""
    stamps = [(packet.pts, packet.dts) for packet in packets if packet.size and not packet.is_discard]
    for times in zip(*stamps, strict=True):
        if None not in times:
            return list(times)
    return []


def _duration_range(times: Sequence[int], tick: float) -> str:
    """Shortest to longest frame duration, or empty if they differ by no more than rounding to `tick` seconds."""
    durations = [after - before for before, after in pairwise(sorted(times))]
    shortest, longest = min(durations, default=0), max(durations, default=0)
    rounded = longest - shortest <= 1 and longest < 2 * shortest
    if longest <= MAX_DURATION_RATIO * shortest or rounded:
        return ""
    return f"{shortest * tick * 1000:.4g} to {longest * tick * 1000:.4g} ms"
