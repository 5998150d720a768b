"""Where a dataset to prepare comes from and where it goes: archives, relative paths, and the command for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from clipfiles import pictures, write_video
from conftest import Command, contents
from preparing import SPEC, assert_same, load

from vfbench import archives
from vfbench.errors import MissingData, UserError
from vfbench.prepare import prepare

pytest.importorskip("av")  # without it no clip can be made, nor read


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_archives_are_prepared_as_the_files_are(
    raw_ucf101: Path, prepared_ucf101: Path, tmp_path: Path, kind: str
) -> None:
    parts = [
        Path(shutil.make_archive(str(tmp_path / part), kind, raw_ucf101, part))
        for part in ("UCF-101", "ucfTrainTestlist")
    ]
    prepare(SPEC, tmp_path / "out", sources=parts)
    assert contents(tmp_path / "out" / "shards") == contents(prepared_ucf101 / "shards")
    assert_same(load(raw_ucf101), load(tmp_path / "out"))
    assert {path.name for path in tmp_path.iterdir()} == {"out", *(part.name for part in parts)}


@pytest.mark.parametrize("words", [".", "../here", "deep/er"])
def test_a_relative_output_stands_where_it_says(
    monkeypatch: pytest.MonkeyPatch, raw_ucf101: Path, tmp_path: Path, words: str
) -> None:
    path = Path(shutil.make_archive(str(tmp_path / "a"), "zip", raw_ucf101))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    out = prepare(SPEC, Path(words), sources=[path])
    assert out.is_absolute()
    assert out.resolve() == (tmp_path / "here" / words).resolve()
    assert_same(load(raw_ucf101), load(out))


def test_an_output_at_home_stands_there(monkeypatch: pytest.MonkeyPatch, raw_ucf101: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    prepare(SPEC, Path("~/out"), data_root=raw_ucf101)
    assert_same(load(raw_ucf101), load(tmp_path / "out"))
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_what_stands_in_the_way_is_said_before_the_unpacking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    monkeypatch.setattr(archives, "unpacked", None)
    with pytest.raises(UserError, match=r"holds other files \(thesis\.tex\): choose an empty --output"):
        prepare(SPEC, tmp_path, sources=[Path("a.zip")])


def test_a_folder_of_the_user_beside_the_output_is_left_alone(raw_ucf101: Path, tmp_path: Path) -> None:
    path = Path(shutil.make_archive(str(tmp_path / "a"), "zip", raw_ucf101))
    (tmp_path / ".out.unpacked").mkdir()
    (tmp_path / ".out.unpacked/thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"\.out\.unpacked is in the way"):
        prepare(SPEC, tmp_path / "out", sources=[path])
    assert (tmp_path / ".out.unpacked/thesis.tex").read_text() == "mine"


def test_archives_without_the_dataset_leave_nothing(tmp_path: Path) -> None:
    write_video(tmp_path / "clips" / "a.avi", pictures())
    path = Path(shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "clips"))
    with pytest.raises(MissingData, match="UCF101"):
        prepare(SPEC, tmp_path / "out", sources=[path])
    assert {item.name for item in tmp_path.iterdir()} == {"clips", "a.zip"}


def test_a_folder_and_an_archive_are_one_too_many(raw_ucf101: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--archive a\.zip or --data-root .*: which holds the dataset\?"):
        prepare(SPEC, tmp_path / "out", data_root=raw_ucf101, sources=[Path("a.zip")])


def test_the_command_says_what_it_prepared_and_what_is_next(vfbench: Command, raw_ucf101: Path, tmp_path: Path) -> None:
    size = ["--height", 8, "--width", 8, "--workers", 1]
    done = vfbench(
        "data", "prepare", "ucf101(frames=4)", "--data-root", raw_ucf101, "--output", tmp_path / "out", *size
    )
    assert done.code == 0, done.err
    assert done.out == f"{tmp_path / 'out'}: 5 videos in 1 shards, 8x8 centre-crop bilinear antialias=True\n"
    assert (
        f"next: python -m vfbench data verify 'ucf101(frames=4, height=8, width=8)' --data-root {tmp_path / 'out'}"
        in done.err
    )
    assert_same(load(raw_ucf101), load(tmp_path / "out"))
