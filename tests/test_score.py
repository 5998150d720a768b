"""What others made is scored as a run would score it, and the result says what it was made of."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clipfiles import write_frames, write_list, write_video
from conftest import Command, results
from scoring import drawn, looked, saved, scored

from vfbench import clips
from vfbench.datasets import shapes
from vfbench.errors import UserError
from vfbench.pipeline.job import run
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan
from vfbench.report.results import SCORED_FILE
from vfbench.scoring.job import score
from vfbench.utils.tensor_files import read_tensors

pytest.importorskip("av")  # without it no clip can be made, nor read
pytestmark = pytest.mark.usefixtures("elsewhere")

COUNT = 64


# The same number as a run.


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of noise, its clips as an array file, and what they were asked to show."""
    root = tmp_path_factory.mktemp("exported")
    planned = plan(
        RunOptions(model="noise", num_samples=COUNT, num_real=64, device="cpu", keep_clips=True, output=root / "run")
    )
    run(planned)
    chunks = [read_tensors(path)[0]["clips"] for path in sorted((root / "run" / "chunks").iterdir())]
    saved(root / "noise" / "all.npy", torch.cat(chunks).permute(0, 1, 3, 4, 2).numpy())
    write_list(root / "prompts.tsv", *(f"all.npy[{r.index}]\t{r.prompt}" for r in planned.requests))
    return root


def test_clips_of_a_run_get_the_scores_and_the_protocol_of_the_run(exported: Path, vfbench: Command) -> None:
    given = ["--fake", exported / "noise", "--prompts", exported / "prompts.tsv", "--num-real", 64, "--device", "cpu"]
    done = vfbench("score", "--real", "shapes", *given, "--output", "mine", "--name", "ours")
    assert done.code == 0, done.err
    mine, theirs = results(Path("mine")), results(exported / "run")
    assert mine["protocol"] == theirs["protocol"]
    assert mine["protocol"]["comparable"]
    assert list(mine["scores"]) == list(theirs["scores"])
    for name, found in mine["scores"].items():
        expected = theirs["scores"][name]
        for key in ("value", "low", "high", "floor", "error"):
            assert found[key] == pytest.approx(expected[key], rel=1e-6, abs=1e-9), (name, key)
        assert (found["n_real"], found["n_fake"]) == (64, COUNT)
    both = vfbench("table", exported / "run", "mine")
    assert both.code == 0
    assert "| ours " in both.out
    assert "compute per clip: unknown (ours)" in both.out
    assert Path("mine/tables/table.tex").is_file()


@pytest.mark.parametrize("layout", ["npz", "frames", "two levels", "videos"])
def test_every_layout_gives_the_same_scores(layout: str, tmp_path: Path) -> None:
    values = drawn(8)
    expected = scored(saved(tmp_path / "array" / "a.npy", values), output="array")
    fake = tmp_path / "fake"
    fake.mkdir()
    if layout == "npz":
        np.savez_compressed(fake / "a.npz", values)
    for i, clip in enumerate(values):
        if layout == "videos":
            write_video(fake / f"{i}.avi", clip)
        elif layout != "npz":
            write_frames(fake / ("class" if layout == "two levels" else "") / str(i), clip)
    found = scored(fake, output="mine", metrics=["fvd", "kvd", "is"])
    assert list(expected["scores"]) == list(found["scores"]) == ["fvd", "kvd", "is"]
    for name in found["scores"]:
        assert found["scores"][name]["value"] == pytest.approx(expected["scores"][name]["value"], rel=1e-6)
    assert found["protocol"]["id"] == expected["protocol"]["id"]
    assert found["fake"]["count"] == 8


def test_the_frames_that_enter_are_those_of_the_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {**shapes.PROTOCOLS["shapes"], "fake_stride": 2, "drop_first": 1}
    monkeypatch.setattr(shapes, "PROTOCOLS", {**shapes.PROTOCOLS, "thin": rules})
    long = drawn(8, frames=32)
    thin = looked(saved(tmp_path / "long" / "a.npy", long), protocol="thin", output="thin")
    assert "16 of each fake clip, from frame 1 on, 2 apart" in thin.describe()
    found = score(thin).to_json()["scores"]
    expected = scored(saved(tmp_path / "cut" / "a.npy", long[:, 1::2]), output="cut")["scores"]
    assert found["fvd"]["value"] == expected["fvd"]["value"]


# What was found is said, and recorded.


def test_the_result_says_what_was_scored(tmp_path: Path) -> None:
    for i, clip in enumerate(drawn(9)):
        write_frames(tmp_path / "theirs" / f"{i}", clip)
    (tmp_path / "theirs" / "grid.txt").touch()
    listing = write_list(tmp_path / "list.txt", *map(str, range(8)))
    os.utime(tmp_path / "theirs" / "3", (86_400, 86_400))
    os.utime(tmp_path / "theirs" / "8", (0, 0))
    scoring = looked(tmp_path / "theirs", listing=listing)
    text = scoring.describe()
    assert "written 1970-01-02 00:00 to 2" in text  # the ninth is not listed
    assert "frame folders: 8" in text
    assert "not listed, not scored: 1 (8)" in text
    assert "not scored, no layout reads them: grid.txt" in text
    assert "shapes, train, at 16x32x32" in text
    assert "8 fake against 64 real ones" in text
    assert scoring.folder == Path(f"runs/score-theirs-{scoring.specification.id[:8]}")
    result = score(scoring).to_json()
    assert result == results(scoring.folder)
    assert (result["model"], result["model_spec"]) == ("theirs", str(tmp_path / "theirs"))
    assert (result["cost"], result["seed"], result["weights"]) == (None, None, "unknown")
    fake = result["fake"]
    assert (fake["layout"], fake["count"], fake["list"]) == ("frames", 8, str(listing))
    assert fake["manifest"] == clips.content_hash(clips.detect(tmp_path / "theirs", listing=listing))
    assert any("not listed" in note for note in fake["notes"])
    assert (scoring.folder / "samples" / "sheet.png").is_file()
    assert (scoring.folder / "samples" / "clips.webp").is_file()
    assert "without clipsim" in result["note"]


def test_what_was_stored_otherwise_is_warned_of(tmp_path: Path) -> None:
    for i, clip in enumerate(drawn(8)):
        write_frames(tmp_path / "real" / str(i), clip)
        write_frames(tmp_path / "fake" / str(i), clip, "{:04}.jpg", quality=75)
    text = looked(tmp_path / "fake", real=str(tmp_path / "real")).describe()
    assert "compression: real lossless, fake jpeg" in text
    same = looked(tmp_path / "real", real=str(tmp_path / "real")).describe()
    assert "the same folder" in same
    assert "compression" not in same


def test_another_number_of_clips_than_the_protocol_has_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = {**shapes.PROTOCOLS["shapes"], "n_fake": 9}
    monkeypatch.setattr(shapes, "PROTOCOLS", {"fixed": fixed})
    result = scored(saved(tmp_path / "a.npy", drawn(8)))
    assert result["protocol"]["name"] == "fixed(n_fake=8)"
    assert "all 8 clips found are scored, fixed has 9" in result["note"]


def test_draws_of_clips_are_made_where_there_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = {**shapes.PROTOCOLS["shapes"], "n_fake": 8, "repeats": 2}
    monkeypatch.setattr(shapes, "PROTOCOLS", {"twice": drawing})
    values = drawn(16)
    two = scored(saved(tmp_path / "two.npy", values), metrics=["fvd"], output="two")
    assert (two["protocol"]["name"], two["protocol"]["repeats"], two["protocol"]["n_fake"]) == ("twice", 2, 8)
    assert "mean of 2 draws" in two["scores"]["fvd"]["note"]
    one = scored(saved(tmp_path / "one.npy", values[:15]), metrics=["fvd"], output="one")
    assert (one["protocol"]["repeats"], one["protocol"]["n_fake"]) == (1, 15)
    assert one["protocol"]["name"] == "twice(n_fake=15, repeats=1)"
    assert "one draw of 15 clips: 2 draws of 8, as twice has it, need 16" in one["note"]
    assert one["protocol"]["id"] != two["protocol"]["id"]
    mixed, ordered = (
        read_tensors(Path(name) / SCORED_FILE)[0]["fake.shapes_judge.features"].tolist() for name in ("two", "one")
    )
    kept = [row for row in mixed if row in ordered]
    assert len(kept) == 15
    assert kept != ordered  # clips lie sorted by class: each draw must have of all


def test_dry_run_says_what_is_there_and_writes_nothing(tmp_path: Path, vfbench: Command) -> None:
    fake = saved(tmp_path / "a.npy", drawn(2))
    done = vfbench("score", "--real", "shapes", "--fake", fake, "--smoke", "--dry-run")
    assert done.code == 0
    assert "array clips: 2" in done.out
    assert list(Path().iterdir()) == []


def test_the_command_says_what_it_found_before_it_starts(tmp_path: Path, vfbench: Command) -> None:
    done = vfbench("score", "--real", "shapes", "--fake", saved(tmp_path / "a.npy", drawn(4)), "--smoke", "--json")
    assert done.code == 0
    assert done.err.index("array clips: 4") < done.err.index("clips 0 to 3: 4/4")
    assert "--allow-mixed" in done.err
    assert json.loads(done.out)["scores"].keys() == {"fvd", "kvd", "is"}
    record = json.loads(next(Path("runs").glob("score-a-*/run.json")).read_text())
    assert record["options"]["smoke"] == {"value": "True", "origin": "command line"}


@pytest.mark.slow
def test_a_folder_of_real_video_scores_itself(real_data: Path, tmp_path: Path) -> None:
    place = tmp_path / "clips"
    place.mkdir()
    for path in sorted((real_data / "ucf101/UCF-101").rglob("*.avi"))[:8]:
        shutil.copy(path, place / path.name)
    spec = f"folder(root='{place}', geometry='squash', height=240, width=320)"
    result = scored(place, real=spec)
    assert result["scores"]["fvd"]["value"] == pytest.approx(0, abs=1e-6)
    assert "the same folder" in result["note"]
    with pytest.raises(UserError, match=r"320x240 pixels .* scores 240x240.*geometry='squash'"):
        looked(place, real=str(place))


# Copies.


def test_copies_count_together_whatever_is_measured(tmp_path: Path) -> None:
    once = drawn(64)
    options: dict[str, Any] = {"num_real": 64, "smoke": False}
    alone = scored(saved(tmp_path / "alone.npy", once), metrics=["fvd"], **options)["scores"]["fvd"]
    copied = saved(tmp_path / "copied.npy", np.concatenate([once[:16]] * 4))
    for metrics in (["fvd"], ["fvd", "kvd", "is"]):
        found = scored(copied, metrics=metrics, output=tmp_path / f"out{len(metrics)}", **options)["scores"]["fvd"]
        assert "48 of the generated clips are copies of others" in found["note"]
        assert found["error"] > 1.3 * alone["error"]
    assert "copies" not in alone["note"]


def test_clips_that_are_all_copies_of_one_are_said_to_be(tmp_path: Path) -> None:
    found = scored(saved(tmp_path / "one.npy", np.concatenate([drawn(1)] * 8)))["scores"]["fvd"]
    assert "7 of the generated clips are copies of others" in found["note"]
