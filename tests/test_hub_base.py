"""A hub image model as base generator: it answers as on the hub, at its own noise levels and in its own words."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import UNET, clips_of, embed, perturb, randn, requests, setting, tiny_dataset
from torch import Tensor

from vfbench.diffusion.schedule import Prediction, Schedule, clip_x0
from vfbench.diffusion.solvers import solve
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.models import _hub_base, videofusion
from vfbench.models._hub_base import CONDITIONING_PREFIX, HubBase, nearest_timesteps, scheduler_alpha_bar
from vfbench.models.videofusion import VideoFusion
from vfbench.training.train import TrainOptions, train
from vfbench.training.trainer import Trainer

diffusers = pytest.importorskip("diffusers", reason="a base generator of the hub needs diffusers, which is an extra")

OPTIONS = TrainOptions(steps=3, batch_size=2, lr=1e-2, warmup=2, ema=0.9, save_every=100, sample_every=100)
TIMES = torch.tensor([300, 800])
KINDS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
SIZES = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4}
BLOCKS = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """R of the preset `tiny` is smaller still, and a training makes no sample sheets."""
    monkeypatch.setitem(videofusion.PRESETS, "tiny", {**videofusion.PRESETS["tiny"], "residual": UNET})
    monkeypatch.setattr(Trainer, "write_preview", lambda run: None)


def hub_model(**options: Any) -> Any:
    """A tiny `UNet2DModel` with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return diffusers.UNet2DModel(**{"sample_size": 8, **SIZES, **BLOCKS, **options}).eval()


def on_disk(folder: Path, *, part: bool = True, scheduler: Any = None, **options: Any) -> Path:
    """Saved as diffusers save it: as parts of a pipeline, or all in one folder."""
    hub_model(**options).save_pretrained(folder / "unet" if part else folder)
    scheduler = scheduler or diffusers.DDPMScheduler()
    scheduler.save_pretrained(folder / "scheduler" if part else folder)
    return folder


def created(source: Path | str, init: str = "finetune", **options: Any) -> VideoFusion:
    given: dict[str, Any] = {"schedule": "linear", "base_init": init, "base_from": source, **options}
    model = videofusion.create(tiny_dataset(), **given)
    assert isinstance(model, VideoFusion)
    return model


def answer(model: Any, z: Tensor, t: Tensor) -> Tensor:
    found: Tensor = model(z[:, 0], t).sample
    return found[:, None]


# Noise levels.


def test_the_default_of_the_hub_is_our_linear_schedule() -> None:
    theirs = scheduler_alpha_bar({"prediction_type": "epsilon"})
    assert torch.allclose(theirs, Schedule("linear").alpha_bar, rtol=1e-4, atol=0)
    assert nearest_timesteps(Schedule("linear").alpha_bar, theirs).tolist() == list(range(1000))


@pytest.mark.parametrize(
    "fields",
    [
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"num_train_timesteps": 250, "beta_end": 0.08},
        {"trained_betas": [0.1, 0.2, 0.4, 0.8]},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_a_time_becomes_the_one_of_nearest_signal_to_noise(name: str, fields: dict[str, Any]) -> None:
    theirs = scheduler_alpha_bar({"prediction_type": "epsilon", **fields})
    assert len(theirs) == fields.get("num_train_timesteps", 4 if "trained_betas" in fields else 1000)
    ours = Schedule(name).alpha_bar
    found = nearest_timesteps(ours, theirs)
    assert (found.diff() >= 0).all()

    for t in (0, 123, 500, 999):
        distances = (torch.logit(ours[t]) - torch.logit(theirs)).abs()
        assert float(distances[found[t]]) == float(distances.min())


# What it says.


@torch.no_grad()
@pytest.mark.parametrize("part", [True, False])
def test_it_answers_as_on_the_hub_whatever_the_condition(tmp_path: Path, part: bool) -> None:
    model, hub = created(on_disk(tmp_path, part=part)), hub_model()
    assert isinstance(model.base, HubBase)
    frame = clips_of(model)[:, :1]
    for mode in ("none", "class"):
        found = model.base(frame, TIMES, embed(model, mode))
        assert torch.allclose(found, answer(hub, frame, TIMES), atol=1e-6)
    shifted = created(tmp_path, schedule="cosine")
    level = torch.logit(Schedule("cosine").alpha_bar[300])
    theirs = int((torch.logit(scheduler_alpha_bar({"prediction_type": "epsilon"})) - level).abs().argmin())
    found = shifted.base(frame[:1], TIMES[:1], embed(shifted, batch=1))
    assert theirs != 300
    assert torch.allclose(found, answer(hub, frame[:1], torch.tensor([theirs])), atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_an_oracle_in_its_own_parametrisation_has_no_loss(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    model = created(on_disk(tmp_path, scheduler=diffusers.DDPMScheduler(prediction_type=name)))
    assert model.base_parametrisation == KINDS[name]
    x, noise = clips_of(model).clamp(-1, 1), clips_of(model, seed=1)
    alpha_bar = model.schedule.at(TIMES, x)
    z = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise
    truth = {"eps": noise, "v": alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x, "x0": x}[KINDS[name]]
    m = model.noise_prior.base
    monkeypatch.setattr(model.base.network, "forward", lambda *_, **__: (truth[:, m],))
    found, base = model.denoise_base(z, TIMES, embed(model))
    assert torch.allclose(found.x0, x[:, m, None], atol=1e-5)
    assert torch.allclose(base, noise[:, m, None], atol=1e-5)
    assert float(model.losses(x, noise, TIMES, embed(model))["base"]) < 1e-9


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_is_the_error_of_what_it_predicts(tmp_path: Path, name: str) -> None:
    model = created(on_disk(tmp_path, scheduler=diffusers.DDPMScheduler(prediction_type=name)))
    x, noise, m = clips_of(model), clips_of(model, seed=1), model.noise_prior.base
    alpha_bar = model.schedule.at(TIMES, x)
    z = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise
    truth = {"eps": noise, "v": alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x, "x0": x}[KINDS[name]]
    with torch.no_grad():
        expected = ((answer(hub_model(), z[:, m, None], TIMES) - truth[:, m, None]) ** 2).mean()
        found = model.losses(x, noise, TIMES, embed(model))["base"]
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_alone_it_makes_the_pictures_that_diffusers_make(tmp_path: Path, name: str) -> None:
    scheduler = diffusers.DDIMScheduler(prediction_type=name, timestep_spacing="trailing")
    model, hub = created(on_disk(tmp_path, scheduler=scheduler)), hub_model()
    start = randn(2, 1, 3, 8, 8)
    scheduler.set_timesteps(4)
    theirs = start[:, 0]
    for t in scheduler.timesteps:
        output = hub(theirs, t).sample
        theirs = scheduler.step(output, t, theirs, eta=0.0, use_clipped_model_output=True).prev_sample

    def denoise(z: Tensor, t: int) -> Prediction:
        times = torch.full((len(z),), t)
        return clip_x0(model._denoise_image(z, times, embed(model)), z, model.schedule.at(times, z))

    ours = solve(denoise, start, model.schedule, steps=4, solver="ddim", fresh_noise=lambda: start)
    assert model.schedule.timesteps(4) == scheduler.timesteps.tolist()
    assert torch.allclose(ours[:, 0], theirs, atol=1e-4)


def test_the_condition_enters_through_a_layer_that_learns(tmp_path: Path) -> None:
    model = created(on_disk(tmp_path))
    losses = model.losses(clips_of(model), clips_of(model, seed=1), TIMES, embed(model, "class"))
    own = model.get_submodule("base.network.class_embedding")
    assert all(g.any() for g in torch.autograd.grad(losses["base"], list(own.parameters()), retain_graph=True))
    reached = torch.autograd.grad(losses["residual"], list(model.base.parameters()), allow_unused=True)
    assert all(g is None for g in reached)
    perturb(own)
    with torch.no_grad():
        frame = clips_of(model)[:, :1]
        one, two = (model.base(frame, TIMES, embed(model, mode)) for mode in ("none", "class"))
    assert not torch.isclose(one, two).all()


def groups(model: VideoFusion) -> list[list[str]]:
    """The names of the parameters in each group of the optimiser, in order."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in model.parameter_groups(1e-3)]


def moved(model: VideoFusion, folder: Path) -> set[str]:
    """What a few steps have changed."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, tiny_dataset(), OPTIONS, folder)
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def test_a_condition_that_did_not_come_from_the_hub_learns_with_the_residual_generator(tmp_path: Path) -> None:
    model = created(on_disk(tmp_path / "hub"), "frozen")
    learning = [name for name, _ in model.named_parameters() if not name.startswith("base.")]
    assert groups(model) == [learning]
    changed = moved(model, tmp_path / "run")
    assert {"condition.label.weight", "condition.caption.word.weight"} <= changed
    assert {name.split(".")[0] for name in changed} == {"condition", "residual"}


def test_only_what_came_from_the_hub_learns_at_the_rate_of_the_base_generator(tmp_path: Path) -> None:
    model = created(on_disk(tmp_path / "hub"))
    others, base = groups(model)
    hubs = [f"base.network.{name}" for name, _ in hub_model().named_parameters()]
    assert base == [name for name, _ in model.base.named_parameters("base") if name in hubs]
    assert {name for name in others if name.startswith("base.")} == {
        f"{CONDITIONING_PREFIX}{name}" for name in ("weight", "bias")
    }
    assert {name.split(".")[0] for name in others} == {"base", "condition", "residual"}
    assert set(groups(model)[0]) | set(base) == {name for name, _ in model.named_parameters()}


def test_a_checkpoint_remembers_what_did_not_come_from_the_hub(tmp_path: Path) -> None:
    for init in ("finetune", "frozen"):
        model = created(on_disk(tmp_path / "hub"), init)
        model.save(tmp_path / init)
        loaded = videofusion.build(setting(tmp_path / init)).model
        assert isinstance(loaded, VideoFusion)
        assert groups(VideoFusion(loaded.config)) == groups(model)


def test_a_condition_handed_on_with_a_hubs_base_generator_learns_or_stays_as_that_does(tmp_path: Path) -> None:
    created(on_disk(tmp_path / "hub")).save(tmp_path / "model")
    model = created(tmp_path / "model")
    brought = [*(f"base.{n}" for n, _ in model.base.named_parameters()), *_of_condition(model)]
    residual = [name for name, _ in model.named_parameters() if name.startswith("residual.")]
    assert groups(model) == [residual, brought]
    assert groups(created(tmp_path / "model", "frozen")) == [residual]


def test_a_configuration_of_before_is_read_as_it_was_meant(tmp_path: Path) -> None:
    model = created(on_disk(tmp_path / "hub"))
    options = {name: value for name, value in model.config.options.items() if name != "new_condition"}
    before = VideoFusion(replace(model.config, options=options))
    assert groups(before)[1] == [*(f"base.{n}" for n, _ in model.base.named_parameters()), *_of_condition(model)]


def _of_condition(model: VideoFusion) -> list[str]:
    return [f"condition.{name}" for name, _ in model.condition.named_parameters()]


def test_a_frozen_base_generator_keeps_nothing_for_a_backward_pass(tmp_path: Path) -> None:
    model = created(on_disk(tmp_path / "hub"), "frozen")
    outputs: list[Tensor] = []
    model.base.register_forward_hook(lambda _, __, output: outputs.append(output))
    losses = model.losses(clips_of(model), clips_of(model, seed=1), TIMES, embed(model, "class"))
    assert losses["residual"].requires_grad
    assert [output.requires_grad for output in outputs] == [False]


@torch.no_grad()
@pytest.mark.parametrize("init", ["finetune", "frozen"])
def test_classes_of_the_hubs_model_give_way_to_their_mean(tmp_path: Path, init: str) -> None:
    model, hub = created(on_disk(tmp_path, num_class_embeds=10), init), hub_model(num_class_embeds=10)
    frame = clips_of(model)[:, :1]
    of_classes = [hub(frame[:, 0], TIMES, class_labels=torch.tensor([n, n])).sample[:, None] for n in range(10)]
    hub.class_embedding.weight[:] = hub.class_embedding.weight.mean(0)
    wanted = hub(frame[:, 0], TIMES, class_labels=torch.tensor([0, 9])).sample[:, None]
    for mode in ("none", "class"):
        found = model.base(frame, TIMES, embed(model, mode))
        assert torch.allclose(found, wanted, atol=1e-5)
        assert all((found - answer).abs().max() > 1e-2 for answer in of_classes)  # that of no class


def test_what_the_hubs_model_drops_out_is_not_dropped_here(tmp_path: Path) -> None:
    model = created(on_disk(tmp_path, dropout=0.5)).train()
    frame, said = clips_of(model)[:, :1], embed(model)
    assert torch.allclose(model.base(frame, TIMES, said), answer(hub_model(), frame, TIMES), atol=1e-6)
    assert model.config.options["base"]["hub"]["dropout"] == 0.0
    with torch.random.fork_rng():  # what is drawn anew when a training goes on must not matter
        torch.manual_seed(1)
        one = model.base(frame, TIMES, said)
        assert torch.equal(one, model.base(frame, TIMES, said))


# As part of a model.


@pytest.mark.parametrize("init", ["finetune", "frozen"])
def test_it_trains_resumes_and_samples_without_the_hubs_folder(tmp_path: Path, init: str) -> None:
    hub = on_disk(tmp_path / "hub")
    asked = iter([True])
    torch.manual_seed(0)
    train(created(hub, init), tiny_dataset(), OPTIONS, tmp_path / "whole")
    torch.manual_seed(0)
    train(created(hub, init), tiny_dataset(), OPTIONS, tmp_path / "parts", stop=lambda: next(asked))
    train(created(hub, init), tiny_dataset(), OPTIONS, tmp_path / "parts", resume=True)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    hub.rename(tmp_path / "gone")
    sampler = videofusion.build(setting(tmp_path / "whole"), steps=2)
    together = sampler.sample(requests(4, 5))
    assert (together[1:].int() - sampler.sample(requests(5)).int()).abs().max() <= 1
    assert isinstance(sampler.model, VideoFusion)
    moved = dict(sampler.model.base.named_parameters())["network.conv_in.weight"] - hub_model().conv_in.weight
    assert bool(moved.any()) == (init == "finetune")


def test_a_model_handed_on_keeps_its_hub_base(tmp_path: Path) -> None:
    created(on_disk(tmp_path / "hub")).save(tmp_path / "model")
    again = created(tmp_path / "model", "frozen")
    assert isinstance(again.base, HubBase)
    assert torch.equal(again.get_parameter("base.network.conv_in.weight"), hub_model().conv_in.weight)


# Mistakes.


def _edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("file", "fields", "named"),
    [
        ("unet", {"_class_name": "UNet2DConditionModel"}, "describes a 'UNet2DConditionModel'"),
        ("unet", {"in_channels": 4}, "in_channels 4: a base generator needs the 3 of RGB"),
        ("unet", {"out_channels": 6}, "out_channels 6"),
        ("unet", {"sample_size": 32}, "images of 32x32, the dataset has 8x8"),
        ("unet", {"class_embed_type": "timestep"}, "class_embed_type 'timestep': a base generator needs a class table"),
        ("scheduler", {"prediction_type": "flow"}, "prediction_type 'flow': known are epsilon"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_naming_the_field(
    tmp_path: Path, file: str, fields: dict[str, Any], named: str
) -> None:
    on_disk(tmp_path)
    name = {"unet": "config.json", "scheduler": "scheduler_config.json"}[file]
    _edit(tmp_path / file / name, **fields)
    with pytest.raises(UserError, match=named) as caught:
        created(tmp_path)
    assert str(tmp_path / file / name) in str(caught.value)


def test_a_scheduler_without_betas_is_refused(tmp_path: Path) -> None:
    on_disk(tmp_path, scheduler=diffusers.ScoreSdeVeScheduler())
    with pytest.raises(UserError, match="'ScoreSdeVeScheduler', which has no beta_schedule"):
        created(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    (on_disk(tmp_path) / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(MissingData, match="unet holds no readable UNet2DModel as safetensors"):
        created(tmp_path)
    (tmp_path / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(MissingData, match=r"no scheduler_config\.json in"):
        created(tmp_path)


def test_a_hub_id_is_fetched_once_and_read_like_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    on_disk(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path))
    assert isinstance(created("someone/ddpm").base, HubBase)


@pytest.mark.parametrize("error", [FileNotFoundError("offline"), ValueError("no such id")])
def test_a_hub_id_that_cannot_be_had_names_the_cache(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    import huggingface_hub

    def fails(name: str, **_: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(MissingData, match=f"'someone/ddpm' is no folder here.*HF_HOME=.*{error}"):
        created("someone/ddpm")


def test_without_diffusers_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    created(on_disk(tmp_path / "hub")).save(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(BadEnvironment, match=r"pip install 'vfbench\[diffusers\]'"):
        _hub_base.scheduler_alpha_bar({})
    with pytest.raises(BadEnvironment, match="needs diffusers"):
        videofusion.build(setting(tmp_path / "model"))
