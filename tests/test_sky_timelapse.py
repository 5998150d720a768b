from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from clipfiles import levels, pictures, touch, write_frames
from contract import check_dataset

from vfbench import plugins
from vfbench.clips.inventory import Inventory
from vfbench.datasets import sky_timelapse
from vfbench.datasets._video_dataset import VideoDataset
from vfbench.datasets.sky_timelapse import build, find
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Dataset

A, B, C = "AbCdEfGhIjK", "-_3456789ab", "z6Yr7KDZhm0"  # as YouTube makes them


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four clips in the official layout, numbered by their place in the source; one has 2 frames."""
    folder = tmp_path / "sky_timelapse"
    for k, (side, name, frames) in enumerate(
        [("sky_train", f"{A}/{A}_10", 8), ("sky_train", f"{A}/{A}_2", 2), ("sky_train", f"{B}/{B}_1", 8)]
    ):
        write_frames(folder / side / name, pictures(k, frames), "x_frames_{:08}.png")
    write_frames(folder / "sky_test" / C / f"{C}_1", pictures(3, 8), "x_frames_{:08}.png")
    return folder


def make(root: Path, **options: Any) -> VideoDataset:
    dataset = build(root=str(root), **{"frames": 4, "height": 8, "width": 8, **options})
    assert isinstance(dataset, VideoDataset)
    return dataset


def names(inventory: Inventory) -> dict[str, list[str]]:
    return {split: [entry.name for entry in found.entries] for split, found in inventory.splits.items()}


# Layouts


def test_the_official_layout(root: Path) -> None:
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


def test_the_root_may_be_above_or_one_side(root: Path) -> None:
    whole = names(find(str(root)))
    assert names(find(str(root.parent))) == whole
    assert names(find(str(root / "sky_train"))) == {"train": whole["train"], "test": []}
    (root.parent / "more").mkdir()
    root.rename(root.parent / "more/SkyTimelapse")
    assert names(find(str(root.parent / "more"))) == whole


def test_clips_without_a_split_are_for_training_and_that_is_said(tmp_path: Path) -> None:
    inventory = find(str(touch(tmp_path, f"{A}_1/1.jpg", f"{B}_1/1.jpg")))
    assert names(inventory) == {"train": [f"{B}/{B}_1", f"{A}/{A}_1"], "test": []}
    assert "no folder names a split: all clips are in train" in inventory.note


def test_clips_are_in_the_order_of_their_names_wherever_they_lie(tmp_path: Path) -> None:
    inventory = find(str(touch(tmp_path, f"b/{A}_2.mp4", f"c/{A}_10.mp4", f"a/{C}_1.mp4")))
    assert names(inventory)["train"] == [f"{A}/{A}_2", f"{A}/{A}_10", f"{C}/{C}_1"]


def test_known_copies_are_told_by_layout_and_size(tmp_path: Path) -> None:
    for layout, size, told in (
        ("two", (640, 360), "official, partial (1 of 2,617)"),
        ("one", (256, 256), "256 px frames, laid out as StyleGAN-V's"),
        ("two", (256, 256), "unknown copy, 256x256"),
        ("one", (640, 360), "unknown copy, 640x360"),
    ):
        place = tmp_path / f"{layout}{size[0]}"
        clip = place / "train" / (f"{A}/{A}_1" if layout == "two" else f"{A}_1")
        write_frames(clip, pictures(frames=1, height=size[1], width=size[0]))
        assert find(str(place)).copy == told


# What a reader must know


def test_what_is_odd_is_in_the_notes(root: Path) -> None:
    touch(root, "sky_train/emptyempty0/", "__MACOSX/x.jpg", ".hidden/y.jpg", "sky_train/odd name $(x)/1.jpg")
    (root / "sky_test" / C / f"{C}_1/x_frames_00000004.png").unlink()
    for k in range(1, 9, 2):  # every second frame is a rate, no gap
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


def test_png_beside_jpeg_and_two_of_one_name_are_refused(root: Path) -> None:
    touch(root, f"sky_train/{A}/{A}_2/x_frames_00000009.jpg")
    with pytest.raises(MissingData, match=rf"{A}_2 holds png and jpeg images: which are the frames"):
        find(str(root))
    (root / f"sky_train/{A}/{A}_2/x_frames_00000009.jpg").unlink()
    touch(root, f"sky_train/{A}_2/1.png")
    with pytest.raises(MissingData, match=rf"holds {A}/{A}_2 twice, sky_train/{A}/{A}_2 and sky_train/{A}_2: keep one"):
        find(str(root))


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ((), "holds no clips (it is empty)"),
        (("readme.txt",), "holds no clips (readme.txt)"),
        (("sky_timelapse.zip",), "unzip {root}/sky_timelapse.zip -d {root}"),
        (("a b/sky.rar",), "unrar x '{root}/a b/sky.rar' '{root}/a b'/"),
        (("clips/a.mp4",), "holds no clip with the dataset's names, but clips/a.mp4"),
        (("__MACOSX/a_1/1.jpg",), "holds no clips (__MACOSX)"),
    ],
)
def test_a_root_without_clips_says_what_is_there_and_how_to_get_them(
    tmp_path: Path, there: tuple[str, ...], told: str
) -> None:
    with pytest.raises(MissingData) as error:
        find(str(touch(tmp_path, *there)))
    assert told.format(root=tmp_path) in str(error.value)
    assert "1xWLiU-MBGN7MrsFHQm4_yXmfHBsMbJQo" in str(error.value)
    assert error.value.exit_code == 4


def test_a_root_of_another_dataset_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingData) as error:
        find(str(touch(tmp_path, "UCF-101/YoYo/v_YoYo_g01_c01.avi")))
    said = "holds ucf101 (UCF-101/YoYo/v_YoYo_g01_c01.avi): name that dataset, or give another --data-root"
    assert str(error.value) == f"Sky Time-lapse: {tmp_path} {said}"


def test_a_root_that_is_not_there_or_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    with pytest.raises(MissingData, match="No such file or directory; give a folder"):
        find(str(tmp_path / "nowhere"))
    with pytest.raises(MissingData, match="Not a directory; give a folder"):
        find(str(touch(tmp_path, "file") / "file"))
    monkeypatch.delenv("VFBENCH_DATA", raising=False)
    with pytest.raises(MissingData, match=r"no --data-root given and VFBENCH_DATA not set(?s:.*)--data-root DIR"):
        find()
    monkeypatch.setenv("VFBENCH_DATA", str(root.parent))
    assert len(find().splits["train"]) == 3
    (tmp_path / "Sky-Timelapse").mkdir()
    with pytest.raises(MissingData, match=r"Sky-Timelapse and .*sky_timelapse match; choose one, such as --data-root"):
        find()


def test_links_in_a_circle_are_named(root: Path) -> None:
    (root / "sky_train/up").symlink_to(root)
    with pytest.raises(MissingData, match=r"sky_train/up/.* links to a folder above itself|sky_train/up links to"):
        find(str(root))
    (root / "sky_train/up").unlink()
    (root / "sky_train/self").symlink_to("self")
    with pytest.raises(MissingData, match="sky_train/self: Too many levels of symbolic links; take it out"):
        find(str(root))


def test_a_folder_that_may_not_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(place: Path) -> Any:  # since the superuser may read every folder
        if Path(place).name == A:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(MissingData, match=f"sky_train/{A}: Permission denied; give a folder or file of clips"):
        find(str(root))
    with pytest.raises(MissingData, match=rf"{A}: Permission denied; give a folder(?s:.*)--data-root DIR"):
        find(str(root / "sky_train" / A))


# Clips


def test_short_clips_are_left_out_and_counted(root: Path) -> None:
    dataset = make(root)
    assert isinstance(dataset, Dataset)
    assert (dataset.size("train"), dataset.size("test")) == (2, 1)
    assert (
        f"left out: 1 of 3 train videos have fewer frames than the 4 that a clip needs: {A}/{A}_2 (2)" in dataset.note
    )
    assert dataset.captions("train", [0, 1]) == ["sky time lapse"] * 2
    assert dataset.labels("train", [1]) == [0]
    assert levels(make(root, start="zero").clips("train", [1])[0]) == [0, 10, 20, 30]
    check_dataset(dataset)
    with pytest.raises(MissingData, match=rf"{A}/{A}_2 has 2 frames, needs 4 .*take it out"):
        make(root, short="refuse").clips("train", [1])
    with pytest.raises(MissingData, match=rf"1 of 3 train videos .*{A}_2 \(2\); say sky_timelapse\(short='skip'\)"):
        make(root, short="refuse", start="every")
    with pytest.raises(UserError, match=r"sky_timelapse\(short='some'\)"):
        make(root, short="some")


def test_training_clips_that_are_all_too_short_leave_those_for_testing(root: Path) -> None:
    write_frames(root / "sky_test" / C / f"{C}_2", pictures(0, 9), "x_frames_{:08}.png")
    dataset = make(root, frames=9)
    assert (dataset.size("train"), dataset.names("test")) == (0, [f"{C}/{C}_2"])
    assert levels(dataset.clips("test", [0])[0]) == [10 * k for k in range(9)]
    assert "3 of 3 train videos have fewer frames than the 9" in dataset.note


def test_the_official_counts_are_those_of_its_read_me(real_data: Path) -> None:
    told = (real_data / "sky_timelapse/readme_official.txt").read_text()
    for split, count in sky_timelapse.COUNTS.items():
        assert f"cut into {count} short videos" in told.split(f"./sky_{split}")[1]


@pytest.mark.parametrize("below", ["", "sky_timelapse", "sky_timelapse/sky_test"])
def test_genuine_clips(real_data: Path, below: str) -> None:
    dataset = plugins.load("dataset", f"sky_timelapse(root={str(real_data / below)!r}, height=128, width=128)")
    assert (dataset.size("train"), dataset.size("test")) == (0, 6)
    assert dataset.names("test") == [f"mdganREAL0{k}/mdganREAL0{k}_1" for k in range(6)]
    assert dataset.inventory.copy == "unknown copy, 128x128"
    assert dataset.clips("test", range(6)).float().std((1, 2, 3, 4)).min() > 10
