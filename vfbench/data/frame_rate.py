"""Detection of variable frame rates from the times at which frames are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from vfbench.video import animation
from vfbench.video.header import open_video
from vfbench.video.packets import shown

if TYPE_CHECKING:
    from av import Packet
    from av.video.stream import VideoStream

MAX_DURATION_RATIO = 1.1  # of the longest to the shortest frame, at a constant rate


def uneven_durations(path: Path, *, full: bool = False) -> str:
    """Range of frame durations, such as `40 to 120 ms`; empty where all are equal or the file has no time stamps.

    Reads the container's index if it lists every frame, as in mp4 and mov; with `full`, reads the packets of any file
    and the frames of an animated image. Raises `MissingData` for a file that is no video or is damaged.
    """
    if animation.is_animation(path):
        return _duration_range(animation.times(path), 0.001) if full else ""
    with open_video(path) as (container, video):
        codec = video.codec_context.codec.canonical_name
        times = (
            _frame_times(container.demux(video), codec) if full else [entry.timestamp for entry in video.index_entries]
        )
        complete = full or len(times) == video.frames
        return _duration_range(times, float(video.time_base)) if complete and video.time_base else ""


def _frame_times(packets: Iterable[Packet[VideoStream]], codec: str) -> list[int]:
    """Presentation time of each frame, or else decoding time; skips packets that show no frame."""
    stamps = [(packet.pts, packet.dts) for packet in packets if shown(packet, codec)]
    for times in zip(*stamps, strict=True):
        if None not in times:
            return list(times)
    return []


def _duration_range(times: Sequence[int | float], tick: float) -> str:
    """Shortest to longest frame duration, or empty if they differ by no more than rounding to `tick` seconds."""
    durations = [after - before for before, after in pairwise(sorted(times))]
    shortest, longest = min(durations, default=0), max(durations, default=0)
    rounded = longest - shortest <= 1 and longest < 2 * shortest
    if longest <= MAX_DURATION_RATIO * shortest or rounded:
        return ""
    return f"{shortest * tick * 1000:.4g} to {longest * tick * 1000:.4g} ms"
