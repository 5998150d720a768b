"""End-to-end tests of commands as subprocesses: killed, interrupted, concurrent, and on real video."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, close_clips, close_scores, python, results, resume_arguments, without_timings
from helpers import NO_TIME, UNET

from vfbench.models import videofusion
from vfbench.utils.tensor_files import read_tensors

pytestmark = pytest.mark.slow

# `python -m vfbench` that reacts to SIGINT: children of a background shell ignore it by default.
START = """
import signal
from vfbench.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
MODELS = ("videofusion", "vdm")


def command(checkpoints: Path, folder: Path) -> list[str]:
    """Arguments of a run of 96 clips in 3 chunks."""
    model = ("--model", "videofusion", "--checkpoint", checkpoints / "videofusion", "--device", "cpu", "--smoke")
    return [*map(str, ("run", *model, "-n", 96, "--steps", 4, "--batch-size", 8, "--output", folder))]


def run_command(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(python("-m", "vfbench", *arguments), capture_output=True, text=True, check=False)


@contextmanager
def start_command(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Context manager: start the command as a subprocess, kill it at the end."""
    process = subprocess.Popen(
        python("-c", START, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def uninterrupted(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    """Result of an uninterrupted run, and its duration in seconds."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    start = time.monotonic()
    outcome = run_command(command(checkpoints, folder))
    assert outcome.returncode == 0, outcome.stderr
    return results(folder), time.monotonic() - start


def test_a_run_killed_at_three_random_moments_ends_with_an_equal_result(
    uninterrupted: tuple[dict[str, Any], float], checkpoints: Path, tmp_path: Path
) -> None:
    expected, seconds = uninterrupted
    folder, rng = tmp_path / "run", random.Random(0)
    # Kill at a random moment after this file exists; the last kill leaves one chunk to sample.
    for path in ("run.json", "chunks/000000.safetensors", "chunks/000001.safetensors"):
        with start_command(command(checkpoints, folder)) as process:
            wait_for(folder / path, process)
            time.sleep(rng.uniform(0, 0.05) * seconds)
            process.kill()
            assert process.wait() == -signal.SIGKILL
    outcome = run_command(command(checkpoints, tmp_path / "run"))
    assert outcome.returncode == 0, outcome.stderr
    assert without_timings(results(tmp_path / "run")) == without_timings(expected)
    assert {path.name for path in (tmp_path / "run").rglob(".*")} == {".lock"}
    assert len(list((tmp_path / "run" / "chunks").iterdir())) == 3


def test_ctrl_c_and_the_printed_command_end_with_an_equal_result(
    uninterrupted: tuple[dict[str, Any], float], checkpoints: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a run"
    with start_command(command(checkpoints, folder)) as process:
        wait_for(folder / "chunks" / "000000.safetensors", process)
        process.send_signal(signal.SIGSTOP)  # pause it until the competitor has ended
        competitor = run_command(command(checkpoints, folder))
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=60)
    assert competitor.returncode == 5
    assert f"{folder} is in use" in competitor.stderr
    assert process.returncode == 130
    assert "Traceback" not in err
    assert resume_arguments(err) == command(checkpoints, folder)
    outcome = run_command(resume_arguments(err))
    assert outcome.returncode == 0, outcome.stderr
    assert re.search("of 96 clips", outcome.stderr)
    assert without_timings(results(folder)) == without_timings(uninterrupted[0])


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, "the run ended before the interruption"
        time.sleep(0.01)


@pytest.mark.parametrize("model", [*MODELS, "real", "noise", "frozen"])
def test_batch_sizes_1_7_and_64_sample_equal_clips(
    model: str, checkpoints: Path, vfbench: Command, tmp_path: Path
) -> None:
    options: list[object] = ["--model", model, "--device", "cpu", "--smoke", "--keep-clips", "-n", 64]
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


def test_real_video_from_training_to_the_table(
    real_data: Path, vfbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {**videofusion.PRESETS["tiny"], "base": {**NO_TIME, "patch": 4}, "residual": {**UNET, "patch": 4}}
    assert isinstance(videofusion.PRESETS, dict)
    monkeypatch.setitem(videofusion.PRESETS, "minute", small)
    data = ["--dataset", "ucf101", "--data-root", real_data / "ucf101", "--device", "cpu"]
    trained = vfbench(
        "train", *data, "--preset", "minute", "--steps", 2, "--batch-size", 1, "--output", tmp_path / "model"
    )
    assert trained.code == 0, trained.err
    assert (tmp_path / "model" / "samples" / "step_000002.png").is_file()
    run = ["run", *data, "--checkpoint", tmp_path / "model", "--steps", 2, "--output", tmp_path / "run"]
    assert vfbench(*run).code == 4  # without --smoke: too few real clips
    assert not (tmp_path / "run").exists()
    outcome = vfbench(*run, "--smoke")
    assert outcome.code == 0, outcome.err
    assert "not comparable" in outcome.out
    assert "2 of 9,537" in outcome.err
    result = results(tmp_path / "run")
    assert list(result["scores"]) == ["fvd", "kvd", "is"]
    protocol = [result["protocol"][key] for key in ("frames", "height", "width", "split", "comparable")]
    assert protocol == [16, 64, 64, "both", False]
    assert {score["n_real"] for score in result["scores"].values()} == {5}
    assert "present" in result["note"]
    assert (tmp_path / "run" / "samples" / "sheet.png").is_file()
    assert vfbench("table", tmp_path / "run").code == 2
    assert vfbench("table", tmp_path / "run", "--allow-mixed").code == 0


def test_frozen_repeats_the_first_frame_of_the_real_clips(real_data: Path, vfbench: Command, tmp_path: Path) -> None:
    data = ["--dataset", "ucf101", "--data-root", real_data, "--device", "cpu", "--smoke", "--keep-clips"]
    for model in ("real", "frozen"):
        assert vfbench("run", "--model", model, *data, "--output", tmp_path / model).code == 0
    real, frozen = stored_clips(tmp_path / "real"), stored_clips(tmp_path / "frozen")
    assert torch.equal(frozen[:, 0], real[:, 0])
    assert torch.equal(frozen[:, 15], real[:, 0])
    assert not torch.equal(real[:, 15], real[:, 0])
    assert json.loads((tmp_path / "real" / "run.json").read_text())["determines"]["model"] == "real"
