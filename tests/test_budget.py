"""Tests of `vfbench.training.budget`: the training command and its GPU-hours for a missing checkpoint."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import Command

from vfbench import plugins
from vfbench.datasets.shapes import Shapes
from vfbench.errors import MissingData
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan
from vfbench.training import budget
from vfbench.training.budget import RECIPES, gpu_hours, recipe, training_advice
from vfbench.training.match_flops import describe
from vfbench.training.train import prepare_training

LARGER = "shapes(height=64, width=64)"


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a clip is read or sampled."""

    def fail(*_: object) -> None:
        raise AssertionError("a clip was read or sampled")

    monkeypatch.setattr("vfbench.pipeline.plan.measure", fail)
    monkeypatch.setattr(Shapes, "clips", fail)


def train_flags(err: str) -> dict[str, str]:
    """Flags of the `vfbench train` command in a message."""
    line = next(line for line in err.splitlines() if line.startswith("  python -m vfbench train "))
    words = shlex.split(line)[4:]
    return dict(zip(words[::2], words[1::2], strict=True))


def error_message(model: str = "vdm", dataset: str = LARGER, root: str | None = None, *, smoke: bool = False) -> str:
    options = RunOptions(model=model, dataset=dataset, data_root=root, smoke=smoke, device="cpu")
    with pytest.raises(MissingData) as error, training_advice(model, dataset, root, None, smoke=smoke):
        plan(options)
    return str(error.value)


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not count FLOPs, which takes seconds for a large preset."""
    monkeypatch.setattr("vfbench.training.match_flops.training_flops_or_none", lambda model: 10**12)


@pytest.mark.slow
@pytest.mark.usefixtures("no_work")
def test_a_run_without_a_checkpoint_names_the_training_command(vfbench: Command, tmp_path: Path) -> None:
    output = tmp_path / "run"
    outcome = vfbench("run", "--model", "vdm", "--dataset", LARGER, "--device", "cpu", "--output", output)
    assert (outcome.code, outcome.out) == (4, "")
    assert "no checkpoint of 'vdm' for shapes at 16x64x64" in outcome.err
    assert not output.exists()
    flags = train_flags(outcome.err)
    assert flags == {
        "--model": "vdm",
        "--dataset": LARGER,
        "--preset": "small",
        "--steps": "100000",
        "--batch-size": "64",
        "--output": "runs/train-vdm-shapes",
    }
    assert f"--checkpoint {flags['--output']}" in outcome.err


def test_the_training_command_builds_a_model_of_the_clip_size(uncounted: None) -> None:
    flags = train_flags(error_message())
    model, data = prepare_training(flags["--model"], flags["--dataset"], flags["--preset"])
    assert (model.config.preset, str(data.shape)) == ("small", "16x64x64")


@pytest.mark.slow
def test_the_message_gives_gpu_hours_and_flops() -> None:
    message, size = error_message(), describe("vdm", "small", plugins.load("dataset", LARGER))
    hours = size.training_flops * 100_000 * 64 / 100e12 / 3600
    assert f"about {hours:,.1f} GPU-hours at 100 TFLOP/s a GPU" in message
    assert f"{size.training_flops / 1e9:,.1f} GFLOP a clip and step" in message
    assert "assumption" in message


def test_gpu_hours_follow_from_flops_steps_and_batch_size() -> None:
    flops = 10**12
    assert gpu_hours(flops, 1000, 36) == pytest.approx(0.1)
    assert gpu_hours(flops, 2000, 72) == pytest.approx(0.4)
    assert budget.format_gpu_hours(flops, 1000, 36) == "about 0.1 GPU-hours at 100 TFLOP/s a GPU"
    assert budget.format_gpu_hours(flops, 1, 1) == "less than 0.1 GPU-hours at 100 TFLOP/s a GPU"
    assert budget.format_gpu_hours(flops, 10**6, 360) == "about 1,000.0 GPU-hours at 100 TFLOP/s a GPU"


def test_a_smoke_run_needs_a_few_training_steps(uncounted: None) -> None:
    flags = train_flags(error_message(smoke=True))
    assert (flags["--steps"], flags["--batch-size"], flags["--preset"]) == ("20", "4", "small")


@pytest.mark.one_case
@pytest.mark.parametrize(
    ("model", "dataset", "preset"),
    [
        ("vdm", "shapes(height=16, width=16)", "tiny"),
        ("vdit", "shapes(height=16, width=16)", "tiny"),
        ("videofusion", LARGER, "small"),
        ("videofusion", "shapes(height=128, width=128)", "base-128"),
        ("vdm", "shapes(height=256, width=256)", "small"),
    ],
)
def test_the_preset_fits_the_clip_size(model: str, dataset: str, preset: str, uncounted: None) -> None:
    assert train_flags(error_message(model, dataset))["--preset"] == preset


def test_without_a_fitting_preset_no_command_is_given() -> None:
    message = error_message("vdit", "shapes(height=18, width=18)")
    assert "vfbench show model vdit" in message
    assert "vfbench train" not in message


@pytest.mark.slow
def test_sampling_options_are_not_in_the_training_command() -> None:
    assert train_flags(error_message("videofusion(steps=50, guidance=2.0)"))["--model"] == "videofusion"


def test_a_training_option_of_a_run_is_reported_first(vfbench: Command) -> None:
    outcome = vfbench("run", "--model", "videofusion(lam=0.3)", "--dataset", LARGER)
    assert outcome.code == 2
    assert "option lam of model videofusion" in outcome.err


# Dataset of the training command.


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "my clips"
    folder.mkdir()
    generator = np.random.default_rng(0)
    np.save(folder / "a.npy", generator.integers(0, 256, (8, 16, 40, 40, 3), dtype=np.uint8))
    return folder


@pytest.mark.slow
def test_the_training_dataset_has_the_clip_size_of_the_protocol(clips: Path) -> None:
    flags = train_flags(error_message("vdm", "folder(short='skip')", str(clips)))
    spec = plugins.parse(flags["--dataset"])
    assert (spec.name, spec.options["height"], spec.options["width"]) == ("folder", 128, 128)
    assert spec.options["short"] == "skip"
    assert not {"root", "start"} & spec.options.keys()
    assert flags["--data-root"] == str(clips)
    data = plugins.load("dataset", spec.merged({"root": flags["--data-root"]}))
    assert str(data.shape) == "16x128x128"


@pytest.mark.slow
@pytest.mark.usefixtures("no_work")
def test_a_missing_dataset_is_reported_before_the_checkpoint(vfbench: Command, tmp_path: Path) -> None:
    outcome = vfbench("run", "--model", "vdm", "--dataset", "folder", "--data-root", tmp_path / "none")
    assert outcome.code == 4
    assert outcome.err.startswith(f"error: {tmp_path / 'none'}")
    flags = train_flags(outcome.err)  # the missing checkpoint is reported, too
    assert (flags["--data-root"], flags["--preset"]) == (str(tmp_path / "none"), "base-128")


@pytest.mark.slow
@pytest.mark.usefixtures("no_work")
def test_videofusion_on_ucf101_names_data_and_training(vfbench: Command) -> None:
    outcome = vfbench("run", "--model", "videofusion", "--dataset", "ucf101")
    assert outcome.code == 4
    assert "--data-root" in outcome.err
    flags = train_flags(outcome.err)
    assert flags["--dataset"] == "ucf101(height=128, width=128)"
    assert (flags["--data-root"], flags["--preset"]) == ("DIR", "base-128")
    size = describe("videofusion", "base-128", plugins.load("dataset", "shapes(height=128, width=128)"))
    hours = gpu_hours(size.training_flops, int(flags["--steps"]), int(flags["--batch-size"]))
    assert f"about {hours:,.1f} GPU-hours" in outcome.err


# No advice.


@pytest.mark.parametrize(
    ("model", "dataset"),
    [
        ("videofusion", "shapes"),
        ("vdm(steps=50)", "shapes"),
        ("videofusion(frames=32)", "shapes(frames=32)"),
        ("noise", LARGER),
        ("diffusers", LARGER),
    ],
)
def test_other_errors_of_a_complete_model_are_unchanged(model: str, dataset: str) -> None:
    with pytest.raises(MissingData, match=r"^no clips$"), training_advice(model, dataset, None, None):
        raise MissingData("no clips")


def test_a_given_checkpoint_of_another_size_is_refused(checkpoints: Path) -> None:
    options = RunOptions(model="vdm", dataset=LARGER, device="cpu", smoke=True, checkpoint=checkpoints / "vdm")
    with pytest.raises(MissingData, match="shapes at 16x32x32"):
        plan(options)


def test_a_third_party_model_may_include_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "third_party").mkdir()
    (tmp_path / "third_party" / "__init__.py").write_text("")
    (tmp_path / "third_party" / "model.py").write_text(
        "from vfbench.baselines.vdm import create\ndef build(setting): raise NotImplementedError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingData, match=r"^no weights$"), training_advice("third_party.model", LARGER, None, None):
        raise MissingData("no weights")


# Recipes.


@pytest.mark.parametrize("model", ["vdm", "pyoco", "vdit", "videofusion"])
def test_every_preset_has_a_recipe_of_increasing_steps(model: str) -> None:
    for preset in plugins.module("model", model).PRESETS:
        assert recipe(preset) is RECIPES[re.split("-", preset)[0]]
    steps = [recipe(name).steps for name in ("tiny", "small", "base", "paper")]
    assert steps == sorted(steps)
    assert recipe("theirs") is budget.DEFAULT_RECIPE
