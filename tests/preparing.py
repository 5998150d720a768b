"""Small UCF101 to prepare, and a comparison of prepared with raw datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from clipfiles import write_video
from datatrees import CLASSES

from vfbench import plugins
from vfbench.datasets._video_dataset import VideoDataset

SPEC = "ucf101(frames=4, height=8, width=8)"
# Name, frames, height and width of every video; all sizes differ.
VIDEOS = {
    "train": [
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", 20, 16, 24),
        ("HandstandPushups/v_HandStandPushups_g08_c01.avi", 9, 24, 18),
        ("YoYo/v_YoYo_g08_c01.avi", 14, 16, 16),
    ],
    "test": [("YoYo/v_YoYo_g01_c01.avi", 11, 20, 30), ("YoYo/v_YoYo_g01_c02.avi", 17, 8, 12)],
}
NAMES = [name for side in VIDEOS.values() for name, *_ in side]


def write_ucf101(root: Path) -> Path:
    """Lossless videos of `VIDEOS` and two pairs of split lists; in the second pair train and test are swapped."""
    rng = np.random.default_rng(0)
    for name, *size in [video for side in VIDEOS.values() for video in side]:
        write_video(root / "UCF-101" / name, rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    numbers = {name: i + 1 for i, name in enumerate(CLASSES)}
    (lists / "classInd.txt").write_text("".join(f"{i} {name}\n" for name, i in numbers.items()))
    for number, (train, test) in {1: ("train", "test"), 2: ("test", "train")}.items():
        named = [f"{name} {numbers[name.split('/')[0]]}\n" for name, *_ in VIDEOS[train]]
        (lists / f"trainlist{number:02}.txt").write_text("".join(named))
        (lists / f"testlist{number:02}.txt").write_text("".join(f"{name}\n" for name, *_ in VIDEOS[test]))
    return root


def load(root: Path, spec: str = SPEC, **options: Any) -> VideoDataset:
    """Dataset in a folder, prepared or raw."""
    dataset = plugins.load("dataset", plugins.parse(spec).merged({"root": str(root), **options}))
    assert isinstance(dataset, VideoDataset)
    return dataset


def shard_files(folder: Path) -> list[Path]:
    return sorted((folder / "shards").glob("*.npy"))


def assert_same_dataset(one: VideoDataset, two: VideoDataset) -> None:
    """Assert that two datasets return equal clips and metadata."""
    assert one.fingerprint == two.fingerprint
    assert (one.classes, one.words, one.shape, one.note) == (two.classes, two.words, two.shape, two.note)
    assert one.inventory.splits.keys() == two.inventory.splits.keys()
    assert (one.inventory.extra, one.inventory.leaked) == (two.inventory.extra, two.inventory.leaked)
    for split in one.inventory.splits:
        assert one.size(split) == two.size(split)
        indices = range(one.size(split))
        assert torch.equal(one.clips(split, indices), two.clips(split, indices))
        for method in ("labels", "captions", "videos", "places"):
            assert getattr(one, method)(split, indices) == getattr(two, method)(split, indices), method
        assert one.places(split, indices, 5) == two.places(split, indices, 5)
        assert one.names(split) == two.names(split)
        assert one.inventory.missing(split) == two.inventory.missing(split)
        assert [one.inventory.origin(name) for name in NAMES] == [two.inventory.origin(name) for name in NAMES]
