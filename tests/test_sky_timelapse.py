"""Tests of the dataset `sky_timelapse`: folder layouts, notes, refused folders, short clips."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from clipfiles import grey_clip, grey_levels, touch, write_frames
from contract import check_dataset

from vfbench import plugins
from vfbench.clips.inventory import Inventory
from vfbench.datasets import sky_timelapse
from vfbench.datasets._video_dataset import VideoDataset
from vfbench.datasets.sky_timelapse import build, find
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Dataset

A, B, C = "AbCdEfGhIjK", "-_3456789ab", "z6Yr7KDZhm0"  # ids like those of YouTube


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four clips in the official layout, one with 2 frames only; names end with their part of the source video."""
    folder = tmp_path / "sky_timelapse"
    for k, (side, name, frames) in enumerate(
        [("sky_train", f"{A}/{A}_10", 8), ("sky_train", f"{A}/{A}_2", 2), ("sky_train", f"{B}/{B}_1", 8)]
    ):
        write_frames(folder / side / name, grey_clip(k, frames), "x_frames_{:08}.png")
    write_frames(folder / "sky_test" / C / f"{C}_1", grey_clip(3, 8), "x_frames_{:08}.png")
    return folder


def load(root: Path, **options: Any) -> VideoDataset:
    dataset = build(root=str(root), **{"frames": 4, "height": 8, "width": 8, **options})
    assert isinstance(dataset, VideoDataset)
    return dataset


def names(inventory: Inventory) -> dict[str, list[str]]:
    return {split: [entry.name for entry in clip_files.entries] for split, clip_files in inventory.splits.items()}


# Layouts.


def test_the_official_layout_is_read(root: Path) -> None:
    inventory = find(str(root))
    assert names(inventory) == {"train": [f"{B}/{B}_1", f"{A}/{A}_2", f"{A}/{A}_10"], "test": [f"{C}/{C}_1"]}
    assert (inventory.layout, inventory.copy) == ("train/test frame folders, two levels", "unknown copy, 10x8")
    assert [inventory.origin(name) for name in names(inventory)["train"]] == [B, A, A]
    assert "3 of 2,392 official train clips present; 1 of 225 official test clips present" in inventory.note


@pytest.mark.parametrize("sides", [("sky_train", "sky_test"), ("train", "test"), ("Train", "TEST")])
@pytest.mark.parametrize("layout", ["two levels", "one level", "videos", "videos, two levels"])
def test_every_layout_gives_the_same_names(tmp_path: Path, sides: tuple[str, str], layout: str) -> None:
    for side, video, part in ((sides[0], A, 1), (sides[0], A, 12), (sides[1], B, 3)):
        above = f"{side}/{video}/" if "two levels" in layout else f"{side}/"
        touch(tmp_path, f"{above}{video}_{part}" + (".mp4" if "videos" in layout else "/7.jpg"))
    assert names(find(str(tmp_path))) == {"train": [f"{A}/{A}_1", f"{A}/{A}_12"], "test": [f"{B}/{B}_3"]}


def test_the_root_may_be_the_parent_or_one_split(root: Path) -> None:
    expected = names(find(str(root)))
    assert names(find(str(root.parent))) == expected
    assert names(find(str(root / "sky_train"))) == {"train": expected["train"], "test": []}
    (root.parent / "more").mkdir()
    root.rename(root.parent / "more/SkyTimelapse")
    assert names(find(str(root.parent / "more"))) == expected


def test_clips_without_a_split_are_in_train_with_a_note(tmp_path: Path) -> None:
    inventory = find(str(touch(tmp_path, f"{A}_1/1.jpg", f"{B}_1/1.jpg")))
    assert names(inventory) == {"train": [f"{B}/{B}_1", f"{A}/{A}_1"], "test": []}
    assert "no folder names a split: all clips are in train" in inventory.note


def test_clips_are_ordered_by_name_not_by_folder(tmp_path: Path) -> None:
    inventory = find(str(touch(tmp_path, f"b/{A}_2.mp4", f"c/{A}_10.mp4", f"a/{C}_1.mp4")))
    assert names(inventory)["train"] == [f"{A}/{A}_2", f"{A}/{A}_10", f"{C}/{C}_1"]


def test_known_copies_are_recognised_by_layout_and_size(tmp_path: Path) -> None:
    for layout, size, expected in (
        ("two", (640, 360), "official, partial (1 of 2,617)"),
        ("one", (256, 256), "256 px frames, laid out as StyleGAN-V's"),
        ("two", (256, 256), "unknown copy, 256x256"),
        ("one", (640, 360), "unknown copy, 640x360"),
    ):
        folder = tmp_path / f"{layout}{size[0]}"
        clip = folder / "train" / (f"{A}/{A}_1" if layout == "two" else f"{A}_1")
        write_frames(clip, grey_clip(frames=1, height=size[1], width=size[0]))
        assert find(str(folder)).copy == expected


# Notes and refused folders.


def test_unusual_folders_get_notes(root: Path) -> None:
    touch(root, "sky_train/emptyempty0/", "__MACOSX/x.jpg", ".hidden/y.jpg", "sky_train/odd name $(x)/1.jpg")
    (root / "sky_test" / C / f"{C}_1/x_frames_00000004.png").unlink()
    for k in range(1, 9, 2):  # every second frame: another rate, no gap
        (root / "sky_train" / A / f"{A}_10/x_frames_{k:08}.png").unlink()
    inventory = find(str(root))
    for part in (
        "empty folders, no clips: 1 (sky_train/emptyempty0)",
        f"frame folders with gaps in their numbers: 1 (sky_test/{C}/{C}_1)",
        "not read, other names: 1 (sky_train/odd name $(x))",
        "ignored: .hidden, __MACOSX",
        "z6Yr7KDZhm0 is here (1 clips), which others had to remove",
    ):
        assert part in inventory.note
    assert inventory.extra == ("sky_train/odd name $(x)",)


def test_mixed_image_formats_and_duplicate_names_are_refused(root: Path) -> None:
    touch(root, f"sky_train/{A}/{A}_2/x_frames_00000009.jpg")
    with pytest.raises(MissingData, match=rf"{A}_2 holds png and jpeg images: which are the frames"):
        find(str(root))
    (root / f"sky_train/{A}/{A}_2/x_frames_00000009.jpg").unlink()
    touch(root, f"sky_train/{A}_2/1.png")
    with pytest.raises(MissingData, match=rf"{A}/{A}_2 twice, sky_train/{A}/{A}_2 and sky_train/{A}_2"):
        find(str(root))


@pytest.mark.parametrize(
    ("names_of_files", "message"),
    [
        ((), "holds no clips (it is empty)"),
        (("readme.txt",), "holds no clips (readme.txt)"),
        (("sky_timelapse.zip",), "unzip {root}/sky_timelapse.zip -d {root}"),
        (("a b/sky.rar",), "unrar x '{root}/a b/sky.rar' '{root}/a b'/"),
        (("clips/a.mp4",), "holds no clip with the dataset's names, but clips/a.mp4"),
        (("__MACOSX/a_1/1.jpg",), "holds no clips (__MACOSX)"),
    ],
)
def test_a_root_without_clips_is_refused_with_download_steps(
    tmp_path: Path, names_of_files: tuple[str, ...], message: str
) -> None:
    with pytest.raises(MissingData) as error:
        find(str(touch(tmp_path, *names_of_files)))
    assert message.format(root=tmp_path) in str(error.value)
    assert "1xWLiU-MBGN7MrsFHQm4_yXmfHBsMbJQo" in str(error.value)
    assert error.value.exit_code == 4


def test_a_root_of_another_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingData) as error:
        find(str(touch(tmp_path, "UCF-101/YoYo/v_YoYo_g01_c01.avi")))
    message = str(error.value)
    assert message.startswith(f"Sky Time-lapse: {tmp_path} holds ucf101 (UCF-101/YoYo/v_YoYo_g01_c01.avi)")
    assert "--data-root" in message
    assert len(message.splitlines()) == 1


def test_a_missing_or_ambiguous_root_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    with pytest.raises(MissingData, match="No such file or directory; give a folder"):
        find(str(tmp_path / "nowhere"))
    with pytest.raises(MissingData, match="Not a directory; give a folder"):
        find(str(touch(tmp_path, "file") / "file"))
    monkeypatch.delenv("VFBENCH_DATA", raising=False)
    with pytest.raises(MissingData, match=r"VFBENCH_DATA not set(?s:.*)--data-root DIR"):
        find()
    monkeypatch.setenv("VFBENCH_DATA", str(root.parent))
    assert len(find().splits["train"]) == 3
    (tmp_path / "Sky-Timelapse").mkdir()
    with pytest.raises(MissingData, match=r"Sky-Timelapse and .*sky_timelapse match.*--data-root"):
        find()


def test_circular_links_are_refused(root: Path) -> None:
    (root / "sky_train/up").symlink_to(root)
    with pytest.raises(MissingData, match=r"sky_train/up/.* links to a folder above itself|sky_train/up links to"):
        find(str(root))
    (root / "sky_train/up").unlink()
    (root / "sky_train/self").symlink_to("self")
    with pytest.raises(MissingData, match="sky_train/self: Too many levels of symbolic links"):
        find(str(root))


def test_an_unreadable_folder_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.scandir

    def refuse(place: Path) -> Any:  # root could read a folder without permissions
        if Path(place).name == A:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        return original(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(MissingData, match=f"sky_train/{A}: Permission denied"):
        find(str(root))
    with pytest.raises(MissingData, match=rf"{A}: Permission denied(?s:.*)--data-root DIR"):
        find(str(root / "sky_train" / A))


# Clips.


def test_short_clips_are_skipped_with_a_note(root: Path) -> None:
    dataset = load(root)
    assert isinstance(dataset, Dataset)
    assert (dataset.size("train"), dataset.size("test")) == (2, 1)
    assert (
        f"left out: 1 of 3 train videos have fewer frames than the 4 that a clip needs: {A}/{A}_2 (2)" in dataset.note
    )
    assert dataset.captions("train", [0, 1]) == ["sky time lapse"] * 2
    assert dataset.labels("train", [1]) == [0]
    assert grey_levels(load(root, start="zero").clips("train", [1])[0]) == [0, 10, 20, 30]
    check_dataset(dataset)
    with pytest.raises(MissingData, match=rf"{A}/{A}_2 has 2 frames, needs 4 .*take it out"):
        load(root, short="refuse").clips("train", [1])
    with pytest.raises(MissingData, match=rf"1 of 3 .*{A}_2 \(2\).*sky_timelapse\(short='skip'\)"):
        load(root, short="refuse", start="every")
    with pytest.raises(UserError, match=r"sky_timelapse\(short='some'\)"):
        load(root, short="some")


def test_test_clips_are_read_without_long_enough_train_clips(root: Path) -> None:
    write_frames(root / "sky_test" / C / f"{C}_2", grey_clip(0, 9), "x_frames_{:08}.png")
    dataset = load(root, frames=9)
    assert (dataset.size("train"), dataset.names("test")) == (0, [f"{C}/{C}_2"])
    assert grey_levels(dataset.clips("test", [0])[0]) == [10 * k for k in range(9)]
    assert "3 of 3 train videos have fewer frames than the 9" in dataset.note


def test_official_counts_equal_those_of_the_readme(real_data: Path) -> None:
    readme = (real_data / "sky_timelapse/readme_official.txt").read_text()
    for split, count in sky_timelapse.COUNTS.items():
        assert f"cut into {count} short videos" in readme.split(f"./sky_{split}")[1]


@pytest.mark.parametrize("below", ["", "sky_timelapse", "sky_timelapse/sky_test"])
def test_real_clips_are_read(real_data: Path, below: str) -> None:
    dataset = plugins.load("dataset", f"sky_timelapse(root={str(real_data / below)!r}, height=128, width=128)")
    assert (dataset.size("train"), dataset.size("test")) == (0, 6)
    assert dataset.names("test") == [f"mdganREAL0{k}/mdganREAL0{k}_1" for k in range(6)]
    assert dataset.inventory.copy == "unknown copy, 128x128"
    assert dataset.clips("test", range(6)).float().std((1, 2, 3, 4)).min() > 10
