"""Tests of preparing again: resumed after an interruption, repaired after changes and damage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clipfiles import grey_clip, write_video
from conftest import Command, file_contents, flip_byte, resume_arguments
from preparing import NAMES, SPEC, assert_same_dataset, load, shard_files

from vfbench import clips
from vfbench.clips import prepared
from vfbench.data import shards as writing
from vfbench.data.prepare import prepare
from vfbench.errors import MissingData

pytest.importorskip("av")  # reads and writes videos


# Resuming.


@pytest.mark.parametrize("interrupted", range(4))
def test_resuming_keeps_shards_before_the_interruption(
    small_shards: None, monkeypatch: pytest.MonkeyPatch, raw_ucf101: Path, tmp_path: Path, interrupted: int
) -> None:
    uninterrupted, resumed = prepare(SPEC, tmp_path / "whole", data_root=raw_ucf101), tmp_path / "parts"
    with monkeypatch.context() as patch:
        _interrupt_in_shard(patch, interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(SPEC, resumed, data_root=raw_ucf101)
    assert [path.name for path in shard_files(resumed)] == [f"{i:06d}.npy" for i in range(interrupted)]
    with pytest.raises(MissingData, match=r"partly prepared(?s:.*)python -m vfbench data prepare 'ucf101"):
        load(resumed)
    times = {path.name: path.stat().st_mtime_ns for path in shard_files(resumed)}
    prepare(SPEC, resumed, data_root=raw_ucf101)
    assert times.items() <= {path.name: path.stat().st_mtime_ns for path in shard_files(resumed)}.items()
    assert file_contents(resumed / "shards") == file_contents(uninterrupted / "shards")
    assert_same_dataset(load(uninterrupted), load(resumed))


def _interrupt_in_shard(patch: pytest.MonkeyPatch, number: int) -> None:
    """Raise KeyboardInterrupt in the middle of a shard, and leave the temporary file of a killed process."""
    write = writing._write_shard

    def interrupted(shard: Any, sides: Any, completed: Any, progress: Any, faults: Any) -> str:
        if shard.path.name != f"{number:06d}.npy":
            return write(shard, sides, completed, progress, faults)
        shard.path.with_name(f".{shard.path.name}.1.tmp").write_bytes(b"half")
        raise KeyboardInterrupt

    patch.setattr(writing, "_write_shard", interrupted)


def test_preparing_twice_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, prepared_ucf101: Path, raw_ucf101: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in shard_files(prepared_ucf101)}
    monkeypatch.setattr(writing, "write_shards", None)
    prepare(SPEC, prepared_ucf101, data_root=raw_ucf101)
    assert {path: path.stat().st_mtime_ns for path in shard_files(prepared_ucf101)} == before


def test_a_removed_shard_is_written_again(small_shards: None, raw_ucf101: Path, tmp_path: Path) -> None:
    prepare(SPEC, tmp_path / "out", data_root=raw_ucf101)
    before = file_contents(tmp_path / "out" / "shards")
    shard_files(tmp_path / "out")[1].unlink()
    with pytest.raises(MissingData, match=r"000001\.npy: No such file(?s:.*)\n  python -m vfbench data prepare"):
        load(tmp_path / "out")
    prepare(SPEC, tmp_path / "out", data_root=raw_ucf101)
    assert file_contents(tmp_path / "out" / "shards") == before


def test_a_changed_video_rewrites_only_its_shard(small_shards: None, ucf101_copy: Path, tmp_path: Path) -> None:
    out = prepare(SPEC, tmp_path / "out", data_root=ucf101_copy)
    before = {path.name: path.stat().st_mtime_ns for path in shard_files(out)}
    write_video(ucf101_copy / "UCF-101" / NAMES[3], grey_clip(7, 11, 20, 30))
    prepare(SPEC, out, data_root=ucf101_copy)
    changed = [path.name for path in shard_files(out) if path.stat().st_mtime_ns != before[path.name]]
    assert len(changed) == 1
    assert_same_dataset(load(ucf101_copy), load(out))


def test_videos_that_change_during_preparation_are_refused(
    monkeypatch: pytest.MonkeyPatch, ucf101_copy: Path, tmp_path: Path
) -> None:
    original = writing.write_shards

    def write_then_change(*arguments: Any) -> None:
        original(*arguments)
        write_video(ucf101_copy / "UCF-101" / NAMES[3], grey_clip(7, 11, 20, 30))

    monkeypatch.setattr(writing, "write_shards", write_then_change)
    with pytest.raises(MissingData, match="split test changed"):
        prepare(SPEC, tmp_path / "out", data_root=ucf101_copy)
    assert not (tmp_path / "out" / "prepared.json").exists()


def test_ctrl_c_prints_the_command_that_resumes(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch, raw_ucf101: Path, tmp_path: Path
) -> None:
    arguments = ["data", "prepare", SPEC, "--data-root", str(raw_ucf101), "--output", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        _interrupt_in_shard(patch, 0)
        outcome = vfbench(*arguments)
    assert (outcome.code, resume_arguments(outcome.err)) == (130, arguments)
    assert vfbench(*resume_arguments(outcome.err)).code == 0
    assert_same_dataset(load(raw_ucf101), load(tmp_path / "out"))


# Damage.


@pytest.mark.parametrize("place", [-1, 1000, 129, 40])
def test_a_flipped_byte_in_a_shard_is_repaired(
    small_shards: None, raw_ucf101: Path, tmp_path: Path, place: int
) -> None:
    out = prepare(SPEC, tmp_path / "out", data_root=raw_ucf101)
    assert prepared.damaged_shards(out) == []
    flip_byte(shard_files(out)[2], place)
    assert prepared.damaged_shards(out) == [f"{shard_files(out)[2]}: its bytes have changed since it was prepared"]
    prepare(SPEC, out, data_root=raw_ucf101)
    assert prepared.damaged_shards(out) == []


def test_loading_checks_changed_shards_only(
    small_shards: None, raw_ucf101: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips of a damaged shard would be cached under the fingerprint of the undamaged files."""
    out = prepare(SPEC, tmp_path / "out", data_root=raw_ucf101)
    load(out)
    with monkeypatch.context() as patch:  # unchanged shards are not hashed again
        patch.setattr(prepared, "file_sha256", lambda path: pytest.fail(f"{path} is read again"))
        load(out)
    flip_byte(shard_files(out)[1], -1)
    with pytest.raises(MissingData, match=r"000001\.npy(?s:.*)python -m vfbench data"):
        load(out)


def test_a_changed_index_is_refused(prepared_ucf101: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(prepared_ucf101, tmp_path / "out"))
    text = (out / "prepared.json").read_text()
    (out / "prepared.json").write_text(text.replace('"ApplyEyeMakeup"', '"ApplyEyeMakeuq"', 1))
    for read in (load, prepared.damaged_shards):
        with pytest.raises(MissingData, match=r"prepared\.json is damaged"):
            read(out)
    (out / "prepared.json").write_text(text.replace('"format": 2', '"format": 1'))
    with pytest.raises(MissingData, match="has format 1, known: 2"):
        load(out)


def test_a_truncated_shard_is_refused(prepared_ucf101: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(prepared_ucf101, tmp_path / "out"))
    (path,) = shard_files(out)
    os.truncate(path, path.stat().st_size - 1)
    assert prepared.damaged_shards(out) == [f"{path}: cut off, 13,759 of 13,760 bytes"]
    with pytest.raises(MissingData, match=r"000000\.npy: cut off"):
        load(out)


@pytest.mark.parametrize(
    ("array", "description"),
    [
        (np.zeros((71, 3, 8, 8), np.float32), r"float32 \(71, 3, 8, 8\)"),
        (np.zeros((71, 8, 8, 3), np.uint8), r"uint8 \(71, 8, 8, 3\)"),
        (np.zeros(71 * 192, np.uint8), r"uint8 \(13632,\)"),
    ],
    ids=["floats", "channels last", "flat"],
)
def test_a_shard_of_wrong_shape_or_type_is_refused(tmp_path: Path, array: np.ndarray, description: str) -> None:
    np.save(tmp_path / "000000.npy", array)
    with pytest.raises(MissingData, match=rf"000000\.npy: {description} .*uint8 \(N, 3, H, W\)"):
        clips.arrays.open_shard(tmp_path / "000000.npy")


def test_unreadable_and_missing_shards_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"nothing")
    with pytest.raises(MissingData, match=r"a\.npy: no readable shard"):
        clips.arrays.open_shard(tmp_path / "a.npy")
    with pytest.raises(MissingData, match=r"b\.npy: No such file"):
        clips.arrays.open_shard(tmp_path / "b.npy")
