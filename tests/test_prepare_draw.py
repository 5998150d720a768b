"""Training clips of real videos: any place, any part, either way round, and all of it from the seed."""

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

pytest.importorskip("av")  # without it no clip can be made, nor read

SPEC = "folder(frames=4, height=8, width=8, stride=2, drop_first=1)"
SIZES = ((14, 8, 12), (13, 11, 8))  # frames, height and width: one video is wider than its clips, the other higher
SEEDS = range(400)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos whose every pixel tells its frame, column and row."""
    folder: Path = tmp_path_factory.mktemp("videos")
    for i, size in enumerate(SIZES):
        write_video(folder / f"v{i}.avi", np.moveaxis(np.indices(size)[[0, 2, 1]], 0, -1).astype(np.uint8))
    return folder


def load(root: Path, **options: Any) -> VideoDataset:
    dataset = plugins.load("dataset", plugins.parse(SPEC).merged({"root": str(root), **options}))
    assert isinstance(dataset, VideoDataset)
    return dataset


def told(clip: Tensor) -> tuple[int, int, int, bool]:
    """First frame, left, top and whether it is mirrored, as the pixels of a clip tell; fails for one that is no cut."""
    mirrored = bool(clip[0, 1, 0, 0] > clip[0, 1, 0, 1])
    upright = (clip.flip(-1) if mirrored else clip).int()
    start, left, top = (int(upright[0, channel, 0, 0]) for channel in range(3))
    expected = torch.stack(torch.meshgrid(torch.arange(4) * 2, torch.arange(8), torch.arange(8), indexing="ij"))
    frames, rows, columns = expected
    assert torch.equal(upright, torch.stack([frames + start, columns + left, rows + top], dim=1))
    return start, left, top, mirrored


@pytest.mark.parametrize("video", [0, 1])
def test_every_place_part_and_side_is_drawn_and_no_other(root: Path, video: int) -> None:
    clips = load(root).draw("train", [video] * len(SEEDS), SEEDS)
    drawn = [told(clip) for clip in clips]
    frames, height, width = SIZES[video]
    starts, lefts, tops, sides = (set(values) for values in zip(*drawn, strict=True))
    assert starts == set(range(1, frames - 6))
    assert (lefts, tops) == (set(range(width - 7)), set(range(height - 7)))
    assert sides == {False, True}
    assert len(set(drawn)) > 0.9 * len(starts) * len(lefts) * len(tops) * 2  # each on its own
    assert sum(side for *_, side in drawn) / len(SEEDS) == pytest.approx(0.5, abs=0.1)


def test_a_clip_depends_on_its_video_and_its_seed_alone(root: Path) -> None:
    dataset = load(root)
    indices, seeds = [i % 2 for i in range(40)], range(40)
    together = dataset.draw("train", indices, seeds)
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda i: load(root).draw("train", [indices[i]], [i])[0], reversed(range(40))))
    assert torch.equal(together, torch.stack(alone[::-1]))
    assert len({clip.numpy().tobytes() for clip in together}) > 20


def test_what_is_not_asked_for_is_not_done(root: Path) -> None:
    dataset = load(root)
    places = [told(clip) for clip in dataset.draw("train", [0] * 50, range(50), crop="centre", flip=False)]
    assert {(left, top, side) for _, left, top, side in places} == {(2, 0, False)}
    assert len({start for start, *_ in places}) == 7
    # The same seed draws the same place, whatever else is drawn.
    assert [start for start, *_ in places] == [told(clip)[0] for clip in dataset.draw("train", [0] * 50, range(50))]


def test_what_was_prepared_is_drawn_at_the_same_places_from_its_box(root: Path, tmp_path: Path) -> None:
    made = load(prepare(SPEC, tmp_path / "out", data_root=root))
    expected = load(root).draw("train", [0, 1] * 20, range(40), crop="centre")
    assert torch.equal(made.draw("train", [0, 1] * 20, range(40), crop="centre"), expected)
    with pytest.raises(UserError, match="crop='random': folder was prepared, and cropped: say crop='centre'"):
        made.draw("train", [0], [0])


def test_clips_of_a_video_that_has_several_are_drawn_from_all_of_it(root: Path) -> None:
    dataset = load(root, start="every")
    assert dataset.size("train") == 7 + 6
    starts = {told(clip)[0] for clip in dataset.draw("train", [7] * 100, range(100))}
    assert starts == set(range(1, 7))


def test_resized_clips_are_those_of_the_cut(root: Path) -> None:
    small = load(root, height=4, width=4)
    whole = load(root).draw("train", [0, 1], [3, 4])
    expected = torch.stack([small._transform.fit(clip, "clip") for clip in whole])
    assert torch.equal(small.draw("train", [0, 1], [3, 4]), expected)


def test_no_clips_are_an_empty_batch(root: Path) -> None:
    assert tuple(load(root).draw("train", [], []).shape) == (0, 4, 3, 8, 8)


def test_what_cannot_be_drawn_is_named(root: Path) -> None:
    with pytest.raises(UserError, match="crop='left': the crop of training clips must be one of random, centre"):
        load(root).draw("train", [0], [0], crop="left")
    with pytest.raises(IndexError, match="folder has 2 train clips: no clip 2"):
        load(root).draw("train", [2], [0])
    with pytest.raises(MissingData, match=r"v1\.avi has 13 frames, fewer than the 14 .* say folder\(short='skip'\)"):
        load(root, frames=7).draw("train", [1], [0])
