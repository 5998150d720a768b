"""What every trainable model must do, whichever file adds it: learn, resume, sample by request, compile, save, run."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from conftest import Command, python, results
from contract import check_sampler
from helpers import CPU, clips_of, perturb, requests, setting, tiny_dataset
from torch import Tensor

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.datasets.shapes import Shapes
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.sampler import DiffusionSampler, SamplingOptions
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Clips, Dataset, Request, Split
from vfbench.training import match_flops
from vfbench.training.train import TrainOptions, train
from vfbench.training.trainer import Trainer
from vfbench.utils.files import file_sha256


class Example(NamedTuple):
    """A model by name, and one of its presets."""

    name: str
    preset: str

    @property
    def module(self) -> ModuleType:
        return plugins.module("model", self.name)


TRAINABLE = match_flops.trainable()
# Of each model the first preset, and those that are of another form.
OTHERS = [
    Example("videofusion", "tiny-one"),
    Example("videofusion", "tiny-prior"),
    Example("pyoco", "tiny-progressive"),
]
FIRST = [Example(name, next(iter(plugins.module("model", name).PRESETS))) for name in TRAINABLE]
CASES = [*FIRST, *OTHERS]
every_model = pytest.mark.parametrize("case", CASES, ids="-".join)
every_file = pytest.mark.parametrize("case", FIRST, ids="-".join)
OPTIONS = TrainOptions(steps=40, batch_size=4, lr=1e-2, warmup=2, ema=0.9, save_every=100, sample_every=100)
FALL = 0.75  # what is left of the loss after those steps on one clip, at most
CAPTION = "a small red circle moves left over blue stripes"


class OneClip(Shapes):
    """A dataset whose train split shows one clip over and over."""

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Clips:
        return super().clips(split, [0] * len(indices) if split == "train" else indices, device)


def narrow(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same options with few and narrow layers, wherever they stand: a step takes milliseconds."""
    sizes = {"channels": [16, 16], "width": 8 * options.get("heads", 1), "hidden": 32, "depth": 2, "embedding": 32}
    return {
        name: narrow(value) if isinstance(value, Mapping) else sizes.get(name, value) for name, value in options.items()
    }


def small(case: Example, data: Dataset | None = None, *, moved: bool = True) -> DiffusionModel:
    """The preset with narrow networks, the same on every call; `moved` from the zeros that heads begin with."""
    with torch.device("meta"):
        whole: DiffusionModel = case.module.create(data or tiny_dataset(), case.preset)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = type(whole)(replace(whole.config, options=narrow(whole.config.options)))
    if moved:
        perturb(model)
    return model


def loss_of(model: DiffusionModel) -> float:
    """The loss on the one clip at many times, the same for every model."""
    clip = tiny_dataset().clips("train", [0] * 32).float() / 127.5 - 1
    with torch.no_grad():
        drawn = model.draw(32, torch.Generator().manual_seed(7))
        losses = model.training_losses(clip, [0] * 32, [""] * 32, ["none"] * 32, drawn)
    return float(torch.stack(list(losses.values())).sum())


def learnt(model: DiffusionModel, seed: int = 0) -> tuple[float, dict[str, Tensor | None]]:
    """The loss on clips of all three conditions, and the gradient of every weight that is trained."""
    x, said = clips_of(model, batch=3), ([1, 2, 3], [CAPTION] * 3, ["text", "class", "none"])
    drawn = model.draw(3, torch.Generator().manual_seed(seed))
    losses = model.training_losses(x, *said, drawn)  # type: ignore[arg-type]
    loss = torch.stack(list(losses.values())).sum()
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return float(loss.detach()), dict(zip(named, gradients, strict=True))


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sample sheets: they take longer than a tiny training."""
    monkeypatch.setattr(Trainer, "write_preview", lambda run: None)


def test_the_models_of_the_benchmark_are_found() -> None:
    assert {"videofusion", "vdm", "pyoco", "vdit"} <= set(TRAINABLE)
    assert len(set(CASES)) == len(CASES)


# It trains.


@every_model
def test_the_loss_falls_by_a_quarter(quiet: None, tmp_path: Path, case: Example) -> None:
    model = small(case, moved=False)
    before = loss_of(model)
    train(model, OneClip(tiny_dataset().shape), OPTIONS, tmp_path)
    averaged = case.module.build(setting(tmp_path)).model
    assert loss_of(model) < FALL * before
    assert loss_of(averaged) < FALL * before


@every_model
def test_every_weight_learns_and_is_in_one_group(case: Example) -> None:
    model = small(case)
    draws = [learnt(model, seed)[1] for seed in range(3)]  # some weights are for what is left out at random
    reached = {name for gradients in draws for name, g in gradients.items() if g is not None and g.any()}
    assert [name for name in draws[0] if name not in reached] == []
    grouped = [id(p) for group in model.parameter_groups(1e-3) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


@every_model
def test_training_draws_from_the_generator_it_is_given(case: Example) -> None:
    model, state = small(case), torch.get_rng_state()
    assert learnt(model, 0)[0] == learnt(model, 0)[0] != learnt(model, 1)[0]
    assert torch.equal(state, torch.get_rng_state()), "training moved the global random numbers"


# It resumes.


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """What a training state holds, by path."""
    if not isinstance(tree, dict | list):
        return {path: tree}
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {name: leaf for key, child in pairs for name, leaf in leaves(child, f"{path}.{key}").items()}


@every_model
def test_stopped_and_resumed_is_undisturbed_bit_for_bit(quiet: None, tmp_path: Path, case: Example) -> None:
    options, asked = replace(OPTIONS, steps=6), iter([False, False, True])  # after each step: it stops at the third
    train(small(case), tiny_dataset(), options, tmp_path / "whole")
    train(small(case), tiny_dataset(), options, tmp_path / "parts", stop=lambda: next(asked))
    between = torch.load(tmp_path / "parts" / "training.pt", weights_only=True)
    # The initial weights of the new process must not matter.
    train(small(case, moved=False), tiny_dataset(), options, tmp_path / "parts", resume=True)
    one, two = (leaves(torch.load(tmp_path / n / "training.pt", weights_only=True)) for n in ("whole", "parts"))
    assert (between["step"], one[".step"]) == (3, 6)
    assert one.keys() == two.keys()
    del one[".seconds"]  # which no two trainings have alike
    unlike = [n for n, v in one.items() if not (torch.equal(v, two[n]) if isinstance(v, Tensor) else v == two[n])]
    assert unlike == []
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]


# It samples by request.


@every_model
@pytest.mark.parametrize("options", [{}, {"solver": "ddpm", "guidance": 2.0}], ids=["default", "fresh noise"])
def test_a_clip_follows_from_its_request_alone(tmp_path: Path, case: Example, options: dict[str, Any]) -> None:
    small(case).save(tmp_path)
    sampler = case.module.build(setting(tmp_path), **{"steps": 3, **options})
    first, *others = requests(4, 5, 6)
    check_sampler(sampler, [first, *others])
    again = [Request(first.index, seed, first.label, first.prompt) for seed in (first.seed, first.seed + 1)]
    same, other = sampler.sample(again).int() - sampler.sample([first]).int()
    assert int(same.abs().max()) <= 1
    assert int(other.abs().max()) > 20, "another seed, the same clip"


@every_model
def test_label_and_prompt_reach_the_clip(tmp_path: Path, case: Example) -> None:
    small(case).save(tmp_path)
    (asked,) = requests(4)
    others = {
        "class": replace(asked, label=asked.label + 1),
        "text": replace(asked, prompt="a large blue square moves up over red dots"),
    }
    for condition, other in others.items():
        sampler = case.module.build(setting(tmp_path), steps=3, condition=condition)
        one, two = (sampler.sample([request]).int() for request in (asked, other))
        assert int((one - two).abs().max()) > 1, condition
    sampler = case.module.build(setting(tmp_path), steps=3, condition="none")
    assert all(torch.equal(sampler.sample([asked]), sampler.sample([other])) for other in others.values())


# It survives the compiler, which cannot read through the checks of types in tests: in a process without them.


@pytest.fixture(scope="module")
def unchecked() -> Iterator[ProcessPoolExecutor]:
    """A process of its own, for all models."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


def _compiled(case: Example, backend: str) -> float:
    """How far loss and gradients of compiled networks are from those of plain ones, at most; raises where a network
    does not become one graph."""
    torch.set_num_threads(1)
    torch._dynamo.reset()  # the programs of all U-Nets count together, and only so many are made
    plain, model = small(case), small(case)
    for network in model.networks().values():
        network.compile(backend=backend, fullgraph=True, dynamic=False)
    (loss, gradients), (expected, wanted) = learnt(model), learnt(plain)
    away = [(gradients[name] - wanted[name]).abs().max() / wanted[name].abs().max() for name in wanted]  # type: ignore
    return max(abs(loss / expected - 1), float(torch.stack(away).max()))


@every_model
@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_each_network_compiles_to_one_graph_that_says_the_same(
    unchecked: ProcessPoolExecutor, case: Example, backend: str
) -> None:
    assert unchecked.submit(_compiled, case, backend).result() < 1e-3


@pytest.mark.slow
@every_file
def test_the_command_compiles_it(tmp_path: Path, case: Example) -> None:
    given = ["--model", case.name, "--preset", case.preset, "--dataset", "shapes(frames=4, height=8, width=8)"]
    given += ["--steps", "3", "--batch-size", "2", "--device", "cpu", "--dtype", "float32"]
    for name, flags in {"plain": [], "compiled": ["--compile"]}.items():
        command = python("-m", "vfbench", "train", *given, *flags, "--output", tmp_path / name)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    one, two = (leaves(torch.load(tmp_path / n / "training.pt", weights_only=True)) for n in ("plain", "compiled"))
    # In three steps of warming up no weight moves far: what tells is the mean of the gradients.
    gradients = [name for name in one if name.endswith(".exp_avg")]
    plain, compiled = (torch.cat([state[name].flatten() for name in gradients]) for state in (one, two))
    assert float(plain.norm()) > 1e-3
    assert float((plain - compiled).norm()) < 1e-2 * float(plain.norm())


# It is saved and loaded.


@every_model
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_saved_and_loaded_it_makes_the_same_clips(tmp_path: Path, case: Example, half: bool) -> None:
    model = small(case)
    model.save(tmp_path / "a", half=half)
    if half:
        model.load_state_dict({name: t.half().float() for name, t in model.state_dict().items()})
    loaded = case.module.build(setting(tmp_path / "a"), steps=3)
    state, kept = model.state_dict(), loaded.model.state_dict()
    assert state.keys() == kept.keys()
    assert [name for name in state if not torch.equal(state[name], kept[name])] == []
    expected = DiffusionSampler(model.eval(), "none", CPU, sampling=SamplingOptions(steps=3)).sample(requests(4, 5))
    assert torch.equal(loaded.sample(requests(4, 5)), expected)
    loaded.model.save(tmp_path / "b", half=half)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@every_file
def test_the_checkpoint_of_another_model_is_refused(tmp_path: Path, case: Example) -> None:
    other = next(one for one in CASES if one.name != case.name)
    small(other).save(tmp_path)
    with pytest.raises(MissingData, match=f"checkpoint of '{other.name}', not of '{case.name}'"):
        case.module.build(setting(tmp_path))


@every_file
def test_every_preset_describes_a_model_and_an_unknown_one_is_refused(case: Example) -> None:
    for preset, options in case.module.PRESETS.items():
        frames, height, width = options.get("clips", (4, 8, 8))
        with torch.device("meta"):
            model = case.module.create(shapes.build(frames=frames, height=height, width=width), preset)
        assert model.config.preset == preset
        assert sum(p.numel() for p in model.parameters()) > 100_000
    with pytest.raises(UserError, match=r"preset called 'tinny'.*known: "):
        case.module.create(tiny_dataset(), "tinny")


# It runs.


@pytest.fixture
def my_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Example], str]:
    """Makes a model's file that of a third party; returns the dotted name by which a user gives it."""

    def copied(case: Example) -> str:
        folder = tmp_path / f"my_package_{os.getpid()}_{case.name}"
        folder.mkdir()
        (folder / "my_module.py").write_text(Path(str(case.module.__file__)).read_text())
        return f"{folder.name}.my_module"

    monkeypatch.syspath_prepend(tmp_path)
    return copied


@every_file
@pytest.mark.pitfall("numbers that cannot be made again")
def test_the_command_runs_its_checkpoint(
    quiet: None, tmp_path: Path, vfbench: Command, my_package: Callable[[Example], str], case: Example
) -> None:
    data = shapes.build()
    train(small(case, data), data, replace(OPTIONS, steps=2), tmp_path / "model")
    given = ["--dataset", "shapes", "--smoke", "--num-samples", 8, "--num-real", 8, "--metrics", "fvd,clipsim"]
    given += ["--device", "cpu", "--steps", 2, "--seed", 5, "--checkpoint", tmp_path / "model"]
    found = []
    for name in (case.name, my_package(case)):
        done = vfbench("run", "--model", name, *given, "--output", tmp_path / f"run {name}")
        assert done.code == 0, done.err
        found.append(results(tmp_path / f"run {name}"))
    assert [result["model"] for result in found] == [case.name, name]
    assert found[0]["scores"] == found[1]["scores"]
    assert found[0]["scores"].keys() == {"fvd", "clipsim"}
    assert found[0]["weights"] == file_sha256(tmp_path / "model" / "model.safetensors")
    assert found[0]["seed"] == 5
    assert "steps=2" in found[0]["model_spec"]
    steps = [found[0]["cost"]["calls"][network] for network in small(case).networks()]
    assert steps == [2] * len(steps)
