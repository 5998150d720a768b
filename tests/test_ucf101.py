"""Tests of the dataset `ucf101`: lists, layouts, clips, fingerprints, and counts of the original files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract import check_dataset

from vfbench import clips as folders
from vfbench import video
from vfbench.clips.starts import clip_starts
from vfbench.clips.transform import ClipTransform
from vfbench.datasets import ucf101
from vfbench.datasets._ucf101_lists import CLASSES as CLASSES_OF_ALL
from vfbench.datasets._ucf101_lists import official_name
from vfbench.datasets._video_dataset import VideoDataset
from vfbench.datasets.ucf101 import build, find
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape, Dataset

pytest.importorskip("av")  # reads and writes videos

CLASSES = ["ApplyEyeMakeup", "HandstandPushups", "YoYo"]
TRAIN = [
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1",
    "HandstandPushups/v_HandStandPushups_g08_c01.avi 2",
    "YoYo/v_YoYo_g08_c01.avi 3",
]
TEST = ["YoYo/v_YoYo_g01_c01.avi", "HandstandPushups/v_HandStandPushups_g01_c01.avi"]


def write_clip(path: Path, frames: int = 20) -> None:
    """Write a lossless clip 24 wide and 16 high: frame k has grey 10 k, with white margins left and right."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 24, 16, "bgr0"
        for k in range(frames):
            image = np.full((16, 24, 3), 255, np.uint8)
            image[:, 4:20] = 10 * k
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Complete UCF101 of three classes and five clips, with lists as published: CRLF, labels from 1."""
    lists = tmp_path / "ucfTrainTestlist"
    write_lines(lists / "classInd.txt", [f"{i + 1} {name}" for i, name in enumerate(CLASSES)])
    write_lines(lists / "trainlist01.txt", TRAIN)
    write_lines(lists / "testlist01.txt", TEST)
    write_lines(lists / "trainlist02.txt", [f"{TEST[0]} 3"])
    write_lines(lists / "testlist02.txt", [line.split()[0] for line in TRAIN])
    for line in TRAIN + TEST:
        write_clip(tmp_path / "UCF-101" / line.split()[0])
    return tmp_path


def load(root: Path, **options: Any) -> VideoDataset:
    defaults: dict[str, Any] = {"frames": 4, "height": 8, "width": 8}
    dataset = build(root=str(root), **{**defaults, **options})
    assert isinstance(dataset, VideoDataset)
    return dataset


# Lists.


def test_splits_labels_and_captions(root: Path) -> None:
    dataset = load(root)
    assert isinstance(dataset, Dataset)
    assert (dataset.name, dataset.classes, dataset.shape) == ("ucf101", tuple(CLASSES), ClipShape(4, 8, 8))
    assert (dataset.size("train"), dataset.size("test"), dataset.note) == (3, 2, "")
    assert dataset.inventory.missing("train") == []
    assert dataset.labels("train", [0, 1, 2]) == [0, 1, 2]
    assert dataset.labels("test", [1, 0]) == [2, 1]  # ordered by name, not by the list
    assert dataset.captions("train", [0, 1, 2]) == ["apply eye makeup", "handstand pushups", "yo yo"]
    assert dataset.words == ("apply", "eye", "handstand", "makeup", "pushups", "yo")


def test_another_split_list_is_read(root: Path) -> None:
    dataset = load(root, split_list=2)
    assert (dataset.size("train"), dataset.size("test")) == (1, 3)
    assert dataset.labels("train", [0]) == [2]
    with pytest.raises(UserError, match=r"split_list=4\): UCF101 has split lists 1, 2 and 3"):
        load(root, split_list=4)


def test_names_match_in_any_case(root: Path) -> None:
    expected = load(root).clips("train", [1])
    (root / "UCF-101/HandstandPushups").rename(root / "UCF-101/HandStandPushups")
    assert load(root).inventory.missing("train") == []
    assert torch.equal(load(root).clips("train", [1]), expected)


@pytest.mark.pitfall("missing files of a dataset")
def test_a_partial_copy_gets_a_note(root: Path) -> None:
    (root / "UCF-101" / TEST[1]).unlink()
    dataset = load(root)
    assert (dataset.size("test"), dataset.inventory.missing("test")) == (1, [TEST[1]])
    assert dataset.note == "1 of 2 listed test clips present"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("YoYo/v_YoYo_g08_c01.avi 2", "classInd.txt gives YoYo the label 3"),
        ("NoSuchClass/v_YoYo_g08_c01.avi 3", "names no clip, needed: CLASS/v_CLASS_g01_c01.avi"),
        ("YoYo/a b.avi 3", "names no clip"),
        ("<html>404</html>", "names no clip"),
        ("YoYo 3", "names no clip"),
    ],
)
def test_a_list_that_contradicts_the_classes_is_refused(root: Path, line: str, message: str) -> None:
    write_lines(root / "ucfTrainTestlist/trainlist01.txt", [TRAIN[0], "", line])
    with pytest.raises(MissingData) as error:
        load(root)
    assert f"trainlist01.txt: line 3, '{line}': {message}" in str(error.value)
    assert "get UCF101TrainTestSplits-RecognitionTask.zip again" in str(error.value)
    assert "7 GB" not in str(error.value)  # no advice to download the videos again


@pytest.mark.parametrize("lines", [["1 ApplyEyeMakeup", "3 YoYo"], ["1 ApplyEyeMakeup", "2"]])
def test_an_invalid_class_list_is_refused_naming_the_line(root: Path, lines: list[str]) -> None:
    write_lines(root / "ucfTrainTestlist/classInd.txt", lines)
    with pytest.raises(MissingData, match=rf"classInd\.txt: line 2, '{lines[1]}': .*needed: '2 CLASS'"):
        load(root)


def test_lists_may_begin_with_a_byte_order_mark(root: Path) -> None:
    expected = load(root)
    for path in (root / "ucfTrainTestlist").iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert (load(root).classes, load(root).names("train")) == (expected.classes, expected.names("train"))
    (root / "ucfTrainTestlist/classInd.txt").write_bytes(b"1 Yo\xff")
    with pytest.raises(MissingData, match=r"classInd\.txt is not UTF-8 text"):
        load(root)


@pytest.mark.parametrize("spelling", ["HandStandPushups", "handstandpushups"])
@pytest.mark.parametrize("lists", [("trainlist01", "testlist01"), ("trainlist01", "testlist01", "classInd")])
def test_lists_may_spell_a_class_like_its_files(root: Path, spelling: str, lists: tuple[str, ...]) -> None:
    expected = load(root)
    for name in lists:
        path = root / f"ucfTrainTestlist/{name}.txt"
        path.write_text(path.read_text().replace("HandstandPushups", spelling))
    dataset = load(root)
    assert (dataset.classes, dataset.fingerprint) == (expected.classes, expected.fingerprint)
    assert dataset.names("train") == expected.names("train")
    assert dataset.captions("test", [0, 1]) == ["handstand pushups", "yo yo"]


@pytest.mark.parametrize("name", ["classInd.txt", "testlist01.txt"])
def test_a_missing_list_is_refused(root: Path, name: str) -> None:
    (root / "ucfTrainTestlist" / name).unlink()
    with pytest.raises(MissingData, match="does not exist") as error:
        load(root)
    assert str(error.value).count(name) == 1


# Dataset folder.


@pytest.mark.pitfall("how to get a dataset")
def test_a_missing_dataset_is_refused_with_download_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingData) as error:
        build(root=str(tmp_path))
    steps = ("https://www.crcv.ucf.edu/data/UCF101.php", "UCF101.rar", "UCF101TrainTestSplits-RecognitionTask.zip")
    for part in (str(tmp_path), *steps, "--data-root DIR"):
        assert part in str(error.value)
    assert "no-check-certificate" not in str(error.value)
    monkeypatch.delenv("VFBENCH_DATA", raising=False)
    with pytest.raises(MissingData, match="VFBENCH_DATA not set"):
        build()


def test_an_empty_video_folder_is_missing_data(root: Path) -> None:
    shutil.rmtree(root / "UCF-101")
    (root / "UCF-101").mkdir()
    with pytest.raises(MissingData, match=r"UCF-101 holds no clips(?s:.*)--data-root DIR"):
        load(root)


def test_root_comes_from_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VFBENCH_DATA", str(root))
    assert build().size("train") == 3
    parent = tmp_path / "data"
    parent.mkdir()
    (parent / "ucf101").symlink_to(root)
    monkeypatch.setenv("VFBENCH_DATA", str(parent))
    assert build().size("train") == 3


@pytest.mark.parametrize("option", ["frames", "height", "width", "stride"])
def test_zero_options_are_refused(root: Path, option: str) -> None:
    with pytest.raises(UserError, match=rf"ucf101\({option}=0\)"):
        load(root, **{option: 0})


# Clips.


def test_clips_are_cropped_and_strided(root: Path) -> None:
    clips = load(root, stride=3).clips("train", [2, 0])
    assert (clips.dtype, tuple(clips.shape)) == (torch.uint8, (2, 4, 3, 8, 8))
    assert clips.amax() < 255  # without the white margins
    for clip in clips:
        assert clip.float().mean((1, 2, 3)).diff().tolist() == [30, 30, 30]


def test_the_start_depends_on_the_name(root: Path) -> None:
    batch, single = (load(root, frames=3).clips("train", indices) for indices in ([0, 1, 2], [1]))
    assert torch.equal(batch[1], single[0])
    # First 8 bytes of sha256(name), little-endian, modulo the 18 starts of 3 frames in 20.
    assert (batch[:, 0, 0, 0, 0] // 10).tolist() == [3, 16, 2]


def test_starts_leave_room_for_the_clip(root: Path) -> None:
    for options in ({"frames": 20}, {"frames": 7, "stride": 3}, {"frames": 1}):
        assert len(load(root, **options).clips("train", [0, 1, 2])) == 3
    with pytest.raises(MissingData, match=r"g08_c01\.avi: needs 7 frames from 0 at stride 4, declared 20"):
        load(root, frames=7, stride=4).clips("train", [0])


def test_empty_batches_and_indices_out_of_range(root: Path) -> None:
    assert tuple(load(root).clips("test", []).shape) == (0, 4, 3, 8, 8)
    for index in (2, -1):
        with pytest.raises(IndexError, match="ucf101 has 2 test clips"):
            load(root).clips("test", [0, index])


def test_a_damaged_clip_is_refused(root: Path) -> None:
    path = root / "UCF-101" / TEST[0]
    intact = path.read_bytes()
    damage = {"cut off": intact[: len(intact) * 9 // 10], "no readable video": b"<html>not found</html>"}
    for reason, content in damage.items():
        path.write_bytes(content)
        with pytest.raises(MissingData, match=rf"v_YoYo_g01_c01\.avi.*{reason}"):
            load(root).clips("test", [1])
    dataset = load(root)
    path.unlink()
    with pytest.raises(MissingData, match=r"v_YoYo_g01_c01\.avi: No such file"):
        dataset.clips("test", [1])


# Start, geometry and filter.


def test_every_window_of_a_video_is_a_clip(root: Path) -> None:
    dataset = load(root, frames=16, height=4, width=4, start="every")
    assert (dataset.size("train"), dataset.size("test"), dataset.note) == (15, 10, "")
    assert dataset.videos("train", range(15)) == [0] * 5 + [1] * 5 + [2] * 5
    assert dataset.labels("test", [0, 4, 5, 9]) == [1, 1, 2, 2]
    assert dataset.captions("train", [4, 5]) == ["apply eye makeup", "handstand pushups"]
    frames = video.decode(root / "UCF-101" / TRAIN[1].split()[0])[..., 4:20]  # without the white margins
    for index, clip in enumerate(dataset.clips("train", range(5, 10))):
        assert torch.equal(clip, frames[index : index + 16, :, :4, :4])
    for index in (15, -1):
        with pytest.raises(IndexError, match=f"ucf101 has 15 train clips: no clip {index}"):
            dataset.videos("train", [index])
    check_dataset(dataset)


def test_chunks_do_not_overlap(root: Path) -> None:
    dataset = load(root, frames=3, stride=2, drop_first=2, start="chunks")
    assert dataset.videos("test", range(dataset.size("test"))) == [0, 0, 0, 1, 1, 1]
    firsts = dataset.clips("test", range(6))[:, :, 0, 0, 0] // 10
    assert firsts.tolist() == [[2, 4, 6], [8, 10, 12], [14, 16, 18]] * 2


def test_clips_may_start_after_the_dropped_frames(root: Path) -> None:
    dataset = load(root, start="zero", drop_first=3)
    assert (dataset.clips("train", [0, 1, 2])[:, 0, 0, 0, 0] // 10).tolist() == [3, 3, 3]
    assert dataset.videos("train", [2, 0]) == [2, 0]
    hashed = load(root, frames=3, drop_first=2).clips("train", [0])[0, 0, 0, 0, 0] // 10
    name = TRAIN[0].split()[0]
    assert hashed == clip_starts("hashed", name, 20, frames=3, drop_first=2)[0]


def test_pixels_follow_geometry_and_filter(root: Path) -> None:
    frame = video.decode(root / "UCF-101" / TRAIN[0].split()[0], start=2, frames=1)
    options_by_name: Mapping[str, Mapping[str, Any]] = {
        "crop": {},
        "squash": {"geometry": "squash"},
        "lanczos": {"geometry": "squash", "filter": "lanczos"},
        "sharp": {"geometry": "squash", "antialias": False},
    }
    pixels_by_name = {}
    for name, options in options_by_name.items():
        pixels_by_name[name] = load(root, start="zero", drop_first=2, **options).clips("train", [0])[0, :1]
        assert torch.equal(pixels_by_name[name], ClipTransform("ucf101", ClipShape(1, 8, 8), **options).fit(frame, "v"))
    assert len({bytes(pixels.numpy().tobytes()) for pixels in pixels_by_name.values()}) == len(options_by_name)
    native = load(root, start="zero", drop_first=2, geometry="native", height=16, width=24)
    assert torch.equal(native.clips("train", [0])[0, :1], frame)
    with pytest.raises(MissingData, match=r"v_ApplyEyeMakeup_g08_c01\.avi has 24x16 pixels .*8x8"):
        load(root, geometry="native").clips("train", [0])


def test_invalid_starts_and_short_videos_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match=r"ucf101\(start='own'\): .*zero, hashed, .*every, chunks"):
        load(root, start="own")
    with pytest.raises(UserError, match=r"ucf101\(drop_first=-1\)"):
        load(root, drop_first=-1)
    write_clip(root / "UCF-101" / TEST[1], frames=15)
    for start in ("every", "chunks"):
        with pytest.raises(MissingData, match=r"1 of 2 test .* 16 .*\(15\).*ucf101\(short='skip'\)"):
            load(root, frames=16, start=start)


# Fingerprint.


def test_the_fingerprint_changes_with_options_files_and_decoder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ucf101, "LIGHT_HASH", folders.HashDepth(0, 64))  # less than a third of these small files
    fingerprints = [load(root).fingerprint]
    assert fingerprints[0] == load(root).fingerprint
    fingerprints += [
        load(root, **{name: 2}).fingerprint for name in ("frames", "height", "width", "stride", "split_list")
    ]
    others = {"start": "zero", "drop_first": 1, "geometry": "squash", "filter": "lanczos", "antialias": False}
    fingerprints += [load(root, **{name: value}).fingerprint for name, value in others.items()]
    path = root / "UCF-101" / TEST[0]
    content = bytearray(path.read_bytes())
    for place in (0, len(content) // 2 + 1, -1):
        content[place] ^= 1
        path.write_bytes(content)
        fingerprints.append(load(root).fingerprint)
    path.unlink()
    fingerprints.append(load(root).fingerprint)
    monkeypatch.setattr(video, "decoder_version", lambda name: "another decoder")
    fingerprints.append(load(root).fingerprint)
    assert len(set(fingerprints)) == len(fingerprints) == 16


# Original files.


def test_original_lists_and_clips(real_data: Path) -> None:
    dataset = load(real_data)
    assert dataset.note.startswith("2 of 9,537 listed train clips present; 3 of 3,783 listed test clips present; ")
    assert "no clips of 97 of 101 classes: ApplyLipstick" in dataset.note
    assert (dataset.inventory.layout, dataset.inventory.copy) == (
        "official avi tree, lists beside",
        "official, partial (5 of 13,320)",
    )
    assert (len(dataset.classes), dataset.classes[0], dataset.classes[100]) == (101, "ApplyEyeMakeup", "YoYo")
    assert dataset.labels("train", [0, 1]) == [83, 83]
    assert dataset.captions("test", [0, 1, 2]) == ["apply eye makeup", "baseball pitch", "basketball"]
    clips = load(real_data, frames=16, height=32, width=48).clips("test", [0, 1, 2])
    assert tuple(clips.shape) == (3, 16, 3, 32, 48)
    assert clips.float().std((1, 2, 3, 4)).min() > 20


def test_original_frame_counts_and_means(real_data: Path) -> None:
    dataset = load(real_data / "ucf101", frames=3, height=240, width=320, start="zero", geometry="native")
    counts = {
        entry.name: folders.count_frames(entry) for side in dataset.inventory.splits.values() for entry in side.entries
    }
    assert {name.rpartition("/")[2][2:-4]: count for name, count in counts.items()} == {
        "ApplyEyeMakeup_g01_c01": 164,
        "BaseballPitch_g01_c01": 107,
        "Basketball_g01_c01": 141,
        "SoccerJuggling_g23_c01": 240,
        "SoccerJuggling_g24_c01": 251,
    }
    means = dataset.clips("test", [0])[0].double().mean((1, 2, 3)).tolist()
    assert means == pytest.approx([87.1196, 87.2279, 86.1584], abs=0.02)


def test_original_frame_folders_have_the_same_clips(real_data: Path) -> None:
    dataset = load(real_data / "ucf101/jpegs_c3d")
    assert dataset.names("test") == load(real_data).names("test")[:1] + dataset.names("test")[1:]
    assert (dataset.inventory.layout, dataset.inventory.copy) == (
        "frame folders, one level, lists beside",
        "unknown copy, 320x240",
    )


@pytest.mark.parametrize(("split_list", "counts"), [(1, (9537, 3783)), (2, (9586, 3734)), (3, (9624, 3696))])
def test_original_list_lengths(real_data: Path, split_list: int, counts: tuple[int, int]) -> None:
    inventory = find(str(real_data), split_list=split_list)
    assert tuple(len(inventory.listed[split]) for split in ucf101.SPLITS) == counts
    totals = [len(inventory.splits[split]) + len(inventory.missing(split)) for split in ucf101.SPLITS]
    assert tuple(totals) == counts
    assert tuple(inventory.official[split] for split in ucf101.SPLITS) == counts


def test_built_in_class_names_are_the_official_ones(real_data: Path) -> None:
    assert find(str(real_data)).classes == CLASSES_OF_ALL
    names = [name for split in ucf101.SPLITS for name in find(str(real_data)).listed[split]]
    spellings = [official_name(*re.findall(r"/v_(\w+)_g(\d\d)_c(\d\d)", name.lower())[0]) for name in names]
    assert spellings == names
