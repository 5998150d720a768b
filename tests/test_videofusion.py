"""VideoFusion keeps its invariants, and behaves as a model and as a sampler."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from helpers import (
    CPU,
    NO_TIME,
    UNET,
    clips_of,
    denoiser_of,
    embed,
    perturb,
    randn,
    requests,
    setting,
    tiny_dataset,
    tiny_vdm,
    tiny_videofusion,
)
from torch import Tensor, nn

from vfbench import train as training
from vfbench import weights
from vfbench.baselines import vdm
from vfbench.datasets.shapes import Shapes
from vfbench.diffusion.model import DiffusionModel, ModelConfig
from vfbench.diffusion.priors import Decomposed, per_clip
from vfbench.diffusion.sampler import DiffusionSampler
from vfbench.diffusion.schedule import Parametrisation, v_target
from vfbench.diffusion.solvers import solve
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape, Conditioning, Sampler, Setting
from vfbench.models import videofusion
from vfbench.models.videofusion import OneNetworkVideoFusion, VideoFusion
from vfbench.train import TrainOptions, train

KINDS = ("eps", "v")
TIMES = torch.tensor([300, 800])
MIDDLE = 1  # the base frame of four
SPLITS: dict[str, dict[str, Any]] = {
    "as in the paper": {},
    "linear from the first": {"lam": 0.8, "lam_schedule": "linear", "base_frame": "first"},
    "linear about the middle": {"lam": 0.8, "lam_schedule": "linear"},
    "cosine about the middle": {"lam": 0.8, "lam_schedule": "cosine"},
    "cosine from the last": {"lam": 0.8, "lam_schedule": "cosine", "base_frame": "last"},
    "a list": {"lam": [0.1, 1.0, 1.0, 0.0], "base_frame": 2},
}
every_split = pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)


def inputs_of(module: nn.Module) -> list[Tensor]:
    """The first argument of every call of `module` from now on."""
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach().clone()))
    return seen


def others_than(base: int) -> list[int]:
    """The other frames of four."""
    return [i for i in range(4) if i != base]


def noisy(model: DiffusionModel, x: Tensor, noise: Tensor, t: Tensor = TIMES) -> tuple[Tensor, Tensor]:
    """z_t and a_t."""
    alpha_bar = model.schedule.at(t, x)
    return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise, alpha_bar


class Oracle(nn.Module):
    """A network that answers the truth, in the parametrisation asked for."""

    def __init__(self, x0: Tensor, eps: Tensor, signal: Tensor, noise: Tensor, kind: Parametrisation) -> None:
        super().__init__()
        norm = (signal**2 + noise**2).sqrt()
        self.answer = eps if kind == "eps" else (signal * eps - noise * x0) / norm

    def forward(self, *_: Any) -> Tensor:
        return self.answer


def with_oracles(model: VideoFusion, x: Tensor, t: Tensor, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Replace both networks by oracles for clips `x` and fresh noises b and r; returns z_t and eps."""
    base, residual = randn(*x[:, :1].shape, seed=seed), randn(*x.shape, seed=seed + 1)
    noise = model.prior.combine(base, residual)
    z, alpha_bar = noisy(model, x, noise, t)
    signal, strength = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    _, of_residual = model.prior.weights(x)
    model.base = Oracle(x[:, model.prior.base, None], base, signal, strength, model.kind)  # type: ignore[assignment]
    model.residual = Oracle(x, residual, signal, strength * of_residual, model.kind)  # type: ignore[assignment]
    return z, noise


# The invariants of the method. (The covariances of the noise are tested with the priors.)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("base", [0, MIDDLE, 3])
def test_with_lambda_0_the_residual_network_sees_plain_diffusion(base: int, schedule: str) -> None:
    listed = [float(i == base) for i in range(4)]
    splits: list[dict[str, Any]] = [{"lam": 0.0, "lam_schedule": schedule}, {"lam": listed}]
    for split in splits:
        model = tiny_videofusion(base_frame=base, **split)
        seen = inputs_of(model.residual)
        z = clips_of(model)
        model.predict(z, TIMES, embed(model))
        others = others_than(base)
        assert torch.equal(seen[0][:, others, :3], z[:, others])
        assert not torch.isclose(seen[0][:, base, :3], z[:, base]).all()  # its lambda is 1: b is taken out


@every_split
def test_the_base_noise_is_removed_as_far_as_a_frame_has_it(split: dict[str, Any]) -> None:
    model = tiny_videofusion(**split)
    seen = inputs_of(model.residual)
    x = clips_of(model).clamp(-1, 1)
    base, residual = randn(2, 1, 3, 8, 8, seed=5), randn(2, 4, 3, 8, 8, seed=6)
    z, alpha_bar = noisy(model, x, model.prior.combine(base, residual))
    model.denoise_rest(z, TIMES, embed(model), base)
    of_residual = (1 - model.prior.lam.float()).sqrt().view(1, 4, 1, 1, 1)
    left = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * of_residual * residual
    assert torch.allclose(seen[0][:, :, :3], left, atol=1e-6)
    # Beside every frame stands the clean base frame.
    assert torch.allclose(seen[0][:, :, 3:], x[:, model.prior.base, None].expand_as(x), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("split", "zero"),
    [
        ({"lam": 1.0}, True),
        ({"lam": 1.0, "base_frame": "last"}, True),
        ({"lam": [1.0] * 4, "base_frame": 0}, True),
        ({"lam": 0.5}, False),
        ({"lam": 1.0, "lam_schedule": "linear"}, False),  # farther frames share less
        ({"lam": 1.0, "lam_schedule": "cosine"}, False),
    ],
)
def test_with_lambda_1_the_residual_network_has_no_weight(kind: str, split: dict[str, Any], zero: bool) -> None:
    model = tiny_videofusion(parametrisation=kind, **split)
    losses = model.losses(clips_of(model), clips_of(model, seed=1), TIMES, embed(model))
    gradients = torch.autograd.grad(losses["residual"], list(model.residual.parameters()), allow_unused=True)
    assert all(g is None or torch.isfinite(g).all() for g in gradients)
    assert all(g is None or not g.any() for g in gradients) == zero


@every_split
@pytest.mark.parametrize("kind", KINDS)
def test_with_oracles_a_ddim_step_is_the_standard_one(kind: str, split: dict[str, Any]) -> None:
    model = tiny_videofusion(parametrisation=kind, **split)
    x, now, then = clips_of(model).clamp(-1, 1), 500, 460
    t = torch.full((2,), now)
    z, noise = with_oracles(model, x, t)
    predicted = model.predict(z, t, embed(model))
    assert torch.allclose(predicted.eps, noise, atol=1e-5)
    a = float(model.schedule.alpha_bar[then])
    step = a**0.5 * predicted.x0 + (1 - a) ** 0.5 * predicted.eps
    assert torch.allclose(step, a**0.5 * x + (1 - a) ** 0.5 * noise, atol=1e-5)


def test_almost_pure_noise_costs_no_digits() -> None:
    model = tiny_videofusion()  # v: eps would have to be divided by sqrt(a_t)
    x, t = clips_of(model).clamp(-1, 1), torch.full((2,), 999)
    z, noise = with_oracles(model, x, t)
    assert float(model.schedule.alpha_bar[999]) < 1e-8
    predicted = model.predict(z, t, embed(model))
    assert torch.allclose(predicted.x0, x, atol=1e-4)
    assert torch.allclose(predicted.eps, noise, atol=1e-5)


@every_split
@pytest.mark.parametrize("kind", KINDS)
def test_with_oracles_the_loss_is_zero(kind: str, split: dict[str, Any]) -> None:
    model = tiny_videofusion(parametrisation=kind, images=0, **split)
    x = clips_of(model).clamp(-1, 1)
    _, noise = with_oracles(model, x, TIMES)
    losses = model.losses(x, noise, TIMES, embed(model))
    assert set(losses) == {"base", "residual"}
    assert all(float(loss.detach()) < 1e-9 for loss in losses.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_image_loss_is_plain_diffusion_on_single_frames(kind: str) -> None:
    model = tiny_videofusion(parametrisation=kind, images=2)
    x, noise, condition = clips_of(model), clips_of(model, seed=1), embed(model)
    seen = inputs_of(model.base)
    loss = model.losses(x, noise, TIMES, condition)["images"].detach()
    z, alpha_bar = noisy(model, x, noise)
    assert torch.equal(seen[-1], z[:, [0, 3]].flatten(0, 1)[:, None])  # evenly spread over the four frames
    with torch.no_grad():
        answers = torch.stack([model.base(z[:, i, None], TIMES, condition) for i in (0, 3)], dim=1)[:, :, 0]
    frames, noises = x[:, [0, 3]], noise[:, [0, 3]]
    target = noises if kind == "eps" else alpha_bar.sqrt() * noises - (1 - alpha_bar).sqrt() * frames
    assert torch.allclose(loss, ((answers - target) ** 2).mean(), rtol=1e-4)


@every_split
@pytest.mark.parametrize("kind", KINDS)
def test_the_base_network_learns_from_the_base_frame_alone(kind: str, split: dict[str, Any]) -> None:
    model = tiny_videofusion(parametrisation=kind, **split)
    losses = model.losses(clips_of(model), clips_of(model, seed=1), TIMES, embed(model))
    base, residual = list(model.base.parameters()), list(model.residual.parameters())

    def reached(loss: str, parameters: list[nn.Parameter]) -> list[bool]:
        gradients = torch.autograd.grad(losses[loss], parameters, retain_graph=True, allow_unused=True)
        return [g is not None for g in gradients]

    assert not any(reached("residual", base))  # neither through the target nor through z'
    assert all(reached("base", base))
    assert all(reached("residual", residual))
    assert not any(reached("base", residual))
    assert all(reached("images", base))
    assert not any(reached("images", residual))


@pytest.mark.parametrize("frames", [4, 16])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_the_base_network_is_called_once_a_step_on_one_frame(frames: int, place: str) -> None:
    model = tiny_videofusion(frames, base_frame=place)
    base, residual = inputs_of(model.base), inputs_of(model.residual)
    solve(denoiser_of(model, embed(model)), clips_of(model), model.schedule, steps=2, solver="dpm++2m", fresh=unused)
    assert [b.shape for b in base] == [(2, 1, 3, 8, 8)] * 2
    assert torch.equal(base[0], clips_of(model)[:, model.prior.base, None])
    assert [r.shape for r in residual] == [(2, frames, 6, 8, 8)] * 2


def unused() -> Tensor:
    raise AssertionError("a deterministic solver asked for fresh noise")


@torch.no_grad()
@every_split
@pytest.mark.parametrize("solver", ["ddim", "dpm++2m"])
def test_the_base_noise_alone_makes_the_base_frame(solver: str, split: dict[str, Any]) -> None:
    model = tiny_videofusion(**split)
    base = randn(2, 1, 3, 8, 8, seed=1)
    clips = []
    for seed in (2, 3):
        z = model.prior.combine(base, randn(2, 4, 3, 8, 8, seed=seed))
        denoise = denoiser_of(model, embed(model))
        clips.append(solve(denoise, z, model.schedule, steps=4, solver=solver, fresh=unused))
    m = model.prior.base
    assert torch.equal(clips[0][:, m], clips[1][:, m])  # bit for bit
    for i in others_than(m):
        shares_all = float(model.prior.lam[i]) == 1  # then only what R makes of the other frames differs
        assert shares_all or not torch.isclose(clips[0][:, i], clips[1][:, i]).all()


# The forms.


def tiny_one(*, perturbed: bool = True, **options: Any) -> OneNetworkVideoFusion:
    """The one-network form at the size of the other tiny models."""
    config = ModelConfig.of("videofusion", "tiny-one", videofusion.PRESETS, tiny_dataset())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = OneNetworkVideoFusion(replace(config, options={**config.options, "network": UNET, **options}))
    if perturbed:
        perturb(model)
    return model


@every_split
def test_one_network_predicts_the_whole_noise_under_the_same_prior(
    monkeypatch: pytest.MonkeyPatch, split: dict[str, Any]
) -> None:
    model = tiny_one(**split)
    assert isinstance(model.prior, Decomposed)
    assert torch.equal(model.prior.lam, tiny_videofusion(**split).prior.lam)
    x = clips_of(model).clamp(-1, 1)
    noise = model.prior.noise(per_clip([1, 2], CPU), model.config.shape)
    z, alpha_bar = noisy(model, x, noise)
    monkeypatch.setattr(model.network, "forward", lambda *_: v_target(x, noise, alpha_bar))
    assert float(model.losses(x, noise, TIMES, embed(model))["network"]) == 0
    found = model.predict(z, TIMES, embed(model))
    assert torch.allclose(found.x0, x, atol=1e-5)
    assert torch.allclose(found.eps, noise, atol=1e-5)


def test_the_one_network_form_goes_to_disk_and_samples_under_its_prior(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    saved = tiny_one(base_frame="last")
    saved.save(tmp_path)
    loaded = sampler(tmp_path)
    assert isinstance(loaded.model, OneNetworkVideoFusion)
    assert loaded.model.prior.base == 3  # type: ignore[attr-defined]  # Decomposed
    assert set(loaded.networks) == {"condition", "network"}
    assert all(torch.equal(tensor, loaded.model.state_dict()[name]) for name, tensor in saved.state_dict().items())
    together = loaded.sample(requests(4, 5))
    assert (together[1:].int() - loaded.sample(requests(5)).int()).abs().max() <= 1


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_one_network_form_has_the_network_of_vdm(size: str) -> None:
    with torch.device("meta"):
        one, plain = videofusion.create(tiny_dataset(), f"{size}-one"), vdm.create(tiny_dataset(), size)
    assert {n: t.shape for n, t in one.state_dict().items()} == {n: t.shape for n, t in plain.state_dict().items()}


@pytest.mark.parametrize("preset", ["tiny", "tiny-one"])
def test_options_of_the_split_reach_the_prior_and_the_checkpoint(preset: str, tmp_path: Path) -> None:
    model = videofusion.create(tiny_dataset(), preset, lam=0.3, lam_schedule="linear", base_frame=3)
    assert isinstance(model.prior, Decomposed)
    assert model.prior.lam.tolist() == pytest.approx([0.3 / 4, 0.3 / 2, 0.3 * 3 / 4, 1])
    model.save(tmp_path)
    found = sampler(tmp_path).model.prior
    assert isinstance(found, Decomposed)
    assert torch.equal(found.lam, model.prior.lam)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"lam": 1.5}, r"lambda 1\.5: it must lie in \[0, 1\]"),
        ({"lam": [0.5, 1.0]}, "2 values for a clip of 4 frames"),
        ({"lam_schedule": "cosin"}, "did you mean 'cosine'"),
        ({"base_frame": 4}, "base frame 4: a clip of 4 frames has 0 to 3"),
    ],
    ids=str,
)
def test_a_split_that_does_not_fit_is_refused_naming_it(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        videofusion.create(tiny_dataset(), **options)


def loss_of(model: DiffusionModel) -> float:
    """The loss on one clip at many times."""
    clip = tiny_dataset().clips("train", [0] * 32).float() / 127.5 - 1
    with torch.no_grad():
        losses = model.training_losses(clip, [0] * 32, [""] * 32, ["none"] * 32, torch.Generator().manual_seed(7))
    return float(torch.stack(list(losses.values())).sum())


class OneClip(Shapes):
    """A dataset whose train split shows one clip over and over."""

    def clips(self, split: Any, indices: Any, device: torch.device | None = None) -> Tensor:
        return super().clips(split, [0] * len(indices) if split == "train" else indices, device)


LEARNERS: dict[str, Callable[[], DiffusionModel]] = {
    "two": lambda: tiny_videofusion(perturbed=False),
    "one": lambda: tiny_one(perturbed=False),
}


@pytest.mark.parametrize("form", LEARNERS)
def test_the_loss_falls_by_a_fifth_in_40_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str) -> None:
    monkeypatch.setattr(training._Run, "show", lambda run: None)
    model, data = LEARNERS[form](), OneClip(tiny_dataset().shape)
    before = loss_of(model)
    train(model, data, TrainOptions(steps=40, batch_size=2, lr=1e-2, warmup=2, ema=0.9), tmp_path)
    assert loss_of(model) < 0.8 * before


def test_the_one_network_form_resumes_as_if_it_had_never_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(training._Run, "show", lambda run: None)
    options, data, asked = TrainOptions(steps=4, batch_size=2), tiny_dataset(), iter([False, True])
    train(tiny_one(), data, options, tmp_path / "whole")
    train(tiny_one(), data, options, tmp_path / "parts", stop=lambda: next(asked))
    train(tiny_one(perturbed=False), data, options, tmp_path / "parts", resume=True)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_an_unknown_form_is_refused() -> None:
    config = ModelConfig.of("videofusion", "tiny", videofusion.PRESETS, tiny_dataset())
    with pytest.raises(UserError, match="known: one, two"):
        videofusion._model(replace(config, options={**config.options, "form": "three"}))


# The networks.


@torch.no_grad()
def test_the_frame_index_is_a_condition() -> None:
    model = tiny_videofusion()
    z = clips_of(model)
    before = model.predict(z, TIMES, embed(model)).eps
    model.residual.frame.copy_(model.residual.frame.flip(0))
    assert not torch.isclose(model.predict(z, TIMES, embed(model)).eps, before).all()


@torch.no_grad()
def test_the_residual_network_mixes_all_frames() -> None:
    model = tiny_videofusion(16)
    x = randn(1, 16, 6, 8, 8)
    before = model.residual(x, TIMES[:1], embed(model, batch=1))
    x[:, 15] += 1.0
    change = (model.residual(x, TIMES[:1], embed(model, batch=1)) - before).abs().amax((0, 2, 3, 4))
    assert (change > 1e-5).all()  # the first frame feels the last


@torch.no_grad()
@pytest.mark.parametrize("name", ["base", "residual"])
def test_both_networks_feel_the_time(name: str) -> None:
    model = tiny_videofusion()
    network, x = getattr(model, name), randn(1, *((1, 3) if name == "base" else (4, 6)), 8, 8)
    early, late = (network(x, torch.tensor([t]), embed(model, batch=1)) for t in (10, 900))
    assert not torch.isclose(early, late).all()


@torch.no_grad()
@pytest.mark.parametrize("mode", ["class", "text"])
def test_conditions_change_the_base_frame_and_the_others(mode: Conditioning) -> None:
    model = tiny_videofusion()
    z = clips_of(model)
    modes: tuple[Conditioning, ...] = ("none", mode)
    without, given = (model.predict(z, TIMES, embed(model, m)).eps for m in modes)
    assert ((given - without).abs().amax((0, 2, 3, 4)) > 1e-6).all()


@torch.no_grad()
def test_each_mode_reads_its_own_field_only() -> None:
    condition = tiny_videofusion().condition
    left, right = (f"a small red circle moves {side} over blue dots" for side in ("left", "right"))

    def vectors(mode: Conditioning) -> Tensor:
        found: Tensor = condition([3, 3, 3, 4], [left, right, left, left], [mode] * 4)
        return found

    none, by_class, by_text = vectors("none"), vectors("class"), vectors("text")
    assert torch.equal(none, none[:1].expand_as(none))
    assert torch.equal(by_class[0], by_class[1])  # other words, same class
    assert not torch.isclose(by_class[2], by_class[3]).all()
    assert torch.allclose(by_text[2], by_text[3])  # other class, same words
    assert not torch.isclose(by_text[0], by_text[1]).all()


def test_without_text_a_caption_may_say_anything() -> None:
    condition = tiny_videofusion().condition
    assert condition([0, 1], ["a purple elephant", ""], ["none", "class"]).shape == (2, 16)


@pytest.mark.parametrize(
    ("caption", "named"),
    [("a small purple circle", "does not know 'purple'"), ("", "has 0 words"), ("red " * 25, "has 25 words")],
)
def test_a_caption_that_cannot_be_read_is_refused_naming_the_word(caption: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        tiny_videofusion().condition([0], [caption], ["text"])


def test_the_base_network_has_its_own_learning_rate() -> None:
    model = tiny_videofusion(base_lr=0.1)
    others, base = model.groups(1e-3)
    assert (others["lr"], base["lr"]) == (1e-3, pytest.approx(1e-4))
    # In the order of the module: the optimiser's state is restored by position, not by name.
    assert [id(p) for p in base["params"]] == [id(p) for p in model.base.parameters()]
    together = {id(p) for p in [*others["params"], *base["params"]]}
    assert together == {id(p) for p in model.parameters()}
    assert len(others["params"]) + len(base["params"]) == len(together)


# The sampler and its files.


def sampler(folder: Path, **options: Any) -> DiffusionSampler:
    return videofusion.build(setting(folder), **{"steps": 3, **options})


@pytest.mark.parametrize("options", [{}, {"solver": "ddpm"}, {"guidance": 2.0}, {"condition": "class"}], ids=str)
def test_a_clip_depends_on_its_request_alone(checkpoint: Path, options: dict[str, Any]) -> None:
    model, wanted = sampler(checkpoint, **options), requests(4, 5, 6)
    together = model.sample(wanted)
    assert (together.dtype, together.shape) == (torch.uint8, (3, 4, 3, 8, 8))
    alone = torch.cat([model.sample([request]) for request in reversed(wanted)]).flip(0)
    assert (together.int() - alone.int()).abs().max() <= 1
    assert (together[0].int() - together[1].int()).abs().max() > 20  # but they do differ
    seeds, shape = [r.seed for r in wanted], model.shape
    noise = model.model.prior.noise(per_clip(seeds, model.device), shape)
    assert torch.equal(model.model.prior.noise(per_clip(seeds[1:2], model.device), shape)[0], noise[1])


def test_guidance_and_conditioning_reach_the_clips(checkpoint: Path) -> None:
    wanted = requests(4, 5)
    choices: list[dict[str, Any]] = [
        {},
        {"guidance": 4.0},
        {"condition": "class"},
        {"condition": "none"},
        {"solver": "ddpm"},
    ]
    clips = [sampler(checkpoint, **choice).sample(wanted) for choice in choices]
    assert all(not torch.equal(a, b) for i, a in enumerate(clips) for b in clips[:i])
    plain = sampler(checkpoint, condition="none")
    assert torch.equal(plain.sample(wanted), sampler(checkpoint, condition="none", guidance=3.0).sample(wanted))


def test_fresh_noise_comes_from_the_models_own_prior(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    draws: list[Tensor] = []
    honest = Decomposed.noise

    def watched(prior: Decomposed, *arguments: Any) -> Tensor:
        draws.append(honest(prior, *arguments))
        return draws[-1]

    monkeypatch.setattr(Decomposed, "noise", watched)
    sampler(checkpoint, solver="ddpm", steps=5).sample(requests(4))
    assert len(draws) == 5  # to begin with, and after every step but the last
    assert len({float(draw[0, 0, 0, 0, 0]) for draw in draws}) == 5


def test_predictions_are_limited_to_the_range_of_pixels(checkpoint: Path) -> None:
    model = sampler(checkpoint, guidance=20.0)
    z, a = 3 * clips_of(model.model, batch=1), float(model.model.schedule.alpha_bar[500])
    with torch.inference_mode():
        found = model._denoiser(requests(4))(z, 500)
    assert found.x0.abs().max() == 1
    assert torch.allclose(a**0.5 * found.x0 + (1 - a) ** 0.5 * found.eps, z, atol=1e-5)


def test_half_precision_arithmetic_makes_nearly_the_same_clips(checkpoint: Path) -> None:
    half = videofusion.build(replace(setting(checkpoint), dtype=torch.bfloat16), steps=3).sample(requests(4, 5))
    change = (half.int() - sampler(checkpoint).sample(requests(4, 5)).int()).abs().float()
    assert 0 < change.mean() < 4


def test_the_sampler_keeps_the_common_interface(checkpoint: Path) -> None:
    model = sampler(checkpoint)
    assert isinstance(model, Sampler)
    assert set(model.networks) == {"condition", "base", "residual"}
    assert len(model.weights) == 64
    assert not any(network.training for network in model.networks.values())


def test_saving_and_loading_gives_the_same_weights(checkpoint: Path) -> None:
    saved, loaded = tiny_videofusion(), sampler(checkpoint).model
    assert replace(loaded.config, sha256="") == _as_read(saved)
    for name, tensor in saved.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def _as_read(model: VideoFusion) -> Any:
    config = model.config
    options = json.loads(json.dumps(dict(config.options)))
    return ModelConfig(config.model, config.preset, config.dataset, config.shape, config.classes, config.words, options)


def test_half_precision_is_half_as_large_and_almost_the_same(checkpoint: Path, tmp_path: Path) -> None:
    tiny_videofusion().save(tmp_path, half=True)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path, checkpoint)]
    assert 0.5 < sizes[0] / sizes[1] < 0.6
    model = sampler(tmp_path)
    assert {p.dtype for p in model.model.parameters()} == {torch.float32}
    assert (model.sample(requests(4)).int() - sampler(checkpoint).sample(requests(4)).int()).abs().float().mean() < 2


Damage = Callable[[Path], object]


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _rename_model(folder: Path) -> None:
    tiny_vdm().save(folder)


def _widen(folder: Path) -> None:
    tiny_videofusion(base={**NO_TIME, "channels": [16, 16]}).save(folder / "other")
    (folder / "other" / "model.safetensors").replace(folder / "model.safetensors")


def _forget_option(folder: Path) -> None:
    _configured(folder, lambda config: config["options"].pop("lam"))


def _configured(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def _optioned(**options: Any) -> Damage:
    return lambda folder: _configured(folder, lambda config: config["options"].update(options))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_truncate, "model.safetensors is damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "a config.json and no model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json holds list"),
        (lambda folder: (folder / "config.json").write_text('{"model": "videofusion"}'), "config.json is not"),
        (_rename_model, "checkpoint of 'vdm', not of 'videofusion'"),
        (_widen, "has shape"),
        (_forget_option, "config.json does not describe a videofusion .*lam"),
        (_optioned(lam=2.0), r"config.json does not describe a videofusion \(lambda 2"),
        (_optioned(parametrisation="epsilon"), "config.json does not describe .*no parametrisation called 'epsilon'"),
        (_optioned(base_init="thawed"), "config.json does not describe .*no base init called 'thawed'"),
        (_optioned(base={"channels": [-32, 64]}), "config.json does not describe a videofusion"),
        (lambda folder: _configured(folder, lambda config: config.pop("sha256")), "records no SHA-256"),
    ],
)
def test_a_damaged_checkpoint_is_refused_naming_the_file(tmp_path: Path, damage: Damage, named: str) -> None:
    tiny_videofusion().save(tmp_path)
    sampler(tmp_path)
    damage(tmp_path)
    with pytest.raises(MissingData, match=named) as caught:
        sampler(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_checkpoint_of_another_clip_shape_is_refused_naming_both(checkpoint: Path) -> None:
    with pytest.raises(MissingData, match="shapes at 4x8x8, but shapes at 5x8x8"):
        videofusion.build(setting(checkpoint, frames=5))


@pytest.mark.parametrize(
    ("options", "named"),
    [({"condition": "txt"}, "did you mean 'text'"), ({"steps": 0}, "--steps 0")],
    ids=str,
)
def test_wrong_options_are_refused_naming_them(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, options: dict[str, Any], named: str
) -> None:
    # Users have no type checker around the code: the plug-in must refuse what the annotations forbid.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UserError, match=named):
        sampler(checkpoint, **options)


def test_without_a_checkpoint_the_error_tells_how_to_train_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    with pytest.raises(MissingData, match="train --model videofusion --dataset shapes"):
        videofusion.build(Setting(tiny_dataset(), CPU))


def test_a_shipped_checkpoint_is_found_by_dataset_and_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    tiny_videofusion().save(tmp_path / "shapes" / "videofusion")
    assert videofusion.build(Setting(tiny_dataset(), CPU)).shape == ClipShape(4, 8, 8)


def test_an_unknown_preset_is_refused_and_each_known_one_describes_a_model() -> None:
    with pytest.raises(UserError, match="did you mean 'tiny'"):
        videofusion.create(tiny_dataset(), "tinny")
    with torch.device("meta"):
        for preset, options in videofusion.PRESETS.items():
            data = Shapes(ClipShape(*options.get("clips", (4, 8, 8))))
            assert sum(p.numel() for p in videofusion.create(data, preset).parameters()) > 100_000


def test_presets_survive_json_so_that_a_checkpoint_can_describe_itself() -> None:
    assert json.loads(json.dumps(videofusion.PRESETS)) == videofusion.PRESETS
    assert json.loads(json.dumps(UNET)) == UNET
