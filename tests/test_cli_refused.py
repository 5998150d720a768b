"""Tests of refused commands: wrong names, unwritable outputs and bad checkpoints exit before any work."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Command

from vfbench.utils import tensor_files

pytestmark = pytest.mark.usefixtures("empty_cwd")

NOISE = ("run", "--model", "noise", "--device", "cpu", "--smoke")


# Wrong names and values.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "'rnu'.*'run'"),
        (["run", "--modle", "vdm"], "--modle.*--model"),
        (["run", "--num-sample", "9"], "--num-sample.*--num-samples"),
        (["run", "--model", "vidofusion"], "'vidofusion'.*'videofusion'"),
        (["run", "--dataset", "shaps"], "'shaps'.*'shapes'"),
        (["run", "--dataset", "shaps", "--smoke"], "'shaps'.*'shapes'"),
        ([*NOISE, "--metrics", "fvd,kvv"], "'kvv'.*'kvd'"),
        ([*NOISE, "--protocol", "shape"], "'shape'.*'shapes'"),
        ([*NOISE, "--dtype", "float23"], "--dtype.*'float23'.*'float32'"),
        ([*NOISE, "--device", "cudaa"], "--device.*'cudaa'.*'cuda'"),
        ([*NOISE, "--model", "noise(step=2)"], "option of model noise.*'step'"),
        ([*NOISE, "--steps", "2"], "option of model noise.*'steps'"),
        ([*NOISE, "--dataset", "shapes(frame=8)"], "'frame'.*'frames'"),
        ([*NOISE, "--dataset", "shapes(frames='8')"], "frames='8' .*int"),
        ([*NOISE, "--model", "noise(("], r"'noise\(\('"),
        ([*NOISE, "--batch-size", "many"], "--batch-size many"),
        ([*NOISE, "--batch-size", "0"], "--batch-size 0"),
        ([*NOISE, "-n", "1"], "--num-samples 1: choose 2 to 10,000,000"),
        ([*NOISE, "-n", "eight"], "--num-samples"),
        ([*NOISE, "-n", "1000000000"], "--num-samples 1,000,000,000: .*10,000,000"),
        ([*NOISE, "--num-real", "1"], "--num-real 1: choose 2 to"),
        ([*NOISE, "--seed", "1.5"], "--seed"),
        ([*NOISE, "surprise"], "surprise"),
        (["run", "--guidance", "-1"], "guidance -1.0: choose 0 to"),
        (["ls", "modells"], "'modells'.*'models'"),
        (["show", "model", "vdmm"], "'vdmm'.*'vdm'"),
        (["show", "model", "vdm(steps=3)"], r"vdm\(steps=3\)"),
        (["show", "model", "my_package.absent"], "'my_package.absent' cannot be imported: No module"),
        (["generate", "--output", "x", "--format", "gif"], "--format.*'gif'.*'mp4', 'webp'"),
        (["table", "x", "--format", "markdwon"], "'markdwon'.*'markdown'"),
        (["train", "--model", "pyoco(preset='tiny')"], "preset .*--preset"),
        (["train", "--model", "noise"], "'noise' cannot be trained.*pyoco, super_resolution, vdit, vdm, videofusion"),
        *((["replay", "x", f"--tolerance={value}"], f"--tolerance {value}") for value in ("nan", "-1")),
        (["train", "--preset", "tinny"], "preset.*'tinny'.*'tiny'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_unknown_names_and_values_are_refused_with_the_nearest(
    arguments: list[str], message: str, vfbench: Command
) -> None:
    outcome = vfbench(*arguments)
    assert outcome.code == 2
    assert re.search(message, outcome.err), outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    assert list(Path().iterdir()) == []  # no output was created


@pytest.mark.parametrize("command", [["table"], ["status"], ["replay"], ["weights", "verify", "i3d"]])
@pytest.mark.parametrize("kind", ["loop", "long"])
def test_a_path_that_no_file_can_have_is_one_line(kind: str, command: list[str], vfbench: Command) -> None:
    path = Path("x" * 300 if kind == "long" else "loop")
    if kind == "loop":
        path.symlink_to("loop")
    outcome = vfbench(*command, path)
    assert outcome.code in (2, 4, 5)
    assert re.fullmatch(r"error: .*\n", outcome.err), outcome.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--solver", "dpm++3m"], r"'dpm\+\+3m'.*'dpm\+\+2m'"),
        (["--steps", "0"], "--steps 0"),
        (["--guidance", "nan"], "guidance nan"),
    ],
)
def test_sampling_options_are_refused_by_the_model(
    options: list[str], message: str, vfbench: Command, checkpoints: Path
) -> None:
    outcome = vfbench(
        "run", "--model", "vdm", "--device", "cpu", "--smoke", "--checkpoint", checkpoints / "vdm", *options
    )
    assert outcome.code == 2
    assert re.search(message, outcome.err), outcome.err


def test_a_preset_names_a_shipped_checkpoint(vfbench: Command, checkpoints: Path) -> None:
    run = ("run", "--model", "vdm(preset='wide')", "--device", "cpu", "--smoke")
    for options, code, flag in (((), 4, "--preset"), (("--checkpoint", checkpoints / "vdm"), 2, "--checkpoint")):
        outcome = vfbench(*run, *options)
        assert (outcome.code, "'wide'" in outcome.err, flag in outcome.err) == (code, True, True), outcome.err


@pytest.mark.parametrize("count", [8, 63])
@pytest.mark.pitfall("a handful of clips")
def test_too_few_clips_are_refused_with_the_minimum_of_each_metric(count: int, vfbench: Command) -> None:
    outcome = vfbench("run", "--model", "noise", "--device", "cpu", "-n", count)
    assert outcome.code == 2
    assert f"{count:,} generated clips" in outcome.err
    for name, minimum in {"fvd": 64, "kvd": 32, "is": 64, "clipsim": 16}.items():
        assert (f"{name} needs {minimum}" in outcome.err) is (count < minimum)
    assert "--smoke" in outcome.err
    clipsim = vfbench("run", "--model", "noise", "--device", "cpu", "-n", 16, "--metrics", "clipsim", "--dry-run")
    assert clipsim.code == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_an_environment_error(vfbench: Command) -> None:
    outcome = vfbench("run", "--model", "noise", "--device", "cuda")
    assert (outcome.code, "no CUDA device" in outcome.err) == (5, True)


# Refused before any work.


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a run measures, generates or computes features."""
    for name in (
        "vfbench.pipeline.plan.measure",
        "vfbench.pipeline.job.generate",
        "vfbench.pipeline.job.real_features",
    ):
        monkeypatch.setattr(name, lambda *_, name=name: pytest.fail(f"{name} was called"))


@pytest.mark.usefixtures("no_work")
def test_an_unwritable_output_is_refused_before_any_work(vfbench: Command) -> None:
    Path("file").write_text("")
    outcome = vfbench(*NOISE, "--output", "file/run")
    assert outcome.code == 5
    assert re.search("cannot write to file/run: .*file", outcome.err)
    Path("runs").symlink_to("file")  # the default output folder
    assert vfbench(*NOISE).code == 5


@pytest.mark.usefixtures("no_work")
def test_a_full_disk_is_refused_before_any_work(vfbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=21_000_000))
    outcome = vfbench(*NOISE, "-n", 64, "--keep-clips", "--output", "run")
    assert outcome.code == 5
    assert re.search("23 MB .*21 MB", outcome.err)  # 64 clips of 48 KiB
    assert not Path("run").exists()


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"a": [1, 2]}))


def use_weights_of_another_size(folder: Path) -> None:
    tensor_files.write(folder / "model.safetensors", {"network.stem.weight": torch.zeros(3)})


def use_config_of_another_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model": "videofusion"}))


def use_config_of_another_dataset(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dataset": "ucf101"}))


def write_invalid_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"model\.safetensors is damaged"),
        (pickle_weights, r"model\.safetensors is damaged"),
        (use_weights_of_another_size, r"model\.safetensors is damaged or does not fit this model"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"no model\.safetensors"),
        (use_config_of_another_model, r"'videofusion', not of 'vdm'"),
        (use_config_of_another_dataset, "was trained on ucf101"),
        (write_invalid_config, r"config\.json is not valid JSON"),
        (lambda folder: (folder / "config.json").unlink(), r"no config\.json: .*--output"),
        (shutil.rmtree, "does not exist: .*--output"),
    ],
)
def test_a_damaged_or_wrong_checkpoint_is_refused(
    damage: Callable[[Path], None], message: str, checkpoints: Path, vfbench: Command
) -> None:
    folder = shutil.copytree(checkpoints / "vdm", Path("mine"))
    damage(folder)
    outcome = vfbench("run", "--model", "vdm", "--device", "cpu", "--smoke", "--checkpoint", folder)
    assert outcome.code == 4
    assert re.search(f"mine.*{message}", outcome.err), outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(("file", "message"), [(None, "is empty"), ("a.png", r"holds no config\.json")])
def test_a_base_folder_without_a_checkpoint_is_refused(file: str | None, message: str, vfbench: Command) -> None:
    Path("mine").mkdir()
    if file:
        Path("mine", file).write_text("")
    base = ("--base-init", "frozen", "--base-from", "mine")
    outcome = vfbench("train", "--preset", "tiny", *base, "--steps", 1, "--device", "cpu", "--output", "out")
    assert outcome.code == 4
    assert re.search(f"mine {message}: .*--output", outcome.err), outcome.err
    assert "Errno" not in outcome.err


@pytest.mark.usefixtures("no_work")
def test_missing_ucf101_prints_the_download_steps(vfbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VFBENCH_DATA", raising=False)
    for options in ([], ["--data-root", "nowhere"]):
        missing = vfbench(*NOISE, "--dataset", "ucf101", *options)
        assert missing.code == 4
        assert "https://www.crcv.ucf.edu" in missing.err
        assert "--data-root DIR" in missing.err
