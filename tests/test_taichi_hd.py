"""Tests of the dataset `taichi_hd`: folder layouts, the official list, refused folders, real clips."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from clipfiles import grey_clip, grey_levels, touch, write_frames, write_video
from contract import check_dataset

from vfbench import plugins
from vfbench.clips.inventory import Inventory
from vfbench.datasets import taichi_hd
from vfbench.datasets._video_dataset import VideoDataset
from vfbench.datasets.taichi_hd import build, find
from vfbench.errors import MissingData
from vfbench.interfaces import Dataset

A, B = "-bCdEfGhIjK", "B_3456789ab"
ROWS = [(A, 80, 300, "train"), (A, 575, 717, "train"), (B, 21, 100479, "test")]
CLIPS = [f"{A}#000080#000300.mp4", f"{A}#000575#000717.mp4", f"{B}#000021#100479.mp4"]


def write_metadata(place: Path, rows: list[tuple[str, int, int, str]] = ROWS) -> Path:
    lines = ["video_id,start,end,bbox,fps,width,height,partition"]
    lines += [f"{video},{start},{end},1-2-3-4,25.0,640,480,{side}" for video, start, end, side in rows]
    (place / "taichi-metadata.csv").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return place


def load(root: Path, **options: Any) -> VideoDataset:
    dataset = build(root=str(root), **{"frames": 4, "height": 8, "width": 8, **options})
    assert isinstance(dataset, VideoDataset)
    return dataset


def names(inventory: Inventory) -> dict[str, list[str]]:
    return {split: [entry.name for entry in clip_files.entries] for split, clip_files in inventory.splits.items()}


# Layouts.


@pytest.mark.parametrize("split_folders", [True, False])
@pytest.mark.parametrize("kind", ["mp4", "png folders", "png folders without .mp4"])
@pytest.mark.parametrize("parent", ["", "taichi_hd/", "taichi/"])
def test_every_layout_gives_the_same_names(tmp_path: Path, split_folders: bool, kind: str, parent: str) -> None:
    for name, row in zip(CLIPS, ROWS, strict=True):
        suffix = {"mp4": "", "png folders": "/0000000.png"}.get(kind, "")
        path = f"{parent}{row[3]}/{name}" if split_folders else f"{parent}{name}"
        touch(tmp_path, path + suffix if "without" not in kind else f"{path.removesuffix('.mp4')}/0000000.png")
    inventory = find(str(write_metadata(tmp_path)))
    assert names(inventory) == {"train": CLIPS[:2], "test": CLIPS[2:]}
    assert inventory.listed == {"train": tuple(CLIPS[:2]), "test": tuple(CLIPS[2:])}
    assert [inventory.origin(name) for name in CLIPS] == [A, A, B]
    assert inventory.layout.endswith("with the official list")
    assert inventory.note == ""


def test_missing_and_extra_clips_follow_from_the_official_list(tmp_path: Path) -> None:
    touch(write_metadata(tmp_path), CLIPS[0], f"{B}#000001#000002.mp4", "other name.mp4")
    inventory = find(str(tmp_path))
    assert inventory.missing("train") == [CLIPS[1]]
    assert inventory.missing("test") == [CLIPS[2]]
    assert inventory.extra == (f"{B}#000001#000002.mp4", "other name.mp4")
    assert "1 of 2 listed train clips present; 0 of 1 listed test clips present" in inventory.note
    assert inventory.copy == "cut from YouTube, 2 of 3,334 clips, no readable file"


def test_without_list_and_split_folders_all_clips_are_in_train(tmp_path: Path) -> None:
    inventory = find(str(touch(tmp_path / "a/b/c", CLIPS[0], CLIPS[2])))
    assert names(inventory) == {"train": [CLIPS[0], CLIPS[2]], "test": []}
    assert inventory.listed == {}
    assert "no taichi-metadata.csv found" in inventory.note
    assert "all clips are in train" in inventory.note


def test_split_folders_override_the_list_with_a_note(tmp_path: Path) -> None:
    inventory = find(str(touch(write_metadata(tmp_path), f"test/{CLIPS[0]}", f"train/{CLIPS[1]}")))
    assert names(inventory) == {"train": [CLIPS[1]], "test": [CLIPS[0]]}
    assert f"in another split than the official: 1 ({CLIPS[0]})" in inventory.note


def test_unpadded_numbers_are_recognised(tmp_path: Path) -> None:
    touch(write_metadata(tmp_path), f"{A}#80#300.mp4")
    assert names(find(str(tmp_path)))["train"] == [CLIPS[0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"video_id,start,end\nx,1,2\n", "no column fps, partition after 0 clips"),
        (b"video_id,start,end,fps,partition\nx,1,2,25,val\n", "line 2: partition 'val' after 0 clips"),
        (b"video_id,start,end,fps,partition\nx,1,2,25,test\ny,one,2,25,test\n", "'one' after 1 clips"),
        (b"\xff\xfe\x00", "codec"),
    ],
)
def test_an_invalid_list_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    touch(tmp_path, CLIPS[0])
    (tmp_path / "taichi-metadata.csv").write_bytes(text)
    with pytest.raises(MissingData, match=r"taichi-metadata\.csv: is not the official list") as error:
        find(str(tmp_path))
    assert message in str(error.value)


def test_a_root_without_clips_is_refused(tmp_path: Path) -> None:
    for name, message in (
        ("taichi-256-part.zip", "taichi-256-part.zip is not unpacked"),
        ("other/x.mp4/", "holds no clips (other/x.mp4)"),
    ):
        root = touch(tmp_path / name.replace("/", "-"), name)
        with pytest.raises(MissingData, match=r"load_videos\.py") as error:
            find(str(root))
        assert message in str(error.value)


def test_a_root_of_another_dataset_is_refused_without_download_steps(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"holds sky_timelapse \(AbCdEfGhIjK_1\): name that dataset") as error:
        find(str(touch(tmp_path, "taichi_hd/AbCdEfGhIjK_1/1.jpg")))
    assert "load_videos.py" not in str(error.value)


# Clips.


def test_videos_and_frame_folders_give_equal_clips(tmp_path: Path) -> None:
    write_video(tmp_path / "v/clip.avi", grey_clip(5))
    (tmp_path / "v/clip.avi").rename(tmp_path / "v" / CLIPS[0])
    write_frames(tmp_path / "f" / CLIPS[0], grey_clip(5), "{:07}.png")
    videos, frames = (load(tmp_path / name, stride=2) for name in "vf")
    assert isinstance(videos, Dataset)
    assert grey_levels(videos.clips("train", [0])[0]) == grey_levels(frames.clips("train", [0])[0])
    assert (frames.captions("train", [0]), frames.classes, frames.stride) == (["tai chi"], ("tai_chi",), 2)
    check_dataset(frames)
    with pytest.raises(MissingData, match=r"has 12 frames, needs 13 from 0"):
        load(tmp_path / "f", frames=13, start="zero").clips("train", [0])
    assert load(tmp_path / "f", frames=4, short="skip").size("train") == 1


def test_counts_equal_those_of_the_official_list(real_data: Path) -> None:
    inventory = find(str(real_data))
    assert {split: len(names) for split, names in inventory.listed.items()} == taichi_hd.COUNTS
    origins = [{inventory.origin(name) for name in names} for names in inventory.listed.values()]
    assert ([len(side) for side in origins], origins[0] & origins[1]) == ([252, 28], set())
    with (real_data / "taichi_hd/taichi256_pairs.csv").open() as file:
        paired = {row[side] for row in csv.DictReader(file) for side in ("source", "driving")}
    assert paired <= set(inventory.listed["test"])


def test_real_clips_are_read(real_data: Path) -> None:
    dataset = plugins.load(
        "dataset", f"taichi_hd(root={str(real_data)!r}, frames=458, height=16, width=16, short='skip')"
    )
    assert dataset.names("test") == ["L82WHgYRq6I#000021#000479.mp4"]
    assert "(280)" in dataset.note
    assert "L82WHgYRq6I#000021#000479.mp4 has 10 frames a second, its source had 25" in dataset.note
    assert dataset.inventory.copy == "cut from YouTube, 2 of 3,334 clips, 256x256"


def test_real_png_folders_named_mp4_are_read(real_data: Path) -> None:
    dataset = load(real_data / "taichi_png", frames=16, height=256, width=256, start="zero", geometry="native")
    assert (dataset.size("train"), dataset.names("test")) == (0, ["w2awOCDRtrc#001729#002009.mp4"])
    assert dataset.inventory.layout == "test frame folders, one level, no official list"
    as_video = load(real_data / "taichi_hd", frames=16, height=256, width=256, start="zero", geometry="native")
    difference = dataset.clips("test", [0]).float() - as_video.clips("test", [1]).float()
    assert difference.abs().mean() < 3  # the png frames were decoded from that video
