"""`weights verify` and `where`, the catalogue and the folder: what is here, is it right, and how to get the rest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import Command, flip
from weight_files import FORMATS, publish, save, state_of, table

from vfbench.metrics import _clip_model
from vfbench.utils import files, tensor_files
from vfbench.utils.files import file_sha256
from vfbench.weights import cache, catalogue, i3d


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights, which does not exist yet; the published I3D is the stand-in."""
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(i3d, "table", table)
    return tmp_path / "weights"


def test_verify_reads_any_format_and_names_what_differs(tmp_path: Path, place: Path, vfbench: Command) -> None:
    done = vfbench("weights", "verify", "i3d", FORMATS["hassony2"](tmp_path))
    assert (done.code, done.out) == (
        0,
        "i3d: 7 of 7 tensors are those of the published I3D (Kinetics-400 from scratch)\n",
    )
    state = state_of()
    state["logits.conv3d.bias"][0] += 1
    done = vfbench("weights", "verify", "i3d", save(tmp_path / "off.pt", state))
    assert done.code == 4
    assert "off.pt is not the published i3d: 6 of 7 tensors" in done.err
    assert re.search(r"'logits\.conv3d\.bias' has CRC \d+, expected \d+$", done.err)
    assert not place.exists()


def test_verify_knows_a_file_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vfbench: Command) -> None:
    file = save(tmp_path / "inception.pth", {"a": torch.ones(2)})
    assert vfbench("weights", "verify", "inception", file).code == 4
    publish("inception", file, monkeypatch)
    done = vfbench("weights", "verify", "inception", file)
    assert (done.code, done.out) == (
        0,
        f"inception: the published file: inception.pth has SHA-256 {file_sha256(file)}\n",
    )


def test_verify_looks_at_all_that_is_here(tmp_path: Path, place: Path, vfbench: Command) -> None:
    done = vfbench("weights", "verify")
    assert done.code == 4
    assert f"no weights in {place}" in done.err
    assert all(f"\n  python -m vfbench weights fetch {name}" in done.err for name in catalogue.NETWORKS)
    assert "get them with\n  python -m vfbench weights fetch i3d" in vfbench("weights", "verify", "i3d").err
    assert vfbench("weights", "import", "i3d", FORMATS["bundle"](tmp_path)).code == 0
    assert vfbench("weights", "verify").out.startswith("i3d: 7 of 7")


def test_verify_goes_on_behind_a_bad_network(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, vfbench: Command
) -> None:
    file = save(tmp_path / "inception.pth", {"a": torch.ones(2)})
    publish("inception", file, monkeypatch)
    assert vfbench("weights", "import", "i3d", FORMATS["bundle"](tmp_path)).code == 0
    assert vfbench("weights", "import", "inception", file).code == 0
    tensor_files.write(place / "videomae.safetensors", {"a": torch.ones(1)})  # of unknown origin
    flip(place / "i3d.safetensors", -1)
    done = vfbench("weights", "verify")
    assert done.code == 4
    assert re.search(rf"^i3d: {place}/i3d\.safetensors is damaged", done.out, re.MULTILINE)
    assert re.search(r"^inception: the published file: inception\.pth", done.out, re.MULTILINE)
    assert re.search(rf"^videomae: {place}/videomae\.safetensors is not the published videomae", done.out, re.MULTILINE)
    assert done.err == (
        "error: not verified: i3d, videomae; get the published weights with\n"
        "  python -m vfbench weights fetch i3d\n  python -m vfbench weights fetch videomae\n"
    )
    assert vfbench("weights", "verify", "inception").code == 0


def test_where_tells_state_and_command(tmp_path: Path, place: Path, vfbench: Command) -> None:
    done = vfbench("weights", "status")
    assert (done.code, done.err) == (0, "")
    for name in catalogue.NETWORKS:
        assert f"{name}: missing, {place}/{name}.safetensors\n" in done.out
        assert f"get it: python -m vfbench weights fetch {name}\n" in done.out
    assert "clip: openai/clip-vit-base-patch32 of the Hugging Face hub" in done.out
    assert vfbench("weights", "import", "i3d", FORMATS["bundle"](tmp_path)).code == 0
    assert f"i3d: verified, {place}/i3d.safetensors\n" in vfbench("weights", "status").out
    flip(place / "i3d.safetensors", -1)
    out = vfbench("weights", "status").out
    assert "i3d: damaged" in out
    assert "get it: python -m vfbench weights fetch i3d" in out


def test_a_file_put_there_by_hand_is_not_taken_on_trust(place: Path, vfbench: Command) -> None:
    place.mkdir()
    tensor_files.write(place / "i3d.safetensors", state_of())
    assert vfbench("weights", "verify", "i3d").out.startswith("i3d: 7 of 7")
    tensor_files.write(place / "i3d.safetensors", {"a": torch.ones(1)})
    done = vfbench("weights", "verify", "i3d")
    assert done.code == 4
    assert re.search(rf"'.*' is missing from {place}/i3d.safetensors", done.err)
    assert "i3d: damaged" in vfbench("weights", "status").out


@pytest.mark.pitfall("dead links to weights")
def test_where_tells_all_sources_of_one(vfbench: Command) -> None:
    out = vfbench("weights", "status", "i3d").out
    assert "licence Apache-2.0" in out
    assert "SHA-256 bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2" in out
    assert "i3d_pretrained_400.pt, size unknown, SHA-256 unknown" in out
    urls = catalogue.NETWORKS["i3d"].urls
    assert all(url in out for url in urls)
    assert len({url.split("/")[2] for url in urls}) >= 3  # hosts
    assert "python -m vfbench weights import i3d FILE" in out
    assert "by hand: https://drive.google.com" in out


@pytest.mark.parametrize("verb", ["fetch", "verify", "status"])
def test_an_unknown_network_is_named_with_what_is_near(verb: str, vfbench: Command) -> None:
    done = vfbench("weights", verb, "inceptoin")
    assert done.code == 2
    assert "no feature network called 'inceptoin': did you mean 'inception'" in done.err


def test_clip_has_no_file_here(vfbench: Command) -> None:
    command = "hf download openai/clip-vit-base-patch32 --revision b33cedfd0df4e43b8238760678fcc89e1a0d38b3\n"
    refused = vfbench("weights", "fetch", "clip")
    assert refused.code == 2
    assert "transformers caches openai/clip-vit-base-patch32" in refused.err
    assert refused.err.endswith(f"\n  {command}")
    assert vfbench("weights", "status", "clip").out.endswith(f"get it: {command}")
    assert command in vfbench("weights", "status").out


def test_the_clip_to_fetch_is_the_one_that_is_loaded() -> None:
    told = catalogue.HUB_MODELS["clip"]
    assert (told.repository, told.revision) == (_clip_model.MODEL, _clip_model.PUBLISHED[_clip_model.MODEL][0])


@pytest.mark.parametrize("name", catalogue.NETWORKS)
def test_the_catalogue_is_whole(name: str) -> None:
    network = catalogue.NETWORKS[name]
    assert network.name == name
    assert network.urls
    assert all(url.startswith("https://") and "drive.google" not in url for url in network.urls)
    assert all(re.fullmatch("[0-9a-f]{64}", known) for known in network.published_hashes)
    assert bool(network.published_hashes) or network.verification != "file"


def test_the_folder_is_in_the_cache_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.weights_path("i3d") == tmp_path / "weights" / "i3d.safetensors"
    monkeypatch.delenv("VFBENCH_WEIGHTS")
    monkeypatch.setenv("VFBENCH_CACHE", str(tmp_path / "c"))
    assert cache.folder() == files.cache_folder() / "weights" == tmp_path / "c" / "weights"
    monkeypatch.delenv("VFBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache.folder() == tmp_path / "x" / "vfbench" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache" / "vfbench" / "weights"


def test_the_place_of_the_cache_is_said_once() -> None:
    package = Path(files.__file__).parent
    assert [path.name for path in package.rglob("*.py") if '"VFBENCH_CACHE"' in path.read_text()] == ["files.py"]


def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vfbench: Command
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path / "file" / "weights"))
    done = vfbench("weights", "import", "i3d", FORMATS["piergiaj"](tmp_path))
    assert done.code == 5
    assert "set VFBENCH_WEIGHTS to a writable folder" in done.err
