"""`vfbench data stats`: the real features of a protocol, in files that others can score against."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, contents, flip, results
from datatrees import ucf101

from vfbench import plugins
from vfbench.clips import manifest
from vfbench.interfaces import Request
from vfbench.utils import tensor_files

pytest.importorskip("av")

SOURCES = ("shapes_judge.features", "shapes_judge.logits")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ucf101(tmp_path_factory.mktemp("ucf101"))


def run(vfbench: Command, root: Path, output: Path, *more: str) -> Any:
    return vfbench("data", "stats", "ucf101", "--data-root", root, "--smoke", "--output", output, *more)


def test_the_files_hold_the_features_of_the_listed_clips(root: Path, tmp_path: Path, vfbench: Command) -> None:
    before = contents(root)
    done = run(vfbench, root, tmp_path / "out")
    assert done.code == 0, done.err
    assert contents(root) == before
    assert {file.name for file in (tmp_path / "out").glob("[!.]*")} == {
        "clips.csv",
        *(f"{source}.safetensors" for source in SOURCES),
    }
    listed = manifest.read_manifest(tmp_path / "out/clips.csv")
    dataset = _dataset(root)
    for source in SOURCES:
        tensors, metadata = tensor_files.read_tensors(tmp_path / f"out/{source}.safetensors")
        assert metadata["clips_sha256"] == listed.sha256
        assert metadata["dataset_fingerprint"] == dataset.fingerprint
        protocol = json.loads(metadata["protocol"])
        assert (protocol["id"], protocol["dataset"]) == (metadata["protocol_id"], "ucf101")
        assert str(root) not in " ".join(metadata.values())
        torch.testing.assert_close(tensors["features"], _features(dataset, listed, source.split(".")[1]))
        assert sorted(tensors["groups"].tolist()) == list(range(9))


def _dataset(root: Path) -> Any:
    return plugins.load("dataset", plugins.parse("ucf101").merged({"root": str(root)}))


def _features(dataset: Any, listed: manifest.Manifest, output: str) -> torch.Tensor:
    """The same without the engine: each clip by its place, through the network."""
    judge = plugins.load("extractor", "shapes_judge", torch.device("cpu"))
    rows = []
    for place in listed.places(0, "real"):
        clip = dataset.at([place]).clips(place.split, [0])
        rows.append(judge(clip, [Request(0, 0, 0, "")], [output])[output])
    return torch.cat(rows)


def test_others_can_score_against_a_file(root: Path, tmp_path: Path, vfbench: Command) -> None:
    done = run(vfbench, root, tmp_path / "out")
    file = tmp_path / "out/shapes_judge.features.safetensors"
    assert f"score --real {file} --fake FEATURES" in done.err
    scored = vfbench(
        "score", "--real", file, "--fake", file, "--metrics", "fvd", "--smoke", "--output", tmp_path / "score"
    )
    assert scored.code == 0, scored.err
    assert results(tmp_path / "score")["scores"]["fvd"]["value"] == pytest.approx(0, abs=1e-3)
    assert "groups" in scored.err  # not read, and said to be there


def test_the_same_command_again_mends_a_damaged_file(root: Path, tmp_path: Path, vfbench: Command) -> None:
    run(vfbench, root, tmp_path / "out")
    files = [tmp_path / f"out/{source}.safetensors" for source in SOURCES]
    first = [copy.deepcopy(tensor_files.read_tensors(file)) for file in files]  # they are mapped
    flip(files[1], -1)
    with pytest.raises(ValueError, match="hash"):
        tensor_files.read_tensors(files[1])
    assert run(vfbench, root, tmp_path / "out").code == 0
    for file, (tensors, metadata) in zip(files, first, strict=True):
        again, told = tensor_files.read_tensors(file)
        assert told == metadata
        assert all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_other_clips_do_not_go_into_the_same_folder(root: Path, tmp_path: Path, vfbench: Command) -> None:
    run(vfbench, root, tmp_path / "out")
    first = contents(tmp_path / "out")
    done = run(vfbench, root, tmp_path / "out", "--num-real", "8")
    assert done.code == 2
    assert "has another protocol_id: choose another --output" in done.err
    assert contents(tmp_path / "out") == first


@pytest.mark.parametrize(
    ("output", "said"), [("x.safetensors", "give a folder"), ("UCF-101/x", "choose another --output")]
)
def test_a_place_that_will_not_do_is_refused(root: Path, vfbench: Command, output: str, said: str) -> None:
    before = contents(root)
    done = run(vfbench, root, root / output)
    assert done.code == 2
    assert said in done.err
    assert contents(root) == before
