"""A model without a checkpoint for the dataset: said before any work, with what training one takes."""

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
    """No clip is read or made."""

    def never(*_: object) -> None:
        raise AssertionError("this is work")

    monkeypatch.setattr("vfbench.pipeline.plan.measure", never)
    monkeypatch.setattr(Shapes, "clips", never)


def command(err: str) -> dict[str, str]:
    """The flags of the command that a message says trains a model."""
    line = next(line for line in err.splitlines() if line.startswith("  python -m vfbench train "))
    words = shlex.split(line)[4:]
    return dict(zip(words[::2], words[1::2], strict=True))


def refused(model: str = "vdm", dataset: str = LARGER, root: str | None = None, *, smoke: bool = False) -> str:
    options = RunOptions(model=model, dataset=dataset, data_root=root, smoke=smoke, device="cpu")
    with pytest.raises(MissingData) as error, training_advice(model, dataset, root, None, smoke=smoke):
        plan(options)
    return str(error.value)


@pytest.mark.usefixtures("no_work")
def test_a_run_without_a_checkpoint_ends_before_any_work(vfbench: Command, tmp_path: Path) -> None:
    output = tmp_path / "run"
    done = vfbench("run", "--model", "vdm", "--dataset", LARGER, "--device", "cpu", "--output", output)
    assert (done.code, done.out) == (4, "")
    assert "no checkpoint of 'vdm' for shapes at 16x64x64: vfbench ships none" in done.err
    assert not output.exists()
    flags = command(done.err)
    assert flags == {
        "--model": "vdm",
        "--dataset": LARGER,
        "--preset": "small",
        "--steps": "100000",
        "--batch-size": "64",
        "--output": "runs/train-vdm-shapes",
    }
    assert f"--checkpoint {flags['--output']}" in done.err


def test_the_command_names_a_model_that_can_be_made_for_these_clips() -> None:
    flags = command(refused())
    model, data = prepare_training(flags["--model"], flags["--dataset"], flags["--preset"])
    assert (model.config.preset, str(data.shape)) == ("small", "16x64x64")


def test_the_price_is_what_is_counted_at_the_rate_that_is_said() -> None:
    message, size = refused(), describe("vdm", "small", plugins.load("dataset", LARGER))
    hours = size.training_flops * 100_000 * 64 / 100e12 / 3600
    assert f"about {hours:,.1f} GPU-hours at 100 TFLOP/s a GPU" in message
    assert f"{size.training_flops / 1e9:,.1f} GFLOP a clip and step, counted" in message
    assert "is an assumption" in message


def test_hours_follow_from_flops_steps_and_clips() -> None:
    flops = 10**12
    assert gpu_hours(flops, 1000, 36) == pytest.approx(0.1)
    assert gpu_hours(flops, 2000, 72) == pytest.approx(0.4)
    assert budget.format_gpu_hours(flops, 1000, 36) == "about 0.1 GPU-hours at 100 TFLOP/s a GPU"
    assert budget.format_gpu_hours(flops, 1, 1) == "less than 0.1 GPU-hours at 100 TFLOP/s a GPU"
    assert budget.format_gpu_hours(flops, 10**6, 360) == "about 1,000.0 GPU-hours at 100 TFLOP/s a GPU"


def test_a_smoke_run_asks_for_a_training_of_a_few_steps() -> None:
    flags = command(refused(smoke=True))
    assert (flags["--steps"], flags["--batch-size"], flags["--preset"]) == ("20", "4", "small")


@pytest.mark.parametrize(
    ("model", "dataset", "preset"),
    [
        ("vdm", "shapes(height=16, width=16)", "tiny"),
        ("pyoco", "shapes", "tiny"),
        ("videofusion", LARGER, "small"),
        ("videofusion", "shapes(height=128, width=128)", "base-128"),
        ("vdm", "shapes(height=256, width=256)", "small"),
    ],
)
def test_the_preset_is_made_for_clips_as_large(model: str, dataset: str, preset: str) -> None:
    assert command(refused(model, dataset))["--preset"] == preset


def test_where_no_preset_fits_it_says_so() -> None:
    message = refused("vdit", "shapes(height=18, width=18)")
    assert "None of its presets fits clips of that shape: see python -m vfbench show model vdit" in message
    assert "vfbench train" not in message


def test_options_of_sampling_are_not_in_the_command() -> None:
    assert command(refused("videofusion(steps=50, guidance=2.0)"))["--model"] == "videofusion"


def test_an_option_that_a_run_does_not_take_is_said_first(vfbench: Command) -> None:
    done = vfbench("run", "--model", "videofusion(lam=0.3)", "--dataset", LARGER)
    assert done.code == 2
    assert "option lam of model videofusion is for training" in done.err


# The dataset.


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "my clips"
    folder.mkdir()
    generator = np.random.default_rng(0)
    np.save(folder / "a.npy", generator.integers(0, 256, (8, 16, 40, 40, 3), dtype=np.uint8))
    return folder


def test_the_dataset_is_trained_on_as_the_protocol_wants_its_clips(clips: Path) -> None:
    flags = command(refused("vdm", "folder(short='skip')", str(clips)))
    asked = plugins.parse(flags["--dataset"])
    assert (asked.name, asked.options["height"], asked.options["width"]) == ("folder", 128, 128)
    assert asked.options["short"] == "skip"
    assert not {"root", "start"} & asked.options.keys()
    assert flags["--data-root"] == str(clips)
    data = plugins.load("dataset", asked.merged({"root": flags["--data-root"]}))
    assert str(data.shape) == "16x128x128"


@pytest.mark.usefixtures("no_work")
def test_a_dataset_that_is_not_there_is_said_first(vfbench: Command, tmp_path: Path) -> None:
    done = vfbench("run", "--model", "vdm", "--dataset", "folder", "--data-root", tmp_path / "none")
    assert done.code == 4
    assert done.err.startswith(f"error: {tmp_path / 'none'}")
    flags = command(done.err)  # then that a checkpoint is missing, too
    assert (flags["--data-root"], flags["--preset"]) == (str(tmp_path / "none"), "base-128")


@pytest.mark.usefixtures("no_work")
def test_the_main_job_tells_what_it_needs_where_nothing_is_there(vfbench: Command) -> None:
    done = vfbench("run", "--model", "videofusion", "--dataset", "ucf101")
    assert done.code == 4
    assert "no --data-root given" in done.err
    flags = command(done.err)
    assert flags["--dataset"] == "ucf101(height=128, width=128)"
    assert (flags["--data-root"], flags["--preset"]) == ("DIR", "base-128")
    size = describe("videofusion", "base-128", plugins.load("dataset", "shapes(height=128, width=128)"))
    hours = gpu_hours(size.training_flops, int(flags["--steps"]), int(flags["--batch-size"]))
    assert f"about {hours:,.1f} GPU-hours" in done.err


# Where nothing is missing.


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
def test_an_error_of_a_model_that_has_what_it_needs_stays_as_it_is(model: str, dataset: str) -> None:
    with pytest.raises(MissingData, match=r"^no clips$"), training_advice(model, dataset, None, None):
        raise MissingData("no clips")


def test_a_checkpoint_that_is_given_is_looked_at_instead(checkpoints: Path) -> None:
    options = RunOptions(model="vdm", dataset=LARGER, device="cpu", smoke=True, checkpoint=checkpoints / "vdm")
    with pytest.raises(MissingData, match="was trained on shapes at 16x32x32"):
        plan(options)


def test_a_model_of_others_may_bring_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brings").mkdir()
    (tmp_path / "brings" / "__init__.py").write_text("")
    (tmp_path / "brings" / "model.py").write_text(
        "from vfbench.baselines.vdm import create\ndef build(setting): raise NotImplementedError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingData, match=r"^no weights$"), training_advice("brings.model", LARGER, None, None):
        raise MissingData("no weights")


# The recipes.


@pytest.mark.parametrize("model", ["vdm", "pyoco", "vdit", "videofusion"])
def test_every_preset_has_a_recipe_and_a_larger_one_no_shorter(model: str) -> None:
    for preset in plugins.module("model", model).PRESETS:
        assert recipe(preset) is RECIPES[re.split("-", preset)[0]]
    steps = [recipe(name).steps for name in ("tiny", "small", "base", "paper")]
    assert steps == sorted(steps)
    assert recipe("theirs") is budget.DEFAULT_RECIPE
