"""Ray actors that share the work of one run, on this machine or on a cluster: what `--executor ray` starts.

Each actor is an ordinary worker of the run: it loads the model once, takes the next free chunk when its last is
written, and goes on until all are there. So nothing waits in a queue, and the run folder, which all nodes must see, is
the only state. An actor that is lost, with its process or its node, is started again where the cluster has room.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple

from vfbench.errors import BadEnvironment, UserError
from vfbench.pipeline import watch, worker_job, workers
from vfbench.pipeline.launch import available_cores
from vfbench.pipeline.workers import SLURM_ARRAY, Rank
from vfbench.utils import console
from vfbench.utils.process_id import process_id

try:
    import ray
    from ray.exceptions import RayError
except ImportError as error:
    raise UserError("--executor ray needs ray: pip install 'vfbench[ray]'") from error

PLACE_SECONDS = 30.0  # without a place in the cluster before a worker's wait is told
CONNECT_SECONDS = 10.0
MAX_RESTARTS = 3  # of each worker: what dies more often has a cause that does not pass
# No report of use, no warning on GPUs, and workers as quick as other processes: each is 0.
RAY_SETTINGS = ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_worker_niceness")
OBJECT_STORE = 80 << 20  # bytes, the least that Ray takes: clips and features do not pass through it
PASSED_ON = ("VFBENCH_", "HF_", "CUBLAS_WORKSPACE_CONFIG")  # environment variables of this process, by their beginning


class News(NamedTuple):
    """Answer of an actor: its process and machine, its announcement, and the lines printed since the last answer."""

    process: str
    host: str
    announced: dict[str, Any]
    lines: list[str]


class Actor:
    """A worker in a process of the cluster; `work` and `news` run in threads of their own."""

    def __init__(self, variables: Mapping[str, str], paths: Sequence[str], folder: str) -> None:
        for name in SLURM_ARRAY:  # of the job that holds the cluster
            os.environ.pop(name, None)
        os.environ.update(variables)
        sys.path += [path for path in paths if path not in sys.path]  # so that the user's plug-ins are found
        self._announced, self._printed, self._folder = dict[str, Any](), console.Lines(), folder

    def work(self, function: str, options: Mapping[str, Any]) -> int:
        """Call a function with these keyword arguments; returns the exit code."""
        with redirect_stderr(self._printed):
            try:
                os.chdir(self._folder)
            except OSError:
                console.error(f"error: {self._folder} is not on {os.uname().nodename}: start where all nodes see it")
                return BadEnvironment.exit_code
            return worker_job.carry_out(function, options, self._announced.update)

    def news(self) -> News:
        """Announcement, and what was printed since the last call."""
        return News(process_id(), os.uname().nodename, self._announced, self._printed.taken())


def launch(function: str, options: Mapping[str, Any], count: int, address: str | None) -> Path:
    """Call a function, named as `module:name`, with these keyword arguments in `count` actors; wait for the end.

    `address` is that of a Ray cluster; without one, and without RAY_ADDRESS, Ray is started on this machine and stopped
    at the end. Returns the folder that the function announces, where all of its work is done. Raises the `UserError` of
    an actor that could not begin, and `BadEnvironment` where there is no cluster or no actor is left to finish.
    """
    base = Rank.from_environment()
    with _connected(address or os.environ.get("RAY_ADDRESS") or "local", count):
        resources, variables = _resources(str(options["device"])), _variables(count)
        ranks = [Rank(base.number * count + number, base.count * count) for number in range(count)]
        actors = [
            _WatchedActor(number, (function, options), {**variables, **rank.variables}, resources)
            for number, rank in enumerate(ranks)
        ]
        try:
            return watch.wait(actors)
        finally:
            for actor in actors:
                actor.stop()


@contextmanager
def _connected(address: str, count: int) -> Iterator[None]:
    """Context manager: a connection to a Ray cluster; `local` starts one with room for `count` workers.

    A connection that the user's own program has is taken, and left to it.
    """
    if ray.is_initialized():
        yield
        return
    for name in RAY_SETTINGS:
        os.environ.setdefault(name, "0")
    local: dict[str, Any] = {}
    if address == "local":
        cores = max(count, available_cores())
        local = {"num_cpus": cores, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    try:
        _require_reachable(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadEnvironment(
            f"no Ray cluster at {address} ({reason}): see `ray status` there, or leave out --ray-address"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_reachable(address: str) -> None:
    """Raise OSError or ValueError where nothing listens at an address: Ray itself tries for many minutes."""
    if address not in ("local", "auto"):
        host, _, port = address.rpartition("//")[2].rpartition(":")
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


def _resources(device: str) -> dict[str, int]:
    """Share of the cluster that an actor takes: a core, and a GPU where it has any and the device may be one."""
    gpus = ray.cluster_resources().get("GPU", 0)
    if device == "cuda" and not gpus:
        raise BadEnvironment("--device cuda: the Ray cluster has no GPU; use --device cpu")
    return {"num_cpus": 1, "num_gpus": int(device != "cpu" and gpus >= 1)}


def _variables(count: int) -> dict[str, str]:
    """Environment variables of all actors: those of this process that matter, and the threads of a CPU."""
    cores = int(ray.cluster_resources().get("CPU", 1))
    passed_on = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // count))
    return {**passed_on, "LOCAL_RANK": "0", "OMP_NUM_THREADS": threads}


class _WatchedActor(watch.WatchedWorker):
    """An actor as this process sees it; it is started again when it is lost."""

    def __init__(
        self, number: int, job: tuple[str, Mapping[str, Any]], variables: Mapping[str, str], resources: dict[str, int]
    ) -> None:
        self.number, self.announced, self.lines = number, dict[str, Any](), deque[str](maxlen=50)
        self._job, self._variables, self._resources = job, variables, resources
        self._restarts, self._end, self._process, self._host = 0, "", "", "?"
        self._code: int | None = None
        self._start()

    def _start(self) -> None:
        options = {**self._resources, "max_concurrency": 2, "scheduling_strategy": "SPREAD"}
        self._actor = ray.remote(Actor).options(**options).remote(self._variables, sys.path, str(Path.cwd()))
        self._work, self._news = self._actor.work.remote(*self._job), self._actor.news.remote()
        self._asked: float | None = time.monotonic()  # None once it has a place, or its wait has been told

    @property
    def code(self) -> int | None:
        """Exit code, once all that it printed is read; -1 where it is lost once too often; None while it runs."""
        if self._code is None:
            self._look()
        return self._code

    @property
    def end(self) -> str:
        """Text on the end of the actor, such as `worker 1 on node2 ended with exit code 2`."""
        return f"worker {self.number} on {self._host} {self._end or f'ended with exit code {self._code}'}"

    def _look(self) -> None:
        try:
            is_done = ray.wait([self._work], timeout=0)[0]
            self._hear()
            if is_done:
                code = ray.get(self._work)
                for _ in range(2):  # an answer that was under way, and one with all that it printed
                    self._hear(timeout=watch.GRACE_SECONDS)
                self._code = code
        except RayError as error:
            self._lose(error)

    def _hear(self, timeout: float = 0.0) -> None:
        """Take the actor's answer, if it is there, and ask again."""
        if not ray.wait([self._news], timeout=timeout)[0]:
            if self._asked is not None and time.monotonic() - self._asked > PLACE_SECONDS:
                self._asked = None
                needs = " and ".join(f"{count} {name.removeprefix('num_')}" for name, count in self._resources.items())
                console.warn(f"worker {self.number} waits for room in the cluster ({needs}): see `ray status`")
            return
        self._asked = None
        self._process, self._host, announced, lines = ray.get(self._news)
        for line in lines:
            self.lines.append(line)
            if self.announced:  # what stops it before is raised
                console.error(f"worker {self.number}: {line}")
        self.announced = announced
        self._news = self._actor.news.remote()

    def _lose(self, error: Exception) -> None:
        """Tell that the actor is lost, give its chunk to the others, and start it again, a few times."""
        self._end = f"was lost ({type(error).__name__})"
        self.stop()
        if self.announced and self._process:
            workers.release_process(Path(self.announced["folder"]), self._process)
        if self._restarts == MAX_RESTARTS:
            self._code = -1
            return
        self._restarts += 1
        console.warn(f"{self.end}; the others do its part, and it is started again")
        self._start()

    def stop(self) -> None:
        """End the actor at once."""
        ray.kill(self._actor)
