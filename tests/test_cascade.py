"""Tests of `vfbench.baselines.cascade`: a base model and a super-resolution model, from 32 to 64 pixels."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, results
from contract import check_sampler
from helpers import CPU, requests, tiny_dataset, tiny_vdm
from test_super_resolution import tiny_super_resolution

from vfbench.baselines import cascade
from vfbench.baselines.super_resolution import SuperResolution
from vfbench.diffusion.cascade import CascadeSampler
from vfbench.diffusion.sampler import DiffusionSampler
from vfbench.errors import UserError
from vfbench.interfaces import BuildContext
from vfbench.utils.files import file_sha256

DATASET = "shapes(height=64, width=64)"


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of clips of 4x8x8 (`base`), 4x16x16 from these (`sr`), and 16x64x64 (`sr64`)."""
    folder = tmp_path_factory.mktemp("stages")
    tiny_vdm().save(folder / "base")
    tiny_super_resolution(16).save(folder / "sr")
    tiny_super_resolution(64, 16).save(folder / "sr64")
    return folder


def build(stages: Path, **options: Any) -> CascadeSampler:
    context = BuildContext(tiny_dataset(side=16), CPU)
    return cascade.build(context, **{"base": str(stages / "base"), "sr": str(stages / "sr"), "steps": 2, **options})


def test_a_cascade_keeps_the_contract_of_a_sampler(stages: Path) -> None:
    sampler = build(stages)
    check_sampler(sampler, requests(4, 5, 6))
    assert sampler.shape == tiny_dataset(side=16).shape
    assert set(sampler.networks) == {"base.condition", "base.network", "sr.condition", "sr.network"}
    assert not sampler.reference
    assert {"base.steps", "sr.steps", "sr.guidance"} <= sampler.sampling_options.keys()


def test_a_cascade_goes_back_to_float32_in_both_stages(stages: Path) -> None:
    sampler = build(stages)
    short = replace(
        sampler,
        base=replace(sampler.base, dtype=torch.bfloat16),  # type: ignore[type-var]  # a dataclass
        sr=replace(sampler.sr, dtype=torch.bfloat16),
    )
    again = short.in_float32()
    assert isinstance(again.base, DiffusionSampler)
    assert (again.base.dtype, again.sr.dtype, again.noise_generator) == (torch.float32, torch.float32, "mt19937")
    assert torch.equal(again.sample(requests(4)), sampler.sample(requests(4)))


def test_the_second_stage_enlarges_the_clips_of_the_first(stages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, batch, read = build(stages, level=0.4), requests(4, 5), list[tuple[torch.Tensor, float]]()
    original = SuperResolution.enlarge

    def recorded(model: SuperResolution, small: torch.Tensor, level: float, normal: Any) -> Any:
        read.append((small, level))
        return original(model, small, level, normal)

    monkeypatch.setattr(SuperResolution, "enlarge", recorded)
    sampler.sample(batch)
    ((small, level),) = read
    assert level == 0.4
    assert torch.equal(((small + 1) * 127.5).round().byte(), sampler.base.sample(batch))


def test_options_are_for_both_stages_unless_a_stage_has_its_own(stages: Path) -> None:
    nested = f"cascade(base='real', sr='{stages / 'sr'}', steps=7)"
    sampler = build(stages, sr=str(stages / "sr"), solver="ddim", guidance=2.0)
    for stage in (sampler.base, sampler.sr):
        assert isinstance(stage, DiffusionSampler)
        assert (stage.sampling.steps, stage.sampling.solver, stage.sampling.guidance) == (2, "ddim", 2.0)
    context = BuildContext(tiny_dataset(side=32), CPU)
    tiny_super_resolution(32).save(stages / "sr32")
    three = cascade.build(context, base=nested, sr=str(stages / "sr32"), steps=3)
    assert isinstance(three.base, CascadeSampler)
    assert (three.base.sr.sampling.steps, three.sr.sampling.steps) == (7, 3)
    assert three.reference
    assert three.sample(requests(4)).shape == (1, 4, 3, 32, 32)


@pytest.mark.slow
def test_a_run_records_the_flops_and_checkpoints_of_both_stages(
    stages: Path, checkpoints: Path, tmp_path: Path, vfbench: Command
) -> None:
    model = f"cascade(base='{checkpoints / 'videofusion'}', sr='{stages / 'sr64'}')"
    arguments = ["--dataset", DATASET, "--smoke", "-n", 4, "--num-real", 8, "--metrics", "fvd", "--steps", 1]
    outcome = vfbench("run", "--model", model, *arguments, "--output", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    record = results(tmp_path / "run")
    hashes = {
        "base": file_sha256(checkpoints / "videofusion" / "model.safetensors"),
        "sr": file_sha256(stages / "sr64" / "model.safetensors"),
    }
    assert {name: stage["weights"] for name, stage in record["stages"].items()} == hashes
    flops = [stage["flops_per_clip"] for stage in record["stages"].values()]
    assert sum(flops) == record["cost"]["flops_per_clip"]
    assert min(flops) > 0
    assert re.fullmatch("[0-9a-f]{64}", record["weights"])
    assert record["weights"] not in hashes.values()
    assert record["reference"] is False


def test_generate_writes_large_clips_of_a_prompt(
    stages: Path, checkpoints: Path, tmp_path: Path, vfbench: Command
) -> None:
    model = f"cascade(base='{checkpoints / 'videofusion'}', sr='{stages / 'sr64'}', steps=1)"
    prompt = "a small red circle moves left over blue stripes"
    arguments = ["--dataset", DATASET, "-n", 1, "--format", "npy", "--output", tmp_path / "clips"]
    outcome = vfbench("generate", "--model", model, "--prompt", prompt, *arguments)
    assert outcome.code == 0, outcome.err
    record = json.loads((tmp_path / "clips" / "generate.json").read_text())
    assert (record["shape"], set(record["stages"])) == ("16x64x64", {"base", "sr"})


def test_a_module_that_only_a_checkpoint_names_is_not_imported(
    stages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hostile_package").mkdir()
    (tmp_path / "hostile_package" / "model.py").write_text("raise AssertionError('imported')")
    tiny_vdm().save(tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "model": "hostile_package.model"}))
    with pytest.raises(UserError, match=r"base='.*'hostile_package\.model'.*name it in the command"):
        build(stages, base=str(tmp_path / "base"))


@pytest.mark.one_case
@pytest.mark.parametrize(
    ("options", "flags", "code", "message"),
    [
        ("base='{base}'", (), 2, r"sr is missing: write cascade\(base=DIR, sr=DIR\)"),
        ("sr='{sr64}'", (), 2, r"base is missing: write cascade\(base=DIR, sr=DIR\)"),
        ("base='{base}', sr='{base}'", (), 4, "sr='.*base'.*4x8x8"),
        ("base='{vf}', sr='real'", (), 2, "sr='real': it does not enlarge.*--model super_resolution"),
        ("base='{base}', sr='{sr64}'", (), 4, "base='.*base'.*4x8x8.*sr.*16x32x32"),
        ("base='runs/none', sr='{sr64}'", (), 4, "base='runs/none'.*does not exist"),
        ("base='vdn', sr='{sr64}'", (), 2, "base='vdn'.*did you mean 'vdm'"),
        ("base='vdm(step=3)', sr='{sr64}'", (), 2, "base=.*did you mean 'steps'"),
        (
            "base='videofusion_seed', sr='{sr64}'",
            (),
            4,
            "base='videofusion_seed': vfbench ships no checkpoint.*give base=DIR",
        ),
        ("base='{vf}', sr='super_resolution'", (), 4, "ships no checkpoint.*give sr=DIR"),
        ("base='{vf}', sr='{sr64}', level=2", (), 2, "level 2.0: choose"),
        ("base='{vf}', sr='{sr64}'", ("--steps", 5000), 2, "--steps 5000"),
        ("base='{vf}', sr='{sr64}'", ("--checkpoint", "{sr64}"), 2, "leave out --checkpoint.*base=DIR, sr=DIR"),
    ],
)
def test_what_makes_no_cascade_is_refused(
    stages: Path, checkpoints: Path, vfbench: Command, options: str, flags: Any, code: int, message: str
) -> None:
    places = {"base": stages / "base", "sr": stages / "sr", "sr64": stages / "sr64", "vf": checkpoints / "videofusion"}
    model = f"cascade({options.format(**places)})"
    flags = [str(flag).format(**places) for flag in flags]
    outcome = vfbench("run", "--model", model, "--dataset", DATASET, "--smoke", "--dry-run", *flags)
    assert outcome.code == code, outcome.err
    assert re.search(message, outcome.err), outcome.err
