"""`weights import`: every published format gives one file, only the right weights come in, nothing is executed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command
from weight_files import FORMATS, filled, hassony2, publish, save, state_of, table, write_torchscript

from vfbench.utils.files import file_sha256
from vfbench.weights import WeightInfo, i3d
from vfbench.weights.tensors import digest


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights, which does not exist yet; the published I3D is the stand-in."""
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(i3d, "table", table)
    return tmp_path / "weights"


# I3D.


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_proven_weights(
    form: str, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, vfbench: Command
) -> None:
    file = FORMATS[form](tmp_path)
    if form == "torchscript":
        publish("i3d", file, monkeypatch)
    done = vfbench("weights", "import", "i3d", file)
    assert (done.code, done.err) == (0, "")
    assert (
        done.out
        == f"i3d: 7 of 7 tensors are those of the published I3D (Kinetics-400 from scratch)\n{place}/i3d.safetensors\n"
    )
    assert filled("i3d", state_of()) == WeightInfo(digest(state_of()), weight_status="verified")
    assert [path.name for path in place.iterdir()] == ["i3d.safetensors"]


def test_unknown_weights_are_refused_naming_the_first_wrong_tensors(
    tmp_path: Path, place: Path, vfbench: Command
) -> None:
    file = save(tmp_path / "my i3d.pt", state_of(seed=50))
    done = vfbench("weights", "import", "i3d", file)
    assert done.code == 4
    assert re.search(rf"{file} is not the published i3d: 0 of 7 tensors", done.err)
    assert re.search(r"'Conv3d_1a_7x7\.conv3d\.weight' has CRC \d+, expected \d+", done.err)
    assert "`weights import --force`" in done.err
    assert not place.exists()


def test_unknown_weights_come_in_by_force_and_are_never_proven(tmp_path: Path, place: Path, vfbench: Command) -> None:
    file = save(tmp_path / "my.pt", state_of(seed=50))
    assert vfbench("weights", "import", "i3d", file, "--force").code == 0
    assert filled("i3d", state_of(seed=50)).weight_status == "nonstandard"
    done = vfbench("weights", "verify", "i3d")
    assert done.code == 4
    assert f"{place}/i3d.safetensors is not the published i3d: 0 of 7" in done.err
    assert "i3d: not verified" in vfbench("weights", "status").out


@pytest.mark.pitfall("the I3D inflated from ImageNet")
def test_the_network_inflated_from_imagenet_is_refused_saying_why(tmp_path: Path, vfbench: Command) -> None:
    done = vfbench("weights", "import", "i3d", save(tmp_path / "rgb_imagenet.pt", state_of(seed=1)))
    assert done.code == 4
    assert "7 are those of rgb_imagenet, the I3D inflated from ImageNet" in done.err


def test_force_does_not_replace_published_weights(tmp_path: Path, vfbench: Command) -> None:
    assert vfbench("weights", "import", "i3d", FORMATS["bundle"](tmp_path)).code == 0
    done = vfbench("weights", "import", "i3d", save(tmp_path / "my.pt", state_of(seed=50)), "--force")
    assert done.code == 2
    assert "holds the published i3d: move it away first" in done.err
    assert filled("i3d", state_of()).weight_status == "verified"


def test_an_unknown_program_is_not_opened(tmp_path: Path, vfbench: Command) -> None:
    file = write_torchscript(tmp_path / "x.pt", hassony2(state_of()))
    for name in ("i3d", "c3d"):
        done = vfbench("weights", "import", name, file, "--force")
        assert done.code == 4
        assert f"{file} is a TorchScript program with the unknown SHA-256 {file_sha256(file)}" in done.err
        assert "not opened" in done.err


# Files that are something else.


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["i3d", "inception", "videomae"])
@pytest.mark.parametrize("modern", [True, False])
def test_a_pickle_is_never_executed(name: str, modern: bool, tmp_path: Path, vfbench: Command) -> None:
    file = tmp_path / "bomb.pt"
    torch.save({**state_of(), "x": Bomb(tmp_path / "executed")}, file, _use_new_zipfile_serialization=modern)
    done = vfbench("weights", "import", name, file, "--force")
    assert done.code == 4
    assert re.search(r"bomb\.pt is damaged, or holds more than tensors .*nothing in it was executed", done.err)
    assert not (tmp_path / "executed").exists()


def test_objects_among_arrays_are_never_executed(tmp_path: Path, vfbench: Command) -> None:
    file = tmp_path / "bomb.npz"
    np.savez(file, allow_pickle=True, **{"conv1a/W": np.array([Bomb(tmp_path / "executed")], dtype=object)})
    done = vfbench("weights", "import", "c3d", file, "--mean", file)
    assert done.code == 4
    assert "bomb.npz is damaged, or holds more than numbers" in done.err
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "said"),
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
def test_what_is_no_weights_is_said(content: bytes, said: str, tmp_path: Path, vfbench: Command) -> None:
    file = tmp_path / "x.pt"
    file.write_bytes(content)
    done = vfbench("weights", "import", "i3d", file, "--force")
    assert done.code == 4
    assert re.search(rf"error: {file} .*({said})|error: {file} ({said})", done.err), done.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch.zeros(2), "holds Tensor, expected tensors by name"),
        ({}, "holds dict, expected tensors by name"),
        ({"state_dict": {"a": 1}}, "'a' is int, expected a tensor"),
        ({"a": [torch.zeros(1)]}, "'a' is list, expected a tensor"),
    ],
)
def test_what_is_no_state_dict_is_said(content: object, said: str, tmp_path: Path, vfbench: Command) -> None:
    done = vfbench("weights", "import", "inception", save(tmp_path / "x.pt", content), "--force")
    assert done.code == 4
    assert said in done.err


def test_a_file_that_is_not_there_is_named(tmp_path: Path, vfbench: Command) -> None:
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
    done = vfbench("weights", "import", "i3d", tmp_path if "bundle" in form or "hub" in form else largest)
    assert done.code == 4
    assert largest.name in done.err
    assert "Traceback" not in done.err
