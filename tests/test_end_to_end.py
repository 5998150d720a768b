"""End-to-end tests of commands as subprocesses: interrupted, and on real video."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from conftest import Command, close_clips, close_scores, results, resume_arguments, without_timings
from helpers import NO_TIME, UNET
from processes import run_command, run_of_three_chunks, start_command, wait_for

from vfbench.models import videofusion
from vfbench.utils.tensor_files import read_tensors

pytestmark = pytest.mark.slow

MODELS = ("videofusion", "vdm")


@pytest.mark.thorough
def test_ctrl_c_and_the_printed_command_end_with_an_equal_result(
    alone: Path, checkpoints: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a run"
    with start_command(run_of_three_chunks(checkpoints, folder)) as process:
        wait_for(folder / "chunks" / "000000.safetensors", process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert resume_arguments(err) == run_of_three_chunks(checkpoints, folder)
    outcome = run_command(resume_arguments(err))
    assert outcome.returncode == 0, outcome.stderr
    assert re.search("of 96 clips", outcome.stderr)
    assert without_timings(results(folder)) == without_timings(results(alone))


@pytest.mark.one_case
@pytest.mark.parametrize("model", [*MODELS, "real", "noise", "frozen"])
def test_batch_sizes_1_7_and_64_sample_equal_clips(
    model: str, checkpoints: Path, vfbench: Command, tmp_path: Path
) -> None:
    options: list[object] = ["--model", model, "--device", "cpu", "--smoke", "--keep-clips", "-n", 33]
    options += ["--checkpoint", checkpoints / model, "--steps", 2] if model in MODELS else []
    for size in (1, 7, 64):
        outcome = vfbench("run", *options, "--batch-size", size, "--output", tmp_path / str(size))
        assert outcome.code == 0, outcome.err
    reference = results(tmp_path / "1")
    for size in (7, 64):
        close_clips(stored_clips(tmp_path / str(size)), stored_clips(tmp_path / "1"))
        close_scores(results(tmp_path / str(size)), reference)
        assert results(tmp_path / str(size))["run_id"] == reference["run_id"]


def stored_clips(folder: Path) -> torch.Tensor:
    return torch.cat([read_tensors(path)[0]["clips"] for path in sorted((folder / "chunks").iterdir())])


def training_root(dataset: str, real_data: Path, folder: Path) -> Path:
    """Folder of a dataset with clips for training; the only clips of Sky Time-lapse and TaiChi-HD are test clips."""
    test_clips = {"sky_timelapse": ("sky_timelapse/sky_test", "sky_train"), "taichi_hd": ("taichi_hd", "train")}
    if dataset not in test_clips:
        return real_data / dataset
    source, name = test_clips[dataset]
    shutil.copytree(real_data / source, folder / "data" / name, ignore=shutil.ignore_patterns("*.csv"))
    return folder / "data"


@pytest.mark.parametrize(
    ("dataset", "note", "scores", "split", "size"),
    [
        ("ucf101", "2 of 9,537", ["fvd", "kvd", "is"], "both", 5),
        ("sky_timelapse", "6 of 225", ["fvd", "kvd"], None, None),
        ("taichi_hd", "2 of 285", ["fvd", "kvd"], None, None),
    ],
)
def test_real_video_from_training_to_the_report(
    dataset: str,
    note: str,
    scores: list[str],
    split: str | None,
    size: int | None,
    real_data: Path,
    vfbench: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = {**videofusion.PRESETS["tiny"], "base": {**NO_TIME, "patch": 4}, "residual": {**UNET, "patch": 4}}
    assert isinstance(videofusion.PRESETS, dict)
    monkeypatch.setitem(videofusion.PRESETS, "minute", small)
    monkeypatch.chdir(tmp_path)
    data = ["--dataset", dataset, "--data-root", real_data / dataset, "--device", "cpu"]
    training = ["--preset", "minute", "--steps", 2, "--batch-size", 1, "--output", "model"]
    trained = vfbench("train", *data[:3], training_root(dataset, real_data, tmp_path), *data[4:], *training)
    assert trained.code == 0, trained.err
    assert Path("model/samples/step_000002.png").is_file() == (dataset == "ucf101")  # the others have no test clips
    run = ["run", *data, "--checkpoint", "model", "--steps", 2, "--output", "run"]
    assert vfbench(*run).code == 4  # without --smoke: too few real clips
    assert not Path("run").exists()
    outcome = vfbench(*run, "--smoke")
    assert outcome.code == 0, outcome.err
    assert "not comparable" in outcome.out
    result = results(Path("run"))
    assert note in f"{outcome.err}{result['note']}"
    assert [name for name in result["scores"] if name in scores] == scores
    assert [result["protocol"][key] for key in ("frames", "height", "width", "comparable")] == [16, 64, 64, False]
    if size:
        assert result["protocol"]["split"] == split
        assert {score["n_real"] for score in result["scores"].values()} == {size}
    assert Path("run/samples/sheet.png").is_file()
    assert vfbench("table", "run").code == 2
    for form, first_line in (("csv", "model,dataset"), ("latex", "% needs")):
        assert vfbench("table", "run", "--allow-mixed", "--format", form).out.startswith(first_line)
    passed = vfbench("gate", "run", "--baseline", "run", "--rule", "fvd:+5%", "--detectable", "1e9")
    assert passed.code == 0, passed.err
    assert vfbench("report", "run", "--allow-mixed", "--output", "page").code == 0
    assert dataset in Path("page/index.html").read_text()


def test_frozen_repeats_the_first_frame_of_the_real_clips(real_data: Path, vfbench: Command, tmp_path: Path) -> None:
    data = ["--dataset", "ucf101", "--data-root", real_data, "--device", "cpu", "--smoke", "--keep-clips"]
    for model in ("real", "frozen"):
        assert vfbench("run", "--model", model, *data, "--output", tmp_path / model).code == 0
    real, frozen = stored_clips(tmp_path / "real"), stored_clips(tmp_path / "frozen")
    assert torch.equal(frozen[:, 0], real[:, 0])
    assert torch.equal(frozen[:, 15], real[:, 0])
    assert not torch.equal(real[:, 15], real[:, 0])
    assert json.loads((tmp_path / "real" / "run.json").read_text())["determines"]["model"] == "real"
