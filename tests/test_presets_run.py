"""Runs of every protocol preset, from the command to the scores, on Moving Shapes and on real video files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Command

from vfbench.protocol import presets

NAMES = sorted(presets.available())


@pytest.fixture
def clips(real_data: Path, tmp_path: Path) -> Path:
    """Folder of seven real videos of two datasets, used as train and as test split."""
    videos = [*real_data.glob("ucf101/**/*.avi"), *real_data.glob("taichi_hd/*.mp4")]
    assert len(videos) == 7
    for split in ("train", "test"):
        (tmp_path / "clips" / split).mkdir(parents=True)
        for video in videos:
            (tmp_path / "clips" / split / video.name).symlink_to(video)
    return tmp_path / "clips"


def scores(vfbench: Command, folder: Path, *options: object) -> dict[str, Any]:
    outcome = vfbench("run", "--model", "noise", "--device", "cpu", "--smoke", "-n", 8, "--output", folder, *options)
    assert outcome.code == 0, outcome.err
    result: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return result


@pytest.mark.one_case
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_scores_moving_shapes(
    name: str, loaded_specs: list[str], tmp_path: Path, vfbench: Command
) -> None:
    result = scores(vfbench, tmp_path / "run", "--protocol", name)
    assert set(result["scores"]) == set(result["protocol"]["measures"])
    assert (result["protocol"]["height"], result["protocol"]["start"]) == (32, "zero")


@pytest.mark.one_case
@pytest.mark.slow
@pytest.mark.parametrize("name", ["strict", "digan", "latte", "magvit", "mcvd"])  # every start, selection and filter
def test_presets_score_real_video(
    name: str, loaded_specs: list[str], clips: Path, tmp_path: Path, vfbench: Command
) -> None:
    result = scores(
        vfbench, tmp_path / "run", "--num-real", 7, "--protocol", name, "--dataset", "folder", "--data-root", clips
    )
    expected = presets.for_dataset(presets.load(name), "folder")
    protocol = result["protocol"]
    clip_fields = ("split", "selection", "frames", "height", "width", "stride", "start", "geometry", "filter")
    for field in (*clip_fields, "antialias"):
        assert protocol[field] == expected[field], field
    assert protocol["extractors"] == expected["extractors"]
    assert set(result["scores"]) == set(expected["measures"])


@pytest.mark.one_case
@pytest.mark.slow
@pytest.mark.parametrize("name", ["strict", "mcvd", "pvdm"])
def test_presets_run_with_randomly_initialised_networks(
    name: str, clips: Path, tmp_path: Path, vfbench: Command
) -> None:
    options = ["--protocol", name, "--weights", "random", "--num-real", 4, "--dataset", "folder", "--data-root", clips]
    result = scores(vfbench, tmp_path / "run", *options)
    assert "NOT the published weights: i3d" in result["note"]
    i3d = presets.load(name).values["extractors"]["i3d"].removesuffix(")")
    assert result["protocol"]["extractors"]["i3d"].startswith(f"{i3d}, weights='random') ")
    assert result["scores"]["fvd"]["value"] > 0
