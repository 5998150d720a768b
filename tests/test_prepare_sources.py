"""Where a dataset to prepare comes from and where it goes: relative paths, and the command for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Command
from preparing import SPEC, assert_same, load

from vfbench.data.prepare import prepare
from vfbench.errors import UserError

pytest.importorskip("av")  # without it no clip can be made, nor read


@pytest.mark.parametrize("words", [".", "../here", "deep/er"])
def test_a_relative_output_stands_where_it_says(
    monkeypatch: pytest.MonkeyPatch, raw_ucf101: Path, tmp_path: Path, words: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    out = prepare(SPEC, Path(words), data_root=raw_ucf101)
    assert out.is_absolute()
    assert out.resolve() == (tmp_path / "here" / words).resolve()
    assert_same(load(raw_ucf101), load(out))


def test_an_output_at_home_stands_there(monkeypatch: pytest.MonkeyPatch, raw_ucf101: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    prepare(SPEC, Path("~/out"), data_root=raw_ucf101)
    assert_same(load(raw_ucf101), load(tmp_path / "out"))
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_other_files_in_the_output_are_refused(raw_ucf101: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"thesis\.tex.*--output"):
        prepare(SPEC, tmp_path, data_root=raw_ucf101)


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
