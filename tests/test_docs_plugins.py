"""Tests of the plug-ins that `docs/plugins` shows as examples: they keep the contract, train and run."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command
from contract import check_dataset, check_fingerprint, check_metric, check_sampler
from helpers import perturb
from pages import PLUGINS, code, examples

import vfbench
from vfbench import plugins
from vfbench.diffusion.priors import normal_per_clip
from vfbench.interfaces import BuildContext, ClipShape, Request
from vfbench.training.trainer import Trainer


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Installed third-party package `my_package` with the examples and entry points of the page."""
    folder = tmp_path / "my_package"
    folder.mkdir()
    for path, source in examples().items():
        (folder / Path(path).name).write_text(source)
    (toml,) = code(PLUGINS, "toml")
    entries = re.sub(r'\[project\.entry-points\."(.+)"\]', r"[\1]", toml).replace('"', "")
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entries)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


def test_every_kind_of_plug_in_has_an_example() -> None:
    names = {"baselines/wash.py", "baselines/slide.py", "vfbench/datasets/ramps.py", "metrics/mean_shift.py"}
    assert examples().keys() == names
    assert len(code(PLUGINS, "python")) == len(names), "an untested example"


def test_the_backport_of_importlib_metadata_does_no_harm(package: Path) -> None:
    pytest.importorskip("importlib_metadata")  # once imported, it answers for Python's own
    (entry,) = plugins.registered("model", "wash")
    assert (type(entry), entry.value) == (EntryPoint, "my_package.wash")


def test_the_model_keeps_the_contract(package: Path) -> None:
    data = plugins.load("dataset", "shapes(frames=4, height=16, width=16)")
    requests = [Request(i, 100 + i, 0, "") for i in range(3)]
    for name in ("my_package.wash", "wash"):
        check_sampler(plugins.load("model", name, BuildContext(data, torch.device("cpu"))), requests)
    bright, dark = (
        plugins.load("model", f"wash(dusk={dusk})", BuildContext(data, torch.device("cpu"))).sample(requests)
        for dusk in (0, 1.0)
    )
    assert (bright[:, -1] == bright[:, 0]).all()
    assert (dark[:, -1] == 0).all()


def test_the_trainable_model_shifts_its_noise_and_keeps_the_contract(package: Path, tmp_path: Path) -> None:
    data = plugins.load("dataset", "shapes(frames=4, height=16, width=16)")
    module = plugins.module("model", "my_package.slide")
    for preset, speed in {"tiny": 1, "fast": 3}.items():
        prior = module.create(data, preset).noise_prior
        noise = prior.noise(normal_per_clip([1, 2], torch.device("cpu")), data.shape)
        assert torch.equal(noise[:, 2], noise[:, 0].roll(2 * speed, dims=-1))
        assert not torch.equal(noise[:, 2], noise[:, 0])
    model = module.create(data)
    perturb(model)
    model.save(tmp_path / "model")
    context = BuildContext(data, torch.device("cpu"), checkpoint=tmp_path / "model")
    requests = [Request(i, 100 + i, i, caption) for i, caption in enumerate(data.captions("test", [0, 7, 19]))]
    check_sampler(plugins.load("model", "my_package.slide(steps=2)", context), requests)


@pytest.mark.slow
def test_the_commands_for_the_trainable_model_work(
    package: Path, tmp_path: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the commands of the page with two training steps, no preview and a few clips."""
    monkeypatch.setattr(Trainer, "write_preview", lambda trainer: None)
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in code(PLUGINS, "sh") if "my_package.slide" in block)
    train, run = (shlex.split(line)[3:] for line in block.splitlines())
    short = {"train": ["--steps", "2", "--batch-size", "2"], "run": ["--smoke", "--num-samples", "8", "--steps", "2"]}
    for arguments in (train, run):
        outcome = vfbench(*arguments, *short[arguments[0]], "--device", "cpu")
        assert outcome.code == 0, outcome.err
    assert json.loads(Path("runs/slide/config.json").read_text())["options"]["speed"] == 3
    assert "python -m vfbench run --model my_package.slide" in Path("runs/slide/README.md").read_text()
    (result,) = Path("runs").glob("*/results.json")
    assert json.loads(result.read_text())["model"] == "my_package.slide"


def test_the_dataset_keeps_the_contract(package: Path) -> None:
    build: Callable[..., Any] = plugins.module("dataset", "ramps").build
    check_dataset(build())
    check_fingerprint(lambda s: build(frames=s.frames, height=s.height, width=s.width), ClipShape(4, 16, 16))
    brightening, darkening = build().clips("train", [0, 1]).float().mean((2, 3, 4))
    assert (brightening.diff() > 0).all()
    assert (darkening.diff() < 0).all()


def test_the_metric_keeps_the_contract(package: Path) -> None:
    check_metric(plugins.load("metric", "mean_shift"))
    check_metric(plugins.load("metric", "my_package.mean_shift"))


def test_the_examples_run_together(package: Path, tmp_path: Path) -> None:
    result = vfbench.run(
        model="wash(dusk=0.8)",
        dataset="ramps",
        metrics=["fvd", "mean_shift"],
        device="cpu",
        smoke=True,
        output=tmp_path / "run",
    )
    assert (result.model_spec, result.dataset) == ("wash(dusk=0.8)", "ramps")
    assert result.scores.keys() == {"fvd", "mean_shift"}
    assert result.scores["mean_shift"].value > result.scores["mean_shift"].floor


def test_the_model_runs_on_shapes(package: Path, tmp_path: Path) -> None:
    result = vfbench.run(model="my_package.wash", dataset="shapes", device="cpu", smoke=True, output=tmp_path / "run")
    assert result.model == "my_package.wash"
    assert not result.protocol.comparable
    assert (tmp_path / "run" / "results.json").is_file()


def test_the_examples_have_short_lines_and_docstrings() -> None:
    for path, source in examples().items():
        assert max(map(len, source.splitlines())) <= 120, path
        body = ast.parse(source)
        texts = [body, *(node for node in body.body if isinstance(node, ast.ClassDef | ast.FunctionDef))]
        assert all(map(ast.get_docstring, texts)), path
