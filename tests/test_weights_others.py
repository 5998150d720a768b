"""Networks beside I3D: C3D, of which no hash is known, and those that are known by the hash of their file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command
from helpers import randn
from weight_files import FORMATS, filled, publish, save

from vfbench.utils import tensor_files
from vfbench.utils.files import file_sha256
from vfbench.weights import WeightInfo, c3d, catalogue
from vfbench.weights.tensors import digest

INCEPTION = {"Mixed.conv.weight": randn(4, 3, 2, 2), "Mixed.bn.weight": randn(4), "fc.bias": randn(5, seed=1)}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights, which does not exist yet."""
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def small_c3d(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c3d, "_WEIGHT_SHAPES", {"conv1a": (4, 3, 3, 3, 3), "fc8": (2, 8)})
    monkeypatch.setattr(c3d, "MEAN_SHAPE", (3, 2, 4, 5))


# C3D.


def c3d_files(folder: Path, mean: tuple[int, ...] = (1, 3, 2, 4, 5)) -> tuple[Path, Path]:
    arrays: dict[str, Any] = {
        "conv1a/W": randn(4, 3, 3, 3, 3).numpy(),
        "conv1a/b": randn(4, seed=1).numpy(),
        "fc8/W": randn(2, 8, seed=2).numpy(),
        "fc8/b": randn(2, seed=3).numpy(),
    }
    np.savez(folder / "c3d.npz", **arrays)
    np.savez(folder / "mean.npz", mean=np.arange(120.0).reshape(mean))
    return folder / "c3d.npz", folder / "mean.npz"


@pytest.mark.usefixtures("small_c3d")
def test_c3d_comes_with_its_mean_and_says_that_nothing_proves_it(tmp_path: Path, place: Path, vfbench: Command) -> None:
    file, mean = c3d_files(tmp_path)
    done = vfbench("weights", "import", "c3d", file, "--mean", mean)
    assert done.code == 0, done.err
    assert "no hash of it is published" in done.out
    assert f"c3d.npz has SHA-256 {file_sha256(file)}, mean.npz has SHA-256 {file_sha256(mean)}" in done.out
    state = {
        "conv1a.weight": randn(4, 3, 3, 3, 3),
        "conv1a.bias": randn(4, seed=1),
        "fc8.weight": randn(2, 8, seed=2),
        "fc8.bias": randn(2, seed=3),
        "mean": torch.arange(120.0).reshape(3, 2, 4, 5),
    }
    assert filled("c3d", state).weight_status == "unpublished"
    assert vfbench("weights", "verify", "c3d").code == 0
    there = place / "c3d.safetensors"
    copy = there.rename(tmp_path / "copy.safetensors")
    sha256 = file_sha256(copy)
    again = vfbench("weights", "import", "c3d", copy)  # on another machine: what it says of its origin does not count
    assert f"no hash of it is published; copy.safetensors has SHA-256 {sha256}\n{there}" in again.out
    assert filled("c3d", state).weight_status == "unpublished"


@pytest.mark.usefixtures("small_c3d")
def test_c3d_without_its_mean_is_refused_with_the_command(tmp_path: Path, vfbench: Command) -> None:
    file, _ = c3d_files(tmp_path)
    done = vfbench("weights", "import", "c3d", file)
    assert done.code == 2
    assert f"weights import c3d {file} --mean mean2.npz" in done.err


@pytest.mark.usefixtures("small_c3d")
def test_a_wrong_mean_or_network_is_named(tmp_path: Path, vfbench: Command) -> None:
    file, mean = c3d_files(tmp_path)
    done = vfbench("weights", "import", "c3d", file, "--mean", file)
    assert done.code == 4
    assert "expected 'mean' with 120 numbers, shape (3, 2, 4, 5)" in done.err
    done = vfbench("weights", "import", "c3d", mean, "--mean", mean)
    assert done.code == 4
    assert "'conv1a.bias' is missing from" in done.err
    whole: dict[str, Any] = {"conv1a/W": np.array([1, 2])}
    np.savez(file, **whole)
    assert (
        "'conv1a/W' is int64, expected floating-point numbers"
        in vfbench("weights", "import", "c3d", file, "--mean", mean).err
    )


def test_the_published_c3d_is_that_of_the_papers() -> None:
    shapes = c3d.shapes()
    assert len(shapes) == 23
    assert shapes["conv5b.weight"] == (512, 512, 3, 3, 3)
    assert shapes["fc6.weight"] == (4096, 512 * 1 * 4 * 4)
    assert sum(np.prod(shape) for name, shape in shapes.items() if name != "mean") == 78_409_573


def test_a_mean_for_another_network_is_refused(tmp_path: Path, vfbench: Command) -> None:
    done = vfbench("weights", "import", "i3d", FORMATS["piergiaj"](tmp_path), "--mean", "mean2.npz")
    assert done.code == 2
    assert "--mean mean2.npz: only C3D" in done.err


# Those with a hash.


@pytest.mark.parametrize("content", [INCEPTION, {"module": INCEPTION, "epoch": 1}], ids=["flat", "nested"])
def test_the_published_file_is_known_by_its_hash(
    content: dict[str, Any], tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, vfbench: Command
) -> None:
    file = save(tmp_path / "inception.pth", content)
    publish("inception", file, monkeypatch)
    done = vfbench("weights", "import", "inception", file)
    assert done.code == 0, done.err
    assert "inception: the published file: inception.pth has SHA-256" in done.out
    assert filled("inception", INCEPTION) == WeightInfo(digest(INCEPTION), weight_status="verified")
    assert vfbench("weights", "verify", "inception").out == f"{done.out.splitlines()[0]}\n"
    assert [path.name for path in place.iterdir()] == ["inception.safetensors"]


@pytest.mark.parametrize("more", [{}, {"network": "inception", "digest": digest(INCEPTION)}], ids=["bare", "complete"])
def test_what_a_file_says_of_its_own_origin_is_no_proof(
    more: dict[str, str], tmp_path: Path, place: Path, vfbench: Command
) -> None:
    published = next(iter(catalogue.NETWORKS["inception"].published_hashes))
    file = tmp_path / "theirs.safetensors"
    tensor_files.write(file, INCEPTION, {"origins": json.dumps({"pt_inception.pth": published}), **more})
    said = f"not the published file: theirs.safetensors has SHA-256 {file_sha256(file)}, published {published}"
    for command in ("import", "verify"):
        done = vfbench("weights", command, "inception", file)
        assert done.code == 4
        assert said in done.err
        assert "import the published file itself" in done.err
    assert not place.exists()
    assert vfbench("weights", "import", "inception", file, "--force").code == 0
    assert filled("inception", INCEPTION).weight_status == "nonstandard"
    assert vfbench("weights", "verify", "inception").code == 4
    assert file_sha256(file) in vfbench("weights", "status", "inception").out


def test_a_file_with_another_hash_is_refused(tmp_path: Path, vfbench: Command) -> None:
    file = save(tmp_path / "inception.pth", INCEPTION)
    done = vfbench("weights", "import", "inception", file)
    assert done.code == 4
    assert f"not the published file: inception.pth has SHA-256 {file_sha256(file)}, published 6726825d" in done.err
    assert vfbench("weights", "import", "inception", file, "--force").code == 0
    assert filled("inception", INCEPTION).weight_status == "nonstandard"


def test_another_networks_format_is_refused(tmp_path: Path, vfbench: Command) -> None:
    done = vfbench("weights", "import", "inception", FORMATS["bundle"](tmp_path))
    assert done.code == 4
    assert "a file of another network: inception is published as PyTorch state dict" in done.err
