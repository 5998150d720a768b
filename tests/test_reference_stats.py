"""Tests of `vfbench data stats`: files of real features of a protocol, and scores against them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, file_contents, flip_byte, results
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


def data_stats(vfbench: Command, root: Path, output: Path, *more: str) -> Any:
    return vfbench("data", "stats", "ucf101", "--data-root", root, "--smoke", "--output", output, *more)


def test_the_files_hold_the_features_of_the_listed_clips(root: Path, tmp_path: Path, vfbench: Command) -> None:
    before = file_contents(root)
    outcome = data_stats(vfbench, root, tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert file_contents(root) == before
    assert {file.name for file in (tmp_path / "out").glob("[!.]*")} == {
        "clips.csv",
        *(f"{source}.safetensors" for source in SOURCES),
    }
    clip_list = manifest.read_manifest(tmp_path / "out/clips.csv")
    dataset = _dataset(root)
    for source in SOURCES:
        tensors, metadata = tensor_files.read_tensors(tmp_path / f"out/{source}.safetensors")
        assert metadata["clips_sha256"] == clip_list.sha256
        assert metadata["dataset_fingerprint"] == dataset.fingerprint
        protocol = json.loads(metadata["protocol"])
        assert (protocol["id"], protocol["dataset"]) == (metadata["protocol_id"], "ucf101")
        assert str(root) not in " ".join(metadata.values())
        torch.testing.assert_close(tensors["features"], _features(dataset, clip_list, source.split(".")[1]))
        assert sorted(tensors["groups"].tolist()) == list(range(9))


def _dataset(root: Path) -> Any:
    return plugins.load("dataset", plugins.parse("ucf101").merged({"root": str(root)}))


def _features(dataset: Any, clip_list: manifest.Manifest, output: str) -> torch.Tensor:
    """Features of the listed clips, extracted one by one without the pipeline."""
    judge = plugins.load("extractor", "shapes_judge", torch.device("cpu"))
    rows = []
    for place in clip_list.places(0, "real"):
        clip = dataset.at([place]).clips(place.split, [0])
        rows.append(judge(clip, [Request(0, 0, 0, "")], [output])[output])
    return torch.cat(rows)


def test_score_accepts_a_file_of_real_features(root: Path, tmp_path: Path, vfbench: Command) -> None:
    outcome = data_stats(vfbench, root, tmp_path / "out")
    file = tmp_path / "out/shapes_judge.features.safetensors"
    assert f"score --real {file} --fake FEATURES" in outcome.err
    score_outcome = vfbench(
        "score", "--real", file, "--fake", file, "--metrics", "fvd", "--smoke", "--output", tmp_path / "score"
    )
    assert score_outcome.code == 0, score_outcome.err
    assert results(tmp_path / "score")["scores"]["fvd"]["value"] == pytest.approx(0, abs=1e-3)


def test_clips_of_one_video_are_one_sample_in_scores_of_features(tmp_path: Path, vfbench: Command) -> None:
    """Each clip three times: where the file tells so, the interval is as wide as that of the clips once."""
    generator, halves = torch.Generator().manual_seed(0), []
    fake, real = (torch.randn(128, 4, generator=generator) for _ in range(2))
    for name, tensors in {
        "once": {"features": fake},
        "thrice": {"features": fake.repeat(3, 1)},
        "grouped": {"features": fake.repeat(3, 1), "groups": torch.arange(128).repeat(3)},
    }.items():
        tensor_files.write_tensors(tmp_path / f"{name}.safetensors", tensors)
        tensor_files.write_tensors(tmp_path / "real.safetensors", {"features": real})
        arguments = ["--real", tmp_path / "real.safetensors", "--fake", tmp_path / f"{name}.safetensors"]
        outcome = vfbench("score", *arguments, "--metrics", "fvd", "--output", tmp_path / name)
        assert outcome.code == 0, outcome.err
        score = results(tmp_path / name)["scores"]["fvd"]
        halves.append(score["high"] - score["low"])
    once, thrice, grouped = halves
    assert thrice < 0.9 * once
    assert grouped == pytest.approx(once, rel=0.1)


def test_repeating_the_command_restores_a_damaged_file(root: Path, tmp_path: Path, vfbench: Command) -> None:
    data_stats(vfbench, root, tmp_path / "out")
    files = [tmp_path / f"out/{source}.safetensors" for source in SOURCES]
    first = [copy.deepcopy(tensor_files.read_tensors(file)) for file in files]  # memory-mapped
    flip_byte(files[1], -1)
    with pytest.raises(ValueError, match="hash"):
        tensor_files.read_tensors(files[1])
    assert data_stats(vfbench, root, tmp_path / "out").code == 0
    for file, (tensors, metadata) in zip(files, first, strict=True):
        restored, restored_metadata = tensor_files.read_tensors(file)
        assert restored_metadata == metadata
        assert all(torch.equal(restored[name], tensors[name]) for name in tensors)


def test_a_folder_of_another_protocol_is_refused(root: Path, tmp_path: Path, vfbench: Command) -> None:
    data_stats(vfbench, root, tmp_path / "out")
    first = file_contents(tmp_path / "out")
    outcome = data_stats(vfbench, root, tmp_path / "out", "--num-real", "8")
    assert outcome.code == 2
    assert "has another protocol_id: choose another --output" in outcome.err
    assert file_contents(tmp_path / "out") == first


def test_a_list_of_other_clips_is_not_overwritten(root: Path, tmp_path: Path, vfbench: Command) -> None:
    listed = tmp_path / "clips.csv"
    listed.write_text("mine\n")
    outcome = data_stats(vfbench, root, tmp_path)
    assert outcome.code == 2
    assert str(listed) in outcome.err
    assert "--output" in outcome.err
    assert [file.name for file in tmp_path.iterdir() if file.suffix] == ["clips.csv"]
    assert listed.read_text() == "mine\n"


@pytest.mark.parametrize(
    ("output", "message"), [("x.safetensors", "give a folder"), ("UCF-101/x", "choose another --output")]
)
def test_an_invalid_output_is_refused(root: Path, vfbench: Command, output: str, message: str) -> None:
    before = file_contents(root)
    outcome = data_stats(vfbench, root, root / output)
    assert outcome.code == 2
    assert message in outcome.err
    assert file_contents(root) == before
