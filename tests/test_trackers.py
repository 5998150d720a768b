"""Tests of `--log-to`: TensorBoard and MLflow read back what was logged, the other two are called as they document."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Command
from helpers import tiny_dataset, tiny_vdm
from resultfiles import record

import vfbench as vfbench_api
from vfbench.errors import BadEnvironment, UserError
from vfbench.report.results import Result
from vfbench.training.options import TrainOptions
from vfbench.training.train import train
from vfbench.utils import trackers

SCORES = {"fvd": 41.5, "is": 3.0, "strange $name": 1.0, "kvd": math.nan}
READ = {"fvd": 41.5, "is": 3.0, "strange _name": 1.0}


def read_tensorboard(folder: Path) -> dict[str, dict[int, float]]:
    """Logged values by name and step."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = events.EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    names = accumulator.Tags()["scalars"]
    return {name: {event.step: event.value for event in accumulator.Scalars(name)} for name in names}


def read_mlflow(folder: Path) -> dict[str, dict[int, float]]:
    """Logged values by name and step, of the only run."""
    client = pytest.importorskip("mlflow").MlflowClient((folder / "mlruns").absolute().as_uri())
    experiment = client.get_experiment_by_name(trackers.PROJECT)
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", folder.name)
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: {entry.step: entry.value for entry in history} for name, history in histories.items()}


READERS = {"tensorboard": read_tensorboard, "mlflow": read_mlflow}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the trackers' own libraries
@pytest.mark.parametrize("name", READERS)
def test_numbers_are_read_back(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with trackers.tracker(name, tmp_path) as log:
        log(0, SCORES)
        log(50, {"fvd": 40.0})
    assert READERS[name](tmp_path) == {**{k: {0: v} for k, v in READ.items()}, "fvd": {0: 41.5, 50: 40.0}}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("quick_training")
def test_training_passes_its_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setattr("vfbench.training.trainer.LOG_EVERY", 2)
    options = TrainOptions(steps=4, batch_size=2, device="cpu", log_to="tensorboard")
    train(tiny_vdm(), tiny_dataset(), options, tmp_path / "out")
    logged = read_tensorboard(tmp_path / "out")
    assert logged
    assert all(list(values) == [2, 4] and all(map(math.isfinite, values.values())) for values in logged.values())


class Recorder:
    """Stand-in for the packages wandb and trackio, which both have `init`, `log` and `finish`."""

    def __init__(self, *, fails: bool = False) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.fails = fails

    def init(self, **options: Any) -> Recorder:
        self.calls.append(("init", options["project"]))
        return self

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.calls.append(("log", (step, numbers)))
        if self.fails:
            raise ConnectionError("no network")

    def finish(self) -> None:
        self.calls.append(("finish", None))


def use(monkeypatch: pytest.MonkeyPatch, name: str, package: object) -> None:
    """Put a package in place of an installed one."""
    monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: SimpleNamespace())


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio_are_called_in_order(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, name, recorder := Recorder())
    with trackers.tracker(name, tmp_path) as log:
        log(3, SCORES)
    assert recorder.calls == [("init", "vfbench"), ("log", (3, READ)), ("finish", None)]


def test_a_run_passes_its_scores_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "wandb", recorder := Recorder())
    result = Result.model_validate({**record("m"), "run_dir": str(tmp_path)})
    monkeypatch.setattr(vfbench_api, "plan", lambda **_: SimpleNamespace(describe=lambda: ""))
    monkeypatch.setattr("vfbench.pipeline.job.run", lambda _: result)
    for rank, calls in (("1", []), ("0", [("init", "vfbench"), ("log", (0, {"fvd": 41.3})), ("finish", None)])):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        vfbench_api.run(model="noise", log_to="wandb")
        assert recorder.calls == calls


def test_a_tracker_that_fails_is_dropped_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, "wandb", recorder := Recorder(fails=True))
    with trackers.tracker("wandb", tmp_path) as log:
        log(1, SCORES)
        log(2, SCORES)
    assert [kind for kind, _ in recorder.calls] == ["init", "log"]
    assert capsys.readouterr().err.count("--log-to wandb") == 1


def test_a_tracker_that_does_not_start_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "wandb", SimpleNamespace())
    with pytest.raises(BadEnvironment, match="--log-to wandb"), trackers.tracker("wandb", tmp_path):
        pass


def test_unknown_and_missing_trackers_are_refused_at_once(vfbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for command in ("run", "train"):
        wrong = vfbench(command, "--device", "cpu", "--log-to", "wanddb")
        assert (wrong.code, "'wandb'" in wrong.err) == (2, True)
        missing = vfbench(command, "--device", "cpu", "--log-to", "trackio")
        assert (missing.code, "pip install trackio" in missing.err) == (5, True)


def test_without_a_tracker_nothing_is_written(tmp_path: Path) -> None:
    with trackers.tracker(None, tmp_path) as log:
        log(0, SCORES)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError), trackers.tracker("", tmp_path):
        pass
