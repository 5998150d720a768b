"""Tests of `vfbench.clips.starts.WindowIndex`: order, bounds and random selection of windows."""

from __future__ import annotations

import numpy as np
import pytest

from vfbench.clips.starts import WindowIndex, name_hash
from vfbench.clips.transform import ClipTransform
from vfbench.interfaces import ClipShape

EVERY = ClipTransform("folder", ClipShape(16, 8, 8), start="every")
CHUNKS = ClipTransform("folder", ClipShape(4, 8, 8), stride=2, drop_first=1, start="chunks")


def test_windows_are_numbered_video_by_video() -> None:
    every = WindowIndex(EVERY, ["a", "b", "c"], [20, 16, 17])
    expected = [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (2, 0), (2, 1)]
    assert [every[index] for index in range(len(every))] == expected
    chunks = WindowIndex(CHUNKS, ["a", "b"], [16, 15])
    assert [chunks[index] for index in range(len(chunks))] == [(0, 1), (0, 9), (1, 1)]


def test_windows_out_of_range_are_refused() -> None:
    every = WindowIndex(EVERY, ["a"], [20])
    for index in (5, -1):
        with pytest.raises(IndexError, match=f"there are 5 windows: no window {index}"):
            every[index]
    assert len(WindowIndex(EVERY, [], [])) == 0


def test_sort_keys_depend_on_name_start_and_seed_alone() -> None:
    two_videos = WindowIndex(EVERY, ["a", "b"], [20, 18])
    one_video = WindowIndex(EVERY, ["b"], [18])
    assert two_videos.sort_keys(3)[5:].tolist() == one_video.sort_keys(3).tolist()
    assert len({*two_videos.sort_keys(0).tolist(), *two_videos.sort_keys(1).tolist()}) == 2 * len(two_videos) == 16
    assert WindowIndex(EVERY, [], []).sort_keys(0).shape == (0,)


def test_sort_keys_are_pinned() -> None:
    """First output of SplitMix64 from state 0, as published."""
    golden = 0x9E3779B97F4A7C15
    name = "a"
    start = (golden - name_hash(name)) % 2**64
    windows = WindowIndex(EVERY, [name], [16])
    windows._starts = [range(start, start + 1)]  # so that the sum of name hash and start is the state
    assert windows.sort_keys(0).tolist() == [0xE220A8397B1DCDAF]


def test_windows_are_selected_evenly() -> None:
    """Each tenth of the windows has its share of the 1000 lowest sort keys."""
    windows = WindowIndex(EVERY, [f"v{i}" for i in range(50)], [215] * 50)
    first = np.argsort(windows.sort_keys(0))[:1000]
    counts = np.bincount(first // 1000, minlength=10)
    assert (abs(counts - 100) < 40).all()  # four standard deviations
