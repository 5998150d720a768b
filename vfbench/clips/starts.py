"""First frames of the clips that a video gives: every rule that a protocol can name.

zero         the first frame
hashed       one position, derived from a hash of the video's name, or one of its variants (`clip_starts`)
every        each frame where a clip fits
chunks       consecutive clips without overlap
interleaved  chunks of `frames` x `stride` frames, each of which gives `stride` clips
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt64

from vfbench.protocol.protocol import frames_needed

if TYPE_CHECKING:
    from vfbench.clips.transform import ClipTransform


def clip_starts(
    start: str, name: str, count: int, *, frames: int, stride: int = 1, drop_first: int = 0, seed: int = 0
) -> Sequence[int]:
    """First frames of the clips cut from the video `name`, which has `count` frames.

    `zero` gives frame `drop_first` and ignores `count`. `hashed` picks one position by `name_hash`, the same on every
    machine. Its variants pick among the positions that a program of the field draws from:

    - `hashed-not-last`: all but the last (TATS on Sky, MCVD)
    - `hashed-longer`: all, but a video must be longer than a clip (cd-fvd on Sky)
    - `hashed-interval`: as if a clip reached up to the frame that would follow at its stride (Latte)
    - `hashed-quarter`: about the first quarter of the video (LVDM on TaiChi)

    Where no clip fits, `every`, `chunks` and `interleaved` give none, and the others give the first frame: reading the
    clip then raises the error that names the short video.
    """
    if start == "zero":
        return range(drop_first, drop_first + 1)
    needed = frames_needed(frames, stride, drop_first)
    places = count - needed + 1
    if start == "every":
        return range(drop_first, drop_first + max(places, 0))
    if start == "chunks":
        return range(drop_first, drop_first + max(places, 0), frames * stride)
    if start == "interleaved":
        chunks = range(drop_first, count - frames * stride + 1, frames * stride)
        return [first + offset for first in chunks for offset in range(stride)]
    if start == "hashed-not-last":
        places -= 1
    elif start == "hashed-interval":
        places -= stride - 1
    elif start == "hashed-quarter":
        places = math.ceil(count / 4) - frames + 1
    first = drop_first + name_hash(name, seed) % max(places, 1)
    return range(first, first + 1)


def shortest(start: str, frames: int, stride: int, drop_first: int) -> int:
    """Frames of the shortest video that gives a clip."""
    needed = frames_needed(frames, stride, drop_first)
    if start in ("hashed-not-last", "hashed-longer"):
        return needed + 1
    if start in ("hashed-interval", "interleaved"):
        return drop_first + frames * stride
    return max(needed, 4 * (frames - 1) + 1) if start == "hashed-quarter" else needed


def name_hash(name: str, seed: int = 0) -> int:
    """First 8 bytes (little-endian) of the SHA-256 of `seed/name`, or of `name` alone for seed 0.

    Videos are drawn by this hash, so that a draw depends on neither the machine nor the other videos.
    """
    text = f"{seed}/{name}" if seed else name
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:8], "little")


class WindowIndex:
    """All clips of a list of videos: `windows[i]` is (number of the video, first frame of the clip).

    `counts` are the numbers of frames of the videos `names`.
    """

    def __init__(self, transform: ClipTransform, names: Sequence[str], counts: Sequence[int]) -> None:
        self._names = names
        self._starts = [transform.clip_starts(name, count) for name, count in zip(names, counts, strict=True)]
        self._ends = list(accumulate(map(len, self._starts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} windows: no window {index}")
        number = bisect_right(self._ends, index)
        return number, self._starts[number][index - self._ends[number]]

    def sort_keys(self, seed: int) -> UInt64[np.ndarray, " windows"]:
        """Sort key of each clip: 64-bit hash of video name, first frame and seed."""
        parts = [
            _splitmix64(np.uint64(name_hash(name, seed)) + np.array(starts, dtype=np.uint64))
            for name, starts in zip(self._names, self._starts, strict=True)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)


def _splitmix64(bits: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Finaliser of SplitMix64, a bijection on 64 bits (Steele, Lea and Flood, OOPSLA 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = bits ^ (bits >> np.uint64(31))
    return mixed
