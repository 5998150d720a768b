"""Whole commands in processes of their own: killed, interrupted, in competition, on real video. Slow."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, close_clips, close_scores, lasting, python, results, resumes
from helpers import NO_TIME, UNET

from vfbench.models import videofusion
from vfbench.utils.tensor_files import read_tensors

pytestmark = pytest.mark.slow

# `python -m vfbench` with Ctrl-C as a terminal has it: a shell in the background makes its children deaf to it.
START = """
import signal
from vfbench.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
MODELS = ("videofusion", "vdm")


def command(checkpoints: Path, folder: Path) -> list[str]:
    """A run of 96 clips in 3 chunks."""
    model = ("--model", "videofusion", "--checkpoint", checkpoints / "videofusion", "--device", "cpu", "--smoke")
    return [*map(str, ("run", *model, "-n", 96, "--steps", 4, "--batch-size", 8, "--output", folder))]


def call(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(python("-m", "vfbench", *arguments), capture_output=True, text=True, check=False)


@contextmanager
def started(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is gone when the block ends, whatever happens in it."""
    given = python("-c", START, *arguments)
    process = subprocess.Popen(given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def undisturbed(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    """The result of the command, and the seconds it took."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    began = time.monotonic()
    done = call(command(checkpoints, folder))
    assert done.returncode == 0, done.stderr
    return results(folder), time.monotonic() - began


def test_a_run_killed_at_five_random_moments_ends_with_the_same_result(
    undisturbed: tuple[dict[str, Any], float], checkpoints: Path, tmp_path: Path
) -> None:
    expected, seconds = undisturbed
    folder, moments = tmp_path / "run", random.Random(0)
    # What must be there before the blow falls, a random moment later: the last one leaves a chunk to be made.
    for path in ("run.json", "run.json", *(f"chunks/{i:06d}.safetensors" for i in (0, 0, 1))):
        with started(command(checkpoints, folder)) as process:
            wait_for(folder / path, process)
            time.sleep(moments.uniform(0, 0.05) * seconds)
            process.kill()
            assert process.wait() == -signal.SIGKILL
    done = call(command(checkpoints, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert lasting(results(tmp_path / "run")) == lasting(expected)
    left = {path.name for path in (tmp_path / "run").rglob(".*")}
    assert left == {".lock"}
    assert len(list((tmp_path / "run" / "chunks").iterdir())) == 3


def test_ctrl_c_and_the_command_that_it_prints_end_with_the_same_result(
    undisturbed: tuple[dict[str, Any], float], checkpoints: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a run"
    with started(command(checkpoints, folder)) as process:
        wait_for(folder / "chunks" / "000000.safetensors", process)
        process.send_signal(signal.SIGSTOP)  # so that it cannot end before the other one has begun
        competitor = call(command(checkpoints, folder))
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=60)
    assert competitor.returncode == 5
    assert f"{folder} is in use by another run" in competitor.stderr
    assert process.returncode == 130
    assert "Traceback" not in err
    assert resumes(err) == command(checkpoints, folder)
    done = call(resumes(err))
    assert done.returncode == 0, done.stderr
    assert "of 96 clips are already there" in done.stderr
    assert lasting(results(folder)) == lasting(undisturbed[0])


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, "the run ended before it was disturbed"
        time.sleep(0.01)


@pytest.mark.parametrize("model", [*MODELS, "real", "noise", "frozen"])
def test_batches_of_1_7_and_64_make_the_same_clips(
    model: str, checkpoints: Path, vfbench: Command, tmp_path: Path
) -> None:
    given: list[object] = ["--checkpoint", checkpoints / model, "--steps", 2] if model in MODELS else []
    for size in (1, 7, 64):
        folder = ["--batch-size", size, "--output", tmp_path / str(size)]
        done = vfbench("run", "--model", model, "--device", "cpu", "--smoke", "--keep-clips", "-n", 64, *given, *folder)
        assert done.code == 0, done.err
    reference = results(tmp_path / "1")
    for size in (7, 64):
        close_clips(clips(tmp_path / str(size)), clips(tmp_path / "1"))
        close_scores(results(tmp_path / str(size)), reference)
        assert results(tmp_path / str(size))["run_id"] == reference["run_id"]


def clips(folder: Path) -> torch.Tensor:
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
    asked = ["run", *data, "--checkpoint", tmp_path / "model", "--steps", 2, "--output", tmp_path / "run"]
    assert vfbench(*asked).code == 4  # without --smoke: too few real clips
    assert not (tmp_path / "run").exists()
    done = vfbench(*asked, "--smoke")
    assert done.code == 0, done.err
    assert "not comparable" in done.out
    assert "2 of 9,537 listed train clips present" in done.err
    result = results(tmp_path / "run")
    assert list(result["scores"]) == ["fvd", "kvd", "is"]
    assert [result["protocol"][key] for key in ("frames", "height", "width", "split", "comparable")] == [
        *(16, 64, 64, "both", False)
    ]
    assert {score["n_real"] for score in result["scores"].values()} == {5}
    assert "present" in result["note"]
    assert (tmp_path / "run" / "samples" / "sheet.png").is_file()
    assert vfbench("table", tmp_path / "run").code == 2
    assert vfbench("table", tmp_path / "run", "--allow-mixed").code == 0


def test_the_sheet_of_real_video_shows_the_real_clips(real_data: Path, vfbench: Command, tmp_path: Path) -> None:
    data = ["--dataset", "ucf101", "--data-root", real_data, "--device", "cpu", "--smoke", "--keep-clips"]
    for model in ("real", "frozen"):
        assert vfbench("run", "--model", model, *data, "--output", tmp_path / model).code == 0
    real, frozen = clips(tmp_path / "real"), clips(tmp_path / "frozen")
    assert torch.equal(frozen[:, 0], real[:, 0])
    assert torch.equal(frozen[:, 15], real[:, 0])
    assert not torch.equal(real[:, 15], real[:, 0])
    assert json.loads((tmp_path / "real" / "run.json").read_text())["determines"]["model"] == "real"
