"""Tests of `--compile`: the blocks that are compiled, the run's id, refusals, and equal clips."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command, close_clips, python
from helpers import UNET, perturb
from torch import nn

from vfbench.baselines import vdm
from vfbench.baselines.vdm import VDM
from vfbench.datasets import shapes
from vfbench.diffusion.model_config import ModelConfig
from vfbench.pipeline import compiling
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan


class Block(nn.Module):
    """A block that holds another of its class."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = nn.ModuleList([inner] if inner else [])


class Single(nn.Module):
    pass


def network() -> nn.Module:
    return nn.ModuleDict(
        {
            "down": nn.ModuleList([Block(), Block(Block())]),
            "middle": Block(),
            "once": nn.ModuleList([Single()]),
            "shrink": nn.ModuleList([nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)]),
        }
    )


def test_the_outermost_repeated_blocks_are_compiled() -> None:
    modules = dict(network().named_modules())
    names = {id(module): name for name, module in modules.items()}
    root = modules[""]
    assert [names[id(block)] for block in compiling.repeated_blocks(root)] == ["down.0", "down.1", "middle"]


def test_compilation_is_part_of_the_id_and_keeps_its_programs_in_the_cache(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []  # stubbed: the compiler cannot trace the runtime type checks
    monkeypatch.setattr(nn.Module, "compile", lambda module, **_: compiled.append(type(module).__name__))
    monkeypatch.delenv(compiling.CACHE_VARIABLE, raising=False)
    common: dict[str, Any] = {
        "model": "vdm",
        "checkpoint": checkpoints / "vdm",
        "smoke": True,
        "steps": 1,
        "device": "cpu",
    }
    plain = plan(RunOptions(output=tmp_path / "run", **common))
    assert compiled == []
    made = plan(RunOptions(output=tmp_path / "run", compile=True, **common))
    assert set(compiled) == {"Layer"}
    assert made.specification.determines == {**plain.specification.determines, "compile": True}
    assert made.cost.flops_per_clip == plain.cost.flops_per_clip
    assert made.patience > plain.patience
    assert os.environ[compiling.CACHE_VARIABLE] == str(Path(os.environ["VFBENCH_CACHE"]) / "compiled")


@pytest.mark.parametrize("command", ["run", "generate"])
def test_a_model_without_blocks_and_a_machine_without_a_compiler_are_refused(
    command: str, checkpoints: Path, tmp_path: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = ("--compile", "--device", "cpu", "--output", tmp_path / "x")
    outcome = vfbench(command, "--model", "noise", *rest)
    assert (outcome.code, "--compile: noise" in outcome.err) == (2, True)
    monkeypatch.setenv("CXX", "no-compiler")
    outcome = vfbench(command, "--model", "vdm", "--checkpoint", checkpoints / "vdm", "--steps", 1, *rest)
    assert (outcome.code, "no-compiler" in outcome.err) == (5, True)


@pytest.mark.slow
def test_compiled_clips_equal_plain_ones(tmp_path: Path, vfbench: Command) -> None:
    config = ModelConfig.from_preset("vdm", "tiny", vdm.PRESETS, shapes.build())
    model = VDM(replace(config, options={**config.options, "network": {**UNET, "channels": [8], "attention": [0]}}))
    perturb(model)
    model.save(tmp_path / "vdm")
    arguments = ["generate", "--model", "vdm", "--checkpoint", tmp_path / "vdm", "--steps", 2, "--device", "cpu"]
    arguments += ["-n", 2, "--format", "npy", "--output"]
    assert vfbench(*arguments, tmp_path / "plain").code == 0
    command = python("-m", "vfbench", *map(str, arguments), str(tmp_path / "compiled"), "--compile")
    environment = {**os.environ, "VFBENCH_CACHE": str(tmp_path / "cache")}
    subprocess.run(command, env=environment, check=True)  # apart: the compiler cannot trace the runtime type checks
    plain, compiled = (
        [np.load(file) for file in sorted((tmp_path / n / "clips").iterdir())] for n in ("plain", "compiled")
    )
    close_clips(torch.from_numpy(np.stack(compiled)), torch.from_numpy(np.stack(plain)))
    assert any((tmp_path / "cache" / "compiled").rglob("*.so"))
