"""What was stopped, changed or damaged is noticed, and only that is made again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clipfiles import pictures, write_video
from conftest import Command, contents, flip, resumes
from preparing import NAMES, SPEC, assert_same, load, shards

from vfbench import clips
from vfbench.clips import prepared
from vfbench.data import shards as writing
from vfbench.data.prepare import prepare
from vfbench.errors import MissingData

pytest.importorskip("av")  # without it no clip can be made, nor read


# Going on.


@pytest.mark.parametrize("stopped", range(4))
def test_an_interruption_at_any_shard_costs_that_shard_alone(
    small_shards: None, monkeypatch: pytest.MonkeyPatch, raw_ucf101: Path, tmp_path: Path, stopped: int
) -> None:
    whole, parts = prepare(SPEC, tmp_path / "whole", data_root=raw_ucf101), tmp_path / "parts"
    with monkeypatch.context() as patch:
        _press_in_shard(patch, stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare(SPEC, parts, data_root=raw_ucf101)
    assert [path.name for path in shards(parts)] == [f"{i:06d}.npy" for i in range(stopped)]
    with pytest.raises(
        MissingData, match=r"is only partly prepared; resume with\n  python -m vfbench data prepare 'ucf101"
    ):
        load(parts)
    kept = {path.name: path.stat().st_mtime_ns for path in shards(parts)}
    prepare(SPEC, parts, data_root=raw_ucf101)
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in shards(parts)}.items()
    assert contents(parts / "shards") == contents(whole / "shards")
    assert_same(load(whole), load(parts))


def _press_in_shard(patch: pytest.MonkeyPatch, number: int) -> None:
    """Press Ctrl-C when half of a shard has been written, and leave what a killed process would."""
    write = writing._write_shard

    def pressed(shard: Any, sides: Any, made: Any, progress: Any, faults: Any) -> str:
        if shard.path.name != f"{number:06d}.npy":
            return write(shard, sides, made, progress, faults)
        shard.path.with_name(f".{shard.path.name}.1.tmp").write_bytes(b"half")
        raise KeyboardInterrupt

    patch.setattr(writing, "_write_shard", pressed)


def test_the_same_command_again_does_nothing(
    monkeypatch: pytest.MonkeyPatch, prepared_ucf101: Path, raw_ucf101: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in shards(prepared_ucf101)}
    monkeypatch.setattr(writing, "write_shards", None)
    prepare(SPEC, prepared_ucf101, data_root=raw_ucf101)
    assert {path: path.stat().st_mtime_ns for path in shards(prepared_ucf101)} == before


def test_a_shard_that_was_removed_is_made_again(small_shards: None, raw_ucf101: Path, tmp_path: Path) -> None:
    prepare(SPEC, tmp_path / "out", data_root=raw_ucf101)
    before = contents(tmp_path / "out" / "shards")
    shards(tmp_path / "out")[1].unlink()
    with pytest.raises(MissingData, match=r"000001\.npy: No such file(?s:.*)\n  python -m vfbench data prepare"):
        load(tmp_path / "out")
    prepare(SPEC, tmp_path / "out", data_root=raw_ucf101)
    assert contents(tmp_path / "out" / "shards") == before


def test_a_changed_file_is_noticed_and_its_shard_alone_made_again(
    small_shards: None, own_ucf101: Path, tmp_path: Path
) -> None:
    out = prepare(SPEC, tmp_path / "out", data_root=own_ucf101)
    before = {path.name: path.stat().st_mtime_ns for path in shards(out)}
    write_video(own_ucf101 / "UCF-101" / NAMES[3], pictures(7, 11, 20, 30))
    prepare(SPEC, out, data_root=own_ucf101)
    changed = [path.name for path in shards(out) if path.stat().st_mtime_ns != before[path.name]]
    assert len(changed) == 1
    assert_same(load(own_ucf101), load(out))


def test_files_that_change_meanwhile_are_noticed(
    monkeypatch: pytest.MonkeyPatch, own_ucf101: Path, tmp_path: Path
) -> None:
    make = writing.write_shards

    def meddled(*arguments: Any) -> None:
        make(*arguments)
        write_video(own_ucf101 / "UCF-101" / NAMES[3], pictures(7, 11, 20, 30))

    monkeypatch.setattr(writing, "write_shards", meddled)
    with pytest.raises(MissingData, match="files of split test changed while they were prepared"):
        prepare(SPEC, tmp_path / "out", data_root=own_ucf101)
    assert not (tmp_path / "out" / "prepared.json").exists()


def test_ctrl_c_tells_the_command_that_goes_on(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch, raw_ucf101: Path, tmp_path: Path
) -> None:
    words = ["data", "prepare", SPEC, "--data-root", str(raw_ucf101), "--output", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        _press_in_shard(patch, 0)
        done = vfbench(*words)
    assert (done.code, resumes(done.err)) == (130, words)
    assert vfbench(*resumes(done.err)).code == 0
    assert_same(load(raw_ucf101), load(tmp_path / "out"))


# Damage.


@pytest.mark.parametrize("place", [-1, 1000, 129, 40])
def test_a_flipped_byte_is_found(small_shards: None, raw_ucf101: Path, tmp_path: Path, place: int) -> None:
    out = prepare(SPEC, tmp_path / "out", data_root=raw_ucf101)
    assert prepared.damaged_shards(out) == []
    flip(shards(out)[2], place)
    assert prepared.damaged_shards(out) == [f"{shards(out)[2]}: its bytes have changed since it was prepared"]
    prepare(SPEC, out, data_root=raw_ucf101)
    assert prepared.damaged_shards(out) == []


def test_no_clip_comes_from_a_shard_that_is_not_whole(
    small_shards: None, raw_ucf101: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its features would be kept as those of the files, whose fingerprint is the same."""
    out = prepare(SPEC, tmp_path / "out", data_root=raw_ucf101)
    load(out)
    with monkeypatch.context() as patch:  # the second time nothing is read
        patch.setattr(prepared, "file_sha256", lambda path: pytest.fail(f"{path} is read again"))
        load(out)
    flip(shards(out)[1], -1)
    with pytest.raises(MissingData, match=r"000001\.npy: its bytes have changed since .*\n  python -m vfbench data"):
        load(out)


def test_a_flipped_byte_of_the_index_is_found(prepared_ucf101: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(prepared_ucf101, tmp_path / "out"))
    text = (out / "prepared.json").read_text()
    (out / "prepared.json").write_text(text.replace('"ApplyEyeMakeup"', '"ApplyEyeMakeuq"', 1))
    for read in (load, prepared.damaged_shards):
        with pytest.raises(MissingData, match=r"prepared\.json is damaged: its content does not match its hash"):
            read(out)
    (out / "prepared.json").write_text(text.replace('"format": 2', '"format": 1'))
    with pytest.raises(MissingData, match="has format 1, known: 2"):
        load(out)


def test_a_shard_that_is_cut_off_is_named(prepared_ucf101: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(prepared_ucf101, tmp_path / "out"))
    (path,) = shards(out)
    os.truncate(path, path.stat().st_size - 1)
    assert prepared.damaged_shards(out) == [f"{path}: cut off, 13,759 of 13,760 bytes"]
    with pytest.raises(MissingData, match=r"000000\.npy: cut off"):
        load(out)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((71, 3, 8, 8), np.float32), r"float32 \(71, 3, 8, 8\)"),
        (np.zeros((71, 8, 8, 3), np.uint8), r"uint8 \(71, 8, 8, 3\)"),
        (np.zeros(71 * 192, np.uint8), r"uint8 \(13632,\)"),
    ],
    ids=["floats", "channels last", "flat"],
)
def test_a_shard_of_another_shape_is_named(tmp_path: Path, array: np.ndarray, said: str) -> None:
    np.save(tmp_path / "000000.npy", array)
    with pytest.raises(MissingData, match=rf"000000\.npy: {said} in .* needed: uint8 \(N, 3, H, W\)"):
        clips.arrays.open_shard(tmp_path / "000000.npy")


def test_what_is_no_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"nothing")
    with pytest.raises(MissingData, match=r"a\.npy: no readable shard"):
        clips.arrays.open_shard(tmp_path / "a.npy")
    with pytest.raises(MissingData, match=r"b\.npy: No such file"):
        clips.arrays.open_shard(tmp_path / "b.npy")
