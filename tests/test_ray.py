"""Tests of runs by Ray actors, undisturbed, killed in each phase, and on a cluster that loses a node."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from pages import DOCS, ROOT, code
from processes import require_same, run_command, run_of_three_chunks, start_command, wait_for

from vfbench.pipeline import status

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


@pytest.mark.thorough
@pytest.mark.slow
@needs_ray
@pytest.mark.parametrize("count", [1, 2])
def test_actors_give_the_result_of_one_process(count: int, alone: Path, checkpoints: Path, tmp_path: Path) -> None:
    outcome = run_command(ray_run(checkpoints, tmp_path / "run", count))
    assert outcome.returncode == 0, outcome.stderr
    assert "96/96 clips" in outcome.stderr
    require_same(tmp_path / "run", alone)


@pytest.mark.thorough
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


@pytest.mark.one_case
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
    require_same(folder, alone, killed_at_the_end=True)


@pytest.mark.thorough
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
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.thorough
@pytest.mark.slow
@needs_ray
def test_the_cluster_of_the_page_makes_the_run(tmp_path: Path, free_port: int) -> None:
    """As written, in a smaller run: two processes of Ray of a core each stand for the nodes."""
    _, block = code(DOCS["docs/scale"], "bash")
    here = block.replace("node1", "127.0.0.1").replace("6379", str(free_port)).replace("--workers 8", "--workers 2")
    head, node, run = here.split("\n", 2)
    small = {"VFBENCH_SMOKE": "1", "VFBENCH_STEPS": "1", "VFBENCH_METRICS": "fvd", "VFBENCH_DEVICE": "cpu"}
    ray = {"RAY_worker_niceness": "0", "RAY_AUTH_MODE": "disabled"}  # whatever token this machine has
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **small, **ray}
    nodes: list[subprocess.Popen[str]] = []
    try:
        for line, more in ((head, ["--include-dashboard=false"]), (node, [])):
            command = [*shlex.split(line, comments=True), "--num-cpus=1", "--object-store-memory=80000000", "--block"]
            nodes.append(subprocess.Popen([*command, *more], env=environment, stdout=-1, text=True))
            assert any("runtime started" in line for line in pipe(nodes[-1]))
        ended = subprocess.run(["bash", "-e", "-c", run], cwd=tmp_path, env=environment, text=True, check=False)
        assert (ended.returncode, [process.poll() for process in nodes]) == (0, [None, None])
    finally:
        for process in reversed(nodes):
            process.terminate()
            process.communicate()
    assert status.read(tmp_path / "runs" / "videofusion").state == "finished"


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
    require_same(folder, alone, killed_at_the_end=True)


def pipes(process: subprocess.Popen[str]) -> tuple[Any, Any]:
    assert process.stdin
    return process.stdin, pipe(process)


def pipe(process: subprocess.Popen[str]) -> Any:
    assert process.stdout
    return process.stdout
