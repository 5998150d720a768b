"""Tests of the embedding of a frame in every model: training terms, embedding prior, sampling, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, results
from embedded import EMBEDDING, MODELS, embedding_model, frame_embedding_of, save_clip_vision
from helpers import NO_TIME, UNET, OneClip, build_context, clips_of, denoiser_of, perturb, randn, requests, tiny_dataset
from torch import Tensor, nn

from vfbench import plugins
from vfbench.diffusion.frame_embedding import LEARNT, FrameEmbedding, keep_embedding
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.model_config import embedding_options
from vfbench.diffusion.priors import Normal, normal_per_batch, normal_per_clip
from vfbench.diffusion.solvers import solve
from vfbench.errors import MissingData
from vfbench.interfaces import Conditioning, Sampler
from vfbench.models import videofusion
from vfbench.models.videofusion import VideoFusion
from vfbench.nets.frame_encoder import normalise_vectors
from vfbench.pipeline.cost import measure
from vfbench.training import train as training
from vfbench.training.train import TrainOptions, train

pytestmark = pytest.mark.usefixtures("quick_training")

CPU = torch.device("cpu")
CAPTION = "a small red circle moves left over blue stripes"
OPTIONS = TrainOptions(steps=4, batch_size=2, lr=1e-2, warmup=2, ema=0.9, save_every=100, sample_every=100)
TIMES = torch.tensor([300, 800])
SIZE = EMBEDDING["size"]
NOTHING: tuple[Conditioning, ...] = ("none",)
every_model = pytest.mark.parametrize("name", MODELS)


def losses_of(model: DiffusionModel, modes: Sequence[Conditioning] = ("text", "class")) -> dict[str, Tensor]:
    batch = len(modes)
    draws = model.draw(batch, torch.Generator().manual_seed(0))
    return model.training_losses(clips_of(model, batch), [1] * batch, [CAPTION] * batch, modes, draws)


def fusion(**options: Any) -> VideoFusion:
    model = embedding_model("videofusion", **options)
    assert isinstance(model, VideoFusion)
    return model


def normals(*seeds: int) -> Normal:
    return normal_per_clip(seeds, CPU)


def has_gradient(loss: Tensor, module: nn.Module) -> list[bool]:
    """Flag for every parameter of a module: its gradient of this loss is not zero."""
    gradients = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True)
    return [g is not None and bool(g.any()) for g in gradients]


# Training.


@every_model
def test_other_loss_terms_equal_those_without_the_embedding(name: str) -> None:
    model = embedding_model(name, perturbed=False)
    plain = type(model)(model.config.with_embedding("none"))
    assert plain.frame_embedding is None
    state = model.state_dict()
    assert set(plain.state_dict()) == {key for key in state if not key.startswith("frame_embedding.")}
    plain.load_state_dict({key: state[key] for key in plain.state_dict()})
    # The projection is initialised to zero, and the new random numbers are drawn last.
    terms, expected = losses_of(model), losses_of(plain)
    assert set(terms) == {*expected, "prior"}
    assert all(torch.equal(terms[term], value) for term, value in expected.items())


@every_model
def test_the_base_frame_changes_the_denoised_frames(name: str) -> None:
    model = embedding_model(name)
    (base_frame, *_), frames = model.embedding_frames(), model.config.shape.frames
    assert base_frame == frames // 2 - 1
    x = clips_of(model, 1)
    condition, known = torch.zeros(1, *model.null_conditioning(1).shape[1:]), torch.tensor([True])
    z = clips_of(model, 1, seed=1)
    predictions = []
    for clip in (x, x.flip(4)):
        added, _ = frame_embedding_of(model).encode_frames(clip[:, [base_frame]], known)
        predictions.append(model.predict(z, TIMES[:1], condition + added[:, 0]).x0)
    assert ((predictions[0] - predictions[1]).abs().amax((0, 2, 3, 4)) > 1e-6).all()


@every_model
def test_each_loss_term_trains_its_parts(name: str) -> None:
    model = embedding_model(name)
    modes: list[Conditioning] = ["text", "class", *NOTHING * 8]
    losses, embedding = losses_of(model, modes), frame_embedding_of(model)
    prior = losses.pop("prior")
    assert all(has_gradient(prior, embedding.prior))
    assert any(has_gradient(prior, model.condition))  # the condition network learns from the prior's loss
    assert isinstance(embedding.encoder, nn.Module)
    for module in (embedding.encoder, embedding.projection):
        assert not any(has_gradient(prior, module))  # else the encoder could collapse to constant embeddings
        assert all(has_gradient(torch.stack(list(losses.values())).sum(), module))
    for term in losses.values():
        assert not any(has_gradient(term, embedding.prior))


def draw(embedding: FrameEmbedding, count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return embedding.draw(count, generator, normal_per_batch(count, generator))


def test_half_of_the_unconditional_clips_lose_the_embedding() -> None:
    modes: list[Conditioning] = ["text", "class", *NOTHING * 2000]
    known = keep_embedding(modes, draw(frame_embedding_of(fusion()), len(modes))["chance"])
    assert known[:2].all()
    assert 0.45 < float(known[2:].float().mean()) < 0.55


def test_an_unknown_embedding_has_a_learnt_vector() -> None:
    model = fusion()
    frames, known = clips_of(model)[:, :1], torch.tensor([True, False])
    added, embeddings = frame_embedding_of(model).encode_frames(frames, known)
    assert torch.equal(added[1, 0], frame_embedding_of(model).projection.unknown)
    assert torch.allclose(added[0, 0], frame_embedding_of(model).projection.layer(embeddings[0, 0]))
    condition = model.condition([0], [""], ["none"])
    assert torch.equal(model.null_conditioning(2), (condition + added[1]).expand(2, -1))


def test_each_image_is_conditioned_on_its_embedding() -> None:
    model = fusion()
    assert model.images == 3
    conditions: dict[str, list[Tensor]] = {"base": [], "residual": []}
    for network, inputs in conditions.items():
        model.get_submodule(network).register_forward_pre_hook(
            lambda _, arguments, inputs=inputs: inputs.append(arguments[2].detach())
        )
    losses_of(model)
    x, condition = clips_of(model), model.condition([1, 1], [CAPTION] * 2, ["text", "class"])
    added, _ = frame_embedding_of(model).encode_frames(x[:, [1, 0, 1, 3]], torch.tensor([True, True]))
    expected = (condition[:, None] + added).detach()
    (of_base, of_images), (of_residual,) = conditions["base"], conditions["residual"]
    assert torch.equal(of_base, of_residual)
    assert torch.allclose(of_base, expected[:, 0], atol=1e-6)
    assert torch.allclose(of_images, expected[:, 1:].flatten(0, 1), atol=1e-6)


# Embedding prior.


class ConstantPrior(nn.Module):
    """Prior that returns a constant and counts its calls."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output, self.calls = output, 0

    def forward(self, z: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        self.calls += 1
        return self.output


@pytest.fixture
def embedding() -> FrameEmbedding:
    return frame_embedding_of(fusion())


def test_the_loss_of_the_prior_compares_with_the_clean_embedding(embedding: FrameEmbedding) -> None:
    clean, condition = normalise_vectors(randn(3, SIZE)), torch.zeros(3, 16)
    for output, loss in ((clean, 0.0), (torch.zeros_like(clean), 1.0), (-clean, 4.0)):  # mean square of `clean`: 1
        embedding.prior = ConstantPrior(output)  # type: ignore[assignment]
        assert float(embedding.loss(clean, condition, draw(embedding, 3))) == pytest.approx(loss)


@torch.no_grad()
def test_a_sampled_embedding_takes_few_steps_and_is_normalised(embedding: FrameEmbedding) -> None:
    direction = randn(2, SIZE)
    prior = ConstantPrior(3 * direction)
    embedding.prior = prior  # type: ignore[assignment]
    added = embedding.sample_conditioning(torch.zeros(2, 16), normals(1, 2))
    assert prior.calls == EMBEDDING["steps"]
    expected = embedding.projection(normalise_vectors(direction), torch.tensor([True, True]))
    assert torch.allclose(added, expected, atol=1e-5)


@torch.no_grad()
@every_model
def test_an_embedding_depends_on_its_request_only(name: str) -> None:
    model = embedding_model(name)
    labels, captions = [3, 4, 4], [CAPTION] * 3
    modes: list[Conditioning] = ["text", "class", "class"]
    together = model.conditioning_vectors(labels, captions, modes, normals(7, 8, 9))
    for i, seed in enumerate((7, 8, 9)):
        alone = model.conditioning_vectors(labels[i : i + 1], captions[:1], modes[i : i + 1], normals(seed))
        assert torch.allclose(alone[0], together[i], atol=1e-5)
    assert not torch.isclose(together[1], together[2]).all()  # one class, different seeds
    assert not torch.isclose(model.conditioning_vectors([3], [""], ["none"], normals(7)), together[0]).all()


@torch.no_grad()
def test_the_prior_depends_on_noise_time_and_condition(embedding: FrameEmbedding) -> None:
    z, t, condition = randn(1, SIZE), torch.tensor([500]), randn(1, 16)
    before = embedding.prior(z, t, condition)
    for other in ((z + 1, t, condition), (z, t + 300, condition), (z, t, condition + 1)):
        assert not torch.isclose(embedding.prior(*other), before).all()


# Invariants of VideoFusion.


def test_only_base_terms_train_the_base_generator() -> None:
    model = fusion()
    losses = losses_of(model)
    assert not any(has_gradient(losses["residual"], model.base))
    assert all(has_gradient(losses["base"] + losses["images"], model.base))


@torch.no_grad()
@pytest.mark.parametrize("solver", ["ddim", "dpm++2m"])
def test_the_base_frame_depends_on_base_noise_and_embedding_only(solver: str) -> None:
    model = fusion()
    condition = model.conditioning_vectors([1, 2], [CAPTION] * 2, ["text", "class"], normals(1, 2))
    calls: list[torch.Size] = []
    model.base.register_forward_pre_hook(lambda _, arguments: calls.append(arguments[0].shape))
    base, m = randn(2, 1, 3, 8, 8, seed=1), model.noise_prior.base
    clips = [sample_clips(model, base, randn(2, 4, 3, 8, 8, seed=seed), condition, solver) for seed in (2, 3)]
    assert torch.equal(clips[0][:, m], clips[1][:, m])  # bit for bit
    assert not torch.isclose(clips[0][:, m + 1], clips[1][:, m + 1]).all()
    assert calls == [(2, 1, 3, 8, 8)] * 8  # one call a step, on one frame


def sample_clips(model: VideoFusion, base: Tensor, residual: Tensor, condition: Tensor, solver: str) -> Tensor:
    z = model.noise_prior.combine(base, residual)
    denoise = denoiser_of(model, condition)
    return solve(denoise, z, model.schedule, steps=4, solver=solver, fresh_noise=lambda: torch.zeros_like(z))


# Sampling.


def sampler(name: str, folder: Path, **options: Any) -> Sampler:
    built: Sampler = plugins.module("model", name).build(build_context(folder), **{"steps": 3, **options})
    return built


@pytest.mark.one_case
@every_model
@pytest.mark.parametrize("options", [{}, {"guidance": 2.0}, {"condition": "none"}], ids=str)
def test_a_clip_depends_on_its_request_only(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    embedding_model(name).save(tmp_path)
    model, batch = sampler(name, tmp_path, **options), requests(4, 5, 6)
    together = model.sample(batch)
    alone = torch.cat([model.sample([request]) for request in reversed(batch)]).flip(0)
    assert (together.int() - alone.int()).abs().max() <= 1
    assert torch.equal(model.sample(batch), together)
    assert all(not torch.equal(together[0], clip) for clip in together[1:])


@pytest.mark.one_case
@every_model
def test_cost_counts_the_prior_but_not_the_encoder(tmp_path: Path, name: str) -> None:
    model = embedding_model(name, steps=7)
    model.save(tmp_path)
    cost = measure(sampler(name, tmp_path), requests(4)[0])
    assert cost.calls["prior"] >= 7
    assert cost.calls["projection"] >= 1
    networks = [model.condition, *model.networks().values()]
    assert cost.parameters == sum(p.numel() for network in networks for p in network.parameters())
    assert isinstance(frame_embedding_of(model).encoder, nn.Module)
    encoder = sum(p.numel() for p in frame_embedding_of(model).get_submodule("encoder").parameters())
    assert cost.parameters == sum(p.numel() for p in model.parameters()) - encoder


@pytest.mark.slow
def test_a_loaded_checkpoint_equals_the_saved_model(tmp_path: Path) -> None:
    model = fusion()
    model.save(tmp_path)
    loaded = videofusion.build(build_context(tmp_path)).model
    assert loaded.config.options["embedding"] == EMBEDDING
    assert model.state_dict().keys() == loaded.state_dict().keys()
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_configuration_with_an_unknown_embedding_option_is_refused(tmp_path: Path) -> None:
    fusion().save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"inner"', '"outer"'))
    with pytest.raises(MissingData, match=r"config\.json .*videofusion .*outer"):
        videofusion.build(build_context(tmp_path))


# Options and training.


@every_model
def test_every_model_has_the_option_and_a_preset_of_it(name: str) -> None:
    create = plugins.module("model", name).create
    with torch.device("meta"):
        by_option, preset = create(tiny_dataset(), embedding=LEARNT), create(tiny_dataset(), "tiny-prior")
        without = create(tiny_dataset(), "tiny-prior", embedding="none")
    assert by_option.config.options == preset.config.options
    assert preset.config.options["embedding"] == embedding_options()
    assert without.config.options == create(tiny_dataset()).config.options
    assert without.frame_embedding is None


ENCODERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    LEARNT: lambda folder: EMBEDDING,
    "clip": lambda folder: embedding_options(str(save_clip_vision(folder / "clip"))),
}


CASES = [("videofusion", LEARNT), ("vdm", "clip")]


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize(("name", "encoder"), CASES)
def test_training_reduces_every_loss_term(quick_training: None, tmp_path: Path, name: str, encoder: str) -> None:
    model = MODELS[name](ENCODERS[encoder](tmp_path))
    before = one_clip_losses(model)
    train(model, OneClip(tiny_dataset().shape), replace(OPTIONS, steps=40), tmp_path / "x")
    after = one_clip_losses(model)
    assert all(after[term] < 0.8 * value for term, value in before.items()), (before, after)


def one_clip_losses(model: DiffusionModel) -> dict[str, float]:
    """Loss terms of one clip, averaged over 32 diffusion times."""
    clip = tiny_dataset().clips("train", [0] * 32).float() / 127.5 - 1
    with torch.no_grad():
        draws = model.draw(32, torch.Generator().manual_seed(7))
        losses = model.training_losses(clip, [0] * 32, [""] * 32, ["none"] * 32, draws)
    return {term: float(loss) for term, loss in losses.items()}


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize(("name", "encoder"), CASES)
def test_a_resumed_training_is_bit_identical(quick_training: None, tmp_path: Path, name: str, encoder: str) -> None:
    options, stops = ENCODERS[encoder](tmp_path), iter([False, True])
    train(MODELS[name](options), tiny_dataset(), OPTIONS, tmp_path / "uninterrupted")
    train(MODELS[name](options), tiny_dataset(), OPTIONS, tmp_path / "resumed", stop=lambda: next(stops))
    resumed = MODELS[name](options)
    perturb(resumed)  # the initial weights of the new process do not matter
    train(resumed, tiny_dataset(), OPTIONS, tmp_path / "resumed", resume=True)
    first, second = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("uninterrupted", "resumed"))
    assert first == second


@pytest.mark.slow
def test_the_command_scores_a_checkpoint_with_the_embedding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vfbench: Command
) -> None:
    sizes = {"base": {**NO_TIME, "patch": 4}, "residual": {**UNET, "patch": 4}, "embedding": EMBEDDING}
    monkeypatch.setitem(videofusion.PRESETS, "minute", {**videofusion.PRESETS["tiny"], **sizes})
    model, data = training.prepare_training("videofusion", "shapes", "minute")
    model.save(tmp_path / "model")
    options = ["--model", "videofusion", "--dataset", "shapes", "--smoke", "--device", "cpu", "--steps", 2]
    outcome = vfbench("run", *options, "--checkpoint", tmp_path / "model", "--output", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    result = results(tmp_path / "run")
    assert {"fvd", "kvd", "is", "clipsim", "attributes"} <= result["scores"].keys()
    assert result["cost"]["calls"]["prior"] >= EMBEDDING["steps"]
    assert data.shape == model.config.shape
