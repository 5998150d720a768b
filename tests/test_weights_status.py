"""Tests of `weights verify` and `weights status`, the catalogue, and the folder of weights."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import Command, flip_byte
from weight_files import FORMATS, publish, save, state_of, table

from vfbench.metrics import _clip_model
from vfbench.utils import files, tensor_files
from vfbench.utils.files import file_sha256
from vfbench.weights import cache, catalogue, i3d


@pytest.fixture(autouse=True)
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights, not created yet; the stand-in is the published I3D."""
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(i3d, "table", table)
    return tmp_path / "weights"


def test_verify_reads_any_format_and_lists_mismatches(tmp_path: Path, weights_folder: Path, vfbench: Command) -> None:
    outcome = vfbench("weights", "verify", "i3d", FORMATS["hassony2"](tmp_path))
    assert (outcome.code, outcome.out) == (
        0,
        "i3d: 7 of 7 tensors are those of the published I3D (Kinetics-400 from scratch)\n",
    )
    state = state_of()
    state["logits.conv3d.bias"][0] += 1
    outcome = vfbench("weights", "verify", "i3d", save(tmp_path / "off.pt", state))
    assert outcome.code == 4
    assert "off.pt is not the published i3d: 6 of 7 tensors" in outcome.err
    assert re.search(r"'logits\.conv3d\.bias' has CRC \d+, expected \d+$", outcome.err)
    assert not weights_folder.exists()


def test_verify_recognises_a_file_by_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vfbench: Command
) -> None:
    file = save(tmp_path / "inception.pth", {"a": torch.ones(2)})
    assert vfbench("weights", "verify", "inception", file).code == 4
    publish("inception", file, monkeypatch)
    outcome = vfbench("weights", "verify", "inception", file)
    assert (outcome.code, outcome.out) == (
        0,
        f"inception: the published file: inception.pth has SHA-256 {file_sha256(file)}\n",
    )


def test_verify_without_a_name_checks_all_weights(tmp_path: Path, weights_folder: Path, vfbench: Command) -> None:
    outcome = vfbench("weights", "verify")
    assert outcome.code == 4
    assert f"no weights in {weights_folder}" in outcome.err
    assert all(f"\n  python -m vfbench weights fetch {name}" in outcome.err for name in catalogue.NETWORKS)
    assert "get them with\n  python -m vfbench weights fetch i3d" in vfbench("weights", "verify", "i3d").err
    assert vfbench("weights", "import", "i3d", FORMATS["bundle"](tmp_path)).code == 0
    assert vfbench("weights", "verify").out.startswith("i3d: 7 of 7")


def test_verify_continues_after_a_bad_network(
    tmp_path: Path, weights_folder: Path, monkeypatch: pytest.MonkeyPatch, vfbench: Command
) -> None:
    file = save(tmp_path / "inception.pth", {"a": torch.ones(2)})
    publish("inception", file, monkeypatch)
    assert vfbench("weights", "import", "i3d", FORMATS["bundle"](tmp_path)).code == 0
    assert vfbench("weights", "import", "inception", file).code == 0
    tensor_files.write(weights_folder / "videomae.safetensors", {"a": torch.ones(1)})  # of unknown origin
    flip_byte(weights_folder / "i3d.safetensors", -1)
    outcome = vfbench("weights", "verify")
    assert outcome.code == 4
    assert re.search(rf"^i3d: {weights_folder}/i3d\.safetensors is damaged", outcome.out, re.MULTILINE)
    assert re.search(r"^inception: the published file: inception\.pth", outcome.out, re.MULTILINE)
    assert re.search(
        rf"^videomae: {weights_folder}/videomae\.safetensors is not the published videomae", outcome.out, re.MULTILINE
    )
    assert outcome.err == (
        "error: not verified: i3d, videomae; get the published weights with\n"
        "  python -m vfbench weights fetch i3d\n  python -m vfbench weights fetch videomae\n"
    )
    assert vfbench("weights", "verify", "inception").code == 0


def test_status_prints_state_and_command(tmp_path: Path, weights_folder: Path, vfbench: Command) -> None:
    outcome = vfbench("weights", "status")
    assert (outcome.code, outcome.err) == (0, "")
    for name in catalogue.NETWORKS:
        assert f"{name}: missing, {weights_folder}/{name}.safetensors\n" in outcome.out
        assert f"get it: python -m vfbench weights fetch {name}\n" in outcome.out
    assert "clip: openai/clip-vit-base-patch32 of the Hugging Face hub" in outcome.out
    assert vfbench("weights", "import", "i3d", FORMATS["bundle"](tmp_path)).code == 0
    assert f"i3d: verified, {weights_folder}/i3d.safetensors\n" in vfbench("weights", "status").out
    flip_byte(weights_folder / "i3d.safetensors", -1)
    out = vfbench("weights", "status").out
    assert "i3d: damaged" in out
    assert "get it: python -m vfbench weights fetch i3d" in out


def test_a_file_without_record_is_verified_by_its_tensors(weights_folder: Path, vfbench: Command) -> None:
    weights_folder.mkdir()
    tensor_files.write(weights_folder / "i3d.safetensors", state_of())
    assert vfbench("weights", "verify", "i3d").out.startswith("i3d: 7 of 7")
    tensor_files.write(weights_folder / "i3d.safetensors", {"a": torch.ones(1)})
    outcome = vfbench("weights", "verify", "i3d")
    assert outcome.code == 4
    assert re.search(rf"'.*' is missing from {weights_folder}/i3d.safetensors", outcome.err)
    assert "i3d: damaged" in vfbench("weights", "status").out


@pytest.mark.pitfall("dead links to weights")
def test_status_of_a_network_prints_all_sources(vfbench: Command) -> None:
    out = vfbench("weights", "status", "i3d").out
    assert "licence Apache-2.0" in out
    assert "SHA-256 bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2" in out
    assert "i3d_pretrained_400.pt, size unknown, SHA-256 unknown" in out
    urls = catalogue.NETWORKS["i3d"].urls
    assert all(url in out for url in urls)
    assert len({url.split("/")[2] for url in urls}) >= 3  # hosts
    assert "python -m vfbench weights import i3d FILE" in out
    assert "by hand: https://drive.google.com" in out


@pytest.mark.parametrize("command", ["fetch", "verify", "status"])
def test_an_unknown_network_is_refused_with_a_suggestion(command: str, vfbench: Command) -> None:
    outcome = vfbench("weights", command, "inceptoin")
    assert outcome.code == 2
    assert "no feature network called 'inceptoin': did you mean 'inception'" in outcome.err


def test_clip_is_cached_by_transformers(vfbench: Command) -> None:
    command = "hf download openai/clip-vit-base-patch32 --revision b33cedfd0df4e43b8238760678fcc89e1a0d38b3\n"
    outcome = vfbench("weights", "fetch", "clip")
    assert outcome.code == 2
    assert "transformers caches openai/clip-vit-base-patch32" in outcome.err
    assert outcome.err.endswith(f"\n  {command}")
    assert vfbench("weights", "status", "clip").out.endswith(f"get it: {command}")
    assert command in vfbench("weights", "status").out


def test_the_catalogue_has_the_clip_that_is_loaded() -> None:
    model = catalogue.HUB_MODELS["clip"]
    assert (model.repository, model.revision) == (_clip_model.MODEL, _clip_model.PUBLISHED[_clip_model.MODEL][0])


@pytest.mark.parametrize("name", catalogue.NETWORKS)
def test_catalogue_entries_are_complete(name: str) -> None:
    network = catalogue.NETWORKS[name]
    assert network.name == name
    assert network.urls
    assert all(url.startswith("https://") and "drive.google" not in url for url in network.urls)
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in network.published_hashes)
    assert bool(network.published_hashes) or network.verification != "file"


def test_the_folder_of_weights_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.weights_path("i3d") == tmp_path / "weights" / "i3d.safetensors"
    monkeypatch.delenv("VFBENCH_WEIGHTS")
    monkeypatch.setenv("VFBENCH_CACHE", str(tmp_path / "c"))
    assert cache.folder() == files.cache_folder() / "weights" == tmp_path / "c" / "weights"
    monkeypatch.delenv("VFBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache.folder() == tmp_path / "x" / "vfbench" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache" / "vfbench" / "weights"


def test_only_one_module_reads_the_cache_variable() -> None:
    package = Path(files.__file__).parent
    assert [path.name for path in package.rglob("*.py") if '"VFBENCH_CACHE"' in path.read_text()] == ["files.py"]


def test_an_unwritable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vfbench: Command) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path / "file" / "weights"))
    outcome = vfbench("weights", "import", "i3d", FORMATS["piergiaj"](tmp_path))
    assert outcome.code == 5
    assert "set VFBENCH_WEIGHTS to a writable folder" in outcome.err
