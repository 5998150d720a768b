"""Windows: the clips that a cut finds in videos. How many there are, where each begins, and the order of a draw."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from jaxtyping import UInt64

from vfbench.cut import Cut, drawn


class Windows:
    """All clips of videos that are long enough, video by video: `windows[i]` is a video's number and a first frame.

    `counts` has the frames of each of the videos called `names`.
    """

    def __init__(self, cut: Cut, names: Sequence[str], counts: Sequence[int]) -> None:
        self._names = names
        self._starts = [cut.starts(name, count) for name, count in zip(names, counts, strict=True)]
        self._ends = list(accumulate(map(len, self._starts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} windows: no window {index}")
        number = bisect_right(self._ends, index)
        return number, self._starts[number][index - self._ends[number]]  # counted from the end of the video's own

    def keys(self, seed: int) -> UInt64[np.ndarray, " windows"]:
        """What each window is drawn by: 64 bits of its video's name, its first frame and the seed."""
        parts = [
            _mixed(np.uint64(drawn(name, seed)) + np.array(starts, dtype=np.uint64))
            for name, starts in zip(self._names, self._starts, strict=True)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)


def _mixed(bits: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """The bits well mixed, one to one: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = bits ^ (bits >> np.uint64(31))
    return mixed
