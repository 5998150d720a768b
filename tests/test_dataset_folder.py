"""Tests of the dataset `folder`: splits, classes, captions, clip starts, sizes, notes and fingerprint."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clipfiles import (
    FRAMES,
    HEIGHT,
    KINDS,
    WIDTH,
    all_kinds,
    grey_clip,
    grey_levels,
    touch,
    write_frames,
    write_list,
    write_video,
)
from contract import check_dataset, check_fingerprint

from vfbench import clips as folders
from vfbench import video
from vfbench.clips import transform
from vfbench.datasets import folder, ucf101
from vfbench.datasets._video_dataset import VideoDataset
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape, Dataset

pytest.importorskip("av")  # writes and reads the clips


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, folders.ClipFolder]:
    return all_kinds(tmp_path)


def build_folder(root: Path, **options: Any) -> VideoDataset:
    dataset = folder.build(root=str(root), **{"frames": 4, "height": 8, "width": 8, **options})
    assert isinstance(dataset, VideoDataset)
    return dataset


@KINDS
def test_a_folder_keeps_the_dataset_contract(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    def build(shape: ClipShape) -> Dataset:
        return build_folder(kinds[kind].root, frames=shape.frames, height=shape.height, width=shape.width)

    check_dataset(build(ClipShape(4, 8, 8)))
    check_fingerprint(build, ClipShape(4, 8, 8))


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    for name in ("ApplyEyeMakeup/a", "play_the_violin/b", "play_the_violin/c", "_/d"):
        write_frames(tmp_path / "all" / name, grey_clip())
    return tmp_path / "all"


def test_classes_and_captions_come_from_the_class_level(class_folders: Path) -> None:
    dataset = build_folder(class_folders)
    assert dataset.classes == ("ApplyEyeMakeup", "_", "play_the_violin")
    assert (dataset.size("train"), dataset.size("test")) == (4, 0)
    lists = [dataset.labels("test", []), dataset.captions("test", []), dataset.places("test", [])]
    assert [*lists, dataset.names("test")] == [[]] * 4  # as a training asks for its sample sheets
    assert dataset.labels("train", [3, 0, 1]) == [2, 0, 1]
    assert dataset.captions("train", [3, 0, 1]) == ["play the violin", "apply eye makeup", "_"]
    assert dataset.words == ("_", "apply", "eye", "makeup", "play", "the", "violin")
    assert dataset.note == "all clips are in split train"
    check_dataset(dataset)


def test_without_a_class_level_there_is_one_class(kinds: Mapping[str, folders.ClipFolder]) -> None:
    dataset = build_folder(kinds["frames"].root)
    assert (dataset.classes, dataset.words, dataset.captions("train", [1])) == (("clip",), ("clip",), ["clip"])


def test_folders_train_and_test_are_the_splits(class_folders: Path, tmp_path: Path) -> None:
    root = tmp_path / "split"
    for split in ("train", "test"):
        shutil.copytree(class_folders, root / split)
    shutil.rmtree(root / "test/ApplyEyeMakeup")
    touch(root, "val/x.mp4", "train/readme.txt")
    dataset = build_folder(root)
    assert (dataset.size("train"), dataset.size("test"), len(dataset.classes)) == (4, 3, 3)
    assert (dataset.labels("test", [0]), dataset.labels("train", [0])) == ([1], [0])
    assert all(name in dataset.note for name in ("val", "train: ", "readme.txt"))
    check_dataset(dataset)
    with pytest.raises(UserError, match=r"listing=.*train, test.*--data-root .*split/train"):
        build_folder(root, listing="list.txt")
    shutil.rmtree(root / "train")
    assert (build_folder(root).size("train"), build_folder(root).size("test")) == (0, 3)


def test_clips_are_cropped_and_resized_as_by_transform(kinds: Mapping[str, folders.ClipFolder]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3)).astype(np.uint8)
    write_frames(kinds["frames"].root / "v1", images)
    clips = build_folder(kinds["frames"].root, height=4, width=6, stride=2, drop_first=1).clips("train", [1])
    clip = torch.from_numpy(images[1:8:2]).permute(0, 3, 1, 2)
    assert torch.equal(clips[0], transform.resize(clip[..., 1:9], 4, 6))
    native = build_folder(kinds["frames"].root, height=None, width=None)
    assert native.shape == ClipShape(4, 8, 8)
    assert torch.equal(native.clips("train", [1])[0], clip.new_tensor(images[:4, :, 1:9]).permute(0, 3, 1, 2))


@KINDS
def test_every_window_is_a_clip(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    dataset = build_folder(kinds[kind].root, frames=10, drop_first=1, start="every")
    assert (dataset.size("train"), dataset.size("test")) == (4, 0)
    assert dataset.videos("train", range(4)) == [0, 0, 1, 1]
    videos = [folders.read_clip(kinds[kind], number, frames=FRAMES)[..., 1:9] for number in (0, 1)]
    for index, clip in enumerate(dataset.clips("train", range(4))):
        first = 1 + index % 2
        assert torch.equal(clip, videos[index // 2][first : first + 10])
    assert tuple(dataset.clips("train", []).shape) == (0, 10, 3, 8, 8)
    with pytest.raises(IndexError, match="4 train clips"):
        dataset.captions("train", [4])
    check_dataset(dataset)


@KINDS
def test_chunks_are_consecutive(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    dataset = build_folder(kinds[kind].root, frames=2, stride=3, start="chunks")
    assert dataset.videos("train", range(dataset.size("train"))) == [0, 0, 1, 1]
    assert [grey_levels(clip) for clip in dataset.clips("train", [0, 1, 3])] == [[0, 30], [60, 90], [61, 91]]


def test_twenty_frames_give_five_windows_of_sixteen(tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", grey_clip(frames=20))
    dataset = build_folder(tmp_path, frames=16, start="every")
    frames = video.decode(tmp_path / "v.avi")[..., 1:9]
    assert dataset.size("train") == 5
    assert dataset.videos("train", range(5)) == [0] * 5
    assert torch.equal(dataset.clips("train", range(5)), torch.stack([frames[k : k + 16] for k in range(5)]))


def test_windows_have_the_label_and_caption_of_their_video(class_folders: Path) -> None:
    dataset = build_folder(class_folders, frames=FRAMES - 1, start="every")
    assert dataset.labels("train", range(8)) == [0, 0, 1, 1, 2, 2, 2, 2]
    assert dataset.captions("train", [1, 6]) == ["apply eye makeup", "play the violin"]
    check_dataset(dataset)


def test_each_split_has_its_windows(class_folders: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(class_folders, tmp_path / "splits" / split)
    shutil.rmtree(tmp_path / "splits/test/play_the_violin")
    dataset = build_folder(tmp_path / "splits", frames=FRAMES - 1, start="every")
    assert (dataset.size("train"), dataset.size("test")) == (8, 4)


def test_native_clips_keep_their_size(kinds: Mapping[str, folders.ClipFolder]) -> None:
    dataset = build_folder(kinds["frames"].root, height=None, width=None, geometry="native")
    assert dataset.shape == ClipShape(4, HEIGHT, WIDTH)
    assert torch.equal(dataset.clips("train", [1])[0], folders.read_clip(kinds["frames"], 1, frames=4))
    write_frames(kinds["frames"].root / "w", grey_clip(height=30, width=20))
    with pytest.raises(MissingData, match=r"frames/w .*20x30 .*10x8"):
        build_folder(kinds["frames"].root, height=None, width=None, geometry="native").clips("train", [2])


def test_clips_of_any_resolution_are_resized(kinds: Mapping[str, folders.ClipFolder]) -> None:
    write_frames(kinds["frames"].root / "w", grey_clip(height=30, width=20))
    assert grey_levels(build_folder(kinds["frames"].root).clips("train", [2])[0]) == [0, 10, 20, 30]


def test_a_list_selects_the_clips(class_folders: Path, tmp_path: Path) -> None:
    listing = write_list(tmp_path / "list.txt", "play_the_violin/c")
    dataset = build_folder(class_folders, listing=str(listing))
    assert (dataset.size("train"), dataset.classes) == (1, ("play_the_violin",))
    assert "not listed" in dataset.note
    assert dataset.fingerprint != build_folder(class_folders).fingerprint


@pytest.mark.pitfall("which real clips")
def test_the_fingerprint_covers_every_change_of_a_clip(class_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprints = [build_folder(class_folders).fingerprint]
    fingerprints += [
        build_folder(class_folders, **option).fingerprint
        for option in ({"stride": 2}, {"start": "hashed"}, {"drop_first": 1})
    ]
    others = {"start": "every", "geometry": "squash", "filter": "lanczos", "antialias": False}
    fingerprints += [build_folder(class_folders, **{name: value}).fingerprint for name, value in others.items()]
    write_frames(class_folders / "_/d", grey_clip(1))
    fingerprints.append(build_folder(class_folders).fingerprint)
    shutil.rmtree(class_folders / "_")
    fingerprints.append(build_folder(class_folders).fingerprint)
    monkeypatch.setattr(folders, "decoder_versions", lambda folder, decoder: "another decoder")
    fingerprints.append(build_folder(class_folders).fingerprint)
    assert len(set(fingerprints)) == len(fingerprints) == 11


def test_invalid_options_and_folders_are_refused(class_folders: Path, tmp_path: Path) -> None:
    invalid: Sequence[dict[str, Any]] = ({"frames": 0}, {"height": 0}, {"width": -1}, {"stride": 0}, {"drop_first": -1})
    for options in invalid:
        ((name, value),) = options.items()
        with pytest.raises(UserError, match=rf"folder\({name}={value}\)"):
            build_folder(class_folders, **options)
    with pytest.raises(UserError, match=r"folder\(start='random'\): .*zero, hashed"):
        build_folder(class_folders, start="random")
    with pytest.raises(UserError, match=r"folder\(filter='lanczos', antialias=False\)"):
        build_folder(tmp_path / "unread", filter="lanczos", antialias=False)
    for start in ("every", "chunks"):
        with pytest.raises(MissingData, match=r"4 of 4 train videos .* 13 .*: ApplyEyeMakeup/a \(12\), _/d"):
            build_folder(class_folders, frames=13, start=start)
    with pytest.raises(MissingData, match=r"--data-root DIR"):
        folder.build()
    np.save(tmp_path / "f.npy", np.zeros((2, 5), np.float32))
    with pytest.raises(MissingData, match=r"features \(f\.npy\)"):
        build_folder(tmp_path / "f.npy")
    with pytest.raises(MissingData, match=r"_/d has 12 frames, needs 13"):
        build_folder(class_folders, frames=13).clips("train", [1])
    with pytest.raises(IndexError, match="no clip -1"):
        build_folder(class_folders).labels("train", [-1])


# Genuine clips


def test_a_genuine_folder_has_the_clips_of_ucf101(real_data: Path) -> None:
    options: dict[str, Any] = {"frames": 16, "height": 32, "width": 32, "stride": 2}
    official = ucf101.build(root=str(real_data), **options).clips("test", [1])
    clips = build_folder(real_data / "ucf101/UCF-101", start="hashed", **options).clips("train", [1])
    assert torch.equal(clips, official)
    assert build_folder(real_data / "taichi_png").size("test") == 1
