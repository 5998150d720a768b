"""Tests of refused preparations: undecodable videos, other settings, output folders in use; nothing is overwritten."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import file_contents
from datatrees import avi, with_declared_frames
from preparing import NAMES, SPEC, assert_same_dataset, load, shard_files

from vfbench.data import shards as writing
from vfbench.data.prepare import prepare
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.utils import files

pytest.importorskip("av")  # reads and writes videos


# Videos.


def test_undecodable_videos_are_listed_and_other_shards_kept(
    small_shards: None, raw_ucf101: Path, ucf101_copy: Path, tmp_path: Path
) -> None:
    for name, frames in ((NAMES[1], 9), (NAMES[3], 11)):  # seen only when all frames are decoded
        (ucf101_copy / "UCF-101" / name).write_bytes(with_declared_frames(avi(), frames))
    with pytest.raises(MissingData) as caught:
        prepare(SPEC, tmp_path / "out", data_root=ucf101_copy)
    message = str(caught.value)
    assert "2 videos cannot be prepared" in message
    assert [name in message for name in NAMES] == [False, True, False, True, False]
    assert not (tmp_path / "out" / "prepared.json").exists()
    times = {path.name: path.stat().st_mtime_ns for path in shard_files(tmp_path / "out")}
    assert times
    for name in NAMES[1::2]:
        shutil.copy(raw_ucf101 / "UCF-101" / name, ucf101_copy / "UCF-101" / name)
    out = prepare(SPEC, tmp_path / "out", data_root=ucf101_copy)
    assert times.items() <= {path.name: path.stat().st_mtime_ns for path in shard_files(out)}.items()
    assert_same_dataset(load(raw_ucf101), load(out))


@pytest.mark.parametrize("bytes_at_once", [1, 1 << 27])
@pytest.mark.parametrize("declared", [10, 19, 21])
def test_a_wrong_declared_frame_count_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, declared: int, bytes_at_once: int
) -> None:
    monkeypatch.setattr(writing, "BYTES_AT_ONCE", bytes_at_once)
    monkeypatch.setattr(writing, "GROUP_FRAMES", 5)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.avi").write_bytes(avi())
    (tmp_path / "clips/b.avi").write_bytes(with_declared_frames(avi(seed=1), declared))
    spec = "folder(frames=4, height=5, width=5)"
    with pytest.raises(MissingData, match=rf"1 videos cannot .*\n.*b\.avi: .* declared {declared}, decoded 20"):
        prepare(spec, tmp_path / "out", data_root=tmp_path / "clips")
    assert not (tmp_path / "out/prepared.json").exists()
    (tmp_path / "clips/b.avi").write_bytes(avi(seed=1))
    assert_same_dataset(
        load(tmp_path / "clips", spec), load(prepare(spec, tmp_path / "out", data_root=tmp_path / "clips"), spec)
    )


def test_files_that_are_no_videos_are_listed_before_any_decoding(ucf101_copy: Path, tmp_path: Path) -> None:
    for name in NAMES[:2]:
        (ucf101_copy / "UCF-101" / name).write_bytes(b"<html>not found</html>")
    with pytest.raises(MissingData, match=rf"2 videos cannot be prepared:\n.*{NAMES[0]}.*\n.*{NAMES[1]}"):
        prepare(SPEC, tmp_path / "out", data_root=ucf101_copy)
    assert not (tmp_path / "out" / "shards").exists()


# Existing prepared folders and outputs.


def test_loading_at_another_size_is_refused(prepared_ucf101: Path) -> None:
    with pytest.raises(UserError, match=r"8x8 centre-crop bilinear .* 16x8 centre-crop lanczos"):
        load(prepared_ucf101, height=16, filter="lanczos")


def test_loading_another_split_list_is_refused(prepared_ucf101: Path) -> None:
    with pytest.raises(UserError, match=r"ucf101\(split_list=2\): .* was prepared with split_list=1"):
        load(prepared_ucf101, split_list=2)


def test_loading_as_another_dataset_is_refused(prepared_ucf101: Path) -> None:
    with pytest.raises(MissingData, match="was prepared from ucf101, not from sky_timelapse"):
        load(prepared_ucf101, "sky_timelapse")


@pytest.mark.parametrize("inside", [".", "out", "UCF-101/out"])
def test_an_output_in_the_dataset_is_refused(ucf101_copy: Path, inside: str) -> None:
    before = file_contents(ucf101_copy)
    with pytest.raises(UserError, match=r"in the dataset's folder .* --output"):
        prepare(SPEC, ucf101_copy / inside, data_root=ucf101_copy)
    assert file_contents(ucf101_copy) == before


def test_an_output_linked_into_the_dataset_is_refused(ucf101_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(ucf101_copy)
    with pytest.raises(UserError, match=r"in the dataset's folder .* --output"):
        prepare(SPEC, tmp_path / "link" / "out", data_root=ucf101_copy)


def test_an_output_with_other_files_is_refused(raw_ucf101: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"thesis\.tex.* --output"):
        prepare(SPEC, tmp_path, data_root=raw_ucf101)
    assert {name for name in file_contents(tmp_path) if name != ".lock"} == {"thesis.tex"}


def test_a_folder_prepared_with_other_options_is_kept(prepared_ucf101: Path, raw_ucf101: Path) -> None:
    before = file_contents(prepared_ucf101)
    with pytest.raises(UserError, match=r"8x8 .*, not 16x16 .* --output"):
        prepare("ucf101(height=16, width=16)", prepared_ucf101, data_root=raw_ucf101)
    assert file_contents(prepared_ucf101) == before


def test_preparing_a_prepared_folder_is_refused(prepared_ucf101: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is already prepared, as 8x8"):
        prepare(SPEC, tmp_path / "out", data_root=prepared_ucf101)


def test_a_dataset_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shapes has no video files"):
        prepare("shapes", tmp_path / "out")


def test_a_full_disk_is_reported_before_any_decoding(
    monkeypatch: pytest.MonkeyPatch, raw_ucf101: Path, tmp_path: Path
) -> None:
    usage = type("usage", (), {"free": 10**3})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BadEnvironment, match="needs 0 MB more and its disk has 0 MB free"):
        prepare(SPEC, tmp_path / "out", data_root=raw_ucf101)
    assert shard_files(tmp_path / "out") == []


def test_a_folder_in_use_is_refused(raw_ucf101: Path, tmp_path: Path) -> None:
    with files.locked_folder(tmp_path / "out"), pytest.raises(BadEnvironment, match="is in use by another run"):
        prepare(SPEC, tmp_path / "out", data_root=raw_ucf101)
