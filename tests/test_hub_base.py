"""Tests of a pretrained hub image model as base generator: outputs, noise levels, parametrisation, training, errors."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import UNET, build_context, clips_of, embed, perturb, randn, requests, tiny_dataset
from torch import Tensor

from vfbench.diffusion.schedule import Prediction, Schedule, clip_x0
from vfbench.diffusion.solvers import solve
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.models import _hub_base, videofusion
from vfbench.models._hub_base import CONDITIONING_PREFIX, HubBase, nearest_timesteps, scheduler_alpha_bar
from vfbench.models.videofusion import VideoFusion
from vfbench.training.train import TrainOptions, train

diffusers = pytest.importorskip("diffusers", reason="needs the extra: diffusers")

OPTIONS = TrainOptions(steps=3, batch_size=2, lr=1e-2, warmup=2, ema=0.9, save_every=100, sample_every=100)
TIMES = torch.tensor([300, 800])
KINDS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
SIZES = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4}
BLOCKS = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}


@pytest.fixture(autouse=True)
def small(quick_training: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the residual network of the preset `tiny`."""
    monkeypatch.setitem(videofusion.PRESETS, "tiny", {**videofusion.PRESETS["tiny"], "residual": UNET})


def hub_model(**options: Any) -> Any:
    """Tiny `UNet2DModel` of random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return diffusers.UNet2DModel(**{"sample_size": 8, **SIZES, **BLOCKS, **options}).eval()


def save_hub_model(folder: Path, *, pipeline: bool = True, scheduler: Any = None, **options: Any) -> Path:
    """Save the hub model and a scheduler as a pipeline, or both in one folder."""
    hub_model(**options).save_pretrained(folder / "unet" if pipeline else folder)
    scheduler = scheduler or diffusers.DDPMScheduler()
    scheduler.save_pretrained(folder / "scheduler" if pipeline else folder)
    return folder


def create_model(source: Path | str, init: str = "finetune", **options: Any) -> VideoFusion:
    defaults: dict[str, Any] = {"schedule": "linear", "base_init": init, "base_from": source}
    model = videofusion.create(tiny_dataset(), **{**defaults, **options})
    assert isinstance(model, VideoFusion)
    return model


def hub_output(model: Any, z: Tensor, t: Tensor) -> Tensor:
    output: Tensor = model(z[:, 0], t).sample
    return output[:, None]


# Noise levels.


def test_the_default_schedule_of_diffusers_is_our_linear_schedule() -> None:
    hub_alpha_bar = scheduler_alpha_bar({"prediction_type": "epsilon"})
    assert torch.allclose(hub_alpha_bar, Schedule("linear").alpha_bar, rtol=1e-4, atol=0)
    assert nearest_timesteps(Schedule("linear").alpha_bar, hub_alpha_bar).tolist() == list(range(1000))


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
def test_times_map_to_the_nearest_signal_to_noise_ratio(name: str, fields: dict[str, Any]) -> None:
    hub_alpha_bar = scheduler_alpha_bar({"prediction_type": "epsilon", **fields})
    assert len(hub_alpha_bar) == fields.get("num_train_timesteps", 4 if "trained_betas" in fields else 1000)
    alpha_bar = Schedule(name).alpha_bar
    timesteps = nearest_timesteps(alpha_bar, hub_alpha_bar)
    assert (timesteps.diff() >= 0).all()
    for t in (0, 123, 500, 999):
        distances = (torch.logit(alpha_bar[t]) - torch.logit(hub_alpha_bar)).abs()
        assert float(distances[timesteps[t]]) == float(distances.min())


# Outputs.


@pytest.mark.one_case
@torch.no_grad()
@pytest.mark.parametrize("pipeline", [True, False])
def test_the_base_generator_equals_the_hub_model(tmp_path: Path, pipeline: bool) -> None:
    model, hub = create_model(save_hub_model(tmp_path, pipeline=pipeline)), hub_model()
    assert isinstance(model.base, HubBase)
    frame = clips_of(model)[:, :1]
    for mode in ("none", "class"):
        output = model.base(frame, TIMES, embed(model, mode))
        assert torch.allclose(output, hub_output(hub, frame, TIMES), atol=1e-6)
    shifted = create_model(tmp_path, schedule="cosine")
    level = torch.logit(Schedule("cosine").alpha_bar[300])
    timestep = int((torch.logit(scheduler_alpha_bar({"prediction_type": "epsilon"})) - level).abs().argmin())
    output = shifted.base(frame[:1], TIMES[:1], embed(shifted, batch=1))
    assert timestep != 300
    assert torch.allclose(output, hub_output(hub, frame[:1], torch.tensor([timestep])), atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_an_oracle_in_the_models_parametrisation_has_no_loss(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    model = create_model(save_hub_model(tmp_path, scheduler=diffusers.DDPMScheduler(prediction_type=name)))
    assert model.base_parametrisation == KINDS[name]
    x, noise = clips_of(model).clamp(-1, 1), clips_of(model, seed=1)
    alpha_bar = model.schedule.at(TIMES, x)
    z = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise
    truth = {"eps": noise, "v": alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x, "x0": x}[KINDS[name]]
    m = model.noise_prior.base
    monkeypatch.setattr(model.base.network, "forward", lambda *_, **__: (truth[:, m],))
    prediction = model.denoise_base(z, TIMES, embed(model))
    assert torch.allclose(prediction.x0, x[:, m, None], atol=1e-5)
    assert torch.allclose(prediction.eps, noise[:, m, None], atol=1e-5)
    assert float(model.losses(x, noise, TIMES, embed(model))["base"]) < 1e-9


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_is_the_error_in_the_models_parametrisation(tmp_path: Path, name: str) -> None:
    model = create_model(save_hub_model(tmp_path, scheduler=diffusers.DDPMScheduler(prediction_type=name)))
    x, noise, m = clips_of(model), clips_of(model, seed=1), model.noise_prior.base
    alpha_bar = model.schedule.at(TIMES, x)
    z = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise
    truth = {"eps": noise, "v": alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x, "x0": x}[KINDS[name]]
    with torch.no_grad():
        expected = ((hub_output(hub_model(), z[:, m, None], TIMES) - truth[:, m, None]) ** 2).mean()
        loss = model.losses(x, noise, TIMES, embed(model))["base"]
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_images_sampled_from_the_base_equal_those_of_diffusers(tmp_path: Path, name: str) -> None:
    scheduler = diffusers.DDIMScheduler(prediction_type=name, timestep_spacing="trailing")
    model, hub = create_model(save_hub_model(tmp_path, scheduler=scheduler), time_shift=1.0), hub_model()
    start = randn(2, 1, 3, 8, 8)
    scheduler.set_timesteps(4)
    expected = start[:, 0]
    for t in scheduler.timesteps:
        output = hub(expected, t).sample
        expected = scheduler.step(output, t, expected, eta=0.0, use_clipped_model_output=True).prev_sample

    def denoise(z: Tensor, t: int) -> Prediction:
        times = torch.full((len(z),), t)
        return clip_x0(model._denoise_image(z, times, embed(model)), z, model.schedule.at(times, z))

    images = solve(denoise, start, model.schedule, steps=4, solver="ddim", fresh_noise=lambda: start)
    assert model.schedule.timesteps(4) == scheduler.timesteps.tolist()
    assert torch.allclose(images[:, 0], expected, atol=1e-4)


def test_the_condition_enters_through_a_trained_layer(tmp_path: Path) -> None:
    model = create_model(save_hub_model(tmp_path))
    losses = model.losses(clips_of(model), clips_of(model, seed=1), TIMES, embed(model, "class"))
    layer = model.get_submodule("base.conditioning")
    assert all(g.any() for g in torch.autograd.grad(losses["base"], list(layer.parameters()), retain_graph=True))
    gradients = torch.autograd.grad(losses["residual"], list(model.base.parameters()), allow_unused=True)
    assert all(g is None for g in gradients)
    perturb(layer)
    with torch.no_grad():
        frame = clips_of(model)[:, :1]
        without, with_class = (model.base(frame, TIMES, embed(model, mode)) for mode in ("none", "class"))
    assert not torch.isclose(without, with_class).all()


def parameter_groups(model: VideoFusion) -> list[list[str]]:
    """Parameter names of each optimiser group, in order."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in model.parameter_groups(1e-3)]


def trained_tensors(model: VideoFusion, folder: Path) -> set[str]:
    """Names of the tensors that a few training steps change."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, tiny_dataset(), OPTIONS, folder)
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def test_a_new_condition_is_trained_with_the_residual_generator(tmp_path: Path) -> None:
    model = create_model(save_hub_model(tmp_path / "hub"), "frozen")
    learning = [name for name, _ in model.named_parameters() if not name.startswith("base.")]
    assert parameter_groups(model) == [learning]
    changed = trained_tensors(model, tmp_path / "run")
    assert {"condition.label.weight", "condition.caption.word.weight"} <= changed
    assert {name.split(".")[0] for name in changed} == {"condition", "residual"}


def test_only_hub_weights_are_trained_at_the_rate_of_the_base(tmp_path: Path) -> None:
    model = create_model(save_hub_model(tmp_path / "hub"))
    others, base = parameter_groups(model)
    hub_names = [f"base.network.{name}" for name, _ in hub_model().named_parameters()]
    assert base == [name for name, _ in model.base.named_parameters("base") if name in hub_names]
    assert {name for name in others if name.startswith("base.")} == {
        f"{CONDITIONING_PREFIX}{name}" for name in ("weight", "bias")
    }
    assert {name.split(".")[0] for name in others} == {"base", "condition", "residual"}
    assert set(parameter_groups(model)[0]) | set(base) == {name for name, _ in model.named_parameters()}


@pytest.mark.slow
def test_a_checkpoint_keeps_the_parameter_groups(tmp_path: Path) -> None:
    for init in ("finetune", "frozen"):
        model = create_model(save_hub_model(tmp_path / "hub"), init)
        model.save(tmp_path / init)
        loaded = videofusion.build(build_context(tmp_path / init)).model
        assert isinstance(loaded, VideoFusion)
        assert parameter_groups(VideoFusion(loaded.config)) == parameter_groups(model)


def test_a_loaded_condition_is_trained_or_frozen_with_its_base(tmp_path: Path) -> None:
    create_model(save_hub_model(tmp_path / "hub")).save(tmp_path / "model")
    model = create_model(tmp_path / "model")
    loaded = [*(f"base.{n}" for n, _ in model.base.named_parameters()), *condition_names(model)]
    residual = [name for name, _ in model.named_parameters() if name.startswith("residual.")]
    assert parameter_groups(model) == [residual, loaded]
    assert parameter_groups(create_model(tmp_path / "model", "frozen")) == [residual]


def test_a_configuration_without_new_condition_trains_it_with_the_base(tmp_path: Path) -> None:
    model = create_model(save_hub_model(tmp_path / "hub"))
    options = {name: value for name, value in model.config.options.items() if name != "new_condition"}
    model_without = VideoFusion(replace(model.config, options=options))
    assert parameter_groups(model_without)[1] == [
        *(f"base.{n}" for n, _ in model.base.named_parameters()),
        *condition_names(model),
    ]


def condition_names(model: VideoFusion) -> list[str]:
    return [f"condition.{name}" for name, _ in model.condition.named_parameters()]


def test_a_frozen_base_generator_builds_no_graph(tmp_path: Path) -> None:
    model = create_model(save_hub_model(tmp_path / "hub"), "frozen")
    outputs: list[Tensor] = []
    model.base.register_forward_hook(lambda _, __, output: outputs.append(output))
    losses = model.losses(clips_of(model), clips_of(model, seed=1), TIMES, embed(model, "class"))
    assert losses["residual"].requires_grad
    assert [output.requires_grad for output in outputs] == [False]


@torch.no_grad()
@pytest.mark.parametrize("init", ["finetune", "frozen"])
def test_class_embeddings_of_the_hub_model_are_replaced_by_their_mean(tmp_path: Path, init: str) -> None:
    model, hub = create_model(save_hub_model(tmp_path, num_class_embeds=10), init), hub_model(num_class_embeds=10)
    frame = clips_of(model)[:, :1]
    of_classes = [hub(frame[:, 0], TIMES, class_labels=torch.tensor([n, n])).sample[:, None] for n in range(10)]
    hub.class_embedding.weight[:] = hub.class_embedding.weight.mean(0)
    expected = hub(frame[:, 0], TIMES, class_labels=torch.tensor([0, 9])).sample[:, None]
    for mode in ("none", "class"):
        output = model.base(frame, TIMES, embed(model, mode))
        assert torch.allclose(output, expected, atol=1e-5)
        assert all((output - of_class).abs().max() > 1e-2 for of_class in of_classes)


def test_dropout_of_the_hub_model_is_disabled(tmp_path: Path) -> None:
    model = create_model(save_hub_model(tmp_path, dropout=0.5)).train()
    frame, condition = clips_of(model)[:, :1], embed(model)
    assert torch.allclose(model.base(frame, TIMES, condition), hub_output(hub_model(), frame, TIMES), atol=1e-6)
    assert model.config.options["base"]["hub"]["dropout"] == 0.0
    with torch.random.fork_rng():  # a resumed training has another random state
        torch.manual_seed(1)
        first = model.base(frame, TIMES, condition)
        assert torch.equal(first, model.base(frame, TIMES, condition))


# Training and checkpoints.


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("init", ["finetune", "frozen"])
def test_training_resumes_and_samples_without_the_hub_folder(tmp_path: Path, init: str) -> None:
    hub = save_hub_model(tmp_path / "hub")
    stops = iter([True])
    torch.manual_seed(0)
    train(create_model(hub, init), tiny_dataset(), OPTIONS, tmp_path / "uninterrupted")
    torch.manual_seed(0)
    train(create_model(hub, init), tiny_dataset(), OPTIONS, tmp_path / "resumed", stop=lambda: next(stops))
    train(create_model(hub, init), tiny_dataset(), OPTIONS, tmp_path / "resumed", resume=True)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("uninterrupted", "resumed"))
    assert first == second
    hub.rename(tmp_path / "gone")
    sampler = videofusion.build(build_context(tmp_path / "uninterrupted"), steps=2)
    together = sampler.sample(requests(4, 5))
    assert (together[1:].int() - sampler.sample(requests(5)).int()).abs().max() <= 1
    assert isinstance(sampler.model, VideoFusion)
    difference = dict(sampler.model.base.named_parameters())["network.conv_in.weight"] - hub_model().conv_in.weight
    assert bool(difference.any()) == (init == "finetune")


def test_a_model_initialised_from_a_checkpoint_keeps_its_hub_base(tmp_path: Path) -> None:
    create_model(save_hub_model(tmp_path / "hub")).save(tmp_path / "model")
    again = create_model(tmp_path / "model", "frozen")
    assert isinstance(again.base, HubBase)
    assert torch.equal(again.get_parameter("base.network.conv_in.weight"), hub_model().conv_in.weight)


# Errors.


def edit_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("unet", {"_class_name": "UNet2DConditionModel"}, "'UNet2DConditionModel'"),
        ("unet", {"in_channels": 4}, "in_channels 4"),
        ("unet", {"out_channels": 6}, "out_channels 6"),
        ("unet", {"sample_size": 32}, "32x32.* 8x8"),
        ("unet", {"class_embed_type": "timestep"}, "class_embed_type 'timestep'"),
        ("scheduler", {"prediction_type": "flow"}, "prediction_type 'flow'.*epsilon"),
    ],
)
def test_an_unsuitable_hub_model_is_refused_with_the_field(
    tmp_path: Path, file: str, fields: dict[str, Any], message: str
) -> None:
    save_hub_model(tmp_path)
    name = {"unet": "config.json", "scheduler": "scheduler_config.json"}[file]
    edit_json(tmp_path / file / name, **fields)
    with pytest.raises(UserError, match=message) as caught:
        create_model(tmp_path)
    assert str(tmp_path / file / name) in str(caught.value)


def test_a_scheduler_without_betas_is_refused(tmp_path: Path) -> None:
    save_hub_model(tmp_path, scheduler=diffusers.ScoreSdeVeScheduler())
    with pytest.raises(UserError, match=r"'ScoreSdeVeScheduler'.*beta_schedule"):
        create_model(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    (save_hub_model(tmp_path) / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(MissingData, match=r"unet .*UNet2DModel as safetensors"):
        create_model(tmp_path)
    (tmp_path / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(MissingData, match=r"no scheduler_config\.json in"):
        create_model(tmp_path)


def test_a_hub_id_is_read_like_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    save_hub_model(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path))
    assert isinstance(create_model("someone/ddpm").base, HubBase)


@pytest.mark.parametrize("error", [FileNotFoundError("offline"), ValueError("no such id")])
def test_an_unavailable_hub_id_names_the_cache(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    import huggingface_hub

    def fail(name: str, **_: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(MissingData, match=f"'someone/ddpm' .*HF_HOME=.*{error}"):
        create_model("someone/ddpm")


def test_without_diffusers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    create_model(save_hub_model(tmp_path / "hub")).save(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(BadEnvironment, match=r"pip install 'vfbench\[diffusers\]'"):
        _hub_base.scheduler_alpha_bar({})
    with pytest.raises(BadEnvironment, match="diffusers"):
        videofusion.build(build_context(tmp_path / "model"))
