"""Tests of `data prepare` on the command line: relative and home paths, other files in the output, summary."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Command
from preparing import SPEC, assert_same_dataset, load

from vfbench.data.prepare import prepare
from vfbench.errors import UserError

pytest.importorskip("av")  # reads and writes videos


@pytest.mark.parametrize("output", [".", "../here", "deep/er"])
def test_a_relative_output_is_resolved_from_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, raw_ucf101: Path, tmp_path: Path, output: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    out = prepare(SPEC, Path(output), data_root=raw_ucf101)
    assert out.is_absolute()
    assert out.resolve() == (tmp_path / "here" / output).resolve()
    assert_same_dataset(load(raw_ucf101), load(out))


def test_a_tilde_in_the_output_is_expanded(monkeypatch: pytest.MonkeyPatch, raw_ucf101: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    prepare(SPEC, Path("~/out"), data_root=raw_ucf101)
    assert_same_dataset(load(raw_ucf101), load(tmp_path / "out"))
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_other_files_in_the_output_are_refused(raw_ucf101: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"thesis\.tex.*--output"):
        prepare(SPEC, tmp_path, data_root=raw_ucf101)


def test_the_command_prints_a_summary_and_the_next_command(vfbench: Command, raw_ucf101: Path, tmp_path: Path) -> None:
    size = ["--height", 8, "--width", 8, "--workers", 1]
    outcome = vfbench(
        "data", "prepare", "ucf101(frames=4)", "--data-root", raw_ucf101, "--output", tmp_path / "out", *size
    )
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"{tmp_path / 'out'}: 5 videos in 1 shard, 8x8 centre-crop bilinear antialias=True\n"
    assert (
        f"next: python -m vfbench data verify 'ucf101(frames=4, height=8, width=8)' --data-root {tmp_path / 'out'}"
        in outcome.err
    )
    assert_same_dataset(load(raw_ucf101), load(tmp_path / "out"))
