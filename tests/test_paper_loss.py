"""Tests of the loss of VideoFusion's paper (arXiv 2303.08320), and of the option `parametrisation` of every model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import (
    CPU,
    build_context,
    clips_of,
    embed,
    perturb,
    requests,
    tiny_dataset,
    tiny_videofusion,
)
from torch import Tensor

from vfbench import plugins
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.priors import normal_per_clip
from vfbench.errors import UserError
from vfbench.models import videofusion
from vfbench.models.videofusion import VideoFusion
from vfbench.training import train as training
from vfbench.training.train import TrainOptions, train

TIMES = torch.tensor([300, 800])
PAPER: dict[str, Any] = {"parametrisation": "eps", "images": 0, "base_update": "paper"}
LAMBDAS = [0.1, 1.0, 0.8, 0.0]  # four frames; the second is the base frame
MODELS = ("vdm", "pyoco", "vdit", "videofusion")


def paper_model(**options: Any) -> VideoFusion:
    """VideoFusion created with the options of the paper's loss."""
    model = videofusion.create(tiny_dataset(), **PAPER, **options)
    assert isinstance(model, VideoFusion)
    perturb(model)
    return model


def loss_inputs(model: VideoFusion) -> tuple[Tensor, Tensor, Tensor]:
    """Clips in [-1, 1], noise of the noise prior (both as clips) and alpha_bar (B, 1, 1, 1, 1)."""
    x = clips_of(model).clamp(-1, 1)
    noise = model.noise_prior.noise(normal_per_clip([1, 2], CPU), model.config.shape)
    return x, noise, model.schedule.alpha_bar[TIMES].float().view(2, 1, 1, 1, 1)


def paper_losses(
    model: VideoFusion, x: Tensor, eps: Tensor, a: Tensor, lam: Tensor, m: int, *, stop_gradient: bool
) -> dict[str, Tensor]:
    """Both loss terms of section 3.3, for lambda (1, T, 1, 1, 1) and base frame `m`."""
    condition, others = embed(model), [i for i in range(4) if i != m]
    z = a.sqrt() * x + (1 - a).sqrt() * eps
    b = model.base(z[:, m, None], TIMES, condition)
    base = b.detach() if stop_gradient else b
    remainder = z - lam.sqrt() * (1 - a).sqrt() * base
    picture = (remainder[:, m, None] / a.sqrt()).clamp(-1, 1)  # our addition: R sees the base image beside every frame
    r = model.residual(torch.cat([remainder, picture.expand_as(remainder)], dim=2), TIMES, condition)
    error = eps - lam.sqrt() * base - (1 - lam).sqrt() * r
    return {"base": ((eps[:, m, None] - b) ** 2).mean(), "residual": (error[:, others] ** 2).mean()}


@pytest.mark.parametrize(
    ("lam", "stop_gradient"),
    [(0.5, True), (LAMBDAS, True), (0.5, False)],
    ids=["as in the paper", "lambda of each frame", "without stop-gradient"],
)
def test_with_eps_and_no_images_the_loss_equals_the_paper(
    small_presets: None, lam: float | list[float], stop_gradient: bool
) -> None:
    model = paper_model(lam=lam, stop_gradient=stop_gradient)
    x, noise, a = loss_inputs(model)
    lambdas = torch.tensor(lam if isinstance(lam, list) else [lam, 1.0, lam, lam]).view(1, 4, 1, 1, 1)
    losses = model.losses(x, noise, TIMES, embed(model))
    expected = paper_losses(model, x, noise, a, lambdas, 1, stop_gradient=stop_gradient)
    assert losses.keys() == expected.keys()
    for name, term in expected.items():
        assert torch.allclose(losses[name], term, rtol=1e-5), name
    gradients, expected_gradients = (
        torch.autograd.grad(sum(terms.values()), list(model.parameters()), allow_unused=True)  # type: ignore[arg-type]  # tensors
        for terms in (losses, expected)
    )
    assert [g is None for g in gradients] == [g is None for g in expected_gradients]
    pairs = [(g, h) for g, h in zip(gradients, expected_gradients, strict=True) if g is not None and h is not None]
    assert len(pairs) > 50
    assert all(torch.allclose(g, h, rtol=1e-3, atol=1e-6) for g, h in pairs)


@pytest.mark.parametrize("lam", [0.5, LAMBDAS], ids=["as in the paper", "of each frame"])
def test_with_v_frames_are_weighted_by_lambda_and_time(lam: float | list[float]) -> None:
    model = tiny_videofusion(lam=lam, images=0)
    x, noise, a = loss_inputs(model)
    z = a.sqrt() * x + (1 - a).sqrt() * noise
    of_base = model.denoise_base(z, TIMES, embed(model))
    losses = model.losses(x, noise, TIMES, embed(model))
    lambdas, others = model.noise_prior.lam.float().view(1, 4, 1, 1, 1), [0, 2, 3]
    # Base term: the error of v.
    v = a.sqrt() * noise[:, 1, None] - (1 - a).sqrt() * x[:, 1, None]
    assert torch.allclose(losses["base"], ((v - model.base(z[:, 1, None], TIMES, embed(model))) ** 2).mean(), rtol=1e-4)
    # Residual term: z' is x with noise r of strength sqrt((1 - a) (1 - lam)), which defines v.
    remainder = model.remove_base(z, of_base.eps, a)
    _, output = model.denoise_residual(z, TIMES, embed(model), of_base)
    signal, strength = a.sqrt(), ((1 - a) * (1 - lambdas)).sqrt()
    norm = (signal**2 + strength**2).sqrt()
    r = (remainder - signal * x)[:, others] / strength[:, others]
    v = (signal * r - strength[:, others] * x[:, others]) / norm[:, others]
    weights = ((1 - lambdas) / (1 - lambdas * (1 - a)))[:, others]
    assert torch.allclose(losses["residual"], (weights * (v - output[:, others]) ** 2).mean(), rtol=1e-3)


@pytest.mark.slow
def test_the_loss_of_the_paper_trains_and_samples(small_presets: None, quick_training: None, tmp_path: Path) -> None:
    model, data = training.prepare_training(
        "videofusion(parametrisation='eps', images=0, base_update='paper')",
        "shapes(frames=4, height=8, width=8)",
        "tiny",
    )
    options = TrainOptions(steps=45, batch_size=4, lr=1e-2, warmup=1, ema=0.9, save_every=100, sample_every=100)
    before = total_loss(model)
    train(model, data, options, tmp_path)
    assert total_loss(model) < 0.8 * before
    built = videofusion.build(build_context(tmp_path), steps=3)
    assert {name: built.model.config.options[name] for name in PAPER} == PAPER
    assert built.sample(requests(4)).float().std() > 1


def total_loss(model: DiffusionModel) -> float:
    """Sum of the loss terms of 32 clips at random times."""
    clips = tiny_dataset().clips("train", range(32)).float() / 127.5 - 1
    draws = model.draw(32, torch.Generator().manual_seed(7))
    with torch.no_grad():
        losses = model.training_losses(clips, [0] * 32, [""] * 32, ["none"] * 32, draws)
    return float(torch.stack(list(losses.values())).sum())


# Options.


def create_model(name: str, preset: str = "tiny", **options: Any) -> DiffusionModel:
    create: Callable[..., DiffusionModel] = plugins.module("model", name).create
    with torch.device("meta"):
        return create(tiny_dataset(), preset, **options)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_predict_eps_or_v(name: str) -> None:
    model = create_model(name)
    preset = {**plugins.module("model", name).PRESETS["tiny"], "time_shift": model.schedule.time_shift}
    assert model.config.options == preset
    assert create_model(name, parametrisation="v").config.options == preset
    eps_model = create_model(name, parametrisation="eps")
    assert eps_model.config.options == {**preset, "parametrisation": "eps"}
    assert eps_model.parametrisation == "eps"


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_parametrisation_is_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(UserError, match=r"'epz'.*'eps'"):
        create_model(name, parametrisation="epz")


def test_the_one_network_form_predicts_eps_and_has_no_images() -> None:
    assert create_model("videofusion", "tiny-one", parametrisation="eps").parametrisation == "eps"
    for images in (0, 3):
        with pytest.raises(UserError, match=r"preset tiny-one .* images"):
            create_model("videofusion", "tiny-one", images=images)


@pytest.mark.parametrize("images", [0, 1, 4])
def test_images_sets_the_frames_that_train_the_base_generator(images: int) -> None:
    model = create_model("videofusion", images=images)
    time_shift = model.schedule.time_shift
    assert model.config.options == {**videofusion.PRESETS["tiny"], "images": images, "time_shift": time_shift}
    assert len(model.embedding_frames()) == 1 + images


@pytest.mark.parametrize("images", [-1, 5])
def test_images_out_of_range_are_refused(images: int) -> None:
    with pytest.raises(UserError, match=f"images {images}: .* 4 "):
        create_model("videofusion", images=images)
