"""Tests of commands that are killed (SIGKILL) and repeated: the result is that of an undisturbed command."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from clipfiles import grey_clip, write_video
from conftest import results, without_timings
from processes import run_command, run_of_three_chunks, start_command, wait_for

from vfbench.datasets import shapes
from vfbench.utils.files import file_sha256, read_json

pytestmark = pytest.mark.slow


class Case(NamedTuple):
    """Arguments of a command that writes to a folder, files of it after which it is killed, and its result."""

    arguments: Callable[[Path, Path], Sequence[object]]  # folder of the inputs, folder of the result
    moments: Sequence[str]
    result: Callable[[Path], Any]


def without_the_time_of_writing(folder: Path) -> dict[str, Any]:
    """Index of a prepared folder without the command and its own hash, which depend on the folder's name."""
    index = read_json(folder / "prepared.json")
    return {key: value for key, value in index.items() if key not in ("command", "sha256")}


TRAIN = "--dataset shapes(frames=4,height=8,width=8) --steps 8 --batch-size 2 --save-every 2 --sample-every 100"
CASES = {
    "run": Case(
        lambda inputs, output: run_of_three_chunks(inputs / "checkpoints", output),
        ["run.json", "chunks/000000.safetensors", "chunks/000001.safetensors"],
        lambda folder: without_timings(results(folder)),
    ),
    "score": Case(
        lambda inputs, output: [
            "score",
            "--real",
            "shapes",
            "--fake",
            inputs / "clips.npy",
            "--smoke",
            "--output",
            output,
        ],
        ["run.json", "manifest.csv"],
        lambda folder: without_timings(results(folder)),
    ),
    "data prepare": Case(
        lambda inputs, output: [
            *("data", "prepare", "folder(frames=4,height=64,width=64)"),
            *("--data-root", inputs / "videos", "--output", output),
        ],
        ["preparing.json"],
        without_the_time_of_writing,
    ),
    "train": Case(
        lambda _, output: ["train", "--model", "vdm", *TRAIN.split(), "--device", "cpu", "--output", output],
        ["training.pt"],
        lambda folder: file_sha256(folder / "model.safetensors"),
    ),
}


@pytest.fixture(scope="module")
def inputs(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with checkpoints, an array of clips and a folder of videos."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "checkpoints").symlink_to(checkpoints)
    np.save(folder / "clips.npy", shapes.build().clips("test", range(48)).permute(0, 1, 3, 4, 2).numpy())
    for number in range(12):
        write_video(folder / "videos" / f"{number:02}.avi", grey_clip(number, frames=20, height=160, width=200))
    return folder


THOROUGH = ("score", "data prepare")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.thorough) if n in THOROUGH else n for n in CASES])
def test_a_killed_command_ends_with_an_equal_result(inputs: Path, alone: Path, tmp_path: Path, name: str) -> None:
    case, rng, output = CASES[name], random.Random(name), tmp_path / "killed"
    undisturbed = alone if name == "run" else tmp_path / "undisturbed"
    if name != "run":
        outcome = run_command([str(each) for each in case.arguments(inputs, undisturbed)])
        assert outcome.returncode == 0, outcome.stderr
    arguments = [str(each) for each in case.arguments(inputs, output)]
    for moment in case.moments:
        with start_command(arguments) as process:
            wait_for(output / moment, process)
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
            assert process.wait() == -signal.SIGKILL
    repeated = run_command(arguments)
    assert repeated.returncode == 0, repeated.stderr
    assert case.result(output) == case.result(undisturbed)
    assert {path.name for path in output.rglob(".*")} <= {".lock"}  # no half-written files
