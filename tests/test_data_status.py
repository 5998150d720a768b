"""`vfbench data status`: what is here, and how to get what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Command
from datatrees import TRAIN, ucf101

from vfbench import plugins
from vfbench.data import sources

pytest.importorskip("av")


def test_without_a_folder_each_dataset_gets_its_steps(vfbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VFBENCH_DATA", raising=False)
    done = vfbench("data", "status")
    assert done.code == 0
    for name in sources.dataset_names():
        steps = getattr(plugins.module("dataset", name), "HOW_TO_GET", "")
        assert (f"{name}: not found: no folder is named" in done.out) == bool(steps)
        assert all(line in done.out for line in steps.splitlines())


def test_what_is_found_is_told(tmp_path: Path, vfbench: Command) -> None:
    ucf101(tmp_path)
    record = json.loads(vfbench("data", "status", "--data-root", tmp_path, "--json").out)
    assert [record[name]["found"] for name in ("ucf101", "sky_timelapse", "taichi_hd")] == [True, False, False]
    there = record["ucf101"]
    assert (there["looked_in"], there["said_by"]) == (str(tmp_path), "--data-root")
    assert (there["videos"], there["listed"]) == ({"train": 6, "test": 3}, {"train": 6, "test": 3})
    assert there["prepared"] == ""


@pytest.mark.parametrize(("variable", "told"), [("VFBENCH_DATA", "VFBENCH_DATA"), ("VFBENCH_DATA_ROOT",) * 2])
def test_it_says_who_named_the_folder(
    tmp_path: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch, variable: str, told: str
) -> None:
    monkeypatch.setenv(variable, str(ucf101(tmp_path)))
    assert f"ucf101: found in {tmp_path} ({told})" in vfbench("data", "status", "ucf101").out


def test_of_a_dataset_that_is_here_in_part_the_steps_are_told(tmp_path: Path, vfbench: Command) -> None:
    ucf101(tmp_path)
    assert "crcv.ucf.edu" not in vfbench("data", "status", "ucf101", "--data-root", tmp_path).out
    (tmp_path / "UCF-101" / TRAIN[0]).unlink()
    assert "crcv.ucf.edu" in vfbench("data", "status", "ucf101", "--data-root", tmp_path).out


def test_a_folder_that_holds_something_else_is_told_with_the_steps(tmp_path: Path, vfbench: Command) -> None:
    (tmp_path / "notes.txt").touch()
    out = vfbench("data", "status", "ucf101", "--data-root", tmp_path).out
    assert f"ucf101: not found in {tmp_path} (--data-root)" in out
    assert "notes.txt" in out
    assert "crcv.ucf.edu" in out


def test_a_mistyped_dataset_gets_the_nearest(vfbench: Command) -> None:
    done = vfbench("data", "status", "ucf")
    assert done.code == 2
    assert "did you mean 'ucf101'?" in done.err
