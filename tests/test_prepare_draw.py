"""Tests of `VideoDataset.draw`: random start frame, crop and flip of training clips, fixed by their seed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clipfiles import write_video
from torch import Tensor

from vfbench import plugins
from vfbench.data.prepare import prepare
from vfbench.datasets._video_dataset import VideoDataset
from vfbench.errors import MissingData, UserError

pytest.importorskip("av")  # reads and writes videos

SPEC = "folder(frames=4, height=8, width=8, stride=2, drop_first=1)"
SIZES = ((14, 8, 12), (13, 11, 8))  # frames, height, width: one video is wider than its clips, the other taller
SEEDS = range(400)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos whose pixels hold their frame, column and row."""
    folder: Path = tmp_path_factory.mktemp("videos")
    for i, size in enumerate(SIZES):
        write_video(folder / f"v{i}.avi", np.moveaxis(np.indices(size)[[0, 2, 1]], 0, -1).astype(np.uint8))
    return folder


def load(root: Path, **options: Any) -> VideoDataset:
    dataset = plugins.load("dataset", plugins.parse(SPEC).merged({"root": str(root), **options}))
    assert isinstance(dataset, VideoDataset)
    return dataset


def clip_place(clip: Tensor) -> tuple[int, int, int, bool]:
    """First frame, left, top and whether flipped, read from the pixels; fails for clips that are no crop."""
    flipped = bool(clip[0, 1, 0, 0] > clip[0, 1, 0, 1])
    unflipped = (clip.flip(-1) if flipped else clip).int()
    start, left, top = (int(unflipped[0, channel, 0, 0]) for channel in range(3))
    expected = torch.stack(torch.meshgrid(torch.arange(4) * 2, torch.arange(8), torch.arange(8), indexing="ij"))
    frames, rows, columns = expected
    assert torch.equal(unflipped, torch.stack([frames + start, columns + left, rows + top], dim=1))
    return start, left, top, flipped


@pytest.mark.one_case
@pytest.mark.parametrize("video", [0, 1])
def test_every_start_crop_and_flip_occurs(root: Path, video: int) -> None:
    clips = load(root).draw("train", [video] * len(SEEDS), SEEDS)
    places = [clip_place(clip) for clip in clips]
    frames, height, width = SIZES[video]
    starts, lefts, tops, flips = (set(values) for values in zip(*places, strict=True))
    assert starts == set(range(1, frames - 6))
    assert (lefts, tops) == (set(range(width - 7)), set(range(height - 7)))
    assert flips == {False, True}
    assert len(set(places)) > 0.9 * len(starts) * len(lefts) * len(tops) * 2  # drawn independently
    assert sum(flip for *_, flip in places) / len(SEEDS) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("geometry", "lefts"), [("resize-crop", 5), ("resize-crop-floor", 5), ("resize-crop-4:3", 3)])
def test_a_crop_of_resized_frames_is_random(root: Path, geometry: str, lefts: int) -> None:
    dataset = load(root, geometry=geometry)
    clips = dataset.draw("train", [0] * 60, range(60), flip=False)
    corners = {(int(clip[0, 1, 0, 0]), int(clip[0, 2, 0, 0])) for clip in clips}
    assert len({left for left, _ in corners}) == lefts
    centre = dataset.draw("train", [0], [0], crop="centre", flip=False)[0, 0, 1:, 0, 0]
    assert tuple(map(int, centre)) in corners


def test_a_clip_depends_on_its_video_and_seed_alone(root: Path) -> None:
    dataset = load(root)
    indices, seeds = [i % 2 for i in range(40)], range(40)
    batch = dataset.draw("train", indices, seeds)
    with ThreadPoolExecutor(4) as pool:
        single = list(pool.map(lambda i: load(root).draw("train", [indices[i]], [i])[0], reversed(range(40))))
    assert torch.equal(batch, torch.stack(single[::-1]))
    assert len({clip.numpy().tobytes() for clip in batch}) > 20


def test_crop_and_flip_can_be_switched_off(root: Path) -> None:
    dataset = load(root)
    places = [clip_place(clip) for clip in dataset.draw("train", [0] * 50, range(50), crop="centre", flip=False)]
    assert {(left, top, flip) for _, left, top, flip in places} == {(2, 0, False)}
    assert len({start for start, *_ in places}) == 7
    # The start depends on the seed, not on crop and flip.
    assert [start for start, *_ in places] == [
        clip_place(clip)[0] for clip in dataset.draw("train", [0] * 50, range(50))
    ]


def test_prepared_clips_start_at_the_same_frames_with_centre_crop(root: Path, tmp_path: Path) -> None:
    prepared = load(prepare(SPEC, tmp_path / "out", data_root=root))
    expected = load(root).draw("train", [0, 1] * 20, range(40), crop="centre")
    assert torch.equal(prepared.draw("train", [0, 1] * 20, range(40), crop="centre"), expected)
    with pytest.raises(UserError, match=r"crop='random': .* crop='centre'"):
        prepared.draw("train", [0], [0])


def test_windows_of_a_video_are_drawn_from_all_its_frames(root: Path) -> None:
    dataset = load(root, start="every")
    assert dataset.size("train") == 7 + 6
    starts = {clip_place(clip)[0] for clip in dataset.draw("train", [7] * 100, range(100))}
    assert starts == set(range(1, 7))


def test_resized_clips_equal_the_resized_crop(root: Path) -> None:
    small = load(root, height=4, width=4)
    crops = load(root).draw("train", [0, 1], [3, 4])
    expected = torch.stack([small._transform.fit(clip, "clip") for clip in crops])
    assert torch.equal(small.draw("train", [0, 1], [3, 4]), expected)


def test_drawing_no_clips_gives_an_empty_batch(root: Path) -> None:
    assert tuple(load(root).draw("train", [], []).shape) == (0, 4, 3, 8, 8)


def test_invalid_draws_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match=r"crop='left': .* random, centre"):
        load(root).draw("train", [0], [0], crop="left")
    with pytest.raises(IndexError, match="folder has 2 train clips: no clip 2"):
        load(root).draw("train", [2], [0])
    with pytest.raises(MissingData, match=r"v1\.avi has 13 frames, .*14 .*folder\(short='skip'\)"):
        load(root, frames=7).draw("train", [1], [0])
