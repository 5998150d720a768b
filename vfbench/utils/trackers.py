"""One hook for experiment trackers: numbers by name, at a step. `train` passes its losses, `run` its scores.

tensorboard   event files in the folder `tensorboard` of the output
mlflow        MLFLOW_TRACKING_URI, else the folder `mlruns` of the output
wandb         project vfbench, as WANDB_* say
trackio       project vfbench, on this machine
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vfbench.errors import BadEnvironment, unknown
from vfbench.utils import console

TRACKERS = ("wandb", "mlflow", "trackio", "tensorboard")
FOLDERS = ("tensorboard", "mlruns")  # that they write into the output
PROJECT = "vfbench"
Log = Callable[[int, Mapping[str, float]], None]  # step, and numbers by name


def require(name: str | None) -> None:
    """Raise `UserError` for an unknown tracker, and `BadEnvironment` for one that is not installed; imports nothing."""
    if name not in (None, *TRACKERS):
        raise unknown("--log-to", str(name), TRACKERS)
    if name is not None and importlib.util.find_spec(name) is None:
        raise BadEnvironment(f"--log-to {name}: the package is not installed: pip install {name}")


@contextmanager
def tracker(name: str | None, folder: Path) -> Iterator[Log]:
    """Context manager: function that passes numbers to the tracker `name`; one that does nothing without a name.

    Numbers that are not finite are left out: some trackers refuse them. Raises `BadEnvironment` for a tracker that is
    not installed or does not start. One that fails later is dropped with a warning: hours of work go on.
    """
    if name is None:
        yield lambda step, numbers: None
        return
    require(name)
    try:
        library = importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
        log, finish = _STARTS[name](library, folder)
    except Exception as error:  # each tracker has errors of its own
        raise BadEnvironment(f"--log-to {name} does not start ({error}): set it up, or leave it out") from error
    guarded = _Guarded(name, log)
    try:
        yield guarded
    finally:
        guarded.call(finish)


class _Guarded:
    """Function that passes numbers on until the tracker fails, and then warns once."""

    def __init__(self, name: str, log: Log) -> None:
        self.name, self.log, self.failed = name, log, False

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        finite = {_plain(key): float(value) for key, value in numbers.items() if math.isfinite(value)}
        self.call(lambda: self.log(step, finite))

    def call(self, function: Callable[[], object]) -> None:
        """Call a function of the tracker, unless it has failed before."""
        if self.failed:
            return
        try:
            function()
        except Exception as error:  # each tracker has errors of its own
            self.failed = True
            console.warn(f"--log-to {self.name} fails, and gets nothing more: {error}")


def _plain(name: str) -> str:
    """Name of a number in the characters that all trackers take."""
    return re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)


Started = tuple[Log, Callable[[], object]]  # function that logs, and one that ends


def _tensorboard(library: Any, folder: Path) -> Started:
    writer = library.SummaryWriter(str(folder / "tensorboard"))

    def log(step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    return log, writer.close


def _mlflow(library: Any, folder: Path) -> Started:
    place = os.environ.get("MLFLOW_TRACKING_URI")
    if not place:
        place = (folder / "mlruns").absolute().as_uri()
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else mlflow 3 refuses a folder
    client = library.MlflowClient(place)
    experiment = client.get_experiment_by_name(PROJECT)
    number = experiment.experiment_id if experiment else client.create_experiment(PROJECT)
    run = client.create_run(number, run_name=folder.name).info.run_id

    def log(step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            client.log_metric(run, name, value, step=step)

    return log, lambda: client.set_terminated(run)


def _wandb(library: Any, folder: Path) -> Started:
    run = library.init(project=PROJECT, name=folder.name, dir=str(folder))
    return (lambda step, numbers: run.log(dict(numbers), step=step)), run.finish


def _trackio(library: Any, folder: Path) -> Started:
    library.init(project=PROJECT, name=folder.name)
    return (lambda step, numbers: library.log(dict(numbers), step=step)), library.finish


_STARTS: Mapping[str, Callable[[Any, Path], Started]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
    "trackio": _trackio,
}
