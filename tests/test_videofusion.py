"""Tests of `vfbench.models.videofusion`: invariants of the decomposed noise. Its covariances are in test_priors.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import CPU, clips_of, denoiser_of, embed, randn, tiny_one_network, tiny_videofusion
from torch import Tensor, nn

from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.priors import Decomposed, normal_per_clip
from vfbench.diffusion.schedule import Parametrisation, Prediction, v_target
from vfbench.diffusion.solvers import solve
from vfbench.models.videofusion import VideoFusion

KINDS = ("eps", "v")
TIMES = torch.tensor([300, 800])
BASE_FRAME = 1  # of four frames
SPLITS: dict[str, dict[str, Any]] = {
    "as in the paper": {},
    "linear from the first": {"lam": 0.8, "lam_schedule": "linear", "base_frame": "first"},
    "linear about the middle": {"lam": 0.8, "lam_schedule": "linear"},
    "cosine about the middle": {"lam": 0.8, "lam_schedule": "cosine"},
    "cosine from the last": {"lam": 0.8, "lam_schedule": "cosine", "base_frame": "last"},
    "a list": {"lam": [0.1, 1.0, 1.0, 0.0], "base_frame": 2},
}
every_split = pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)


def record_inputs(module: nn.Module) -> list[Tensor]:
    """List that collects the first argument of every later call of `module`."""
    inputs: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0].detach().clone()))
    return inputs


def others_than(base: int) -> list[int]:
    """Indices of the other three frames."""
    return [i for i in range(4) if i != base]


def noisy(model: DiffusionModel, x: Tensor, noise: Tensor, t: Tensor = TIMES) -> tuple[Tensor, Tensor]:
    """Noisy clips z_t and alpha_bar_t."""
    alpha_bar = model.schedule.at(t, x)
    return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise, alpha_bar


class Oracle(nn.Module):
    """Network that returns the true noise or velocity."""

    def __init__(self, x0: Tensor, eps: Tensor, signal: Tensor, noise: Tensor, kind: Parametrisation) -> None:
        super().__init__()
        norm = (signal**2 + noise**2).sqrt()
        self.answer = eps if kind == "eps" else (signal * eps - noise * x0) / norm

    def forward(self, *_: Any) -> Tensor:
        return self.answer


def with_oracles(model: VideoFusion, x: Tensor, t: Tensor, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Replace both networks by oracles for clips `x` and new noises b and r; return z_t and eps."""
    base, residual = randn(*x[:, :1].shape, seed=seed), randn(*x.shape, seed=seed + 1)
    noise = model.noise_prior.combine(base, residual)
    z, alpha_bar = noisy(model, x, noise, t)
    signal, strength = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    _, residual_weight = model.noise_prior.weights(x)
    model.base = Oracle(x[:, model.noise_prior.base, None], base, signal, strength, model.parametrisation)  # type: ignore[assignment]
    model.residual = Oracle(x, residual, signal, strength * residual_weight, model.parametrisation)  # type: ignore[assignment]
    return z, noise


# Two networks.


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("base", [0, BASE_FRAME, 3])
def test_with_lambda_0_the_residual_network_gets_plain_noisy_frames(base: int, schedule: str) -> None:
    lambdas = [float(i == base) for i in range(4)]
    splits: list[dict[str, Any]] = [{"lam": 0.0, "lam_schedule": schedule}, {"lam": lambdas}]
    for split in splits:
        model = tiny_videofusion(base_frame=base, **split)
        inputs = record_inputs(model.residual)
        z = clips_of(model)
        model.predict(z, TIMES, embed(model))
        others = others_than(base)
        assert torch.equal(inputs[0][:, others, :3], z[:, others])
        assert not torch.isclose(inputs[0][:, base, :3], z[:, base]).all()  # its lambda is 1: the base noise is removed


@every_split
def test_the_base_noise_is_removed_in_proportion_to_lambda(split: dict[str, Any]) -> None:
    model = tiny_videofusion(**split)
    inputs = record_inputs(model.residual)
    x = clips_of(model).clamp(-1, 1)
    base, residual = randn(2, 1, 3, 8, 8, seed=5), randn(2, 4, 3, 8, 8, seed=6)
    z, alpha_bar = noisy(model, x, model.noise_prior.combine(base, residual))
    model.denoise_residual(z, TIMES, embed(model), Prediction(x[:, model.noise_prior.base, None], base))
    residual_weight = (1 - model.noise_prior.lam.float()).sqrt().view(1, 4, 1, 1, 1)
    expected = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * residual_weight * residual
    assert torch.allclose(inputs[0][:, :, :3], expected, atol=1e-6)
    # The clean base frame is concatenated to every frame.
    assert torch.allclose(inputs[0][:, :, 3:], x[:, model.noise_prior.base, None].expand_as(x), atol=1e-5)


@pytest.mark.one_case
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("split", "zero"),
    [
        ({"lam": 1.0}, True),
        ({"lam": 1.0, "base_frame": "last"}, True),
        ({"lam": [1.0] * 4, "base_frame": 0}, True),
        ({"lam": 0.5}, False),
        ({"lam": 1.0, "lam_schedule": "linear"}, False),  # distant frames share less
        ({"lam": 1.0, "lam_schedule": "cosine"}, False),
    ],
)
def test_with_lambda_1_the_residual_network_gets_no_gradient(kind: str, split: dict[str, Any], zero: bool) -> None:
    model = tiny_videofusion(parametrisation=kind, **split)
    losses = model.losses(clips_of(model), clips_of(model, seed=1), TIMES, embed(model))
    gradients = torch.autograd.grad(losses["residual"], list(model.residual.parameters()), allow_unused=True)
    assert all(g is None or torch.isfinite(g).all() for g in gradients)
    assert all(g is None or not g.any() for g in gradients) == zero


@every_split
@pytest.mark.parametrize("kind", KINDS)
def test_with_oracles_a_ddim_step_is_exact(kind: str, split: dict[str, Any]) -> None:
    model = tiny_videofusion(parametrisation=kind, **split)
    x, current, following = clips_of(model).clamp(-1, 1), 500, 460
    t = torch.full((2,), current)
    z, noise = with_oracles(model, x, t)
    predicted = model.predict(z, t, embed(model))
    assert torch.allclose(predicted.eps, noise, atol=1e-5)
    a = float(model.schedule.alpha_bar[following])
    step = a**0.5 * predicted.x0 + (1 - a) ** 0.5 * predicted.eps
    assert torch.allclose(step, a**0.5 * x + (1 - a) ** 0.5 * noise, atol=1e-5)


def test_predictions_at_almost_pure_noise_are_precise() -> None:
    model = tiny_videofusion()  # parametrisation v: eps would need a division by sqrt(alpha_bar)
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
    inputs = record_inputs(model.base)
    loss = model.losses(x, noise, TIMES, condition)["images"].detach()
    z, alpha_bar = noisy(model, x, noise)
    assert torch.equal(inputs[-1], z[:, [0, 3]].flatten(0, 1)[:, None])  # evenly spaced frames
    with torch.no_grad():
        answers = torch.stack([model.base(z[:, i, None], TIMES, condition) for i in (0, 3)], dim=1)[:, :, 0]
    frames, noises = x[:, [0, 3]], noise[:, [0, 3]]
    target = noises if kind == "eps" else alpha_bar.sqrt() * noises - (1 - alpha_bar).sqrt() * frames
    assert torch.allclose(loss, ((answers - target) ** 2).mean(), rtol=1e-4)


@every_split
@pytest.mark.parametrize("kind", KINDS)
def test_each_loss_trains_its_own_network(kind: str, split: dict[str, Any]) -> None:
    model = tiny_videofusion(parametrisation=kind, **split)
    losses = model.losses(clips_of(model), clips_of(model, seed=1), TIMES, embed(model))
    base, residual = list(model.base.parameters()), list(model.residual.parameters())

    def has_gradient(loss: str, parameters: list[nn.Parameter]) -> list[bool]:
        gradients = torch.autograd.grad(losses[loss], parameters, retain_graph=True, allow_unused=True)
        return [g is not None for g in gradients]

    assert not any(has_gradient("residual", base))  # neither through the target nor through z'
    assert all(has_gradient("base", base))
    assert all(has_gradient("residual", residual))
    assert not any(has_gradient("base", residual))
    assert all(has_gradient("images", base))
    assert not any(has_gradient("images", residual))


@pytest.mark.parametrize("frames", [4, 16])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_the_base_network_runs_once_per_step_on_one_frame(frames: int, place: str) -> None:
    model = tiny_videofusion(frames, base_frame=place)
    base, residual = record_inputs(model.base), record_inputs(model.residual)
    solve(
        denoiser_of(model, embed(model)),
        clips_of(model),
        model.schedule,
        steps=2,
        solver="dpm++2m",
        fresh_noise=refuse_fresh_noise,
    )
    assert [b.shape for b in base] == [(2, 1, 3, 8, 8)] * 2
    assert torch.equal(base[0], clips_of(model)[:, model.noise_prior.base, None])
    assert [r.shape for r in residual] == [(2, frames, 6, 8, 8)] * 2


def refuse_fresh_noise() -> Tensor:
    raise AssertionError("a deterministic solver asked for fresh noise")


@pytest.mark.one_case
@torch.no_grad()
@every_split
@pytest.mark.parametrize("solver", ["ddim", "dpm++2m"])
def test_the_base_frame_depends_on_the_base_noise_alone(solver: str, split: dict[str, Any]) -> None:
    model = tiny_videofusion(**split)
    base = randn(2, 1, 3, 8, 8, seed=1)
    clips = []
    for seed in (2, 3):
        z = model.noise_prior.combine(base, randn(2, 4, 3, 8, 8, seed=seed))
        denoise = denoiser_of(model, embed(model))
        clips.append(solve(denoise, z, model.schedule, steps=4, solver=solver, fresh_noise=refuse_fresh_noise))
    m = model.noise_prior.base
    assert torch.equal(clips[0][:, m], clips[1][:, m])  # bit-equal
    for i in others_than(m):
        shares_all = float(model.noise_prior.lam[i]) == 1  # then only the residual network's other frames differ
        assert shares_all or not torch.isclose(clips[0][:, i], clips[1][:, i]).all()


# One network.


@every_split
def test_one_network_predicts_all_noise_of_the_same_prior(
    monkeypatch: pytest.MonkeyPatch, split: dict[str, Any]
) -> None:
    model = tiny_one_network(**split)
    assert isinstance(model.noise_prior, Decomposed)
    assert torch.equal(model.noise_prior.lam, tiny_videofusion(**split).noise_prior.lam)
    x = clips_of(model).clamp(-1, 1)
    noise = model.noise_prior.noise(normal_per_clip([1, 2], CPU), model.config.shape)
    z, alpha_bar = noisy(model, x, noise)
    monkeypatch.setattr(model.network, "forward", lambda *_: v_target(x, noise, alpha_bar))
    assert float(model.losses(x, noise, TIMES, embed(model))["network"]) == 0
    prediction = model.predict(z, TIMES, embed(model))
    assert torch.allclose(prediction.x0, x, atol=1e-5)
    assert torch.allclose(prediction.eps, noise, atol=1e-5)
