"""Tests of `weights import`: published formats, refused files, no execution of pickles."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command
from weight_files import FORMATS, hassony2, load_and_check, publish, save, state_of, table, write_torchscript

from vfbench.utils.files import file_sha256
from vfbench.weights import i3d
from vfbench.weights.load import WeightInfo
from vfbench.weights.tensors import digest


@pytest.fixture(autouse=True)
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights, not created yet; the stand-in is the published I3D."""
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(i3d, "table", table)
    return tmp_path / "weights"


# I3D.


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_verified_weights(
    form: str, tmp_path: Path, weights_folder: Path, monkeypatch: pytest.MonkeyPatch, vfbench: Command
) -> None:
    file = FORMATS[form](tmp_path)
    if form == "torchscript":
        publish("i3d", file, monkeypatch)
    outcome = vfbench("weights", "import", "i3d", file)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("i3d: 7 of 7 tensors are those of the published I3D")
    assert outcome.out.endswith(f"\n{weights_folder}/i3d.safetensors\n")
    assert load_and_check("i3d", state_of()) == WeightInfo(digest(state_of()), weight_status="verified")
    assert [path.name for path in weights_folder.iterdir()] == ["i3d.safetensors"]


def test_unknown_weights_are_refused_with_mismatched_tensors(
    tmp_path: Path, weights_folder: Path, vfbench: Command
) -> None:
    file = save(tmp_path / "my i3d.pt", state_of(seed=50))
    outcome = vfbench("weights", "import", "i3d", file)
    assert outcome.code == 4
    assert re.search(rf"{file} is not the published i3d: 0 of 7 tensors", outcome.err)
    assert re.search(r"'Conv3d_1a_7x7\.conv3d\.weight' has CRC \d+, expected \d+", outcome.err)
    assert "`weights import --force`" in outcome.err
    assert not weights_folder.exists()


def test_forced_import_of_unknown_weights_stays_unverified(
    tmp_path: Path, weights_folder: Path, vfbench: Command
) -> None:
    file = save(tmp_path / "my.pt", state_of(seed=50))
    assert vfbench("weights", "import", "i3d", file, "--force").code == 0
    assert load_and_check("i3d", state_of(seed=50)).weight_status == "nonstandard"
    outcome = vfbench("weights", "verify", "i3d")
    assert outcome.code == 4
    assert f"{weights_folder}/i3d.safetensors is not the published i3d: 0 of 7" in outcome.err
    assert "i3d: not verified" in vfbench("weights", "status").out


@pytest.mark.pitfall("the I3D inflated from ImageNet")
def test_the_network_inflated_from_imagenet_is_refused(tmp_path: Path, vfbench: Command) -> None:
    outcome = vfbench("weights", "import", "i3d", save(tmp_path / "rgb_imagenet.pt", state_of(seed=1)))
    assert outcome.code == 4
    assert "7 are those of rgb_imagenet, the I3D inflated from ImageNet" in outcome.err


def test_force_does_not_replace_published_weights(tmp_path: Path, vfbench: Command) -> None:
    assert vfbench("weights", "import", "i3d", FORMATS["bundle"](tmp_path)).code == 0
    outcome = vfbench("weights", "import", "i3d", save(tmp_path / "my.pt", state_of(seed=50)), "--force")
    assert outcome.code == 2
    assert "holds the published i3d: move it away first" in outcome.err
    assert load_and_check("i3d", state_of()).weight_status == "verified"


def test_an_unknown_torchscript_program_is_not_opened(tmp_path: Path, vfbench: Command) -> None:
    file = write_torchscript(tmp_path / "x.pt", hassony2(state_of()))
    for name in ("i3d", "c3d"):
        outcome = vfbench("weights", "import", name, file, "--force")
        assert outcome.code == 4
        assert f"{file} is a TorchScript program with the unknown SHA-256 {file_sha256(file)}" in outcome.err
        assert "not opened" in outcome.err


# Other files.


class Bomb:
    """Pickles to code that creates a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["i3d", "inception", "videomae"])
@pytest.mark.parametrize("modern", [True, False])
def test_a_pickle_is_never_executed(name: str, modern: bool, tmp_path: Path, vfbench: Command) -> None:
    file = tmp_path / "bomb.pt"
    torch.save({**state_of(), "x": Bomb(tmp_path / "executed")}, file, _use_new_zipfile_serialization=modern)
    outcome = vfbench("weights", "import", name, file, "--force")
    assert outcome.code == 4
    assert re.search(r"bomb\.pt is damaged, or holds more than tensors .*nothing in it was executed", outcome.err)
    assert not (tmp_path / "executed").exists()


def test_objects_among_arrays_are_never_executed(tmp_path: Path, vfbench: Command) -> None:
    file = tmp_path / "bomb.npz"
    np.savez(file, allow_pickle=True, **{"conv1a/W": np.array([Bomb(tmp_path / "executed")], dtype=object)})
    outcome = vfbench("weights", "import", "c3d", file, "--mean", file)
    assert outcome.code == 4
    assert "bomb.npz is damaged, or holds more than numbers" in outcome.err
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page, not weights"),
        (b"\n <html>", "is a web page, not weights"),
        (b"\x1f\x8b\x08\x00rest", "is a gzip archive: unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\n", "only a pointer of Git LFS"),
        (b"", "is truncated, or in no known weight format"),
        (b"PK\x03\x04 begins like an archive", "is truncated, or in no known weight format"),
        (b"\x80\x02}q\x00.", r"holds dict, expected tensors by name|is damaged, or holds more than tensors"),
    ],
)
def test_files_that_are_no_weights_are_refused(content: bytes, message: str, tmp_path: Path, vfbench: Command) -> None:
    file = tmp_path / "x.pt"
    file.write_bytes(content)
    outcome = vfbench("weights", "import", "i3d", file, "--force")
    assert outcome.code == 4
    assert re.search(rf"error: {file} .*({message})|error: {file} ({message})", outcome.err), outcome.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(2), "holds Tensor, expected tensors by name"),
        ({}, "holds dict, expected tensors by name"),
        ({"state_dict": {"a": 1}}, "'a' is int, expected a tensor"),
        ({"a": [torch.zeros(1)]}, "'a' is list, expected a tensor"),
    ],
)
def test_files_without_a_state_dict_are_refused(
    content: object, message: str, tmp_path: Path, vfbench: Command
) -> None:
    outcome = vfbench("weights", "import", "inception", save(tmp_path / "x.pt", content), "--force")
    assert outcome.code == 4
    assert message in outcome.err


def test_missing_files_are_refused(tmp_path: Path, vfbench: Command) -> None:
    assert "none.pt does not exist" in vfbench("weights", "import", "i3d", tmp_path / "none.pt").err
    assert "is a folder without a TensorFlow checkpoint" in vfbench("weights", "import", "i3d", tmp_path).err


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_file_is_refused(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vfbench: Command
) -> None:
    FORMATS[form](tmp_path)
    (largest,) = sorted((p for p in tmp_path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)[-1:]
    largest.write_bytes(largest.read_bytes()[:-30])
    publish("i3d", largest, monkeypatch)
    outcome = vfbench("weights", "import", "i3d", tmp_path if "bundle" in form or "hub" in form else largest)
    assert outcome.code == 4
    assert largest.name in outcome.err
    assert "Traceback" not in outcome.err
