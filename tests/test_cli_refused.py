"""What the commands refuse, and say before any work."""

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

pytestmark = pytest.mark.usefixtures("elsewhere")

NOISE = ("run", "--model", "noise", "--device", "cpu", "--smoke")


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "'rnu'.*'run'"),
        (["run", "--modle", "vdm"], "--modle.*--model"),
        (["run", "--num-sample", "9"], "--num-sample.*--num-samples"),
        (["run", "--model", "vidofusion"], "no model called 'vidofusion': did you mean 'videofusion'"),
        (["run", "--dataset", "shaps"], "no dataset called 'shaps': did you mean 'shapes'"),
        (["run", "--dataset", "shaps", "--smoke"], "did you mean 'shapes'"),
        ([*NOISE, "--metrics", "fvd,kvv"], "no metric called 'kvv': did you mean 'kvd'"),
        ([*NOISE, "--protocol", "shape"], "no protocol called 'shape': did you mean 'shapes'"),
        ([*NOISE, "--dtype", "float23"], "no --dtype called 'float23': did you mean 'float32'"),
        ([*NOISE, "--device", "cudaa"], "no --device called 'cudaa': did you mean 'cuda'"),
        ([*NOISE, "--model", "noise(step=2)"], "no option of model noise called 'step'"),
        ([*NOISE, "--steps", "2"], "no option of model noise called 'steps'"),
        ([*NOISE, "--dataset", "shapes(frame=8)"], "called 'frame': did you mean 'frames'"),
        ([*NOISE, "--dataset", "shapes(frames='8')"], "frames='8' of dataset shapes must be int"),
        ([*NOISE, "--model", "noise(("], r"cannot read 'noise\(\('"),
        ([*NOISE, "--batch-size", "many"], "--batch-size many"),
        ([*NOISE, "--batch-size", "0"], "--batch-size 0: .*at least 1"),
        ([*NOISE, "-n", "1"], "a score needs at least 2 generated clips, not 1"),
        ([*NOISE, "-n", "eight"], "--num-samples"),
        ([*NOISE, "-n", "1000000000"], "--num-samples 1,000,000,000: at most 10,000,000"),
        ([*NOISE, "--seed", "1.5"], "--seed"),
        ([*NOISE, "surprise"], "surprise"),
        (["ls", "modells"], "'modells' is not one of 'models'"),
        (["show", "model", "vdmm"], "did you mean 'vdm'"),
        (["show", "model", "vdm(steps=3)"], r"vdm\(steps=3\): give the name alone, vdm"),
        (["show", "model", "my_package.absent"], "'my_package.absent' cannot be imported: No module"),
        (["generate", "--output", "x", "--format", "gif"], "--format.*'gif' is not one of 'mp4', 'webp'"),
        (["table", "x", "--format", "markdwon"], "'markdwon' is not one of 'markdown'"),
        (["train", "--model", "noise"], "'noise' cannot be trained; these can: pyoco, vdit, vdm, videofusion"),
        (["train", "--preset", "tinny"], "no videofusion preset called 'tinny': did you mean 'tiny'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_does_not_exist_is_named_with_what_is_near(arguments: list[str], said: str, vfbench: Command) -> None:
    done = vfbench(*arguments)
    assert done.code == 2
    assert re.search(said, done.err), done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert list(Path().iterdir()) == []  # and nothing was begun


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--solver", "dpm++3m"], "no solver called 'dpm++3m': did you mean 'dpm++2m'"),
        (["--steps", "0"], "--steps 0"),
        (["--guidance", "nan"], "guidance nan: choose a finite number"),
    ],
)
def test_sampling_options_are_refused_by_the_model(
    options: list[str], said: str, vfbench: Command, checkpoints: Path
) -> None:
    done = vfbench("run", "--model", "vdm", "--device", "cpu", "--smoke", "--checkpoint", checkpoints / "vdm", *options)
    assert done.code == 2
    assert re.search(re.escape(said).replace(r"\.\*", ".*"), done.err), done.err


@pytest.mark.parametrize("count", [8, 63])
@pytest.mark.pitfall("a handful of clips")
def test_too_few_clips_are_refused_naming_what_each_metric_needs(count: int, vfbench: Command) -> None:
    done = vfbench("run", "--model", "noise", "--device", "cpu", "-n", count)
    assert done.code == 2
    assert f"{count:,} generated clips are too few: " in done.err
    needs = {"fvd": 64, "kvd": 32, "is": 64, "clipsim": 16}
    assert {name: f"{name} needs {n}" in done.err for name, n in needs.items()} == {
        k: count < n for k, n in needs.items()
    }
    assert "--smoke" in done.err
    assert (
        vfbench("run", "--model", "noise", "--device", "cpu", "-n", 16, "--metrics", "clipsim", "--dry-run").code == 0
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_an_environment_error(vfbench: Command) -> None:
    done = vfbench("run", "--model", "noise", "--device", "cuda")
    assert (done.code, "torch sees no CUDA device" in done.err) == (5, True)


# Before any work.


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever takes long fails the test."""
    for name in (
        "vfbench.pipeline.plan.measure",
        "vfbench.pipeline.job.generate",
        "vfbench.pipeline.job.real_features",
    ):
        monkeypatch.setattr(name, lambda *_, name=name: pytest.fail(f"{name} was called"))


@pytest.mark.usefixtures("no_work")
def test_an_output_that_cannot_be_written_stops_a_run_before_it_works(vfbench: Command) -> None:
    Path("file").write_text("")
    done = vfbench(*NOISE, "--output", "file/run")
    assert done.code == 5
    assert re.search("cannot write to file/run: .*file is not a folder", done.err)
    Path("runs").symlink_to("file")  # where runs go by themselves
    assert vfbench(*NOISE).code == 5


@pytest.mark.usefixtures("no_work")
def test_a_disk_that_is_too_small_stops_a_run_before_it_works(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=21_000_000))
    done = vfbench(*NOISE, "-n", 64, "--keep-clips", "--output", "run")
    assert done.code == 5
    assert "run needs about 23 MB and its disk has 21 MB free" in done.err  # 64 clips of 48 KiB
    assert not Path("run").exists()


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"a": [1, 2]}))


def of_another_size(folder: Path) -> None:
    tensor_files.write(folder / "model.safetensors", {"network.stem.weight": torch.zeros(3)})


def of_another_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model": "videofusion"}))


def of_another_dataset(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dataset": "ucf101"}))


def garbled(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (cut, r"model\.safetensors is damaged or not a safetensors file"),
        (pickled, r"model\.safetensors is damaged or not a safetensors file"),
        (of_another_size, r"model\.safetensors does not fit this model"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"no model\.safetensors: copy that file too"),
        (of_another_model, r"is a checkpoint of 'videofusion', not of 'vdm'"),
        (of_another_dataset, "was trained on ucf101"),
        (garbled, r"config\.json cannot be read"),
        (lambda folder: (folder / "config.json").unlink(), r"holds no config\.json: give the --output of"),
        (shutil.rmtree, "does not exist: give the --output of"),
    ],
)
def test_a_checkpoint_that_is_not_right_is_named(
    harm: Callable[[Path], None], said: str, checkpoints: Path, vfbench: Command
) -> None:
    folder = shutil.copytree(checkpoints / "vdm", Path("mine"))
    harm(folder)
    done = vfbench("run", "--model", "vdm", "--device", "cpu", "--smoke", "--checkpoint", folder)
    assert done.code == 4
    assert re.search(f"mine.*{said}", done.err), done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("there", "said"), [(None, "is empty"), ("a.png", r"holds no config\.json")])
def test_a_folder_without_a_base_generator_is_told_what_it_is(there: str | None, said: str, vfbench: Command) -> None:
    Path("mine").mkdir()
    if there:
        Path("mine", there).write_text("")
    base = ("--base-init", "frozen", "--base-from", "mine")
    done = vfbench("train", "--preset", "tiny", *base, "--steps", 1, "--device", "cpu", "--output", "out")
    assert done.code == 4
    assert re.search(f"mine {said}: .*--output of", done.err), done.err
    assert "Errno" not in done.err


@pytest.mark.usefixtures("no_work")
def test_ucf101_says_what_it_needs(vfbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VFBENCH_DATA", raising=False)
    for where in ([], ["--data-root", "nowhere"]):
        missing = vfbench(*NOISE, "--dataset", "ucf101", *where)
        assert missing.code == 4
        assert "https://www.crcv.ucf.edu" in missing.err
        assert "--data-root DIR" in missing.err
