"""Contract of every trainable model: learn, resume, sample by request, compile, save and load, run."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from conftest import Command, python, results
from contract import check_sampler
from helpers import CPU, OneClip, build_context, clips_of, perturb, requests, tiny_dataset
from torch import Tensor

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.sampler import DiffusionSampler, SamplerOptions
from vfbench.diffusion.super_resolution import real_small_clips
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Dataset, Request
from vfbench.training.train import TrainOptions, train
from vfbench.utils.files import file_sha256


class Example(NamedTuple):
    """Model name and preset."""

    name: str
    preset: str

    @property
    def module(self) -> ModuleType:
        return plugins.module("model", self.name)


TRAINABLE = plugins.trainable()
# The first preset of each model, and presets with another architecture.
OTHERS = [
    Example("videofusion", "tiny-one"),
    Example("videofusion", "tiny-prior"),
    Example("pyoco", "tiny-progressive"),
]
FIRST = [Example(name, next(iter(plugins.module("model", name).PRESETS))) for name in TRAINABLE]
CASES = [*FIRST, *OTHERS]
# Resumed here: the models of other networks than those of `test_train.py`.
RESUMED = [Example("vdit", "tiny"), Example("videofusion", "tiny-prior")]
every_model = pytest.mark.parametrize("case", CASES, ids="-".join)
every_file = pytest.mark.parametrize("case", FIRST, ids="-".join)
OPTIONS = TrainOptions(steps=50, batch_size=4, lr=1e-2, warmup=2, ema=0.9, save_every=100, sample_every=100)
MAX_LOSS_RATIO = 0.75  # of the loss after training on one clip to the initial loss
CAPTION = "a small red circle moves left over blue stripes"


def narrow(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with few and narrow layers at every depth, so that a step takes milliseconds."""
    sizes = {"channels": [16, 16], "blocks": 1, "depth": 2, "embedding": 32, "hidden": 32}
    sizes["width"] = 8 * options.get("heads", 1)
    return {
        name: narrow(value) if isinstance(value, Mapping) else sizes.get(name, value) for name, value in options.items()
    }


def narrow_model(case: Example, data: Dataset | None = None, *, perturbed: bool = True) -> DiffusionModel:
    """Deterministic model of the preset with narrow networks; `perturbed` moves its heads away from zero."""
    with torch.device("meta"):
        full_size: DiffusionModel = case.module.create(data or tiny_dataset(), case.preset)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = type(full_size)(replace(full_size.config, options=narrow(full_size.config.options)))
    if perturbed:
        perturb(model)
    return model


def loss_of(model: DiffusionModel) -> float:
    """Loss on one clip at 32 fixed times."""
    clip = tiny_dataset().clips("train", [0] * 32).float() / 127.5 - 1
    with torch.no_grad():
        draws = model.draw(32, torch.Generator().manual_seed(7))
        losses = model.training_losses(clip, [0] * 32, [""] * 32, ["none"] * 32, draws)
    return float(torch.stack(list(losses.values())).sum())


def loss_and_gradients(model: DiffusionModel, seed: int = 0) -> tuple[float, dict[str, Tensor | None]]:
    """Loss on clips with text, class and no conditioning, and the gradient of every trainable weight."""
    x, conditioning = clips_of(model, batch=3), ([1, 2, 3], [CAPTION] * 3, ["text", "class", "none"])
    draws = model.draw(3, torch.Generator().manual_seed(seed))
    losses = model.training_losses(x, *conditioning, draws)  # type: ignore[arg-type]
    loss = torch.stack(list(losses.values())).sum()
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return float(loss.detach()), dict(zip(parameters, gradients, strict=True))


def test_the_models_of_the_benchmark_are_found() -> None:
    assert {"videofusion", "vdm", "pyoco", "vdit"} <= set(TRAINABLE)
    assert len(set(CASES)) == len(CASES)


# Training.


@pytest.mark.slow
@pytest.mark.one_case
@every_file
def test_the_loss_falls_by_a_quarter(quick_training: None, tmp_path: Path, case: Example) -> None:
    model = narrow_model(case, perturbed=False)
    before = loss_of(model)
    train(model, OneClip(tiny_dataset().shape), OPTIONS, tmp_path)
    averaged = case.module.build(build_context(tmp_path)).model
    assert loss_of(model) < MAX_LOSS_RATIO * before
    assert loss_of(averaged) < MAX_LOSS_RATIO * before


@pytest.mark.one_case
@every_model
def test_every_weight_gets_a_gradient_and_is_in_one_group(case: Example) -> None:
    model = narrow_model(case)
    draws = [loss_and_gradients(model, seed)[1] for seed in range(3)]  # some weights are used by random dropout only
    with_gradient = {name for gradients in draws for name, g in gradients.items() if g is not None and g.any()}
    assert [name for name in draws[0] if name not in with_gradient] == []
    grouped = [id(p) for group in model.parameter_groups(1e-3) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


@pytest.mark.one_case
@every_model
def test_training_draws_from_its_generator(case: Example) -> None:
    model, state = narrow_model(case), torch.get_rng_state()
    assert loss_and_gradients(model, 0)[0] == loss_and_gradients(model, 0)[0] != loss_and_gradients(model, 1)[0]
    assert torch.equal(state, torch.get_rng_state()), "training changed the global random state"


# Resuming.


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Values of a nested training state by path."""
    if not isinstance(tree, dict | list):
        return {path: tree}
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {name: leaf for key, child in pairs for name, leaf in leaves(child, f"{path}.{key}").items()}


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("case", RESUMED, ids="-".join)
def test_resuming_is_bit_exact(quick_training: None, tmp_path: Path, case: Example) -> None:
    options, stops = replace(OPTIONS, steps=6), iter([False, False, True])  # after each step: it stops at the third
    train(narrow_model(case), tiny_dataset(), options, tmp_path / "whole")
    train(narrow_model(case), tiny_dataset(), options, tmp_path / "parts", stop=lambda: next(stops))
    between = torch.load(tmp_path / "parts" / "training.pt", weights_only=True)
    # The initial weights of the new process must not matter.
    train(narrow_model(case, perturbed=False), tiny_dataset(), options, tmp_path / "parts", resume=True)
    uninterrupted, resumed = (
        leaves(torch.load(tmp_path / n / "training.pt", weights_only=True)) for n in ("whole", "parts")
    )
    assert (between["step"], uninterrupted[".step"]) == (3, 6)
    assert uninterrupted.keys() == resumed.keys()
    del uninterrupted[".seconds"]  # wall-clock time
    different = [
        n
        for n, v in uninterrupted.items()
        if not (torch.equal(v, resumed[n]) if isinstance(v, Tensor) else v == resumed[n])
    ]
    assert different == []
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]


# Sampling.


@pytest.mark.one_case
@every_model
@pytest.mark.parametrize("options", [{}, {"solver": "ddpm", "guidance": 2.0}], ids=["default", "fresh noise"])
def test_a_clip_depends_on_its_request_alone(tmp_path: Path, case: Example, options: dict[str, Any]) -> None:
    narrow_model(case).save(tmp_path)
    sampler = case.module.build(build_context(tmp_path), **{"steps": 3, **options})
    first, *others = requests(4, 5, 6)
    check_sampler(sampler, [first, *others])
    repeated = [Request(first.index, seed, first.label, first.prompt) for seed in (first.seed, first.seed + 1)]
    same, other = sampler.sample(repeated).int() - sampler.sample([first]).int()
    assert int(same.abs().max()) <= 1
    assert int(other.abs().max()) > 20, "another seed gave the same clip"


@pytest.mark.one_case
@every_model
def test_label_and_prompt_change_the_clip(tmp_path: Path, case: Example) -> None:
    narrow_model(case).save(tmp_path)
    (base,) = requests(4)
    others = {
        "class": replace(base, label=base.label + 1),
        "text": replace(base, prompt="a large blue square moves up over red dots"),
    }
    for condition, other in others.items():
        sampler = case.module.build(build_context(tmp_path), steps=3, condition=condition)
        clip, other_clip = (sampler.sample([request]).int() for request in (base, other))
        assert int((clip - other_clip).abs().max()) > 1, condition
    sampler = case.module.build(build_context(tmp_path), steps=3, condition="none")
    assert all(torch.equal(sampler.sample([base]), sampler.sample([other])) for other in others.values())


# Compilation, in a process without the runtime type checks, which the compiler cannot trace.


@pytest.fixture(scope="module")
def unchecked() -> Iterator[ProcessPoolExecutor]:
    """One spawned process without type checks, for all models."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


def _compiled(case: Example, backend: str) -> float:
    """Largest relative difference of loss and gradients, compiled to plain; raises on a graph break."""
    torch.set_num_threads(1)
    torch._dynamo.reset()  # the cache of compiled U-Nets is shared and limited
    plain, model = narrow_model(case), narrow_model(case)
    for network in model.networks().values():
        network.compile(backend=backend, fullgraph=True, dynamic=False)
    (loss, gradients), (expected_loss, expected_gradients) = loss_and_gradients(model), loss_and_gradients(plain)
    differences = []
    for name, expected in expected_gradients.items():
        actual = gradients[name]
        assert actual is not None
        assert expected is not None
        differences.append((actual - expected).abs().max() / expected.abs().max())
    return max(abs(loss / expected_loss - 1), float(torch.stack(differences).max()))


# One model of each network, the U-Net and the transformer, with all that is called in a step.
@pytest.mark.slow
@pytest.mark.parametrize("case", RESUMED, ids="-".join)
def test_compiled_networks_equal_plain_ones(unchecked: ProcessPoolExecutor, case: Example) -> None:
    assert unchecked.submit(_compiled, case, "aot_eager").result() < 1e-3


@pytest.mark.thorough
@pytest.mark.slow
# The flag works on any network, and inductor takes minutes a model: one model, with two networks.
@pytest.mark.parametrize("case", [case for case in FIRST if case.name == "videofusion"], ids="-".join)
def test_the_compile_flag_keeps_gradients(tmp_path: Path, case: Example) -> None:
    arguments = ["--model", case.name, "--preset", case.preset, "--dataset", "shapes(frames=4, height=8, width=8)"]
    arguments += ["--steps", "3", "--batch-size", "2", "--device", "cpu", "--dtype", "float32"]
    for name, flags in {"plain": [], "compiled": ["--compile"]}.items():
        command = python("-m", "vfbench", "train", *arguments, *flags, "--output", tmp_path / name)
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
    plain_state, compiled_state = (
        leaves(torch.load(tmp_path / n / "training.pt", weights_only=True)) for n in ("plain", "compiled")
    )
    # Weights barely move in three warm-up steps: compare the mean gradients.
    gradients = [name for name in plain_state if name.endswith(".exp_avg")]
    plain, compiled = (
        torch.cat([state[name].flatten() for name in gradients]) for state in (plain_state, compiled_state)
    )
    assert float(plain.norm()) > 1e-3
    assert float((plain - compiled).norm()) < 1e-2 * float(plain.norm())


# Saving and loading.


@pytest.mark.one_case
@every_model
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_a_loaded_model_samples_the_same_clips(tmp_path: Path, case: Example, half: bool) -> None:
    model = narrow_model(case)
    model.save(tmp_path / "a", half=half)
    if half:
        model.load_state_dict({name: t.half().float() for name, t in model.state_dict().items()})
    loaded = case.module.build(build_context(tmp_path / "a"), steps=3)
    state, loaded_state = model.state_dict(), loaded.model.state_dict()
    assert state.keys() == loaded_state.keys()
    assert [name for name in state if not torch.equal(state[name], loaded_state[name])] == []
    small_clips = real_small_clips(model, tiny_dataset())
    expected = DiffusionSampler(
        model.eval(), "none", CPU, sampling=SamplerOptions(steps=3), small_clips=small_clips
    ).sample(requests(4, 5))
    assert torch.equal(loaded.sample(requests(4, 5)), expected)
    loaded.model.save(tmp_path / "b", half=half)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@every_file
def test_the_checkpoint_of_another_model_is_refused(tmp_path: Path, case: Example) -> None:
    other = next(example for example in CASES if example.name != case.name)
    narrow_model(other).save(tmp_path)
    with pytest.raises(MissingData, match=f"checkpoint of '{other.name}', not of '{case.name}'"):
        case.module.build(build_context(tmp_path))


@pytest.mark.one_case
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


# Benchmark runs.


@pytest.fixture
def third_party_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Example], str]:
    """Copy a model's module into a third-party package; return its dotted name."""

    def copy(case: Example) -> str:
        folder = tmp_path / f"my_package_{os.getpid()}_{case.name}"
        folder.mkdir()
        (folder / "my_module.py").write_text(Path(str(case.module.__file__)).read_text())
        return f"{folder.name}.my_module"

    monkeypatch.syspath_prepend(tmp_path)
    return copy


@pytest.mark.slow
@pytest.mark.one_case
@every_file
@pytest.mark.pitfall("numbers that cannot be made again")
def test_run_scores_the_checkpoint_by_name_and_as_third_party(
    quick_training: None, tmp_path: Path, vfbench: Command, third_party_copy: Callable[[Example], str], case: Example
) -> None:
    data = shapes.build()
    train(narrow_model(case, data), data, replace(OPTIONS, steps=2), tmp_path / "model")
    arguments = ["--dataset", "shapes", "--smoke", "--num-samples", 8, "--num-real", 8, "--metrics", "fvd,clipsim"]
    arguments += ["--device", "cpu", "--steps", 2, "--seed", 5, "--checkpoint", tmp_path / "model"]
    results_by_name = []
    # A module of a third party takes the same path for every model: one is enough.
    copies = [third_party_copy(case)] if case == FIRST[0] else []
    for name in (case.name, *copies):
        outcome = vfbench("run", "--model", name, *arguments, "--output", tmp_path / f"run {name}")
        assert outcome.code == 0, outcome.err
        results_by_name.append(results(tmp_path / f"run {name}"))
    assert [result["model"] for result in results_by_name] == [case.name, *copies]
    assert all(result["scores"] == results_by_name[0]["scores"] for result in results_by_name)
    assert results_by_name[0]["scores"].keys() == {"fvd", "clipsim"}
    assert results_by_name[0]["weights"] == file_sha256(tmp_path / "model" / "model.safetensors")
    assert results_by_name[0]["seed"] == 5
    assert "steps=2" in results_by_name[0]["model_spec"]
    steps = [results_by_name[0]["cost"]["calls"][network] for network in narrow_model(case).networks()]
    assert steps == [2] * len(steps)
