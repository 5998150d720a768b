"""Tests of `vfbench.data.prepare`: clips bit-equal to those of the original videos, shards and index on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clipfiles import all_kinds, grey_clip, write_video
from conftest import file_contents
from preparing import NAMES, SPEC, VIDEOS, assert_same_dataset, load, shard_files

from vfbench import clips, plugins
from vfbench.clips import prepared
from vfbench.clips.transform import ClipTransform
from vfbench.data import shards as writing
from vfbench.data.prepare import prepare
from vfbench.errors import UserError
from vfbench.interfaces import ClipShape
from vfbench.video import pyav

pytest.importorskip("av")  # reads and writes videos


# Equal to the original files.


@pytest.mark.one_case
@pytest.mark.parametrize(
    "options",
    [{}, {"frames": 7, "stride": 1}, {"stride": 2}, {"start": "zero", "drop_first": 2}, {"start": "every"}],
    ids=str,
)
def test_clips_equal_those_of_the_original_files(raw_ucf101: Path, prepared_ucf101: Path, options: Any) -> None:
    assert_same_dataset(load(raw_ucf101, **options), load(prepared_ucf101, **options))


@pytest.mark.parametrize(
    "fit",
    [{"geometry": "squash"}, {"filter": "lanczos"}, {"antialias": False}, {"height": 6, "width": 20}],
    ids=str,
)
def test_every_resize_option_is_prepared(raw_ucf101: Path, tmp_path: Path, fit: Any) -> None:
    spec = str(plugins.parse(SPEC).merged(fit))
    assert_same_dataset(load(raw_ucf101, spec), load(prepare(spec, tmp_path / "out", data_root=raw_ucf101), spec))


def test_size_arguments_equal_dataset_options(raw_ucf101: Path, prepared_ucf101: Path, tmp_path: Path) -> None:
    prepare("ucf101(frames=4)", tmp_path / "out", data_root=raw_ucf101, height=8, width=8)
    assert [path.read_bytes() for path in shard_files(tmp_path / "out")] == [
        path.read_bytes() for path in shard_files(prepared_ucf101)
    ]


def test_clips_at_places_equal_those_of_the_files(raw_ucf101: Path, prepared_ucf101: Path) -> None:
    places = load(raw_ucf101, start="every").places("train", [3, 17])
    original, prepared_clips = (load(root, start="every").at(places) for root in (raw_ucf101, prepared_ucf101))
    assert torch.equal(original.clips("train", [0, 1]), prepared_clips.clips("train", [0, 1]))
    moved = [place._replace(crop=(0, 0, 5, 5)) for place in places]
    with pytest.raises(UserError, match="was prepared with another crop"):
        load(prepared_ucf101).at(moved).clips("train", [0])


@pytest.mark.parametrize("kind", ["videos", "frames", "arrays"])
def test_any_folder_of_clips_is_prepared(tmp_path: Path, kind: str) -> None:
    all_kinds(tmp_path / "clips")
    root, spec = tmp_path / "clips" / kind, "folder(frames=4, height=5, width=5)"
    assert_same_dataset(load(root, spec), load(prepare(spec, tmp_path / "out", data_root=root), spec))


@pytest.mark.parametrize("name", ["-dash.avi", "a b'c\"$(touch x)#1.avi", "ü.avi"])
def test_file_names_with_special_characters_are_prepared(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / "clips" / name, grey_clip(3))
    spec = "folder(frames=4, height=5, width=5)"
    out = prepare(spec, tmp_path / "out", data_root=tmp_path / "clips")
    assert load(out, spec).names("train") == [name]
    assert_same_dataset(load(tmp_path / "clips", spec), load(out, spec))


@pytest.mark.one_case
@pytest.mark.parametrize("name", ["ucf101", "sky_timelapse", "taichi_hd"])
def test_real_videos_are_prepared(real_data: Path, tmp_path: Path, name: str) -> None:
    spec, root = f"{name}(height=16, width=16)", real_data / name
    original, prepared_dataset = load(root, spec), load(prepare(spec, tmp_path, data_root=root), spec)
    assert_same_dataset(original, prepared_dataset)
    assert sum(original.size(split) for split in original.inventory.splits) > 1


# Shards and index.


def test_a_shard_holds_all_frames_of_its_videos(raw_ucf101: Path, prepared_ucf101: Path) -> None:
    transform, index = ClipTransform("ucf101", ClipShape(1, 8, 8)), prepared.read_index(prepared_ucf101)
    (path,) = shard_files(prepared_ucf101)
    frames = torch.from_numpy(np.load(path))
    row = 0
    for split, videos in VIDEOS.items():
        for (name, count, height, width), entry in zip(videos, index.videos[split], strict=True):  # type: ignore[index]
            assert entry == (name, name.split("/")[0], count, height, width, 0, row, 25.0)
            video = clips.read_frames(clips.ClipFile(name, raw_ucf101 / "UCF-101" / name), range(count))
            assert torch.equal(frames[row : row + count], transform.fit(video, name))
            row += count
    assert len(frames) == row


def test_the_index_records_dataset_options_and_identity(raw_ucf101: Path, prepared_ucf101: Path) -> None:
    index, inventory = prepared.read_index(prepared_ucf101), load(raw_ucf101).inventory
    assert (index.dataset, index.fitted) == ("ucf101", "8x8 centre-crop bilinear antialias=True")
    assert index.options == {"split_list": 1}
    assert index.made_of == {split: inventory.identity(split) for split in inventory.splits}
    assert load(prepared_ucf101).inventory.layout == f"prepared from {inventory.layout}"


def test_unlisted_videos_and_frame_rates_are_recorded(ucf101_copy: Path, tmp_path: Path) -> None:
    extra = "YoYo/v_YoYo_g25_c01.avi"
    write_video(ucf101_copy / "UCF-101" / extra, grey_clip(3))
    out = prepare(SPEC, tmp_path / "out", data_root=ucf101_copy)
    assert load(out).inventory.extra == (extra,)
    assert_same_dataset(load(ucf101_copy), load(out))
    assert {entry.rate for videos in load(out).inventory.splits.values() for entry in videos.entries} == {25.0}


def test_each_video_is_opened_and_decoded_once(
    monkeypatch: pytest.MonkeyPatch, raw_ucf101: Path, tmp_path: Path
) -> None:
    opened, decoded = [], []
    original = pyav._frames

    def counted(path: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        for number, frame in original(path, *arguments, **options):
            decoded.append(number)
            yield number, frame

    monkeypatch.setattr(pyav, "_frames", counted)
    monkeypatch.setattr(writing, "BYTES_AT_ONCE", 1)
    monkeypatch.setattr(writing, "GROUP_FRAMES", 2)
    prepare(SPEC, tmp_path / "out", data_root=raw_ucf101, workers=3)
    assert len(opened) == len(NAMES)
    assert len(decoded) == 20 + 9 + 14 + 11 + 17


def test_nothing_is_written_to_the_dataset(raw_ucf101: Path, tmp_path: Path) -> None:
    def state() -> dict[str, tuple[bytes | None, int]]:
        paths = [raw_ucf101, *raw_ucf101.rglob("*")]
        return {str(path): (path.read_bytes() if path.is_file() else None, path.stat().st_mtime_ns) for path in paths}

    before = state()
    prepare(SPEC, tmp_path / "out", data_root=raw_ucf101)
    load(tmp_path / "out").clips("train", [0])
    assert state() == before


def test_shards_do_not_depend_on_workers_or_chunk_sizes(
    small_shards: None, monkeypatch: pytest.MonkeyPatch, raw_ucf101: Path, tmp_path: Path
) -> None:
    for name, workers, bytes_at_once in (("one", 1, 1 << 27), ("four", 4, 1 << 27), ("pieces", 3, 6 * 3 * 16 * 24)):
        monkeypatch.setattr(writing, "BYTES_AT_ONCE", bytes_at_once)  # few frames at a time in the third case
        monkeypatch.setattr(writing, "GROUP_FRAMES", 3)
        prepare(SPEC, tmp_path / name, data_root=raw_ucf101, workers=workers)
    one_worker, four_workers, small_chunks = (
        file_contents(tmp_path / name / "shards") for name in ("one", "four", "pieces")
    )
    assert len(one_worker) == 2 * 4
    assert one_worker == four_workers == small_chunks
    assert_same_dataset(load(raw_ucf101), load(tmp_path / "pieces"))
