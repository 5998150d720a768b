"""Tests of runs by Ray actors, undisturbed, killed in each phase, and on a cluster that loses a node."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from processes import require_same, run_alone, run_command, run_of_three_chunks, start_command, wait_for

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: vfbench[ray]")
PHASES = {"real features": r"[a-z0-9-]*[a-z][a-z0-9-]*", "generate": r"\d{6}", "scores": "scores"}  # items of workers
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
second = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
for line in sys.stdin:
    if line == "kill\\n":
        cluster.remove_node(second, allow_graceful=False)
        print("killed", flush=True)
cluster.shutdown()
"""


def ray_run(checkpoints: Path, folder: Path, workers: int, *more: str) -> list[str]:
    """Arguments of the run of three chunks by Ray actors."""
    return [*run_of_three_chunks(checkpoints, folder), "--executor", "ray", "--workers", str(workers), *more]


@pytest.mark.parametrize(
    ("arguments", "mends"),
    [
        (["--executor", "ray"], "pip install 'vfbench[ray]'"),
        (["--executor", "rai"], "processes"),
        (["--ray-address", "auto"], "--executor ray"),
    ],
)
@pytest.mark.parametrize("command", ["run", "generate"])
def test_a_wrong_executor_is_refused(
    command: str,
    arguments: Sequence[str],
    mends: str,
    vfbench: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "vfbench.pipeline.ray_actors", raising=False)
    outcome = vfbench(command, "--output", tmp_path / "x", *arguments)
    assert (outcome.code, mends in outcome.err) == (2, True)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def alone(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that one process made."""
    return run_alone(checkpoints, tmp_path_factory.mktemp("alone") / "run")


@pytest.mark.slow
@needs_ray
@pytest.mark.parametrize("count", [1, 2])
def test_actors_give_the_result_of_one_process(count: int, alone: Path, checkpoints: Path, tmp_path: Path) -> None:
    outcome = run_command(ray_run(checkpoints, tmp_path / "run", count))
    assert outcome.returncode == 0, outcome.stderr
    assert "96/96 clips" in outcome.stderr
    require_same(tmp_path / "run", alone)


@pytest.mark.slow
@needs_ray
def test_a_run_begun_by_four_actors_is_ended_by_one_process(alone: Path, checkpoints: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with start_command(ray_run(checkpoints, folder, 4)) as process:
        wait_for(folder / "chunks" / "000000.safetensors", process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=600)
    assert (process.returncode, "Traceback" in err) == (130, False), err
    assert run_command(run_of_three_chunks(checkpoints, folder)).returncode == 0
    require_same(folder, alone)


def process_at(folder: Path, item: str, process: subprocess.Popen[str]) -> int:
    """Number of the first process that works on an item of this pattern."""
    while True:
        assert process.poll() is None, "the command ended before"
        for file in (folder / "workers").glob("*.json"):
            if re.fullmatch(item, name := file.name.partition(".")[0]) and name not in ("idle", "failed"):
                return int(file.name.split(".")[2])
        time.sleep(0.01)


@pytest.mark.slow
@needs_ray
@pytest.mark.parametrize("phase", PHASES)
def test_an_actor_killed_in_any_phase_is_no_loss(
    phase: str, alone: Path, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VFBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    with start_command(ray_run(checkpoints, folder, 2)) as process:
        os.kill(process_at(folder, PHASES[phase], process), signal.SIGKILL)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert re.search(r"worker \d on .* was lost \(\w+\); .* it is started again", err)
    require_same(folder, alone)


@pytest.mark.slow
@needs_ray
def test_an_error_is_told_once_as_without_actors() -> None:
    command = ["run", "--model", "vdm", "--device", "cpu", "--metrics", "fvd", "-n", "3"]
    alone, by_actors = run_command(command), run_command([*command, "--executor", "ray", "--workers", "2"])
    assert alone.returncode == by_actors.returncode == 2
    assert alone.stderr == by_actors.stderr


@pytest.mark.slow
@needs_ray
def test_a_cluster_that_is_not_there_is_named(tmp_path: Path, checkpoints: Path) -> None:
    outcome = run_command(ray_run(checkpoints, tmp_path / "run", 1, "--ray-address", "127.0.0.1:1"))
    assert (outcome.returncode, "no Ray cluster at 127.0.0.1:1" in outcome.stderr) == (5, True), outcome.stderr


@pytest.fixture
def cluster() -> Iterator[subprocess.Popen[str]]:
    """Ray cluster of two nodes; the line `kill` kills the second, with all of its processes."""
    environment = {**os.environ, "RAY_worker_niceness": "0"}
    process = subprocess.Popen([sys.executable, "-c", CLUSTER], stdin=-1, stdout=-1, text=True, env=environment)
    try:
        yield process
    finally:
        process.communicate(timeout=60)


@pytest.mark.slow
@needs_ray
def test_a_node_killed_in_mid_run_is_no_loss(
    cluster: subprocess.Popen[str], alone: Path, checkpoints: Path, tmp_path: Path
) -> None:
    folder, (tell, hear) = tmp_path / "run", pipes(cluster)
    arguments = ray_run(checkpoints, folder, 2, "--ray-address", hear.readline().strip())
    with start_command(arguments) as process:
        wait_for(folder / "chunks" / "000000.safetensors", process)
        tell.write("kill\n")
        tell.flush()
        assert hear.readline() == "killed\n"
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert err.count("it is started again") == 1
    require_same(folder, alone)


def pipes(process: subprocess.Popen[str]) -> tuple[Any, Any]:
    assert process.stdin
    assert process.stdout
    return process.stdin, process.stdout
