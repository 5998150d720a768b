"""Every protocol of the field, from the command to the table: on Moving Shapes, and on genuine video files."""

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
    """A folder of real videos of two datasets, the same ones as train and test."""
    videos = [*real_data.glob("ucf101/**/*.avi"), *real_data.glob("taichi_hd/*.mp4")]
    assert len(videos) == 7
    for split in ("train", "test"):
        (tmp_path / "clips" / split).mkdir(parents=True)
        for video in videos:
            (tmp_path / "clips" / split / video.name).symlink_to(video)
    return tmp_path / "clips"


def scores(vfbench: Command, folder: Path, *options: object) -> dict[str, Any]:
    done = vfbench("run", "--model", "noise", "--device", "cpu", "--smoke", "-n", 8, "--output", folder, *options)
    assert done.code == 0, done.err
    result: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return result


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_scores_moving_shapes(name: str, loads: list[str], tmp_path: Path, vfbench: Command) -> None:
    result = scores(vfbench, tmp_path / "run", "--protocol", name)
    assert set(result["scores"]) == set(result["protocol"]["measures"])
    assert (result["protocol"]["height"], result["protocol"]["start"]) == (32, "zero")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_scores_real_video(
    name: str, loads: list[str], clips: Path, tmp_path: Path, vfbench: Command
) -> None:
    result = scores(
        vfbench, tmp_path / "run", "--num-real", 7, "--protocol", name, "--dataset", "folder", "--data-root", clips
    )
    wanted = presets.for_dataset(presets.load(name), "folder")
    done = result["protocol"]
    for field in (
        "split",
        "selection",
        "frames",
        "height",
        "width",
        "stride",
        "start",
        "geometry",
        "filter",
        "antialias",
    ):
        assert done[field] == wanted[field], field
    assert done["extractors"] == wanted["extractors"]
    assert set(result["scores"]) == set(wanted["measures"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["strict", "mcvd", "pvdm"])
def test_the_networks_themselves_run_with_random_weights(
    name: str, clips: Path, tmp_path: Path, vfbench: Command
) -> None:
    options = ["--protocol", name, "--weights", "random", "--num-real", 4, "--dataset", "folder", "--data-root", clips]
    result = scores(vfbench, tmp_path / "run", *options)
    assert "NOT the published weights: i3d" in result["note"]
    wanted = presets.load(name).values["extractors"]["i3d"].removesuffix(")")
    assert result["protocol"]["extractors"]["i3d"].startswith(f"{wanted}, weights='random') ")
    assert result["scores"]["fvd"]["value"] > 0
