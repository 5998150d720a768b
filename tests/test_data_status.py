"""Tests of `vfbench data status`: found datasets, and the download steps of missing ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Command
from datatrees import TRAIN, ucf101

from vfbench import plugins
from vfbench.data import sources

pytest.importorskip("av")


def test_without_a_data_folder_every_download_step_is_printed(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VFBENCH_DATA", raising=False)
    outcome = vfbench("data", "status")
    assert outcome.code == 0
    for name in sources.dataset_names():
        steps = getattr(plugins.module("dataset", name), "HOW_TO_GET", "")
        assert (f"{name}: not found: no folder is named" in outcome.out) == bool(steps)
        assert all(line in outcome.out for line in steps.splitlines())


def test_a_found_dataset_is_reported(tmp_path: Path, vfbench: Command) -> None:
    ucf101(tmp_path)
    record = json.loads(vfbench("data", "status", "--data-root", tmp_path, "--json").out)
    assert [record[name]["found"] for name in ("ucf101", "sky_timelapse", "taichi_hd")] == [True, False, False]
    status = record["ucf101"]
    assert (status["looked_in"], status["said_by"]) == (str(tmp_path), "--data-root")
    assert (status["videos"], status["listed"]) == ({"train": 6, "test": 3}, {"train": 6, "test": 3})
    assert status["prepared"] == ""


@pytest.mark.parametrize("variable", ["VFBENCH_DATA", "VFBENCH_DATA_ROOT"])
def test_the_variable_that_names_the_data_folder_is_reported(
    tmp_path: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(ucf101(tmp_path)))
    assert f"ucf101: found in {tmp_path} ({variable})" in vfbench("data", "status", "ucf101").out


def test_an_incomplete_dataset_gets_the_download_steps(tmp_path: Path, vfbench: Command) -> None:
    ucf101(tmp_path)
    assert "crcv.ucf.edu" not in vfbench("data", "status", "ucf101", "--data-root", tmp_path).out
    (tmp_path / "UCF-101" / TRAIN[0]).unlink()
    assert "crcv.ucf.edu" in vfbench("data", "status", "ucf101", "--data-root", tmp_path).out


def test_a_folder_without_the_dataset_gets_the_download_steps(tmp_path: Path, vfbench: Command) -> None:
    (tmp_path / "notes.txt").touch()
    out = vfbench("data", "status", "ucf101", "--data-root", tmp_path).out
    assert f"ucf101: not found in {tmp_path} (--data-root)" in out
    assert "notes.txt" in out
    assert "crcv.ucf.edu" in out


def test_a_mistyped_dataset_gets_the_nearest(vfbench: Command) -> None:
    outcome = vfbench("data", "status", "ucf")
    assert outcome.code == 2
    assert "'ucf101'" in outcome.err
