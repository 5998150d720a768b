"""Tests of `vfbench score`: equal scores to a run in every layout, the recorded input, repeats, copies."""

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
from scoring import plan_score, run_score, save_array, shapes_clips

from vfbench import clips
from vfbench.datasets import shapes
from vfbench.errors import UserError
from vfbench.pipeline.job import run
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan
from vfbench.report.results import SCORED_FILE
from vfbench.scoring.job import score
from vfbench.utils.tensor_files import read_tensors

pytest.importorskip("av")  # reads and writes videos
pytestmark = pytest.mark.usefixtures("empty_cwd")

COUNT = 64


# Equal to a run.


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the noise model, with its clips as an array file and their prompts."""
    root = tmp_path_factory.mktemp("exported")
    run_plan = plan(
        RunOptions(model="noise", num_samples=COUNT, num_real=64, device="cpu", keep_clips=True, output=root / "run")
    )
    run(run_plan)
    chunks = [read_tensors(path)[0]["clips"] for path in sorted((root / "run" / "chunks").iterdir())]
    save_array(root / "noise" / "all.npy", torch.cat(chunks).permute(0, 1, 3, 4, 2).numpy())
    write_list(root / "prompts.tsv", *(f"all.npy[{r.index}]\t{r.prompt}" for r in run_plan.requests))
    return root


@pytest.mark.slow
def test_clips_of_a_run_get_the_scores_and_protocol_of_the_run(exported: Path, vfbench: Command) -> None:
    flags = ["--fake", exported / "noise", "--prompts", exported / "prompts.tsv", "--num-real", 64, "--device", "cpu"]
    outcome = vfbench("score", "--real", "shapes", *flags, "--output", "mine", "--name", "ours")
    assert outcome.code == 0, outcome.err
    scored, run_result = results(Path("mine")), results(exported / "run")
    assert scored["protocol"] == run_result["protocol"]
    assert scored["protocol"]["comparable"]
    assert list(scored["scores"]) == list(run_result["scores"])
    for name, actual in scored["scores"].items():
        expected = run_result["scores"][name]
        for key in ("value", "low", "high", "floor", "error"):
            assert actual[key] == pytest.approx(expected[key], rel=1e-6, abs=1e-9), (name, key)
        assert (actual["n_real"], actual["n_fake"]) == (64, COUNT)
    table_outcome = vfbench("table", exported / "run", "mine")
    assert table_outcome.code == 0
    assert "| ours " in table_outcome.out
    assert "compute per clip: unknown (ours)" in table_outcome.out
    assert Path("mine/tables/table.tex").is_file()


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("layout", ["npz", "frames", "two levels", "videos"])
def test_every_layout_gives_the_same_scores(layout: str, tmp_path: Path) -> None:
    values = shapes_clips(8)
    expected = run_score(save_array(tmp_path / "array" / "a.npy", values), output="array")
    fake = tmp_path / "fake"
    fake.mkdir()
    if layout == "npz":
        np.savez_compressed(fake / "a.npz", values)
    for i, clip in enumerate(values):
        if layout == "videos":
            write_video(fake / f"{i}.avi", clip)
        elif layout != "npz":
            write_frames(fake / ("class" if layout == "two levels" else "") / str(i), clip)
    actual = run_score(fake, output="mine", metrics=["fvd", "kvd", "is"])
    assert list(expected["scores"]) == list(actual["scores"]) == ["fvd", "kvd", "is"]
    for name in actual["scores"]:
        assert actual["scores"][name]["value"] == pytest.approx(expected["scores"][name]["value"], rel=1e-6)
    assert actual["protocol"]["id"] == expected["protocol"]["id"]
    assert actual["fake"]["count"] == 8


@pytest.mark.slow
def test_frames_follow_the_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = {**shapes.PROTOCOLS["shapes"], "fake_stride": 2, "drop_first": 1}
    monkeypatch.setattr(shapes, "PROTOCOLS", {**shapes.PROTOCOLS, "thin": protocol})
    long = shapes_clips(8, frames=32)
    score_plan = plan_score(save_array(tmp_path / "long" / "a.npy", long), protocol="thin", output="thin")
    assert "16 of each fake clip, from frame 1 on, 2 apart" in score_plan.describe()
    actual = score(score_plan).to_json()["scores"]
    expected = run_score(save_array(tmp_path / "cut" / "a.npy", long[:, 1::2]), output="cut")["scores"]
    assert actual["fvd"]["value"] == expected["fvd"]["value"]


# Summary and record of the input.


def test_the_result_records_the_scored_clips(tmp_path: Path) -> None:
    for i, clip in enumerate(shapes_clips(9)):
        write_frames(tmp_path / "theirs" / f"{i}", clip)
    (tmp_path / "theirs" / "grid.txt").touch()
    listing = write_list(tmp_path / "list.txt", *map(str, range(8)))
    os.utime(tmp_path / "theirs" / "3", (86_400, 86_400))
    os.utime(tmp_path / "theirs" / "8", (0, 0))
    scoring = plan_score(tmp_path / "theirs", listing=listing)
    text = scoring.describe()
    assert "written 1970-01-02 00:00 to 2" in text  # clip 8 is not listed
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


def test_jpeg_against_lossless_gets_a_note(tmp_path: Path) -> None:
    for i, clip in enumerate(shapes_clips(8)):
        write_frames(tmp_path / "real" / str(i), clip)
        write_frames(tmp_path / "fake" / str(i), clip, "{:04}.jpg", quality=75)
    text = plan_score(tmp_path / "fake", real=str(tmp_path / "real")).describe()
    assert "compression: real lossless, fake jpeg" in text
    same = plan_score(tmp_path / "real", real=str(tmp_path / "real")).describe()
    assert "the same folder" in same
    assert "compression" not in same


def test_a_number_of_clips_unlike_the_protocols_gets_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = {**shapes.PROTOCOLS["shapes"], "n_fake": 9}
    monkeypatch.setattr(shapes, "PROTOCOLS", {"fixed": fixed})
    result = run_score(save_array(tmp_path / "a.npy", shapes_clips(8)))
    assert result["protocol"]["name"] == "fixed(n_fake=8)"
    assert "all 8 clips" in result["note"]
    assert "fixed asks for 9" in result["note"]


@pytest.mark.slow
def test_repeats_need_enough_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = {**shapes.PROTOCOLS["shapes"], "n_fake": 8, "repeats": 2}
    monkeypatch.setattr(shapes, "PROTOCOLS", {"twice": protocol})
    values = shapes_clips(16)
    repeated = run_score(save_array(tmp_path / "two.npy", values), metrics=["fvd"], output="two")
    protocol = repeated["protocol"]
    assert (protocol["name"], protocol["repeats"], protocol["n_fake"]) == ("twice", 2, 8)
    assert "mean of 2 draws" in repeated["scores"]["fvd"]["note"]
    single = run_score(save_array(tmp_path / "one.npy", values[:15]), metrics=["fvd"], output="one")
    assert (single["protocol"]["repeats"], single["protocol"]["n_fake"]) == (1, 15)
    assert single["protocol"]["name"] == "twice(n_fake=15, repeats=1)"
    assert "one draw of 15 clips" in single["note"]
    assert single["protocol"]["id"] != repeated["protocol"]["id"]
    mixed, ordered = (
        read_tensors(Path(name) / SCORED_FILE)[0]["fake.shapes_judge.features"].tolist() for name in ("two", "one")
    )
    shared = [row for row in mixed if row in ordered]
    assert len(shared) == 15
    assert shared != ordered  # draws are shuffled: files may be sorted by class


def test_dry_run_prints_the_summary_and_writes_nothing(tmp_path: Path, vfbench: Command) -> None:
    fake = save_array(tmp_path / "a.npy", shapes_clips(2))
    outcome = vfbench("score", "--real", "shapes", "--fake", fake, "--smoke", "--dry-run")
    assert outcome.code == 0
    assert "array clips: 2" in outcome.out
    assert list(Path().iterdir()) == []


def test_the_command_prints_the_summary_first(tmp_path: Path, vfbench: Command) -> None:
    outcome = vfbench(
        "score", "--real", "shapes", "--fake", save_array(tmp_path / "a.npy", shapes_clips(4)), "--smoke", "--json"
    )
    assert outcome.code == 0
    assert outcome.err.index("array clips: 4") < outcome.err.index("clips 0 to 3: 4/4")
    assert "--allow-mixed" in outcome.err
    assert json.loads(outcome.out)["scores"].keys() == {"fvd", "kvd", "is"}
    record = json.loads(next(Path("runs").glob("score-a-*/run.json")).read_text())
    assert record["options"]["smoke"] == {"value": "True", "origin": "command line"}


@pytest.mark.thorough
@pytest.mark.slow
def test_a_folder_of_real_video_scores_itself(real_data: Path, tmp_path: Path) -> None:
    place = tmp_path / "clips"
    place.mkdir()
    for path in sorted((real_data / "ucf101/UCF-101").rglob("*.avi"))[:8]:
        shutil.copy(path, place / path.name)
    spec = f"folder(root='{place}', geometry='squash', height=240, width=320)"
    result = run_score(place, real=spec)
    assert result["scores"]["fvd"]["value"] == pytest.approx(0, abs=1e-6)
    assert "the same folder" in result["note"]
    with pytest.raises(UserError, match=r"320x240 pixels .* scores 240x240.*geometry='squash'"):
        plan_score(place, real=str(place))


# Copies.


@pytest.mark.slow
def test_copies_widen_the_error_of_every_metric_selection(tmp_path: Path) -> None:
    distinct = shapes_clips(64)
    options: dict[str, Any] = {"num_real": 64, "smoke": False}
    reference = run_score(save_array(tmp_path / "alone.npy", distinct), metrics=["fvd"], **options)["scores"]["fvd"]
    with_copies = save_array(tmp_path / "copied.npy", np.concatenate([distinct[:16]] * 4))
    for metrics in (["fvd"], ["fvd", "kvd", "is"]):
        actual = run_score(with_copies, metrics=metrics, output=tmp_path / f"out{len(metrics)}", **options)["scores"][
            "fvd"
        ]
        assert "48 of the generated clips are copies of others" in actual["note"]
        assert actual["error"] > 1.3 * reference["error"]
    assert "copies" not in reference["note"]


def test_copies_of_a_single_clip_get_a_note(tmp_path: Path) -> None:
    fvd = run_score(save_array(tmp_path / "one.npy", np.concatenate([shapes_clips(1)] * 8)))["scores"]["fvd"]
    assert "7 of the generated clips are copies of others" in fvd["note"]
