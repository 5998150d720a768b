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
    levels,
    pictures,
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

pytest.importorskip("av")  # without it no clip can be made, nor read


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, folders.ClipFolder]:
    """The same two clips as videos, as frame folders and as arrays."""
    return all_kinds(tmp_path)


def make(root: Path, **options: Any) -> VideoDataset:
    dataset = folder.build(root=str(root), **{"frames": 4, "height": 8, "width": 8, **options})
    assert isinstance(dataset, VideoDataset)
    return dataset


@KINDS
def test_a_folder_keeps_what_a_dataset_promises(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    def build(shape: ClipShape) -> Dataset:
        return make(kinds[kind].root, frames=shape.frames, height=shape.height, width=shape.width)

    check_dataset(build(ClipShape(4, 8, 8)))
    check_fingerprint(build, ClipShape(4, 8, 8))


@pytest.fixture
def classed(tmp_path: Path) -> Path:
    for name in ("ApplyEyeMakeup/a", "play_the_violin/b", "play_the_violin/c", "_/d"):
        write_frames(tmp_path / "all" / name, pictures())
    return tmp_path / "all"


def test_classes_and_captions_come_from_the_class_level(classed: Path) -> None:
    dataset = make(classed)
    assert dataset.classes == ("ApplyEyeMakeup", "_", "play_the_violin")
    assert (dataset.size("train"), dataset.size("test")) == (4, 0)
    assert dataset.labels("train", [3, 0, 1]) == [2, 0, 1]
    assert dataset.captions("train", [3, 0, 1]) == ["play the violin", "apply eye makeup", "_"]
    assert dataset.words == ("_", "apply", "eye", "makeup", "play", "the", "violin")
    assert dataset.note == "all clips are in split train"
    check_dataset(dataset)


def test_without_a_class_level_there_is_one_class(kinds: Mapping[str, folders.ClipFolder]) -> None:
    dataset = make(kinds["frames"].root)
    assert (dataset.classes, dataset.words, dataset.captions("train", [1])) == (("clip",), ("clip",), ["clip"])


def test_folders_train_and_test_are_the_splits(classed: Path, tmp_path: Path) -> None:
    root = tmp_path / "split"
    for split in ("train", "test"):
        shutil.copytree(classed, root / split)
    shutil.rmtree(root / "test/ApplyEyeMakeup")
    touch(root, "val/x.mp4", "train/readme.txt")
    dataset = make(root)
    assert (dataset.size("train"), dataset.size("test"), len(dataset.classes)) == (4, 3, 3)
    assert (dataset.labels("test", [0]), dataset.labels("train", [0])) == ([1], [0])
    assert dataset.note == (
        "beside train and test, not scored: val; train: not scored, no layout reads them: readme.txt"
    )
    check_dataset(dataset)
    with pytest.raises(UserError, match=r"listing=.*split folders \(train, test\).*--data-root .*split/train"):
        make(root, listing="list.txt")
    shutil.rmtree(root / "train")
    assert (make(root).size("train"), make(root).size("test")) == (0, 3)


def test_clips_are_cropped_and_resized_as_by_video(kinds: Mapping[str, folders.ClipFolder]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3)).astype(np.uint8)
    write_frames(kinds["frames"].root / "v1", images)
    made = make(kinds["frames"].root, height=4, width=6, stride=2, drop_first=1).clips("train", [1])
    clip = torch.from_numpy(images[1:8:2]).permute(0, 3, 1, 2)
    assert torch.equal(made[0], transform.resize(clip[..., 1:9], 4, 6))
    native = make(kinds["frames"].root, height=None, width=None)
    assert native.shape == ClipShape(4, 8, 8)
    assert torch.equal(native.clips("train", [1])[0], clip.new_tensor(images[:4, :, 1:9]).permute(0, 3, 1, 2))


@KINDS
def test_every_window_is_a_clip(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    dataset = make(kinds[kind].root, frames=10, drop_first=1, start="every")
    assert (dataset.size("train"), dataset.size("test")) == (4, 0)
    assert dataset.videos("train", range(4)) == [0, 0, 1, 1]
    whole = [folders.read_clip(kinds[kind], number, frames=FRAMES)[..., 1:9] for number in (0, 1)]
    for index, clip in enumerate(dataset.clips("train", range(4))):
        first = 1 + index % 2
        assert torch.equal(clip, whole[index // 2][first : first + 10])
    assert tuple(dataset.clips("train", []).shape) == (0, 10, 3, 8, 8)
    with pytest.raises(IndexError, match="folder has 4 train clips: no clip 4"):
        dataset.captions("train", [4])
    check_dataset(dataset)


@KINDS
def test_chunks_follow_each_other(kinds: Mapping[str, folders.ClipFolder], kind: str) -> None:
    dataset = make(kinds[kind].root, frames=2, stride=3, start="chunks")
    assert dataset.videos("train", range(dataset.size("train"))) == [0, 0, 1, 1]
    assert [levels(clip) for clip in dataset.clips("train", [0, 1, 3])] == [[0, 30], [60, 90], [61, 91]]


def test_twenty_frames_give_five_windows_of_sixteen(tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", pictures(frames=20))
    dataset = make(tmp_path, frames=16, start="every")
    frames = video.decode(tmp_path / "v.avi")[..., 1:9]
    assert dataset.size("train") == 5
    assert dataset.videos("train", range(5)) == [0] * 5
    assert torch.equal(dataset.clips("train", range(5)), torch.stack([frames[k : k + 16] for k in range(5)]))


def test_labels_and_captions_of_windows_are_those_of_their_clips(classed: Path) -> None:
    dataset = make(classed, frames=FRAMES - 1, start="every")
    assert dataset.labels("train", range(8)) == [0, 0, 1, 1, 2, 2, 2, 2]
    assert dataset.captions("train", [1, 6]) == ["apply eye makeup", "play the violin"]
    check_dataset(dataset)


def test_each_split_has_windows_of_its_own(classed: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(classed, tmp_path / "both" / split)
    shutil.rmtree(tmp_path / "both/test/play_the_violin")
    dataset = make(tmp_path / "both", frames=FRAMES - 1, start="every")
    assert (dataset.size("train"), dataset.size("test")) == (8, 4)


def test_clips_keep_their_size_where_nothing_is_resampled(kinds: Mapping[str, folders.ClipFolder]) -> None:
    dataset = make(kinds["frames"].root, height=None, width=None, geometry="native")
    assert dataset.shape == ClipShape(4, HEIGHT, WIDTH)
    assert torch.equal(dataset.clips("train", [1])[0], folders.read_clip(kinds["frames"], 1, frames=4))
    write_frames(kinds["frames"].root / "w", pictures(height=30, width=20))
    with pytest.raises(MissingData, match=r"frames/w has 20x30 pixels .*does not resize to 10x8"):
        make(kinds["frames"].root, height=None, width=None, geometry="native").clips("train", [2])


def test_clips_of_any_resolution_become_one(kinds: Mapping[str, folders.ClipFolder]) -> None:
    write_frames(kinds["frames"].root / "w", pictures(height=30, width=20))
    assert levels(make(kinds["frames"].root).clips("train", [2])[0]) == [0, 10, 20, 30]


def test_only_listed_clips_are_in_the_dataset(classed: Path, tmp_path: Path) -> None:
    listing = write_list(tmp_path / "list.txt", "play_the_violin/c")
    dataset = make(classed, listing=str(listing))
    assert (dataset.size("train"), dataset.classes) == (1, ("play_the_violin",))
    assert "not listed, not scored: 3" in dataset.note
    assert dataset.fingerprint != make(classed).fingerprint


@pytest.mark.pitfall("which real clips")
def test_fingerprint_follows_all_that_changes_a_clip(classed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [make(classed).fingerprint]
    seen += [make(classed, **option).fingerprint for option in ({"stride": 2}, {"start": "hashed"}, {"drop_first": 1})]
    others = {"start": "every", "geometry": "squash", "filter": "lanczos", "antialias": False}
    seen += [make(classed, **{name: value}).fingerprint for name, value in others.items()]
    write_frames(classed / "_/d", pictures(1))
    seen.append(make(classed).fingerprint)
    shutil.rmtree(classed / "_")
    seen.append(make(classed).fingerprint)
    monkeypatch.setattr(folders, "decoder_versions", lambda found, decoder: "another decoder")
    seen.append(make(classed).fingerprint)
    assert len(set(seen)) == len(seen) == 11


def test_what_a_dataset_cannot_be_is_refused(classed: Path, tmp_path: Path) -> None:
    wrong: Sequence[dict[str, Any]] = ({"frames": 0}, {"height": 0}, {"width": -1}, {"stride": 0}, {"drop_first": -1})
    for options in wrong:
        ((name, value),) = options.items()
        with pytest.raises(UserError, match=rf"folder\({name}={value}\): {name} must be at least"):
            make(classed, **options)
    with pytest.raises(UserError, match=r"folder\(start='random'\): start must be one of zero, hashed"):
        make(classed, start="random")
    with pytest.raises(UserError, match=r"folder\(filter='lanczos', antialias=False\)"):
        make(tmp_path / "not looked at", filter="lanczos", antialias=False)
    for start in ("every", "chunks"):
        with pytest.raises(MissingData, match=r"4 of 4 train videos .* than the 13 .*: ApplyEyeMakeup/a \(12\), _/d"):
            make(classed, frames=13, start=start)
    with pytest.raises(MissingData, match=r"folder: no folder given.*--data-root DIR"):
        folder.build()
    np.save(tmp_path / "f.npy", np.zeros((2, 5), np.float32))
    with pytest.raises(MissingData, match=r"holds features \(f\.npy\), needed: clips"):
        make(tmp_path / "f.npy")
    with pytest.raises(MissingData, match=r"_/d has 12 frames, needs 13 from 0"):
        make(classed, frames=13).clips("train", [1])
    with pytest.raises(IndexError, match="folder has 4 train clips: no clip -1"):
        make(classed).labels("train", [-1])


# Genuine clips


def test_a_genuine_folder_gives_the_clips_of_its_dataset(real_data: Path) -> None:
    options: dict[str, Any] = {"frames": 16, "height": 32, "width": 32, "stride": 2}
    official = ucf101.build(root=str(real_data), **options).clips("test", [1])
    ours = make(real_data / "ucf101/UCF-101", start="hashed", **options).clips("train", [1])
    assert torch.equal(ours, official)
    assert make(real_data / "taichi_png").size("test") == 1
