"""Tests of weights other than I3D: C3D without a published hash, and networks verified by the hash of their file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command
from helpers import randn
from weight_files import FORMATS, load_and_check, publish, save

from vfbench.utils import tensor_files
from vfbench.utils.files import file_sha256
from vfbench.weights import c3d, catalogue
from vfbench.weights.load import WeightInfo
from vfbench.weights.tensors import digest

INCEPTION = {"Mixed.conv.weight": randn(4, 3, 2, 2), "Mixed.bn.weight": randn(4), "fc.bias": randn(5, seed=1)}


@pytest.fixture(autouse=True)
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights, not created yet."""
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
def test_c3d_is_imported_with_its_mean_as_unpublished(tmp_path: Path, weights_folder: Path, vfbench: Command) -> None:
    file, mean = c3d_files(tmp_path)
    outcome = vfbench("weights", "import", "c3d", file, "--mean", mean)
    assert outcome.code == 0, outcome.err
    assert "no hash of it is published" in outcome.out
    assert f"c3d.npz has SHA-256 {file_sha256(file)}, mean.npz has SHA-256 {file_sha256(mean)}" in outcome.out
    state = {
        "conv1a.weight": randn(4, 3, 3, 3, 3),
        "conv1a.bias": randn(4, seed=1),
        "fc8.weight": randn(2, 8, seed=2),
        "fc8.bias": randn(2, seed=3),
        "mean": torch.arange(120.0).reshape(3, 2, 4, 5),
    }
    assert load_and_check("c3d", state).weight_status == "unpublished"
    assert vfbench("weights", "verify", "c3d").code == 0
    imported = weights_folder / "c3d.safetensors"
    copy = imported.rename(tmp_path / "copy.safetensors")
    sha256 = file_sha256(copy)
    second_outcome = vfbench("weights", "import", "c3d", copy)  # the record in a copied file does not count
    assert f"no hash of it is published; copy.safetensors has SHA-256 {sha256}\n{imported}" in second_outcome.out
    assert load_and_check("c3d", state).weight_status == "unpublished"


@pytest.mark.usefixtures("small_c3d")
def test_c3d_without_its_mean_is_refused_with_the_flag(tmp_path: Path, vfbench: Command) -> None:
    file, _ = c3d_files(tmp_path)
    outcome = vfbench("weights", "import", "c3d", file)
    assert outcome.code == 2
    assert f"weights import c3d {file} --mean mean2.npz" in outcome.err


@pytest.mark.usefixtures("small_c3d")
def test_invalid_c3d_files_are_refused(tmp_path: Path, vfbench: Command) -> None:
    file, mean = c3d_files(tmp_path)
    outcome = vfbench("weights", "import", "c3d", file, "--mean", file)
    assert outcome.code == 4
    assert "expected 'mean' with 120 numbers, shape (3, 2, 4, 5)" in outcome.err
    outcome = vfbench("weights", "import", "c3d", mean, "--mean", mean)
    assert outcome.code == 4
    assert "'conv1a.bias' is missing from" in outcome.err
    integers: dict[str, Any] = {"conv1a/W": np.array([1, 2])}
    np.savez(file, **integers)
    assert (
        "'conv1a/W' is int64, expected floating-point numbers"
        in vfbench("weights", "import", "c3d", file, "--mean", mean).err
    )


def test_c3d_has_the_shapes_of_the_paper() -> None:
    shapes = c3d.shapes()
    assert len(shapes) == 23
    assert shapes["conv5b.weight"] == (512, 512, 3, 3, 3)
    assert shapes["fc6.weight"] == (4096, 512 * 1 * 4 * 4)
    assert sum(np.prod(shape) for name, shape in shapes.items() if name != "mean") == 78_409_573


def test_a_mean_for_another_network_is_refused(tmp_path: Path, vfbench: Command) -> None:
    outcome = vfbench("weights", "import", "i3d", FORMATS["piergiaj"](tmp_path), "--mean", "mean2.npz")
    assert outcome.code == 2
    assert "--mean mean2.npz: only C3D" in outcome.err


# Networks with a published hash.


@pytest.mark.parametrize("content", [INCEPTION, {"module": INCEPTION, "epoch": 1}], ids=["flat", "nested"])
def test_the_published_file_is_verified_by_its_hash(
    content: dict[str, Any], tmp_path: Path, weights_folder: Path, monkeypatch: pytest.MonkeyPatch, vfbench: Command
) -> None:
    file = save(tmp_path / "inception.pth", content)
    publish("inception", file, monkeypatch)
    outcome = vfbench("weights", "import", "inception", file)
    assert outcome.code == 0, outcome.err
    assert "inception: the published file: inception.pth has SHA-256" in outcome.out
    assert load_and_check("inception", INCEPTION) == WeightInfo(digest(INCEPTION), weight_status="verified")
    assert vfbench("weights", "verify", "inception").out == f"{outcome.out.splitlines()[0]}\n"
    assert [path.name for path in weights_folder.iterdir()] == ["inception.safetensors"]


@pytest.mark.parametrize("more", [{}, {"network": "inception", "digest": digest(INCEPTION)}], ids=["bare", "complete"])
def test_a_recorded_origin_is_no_verification(
    more: dict[str, str], tmp_path: Path, weights_folder: Path, vfbench: Command
) -> None:
    published = next(iter(catalogue.NETWORKS["inception"].published_hashes))
    file = tmp_path / "other.safetensors"
    tensor_files.write(file, INCEPTION, {"origins": json.dumps({"pt_inception.pth": published}), **more})
    message = f"not the published file: other.safetensors has SHA-256 {file_sha256(file)}, published {published}"
    for command in ("import", "verify"):
        outcome = vfbench("weights", command, "inception", file)
        assert outcome.code == 4
        assert message in outcome.err
        assert "import the published file itself" in outcome.err
    assert not weights_folder.exists()
    assert vfbench("weights", "import", "inception", file, "--force").code == 0
    assert load_and_check("inception", INCEPTION).weight_status == "nonstandard"
    assert vfbench("weights", "verify", "inception").code == 4
    assert file_sha256(file) in vfbench("weights", "status", "inception").out


def test_a_file_with_another_hash_is_refused(tmp_path: Path, vfbench: Command) -> None:
    file = save(tmp_path / "inception.pth", INCEPTION)
    outcome = vfbench("weights", "import", "inception", file)
    assert outcome.code == 4
    assert f"not the published file: inception.pth has SHA-256 {file_sha256(file)}, published 6726825d" in outcome.err
    assert vfbench("weights", "import", "inception", file, "--force").code == 0
    assert load_and_check("inception", INCEPTION).weight_status == "nonstandard"


def test_the_format_of_another_network_is_refused(tmp_path: Path, vfbench: Command) -> None:
    outcome = vfbench("weights", "import", "inception", FORMATS["bundle"](tmp_path))
    assert outcome.code == 4
    assert "inception is published as PyTorch state dict" in outcome.err
