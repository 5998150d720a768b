"""The embedding of a frame as a condition: shown in training, drawn by its prior at test, the same for every model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, results
from embedded import EMBEDDING, MODELS, embedded, part, saved_clip
from helpers import NO_TIME, UNET, clips_of, denoiser_of, perturb, randn, requests, setting, tiny_dataset
from torch import Tensor, nn

from vfbench import plugins
from vfbench.datasets.shapes import Shapes
from vfbench.diffusion.frame_embedding import LEARNT, FrameEmbedding, keep_embedding
from vfbench.diffusion.model import DiffusionModel, embedding_options
from vfbench.diffusion.priors import Normal, normal_per_clip
from vfbench.diffusion.solvers import solve
from vfbench.errors import MissingData
from vfbench.interfaces import Conditioning, Sampler
from vfbench.models import videofusion
from vfbench.models.videofusion import VideoFusion
from vfbench.nets.frame_encoder import normalise_vectors
from vfbench.pipeline.cost import measure
from vfbench.training import train as training
from vfbench.training.train import TrainOptions, train
from vfbench.training.trainer import Trainer

CPU = torch.device("cpu")
CAPTION = "a small red circle moves left over blue stripes"
OPTIONS = TrainOptions(steps=4, batch_size=2, lr=1e-2, warmup=2, ema=0.9, save_every=100, sample_every=100)
TIMES = torch.tensor([300, 800])
SIZE = EMBEDDING["size"]
NOTHING: tuple[Conditioning, ...] = ("none",)
every_model = pytest.mark.parametrize("name", MODELS)


def losses_of(model: DiffusionModel, modes: Sequence[Conditioning] = ("text", "class")) -> dict[str, Tensor]:
    batch = len(modes)
    drawn = model.draw(batch, torch.Generator().manual_seed(0))
    return model.training_losses(clips_of(model, batch), [1] * batch, [CAPTION] * batch, modes, drawn)


def fusion(**options: Any) -> VideoFusion:
    model = embedded("videofusion", **options)
    assert isinstance(model, VideoFusion)
    return model


def normals(*seeds: int) -> Normal:
    return normal_per_clip(seeds, CPU)


def reached(loss: Tensor, module: nn.Module) -> list[bool]:
    """Which parameters a loss teaches."""
    gradients = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True)
    return [g is not None and bool(g.any()) for g in gradients]


# Training.


@every_model
def test_the_other_terms_are_those_of_the_model_without(name: str) -> None:
    model = embedded(name, perturbed=False)
    bare = type(model)(_without(model))
    assert bare.frame_embedding is None
    state = model.state_dict()
    assert set(bare.state_dict()) == {key for key in state if not key.startswith("frame_embedding.")}
    bare.load_state_dict({key: state[key] for key in bare.state_dict()})
    # The projection begins at zero, and what is new is drawn after what was there before.
    terms, before = losses_of(model), losses_of(bare)
    assert set(terms) == {*before, "prior"}
    assert all(torch.equal(terms[term], value) for term, value in before.items())


def _without(model: DiffusionModel) -> Any:
    return model.config.with_embedding("none")


@every_model
def test_a_base_frame_changes_what_the_others_are_denoised_to(name: str) -> None:
    model = embedded(name)
    (picture, *_), frames = model.embedding_frames(), model.config.shape.frames
    assert picture == frames // 2 - 1
    x = clips_of(model, 1)
    said, known = torch.zeros(1, *model.null_conditioning(1).shape[1:]), torch.tensor([True])
    z = clips_of(model, 1, seed=1)
    seen = []
    for shown in (x, x.flip(4)):
        added, _ = part(model).encode_frames(shown[:, [picture]], known)
        seen.append(model.predict(z, TIMES[:1], said + added[:, 0]).x0)
    assert ((seen[0] - seen[1]).abs().amax((0, 2, 3, 4)) > 1e-6).all()


@every_model
def test_who_learns_from_which_term(name: str) -> None:
    model = embedded(name)
    modes: list[Conditioning] = ["text", "class", *NOTHING * 8]
    losses, embedding = losses_of(model, modes), part(model)
    prior = losses.pop("prior")
    assert all(reached(prior, embedding.prior))
    assert any(reached(prior, model.condition))  # what captions say of a picture is learnt here, too
    assert isinstance(embedding.encoder, nn.Module)
    for module in (embedding.encoder, embedding.projection):
        assert not any(reached(prior, module))  # or the encoder would make itself easy to predict
        assert all(reached(torch.stack(list(losses.values())).sum(), module))
    for term in losses.values():
        assert not any(reached(term, embedding.prior))


def test_only_clips_of_which_nothing_is_said_lose_the_embedding_and_half_of_those() -> None:
    modes: list[Conditioning] = ["text", "class", *NOTHING * 2000]
    known = keep_embedding(modes, part(fusion()).draw(len(modes), torch.Generator().manual_seed(0))["chance"])
    assert known[:2].all()
    assert 0.45 < float(known[2:].float().mean()) < 0.55


def test_what_is_not_known_has_a_vector_of_its_own() -> None:
    model = fusion()
    frames, known = clips_of(model)[:, :1], torch.tensor([True, False])
    added, embeddings = part(model).encode_frames(frames, known)
    assert torch.equal(added[1, 0], part(model).projection.unknown)
    assert torch.allclose(added[0, 0], part(model).projection.layer(embeddings[0, 0]))
    said = model.condition([0], [""], ["none"])
    assert torch.equal(model.null_conditioning(2), (said + added[1]).expand(2, -1))


def test_each_image_is_shown_with_its_own_embedding() -> None:
    model = fusion()
    assert model.images == 3
    conditions: dict[str, list[Tensor]] = {"base": [], "residual": []}
    for network, seen in conditions.items():
        model.get_submodule(network).register_forward_pre_hook(
            lambda _, arguments, seen=seen: seen.append(arguments[2].detach())
        )
    losses_of(model)
    x, said = clips_of(model), model.condition([1, 1], [CAPTION] * 2, ["text", "class"])
    added, _ = part(model).encode_frames(x[:, [1, 0, 1, 3]], torch.tensor([True, True]))
    wanted = (said[:, None] + added).detach()
    (of_base, of_images), (of_residual,) = conditions["base"], conditions["residual"]
    assert torch.equal(of_base, of_residual)
    assert torch.allclose(of_base, wanted[:, 0], atol=1e-6)
    assert torch.allclose(of_images, wanted[:, 1:].flatten(0, 1), atol=1e-6)


# The prior.


class Told(nn.Module):
    """A prior that says one thing, and remembers what it was asked."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer, self.asked = answer, 0

    def forward(self, z: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        self.asked += 1
        return self.answer


@pytest.fixture
def embedding() -> FrameEmbedding:
    return part(fusion())


def test_the_loss_of_the_prior_is_that_of_the_clean_embedding(embedding: FrameEmbedding) -> None:
    clean, said = normalise_vectors(randn(3, SIZE)), torch.zeros(3, 16)
    for answer, wanted in ((clean, 0.0), (torch.zeros_like(clean), 1.0), (-clean, 4.0)):  # of entries of size 1
        embedding.prior = Told(answer)  # type: ignore[assignment]  # stands in
        assert float(embedding.loss(clean, said, embedding.draw(3, torch.Generator()))) == pytest.approx(wanted)


@torch.no_grad()
def test_an_embedding_is_drawn_in_a_few_steps_and_has_the_length_of_a_real_one(embedding: FrameEmbedding) -> None:
    answer = randn(2, SIZE)
    told = Told(3 * answer)
    embedding.prior = told  # type: ignore[assignment]  # stands in
    added = embedding.sample_conditioning(torch.zeros(2, 16), normals(1, 2))
    assert told.asked == EMBEDDING["steps"]
    assert torch.allclose(added, embedding.projection(normalise_vectors(answer), torch.tensor([True, True])), atol=1e-5)


@torch.no_grad()
@every_model
def test_an_embedding_is_a_function_of_its_own_request(name: str) -> None:
    model = embedded(name)
    labels, captions = [3, 4, 4], [CAPTION] * 3
    modes: list[Conditioning] = ["text", "class", "class"]
    together = model.conditioning_vectors(labels, captions, modes, normals(7, 8, 9))
    for i, seed in enumerate((7, 8, 9)):
        alone = model.conditioning_vectors(labels[i : i + 1], captions[:1], modes[i : i + 1], normals(seed))
        assert torch.allclose(alone[0], together[i], atol=1e-5)
    assert not torch.isclose(together[1], together[2]).all()  # of one class, but drawn apart
    assert not torch.isclose(model.conditioning_vectors([3], [""], ["none"], normals(7)), together[0]).all()


@torch.no_grad()
def test_the_prior_feels_condition_noise_and_time(embedding: FrameEmbedding) -> None:
    z, t, said = randn(1, SIZE), torch.tensor([500]), randn(1, 16)
    before = embedding.prior(z, t, said)
    for other in ((z + 1, t, said), (z, t + 300, said), (z, t, said + 1)):
        assert not torch.isclose(embedding.prior(*other), before).all()


# The invariants of the method, which the embedding must not break.


def test_no_other_frame_teaches_the_base_generator() -> None:
    model = fusion()
    losses = losses_of(model)
    assert not any(reached(losses["residual"], model.base))
    assert all(reached(losses["base"] + losses["images"], model.base))


@torch.no_grad()
@pytest.mark.parametrize("solver", ["ddim", "dpm++2m"])
def test_the_base_noise_and_the_embedding_make_the_base_frame(solver: str) -> None:
    model = fusion()
    condition = model.conditioning_vectors([1, 2], [CAPTION] * 2, ["text", "class"], normals(1, 2))
    calls: list[torch.Size] = []
    model.base.register_forward_pre_hook(lambda _, arguments: calls.append(arguments[0].shape))
    base, m = randn(2, 1, 3, 8, 8, seed=1), model.noise_prior.base
    clips = [_made(model, base, randn(2, 4, 3, 8, 8, seed=seed), condition, solver) for seed in (2, 3)]
    assert torch.equal(clips[0][:, m], clips[1][:, m])  # bit for bit
    assert not torch.isclose(clips[0][:, m + 1], clips[1][:, m + 1]).all()
    assert calls == [(2, 1, 3, 8, 8)] * 8  # once a step, on one frame


def _made(model: VideoFusion, base: Tensor, residual: Tensor, condition: Tensor, solver: str) -> Tensor:
    z = model.noise_prior.combine(base, residual)
    denoise = denoiser_of(model, condition)
    return solve(denoise, z, model.schedule, steps=4, solver=solver, fresh_noise=lambda: torch.zeros_like(z))


# Sampling.


def sampler(name: str, folder: Path, **options: Any) -> Sampler:
    built: Sampler = plugins.module("model", name).build(setting(folder), **{"steps": 3, **options})
    return built


@every_model
@pytest.mark.parametrize("options", [{}, {"guidance": 2.0}, {"condition": "none"}], ids=str)
def test_a_clip_depends_on_its_request_alone(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    embedded(name).save(tmp_path)
    model, wanted = sampler(name, tmp_path, **options), requests(4, 5, 6)
    together = model.sample(wanted)
    alone = torch.cat([model.sample([request]) for request in reversed(wanted)]).flip(0)
    assert (together.int() - alone.int()).abs().max() <= 1
    assert torch.equal(model.sample(wanted), together)
    assert all(not torch.equal(together[0], clip) for clip in together[1:])


@every_model
def test_the_ledger_counts_the_prior_and_no_encoder(tmp_path: Path, name: str) -> None:
    model = embedded(name, steps=7)
    model.save(tmp_path)
    found = measure(sampler(name, tmp_path), requests(4)[0])
    assert found.calls["prior"] >= 7
    assert found.calls["projection"] >= 1
    networks = [model.condition, *model.networks().values()]
    assert found.parameters == sum(p.numel() for network in networks for p in network.parameters())
    assert isinstance(part(model).encoder, nn.Module)
    encoder = sum(p.numel() for p in part(model).get_submodule("encoder").parameters())
    assert found.parameters == sum(p.numel() for p in model.parameters()) - encoder


def test_saving_and_loading_gives_the_same_model(tmp_path: Path) -> None:
    saved = fusion()
    saved.save(tmp_path)
    loaded = videofusion.build(setting(tmp_path)).model
    assert loaded.config.options["embedding"] == EMBEDDING
    assert saved.state_dict().keys() == loaded.state_dict().keys()
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in saved.state_dict().items())


def test_a_configuration_with_a_strange_embedding_is_refused_naming_the_file(tmp_path: Path) -> None:
    fusion().save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"inner"', '"outer"'))
    with pytest.raises(MissingData, match=r"config\.json does not describe a videofusion .*outer"):
        videofusion.build(setting(tmp_path))


# Options, and learning.


@every_model
def test_every_model_takes_the_option_and_has_a_preset_with_it(name: str) -> None:
    create = plugins.module("model", name).create
    with torch.device("meta"):
        asked, preset = create(tiny_dataset(), embedding=LEARNT), create(tiny_dataset(), "tiny-prior")
        without = create(tiny_dataset(), "tiny-prior", embedding="none")
    assert asked.config.options == preset.config.options
    assert preset.config.options["embedding"] == embedding_options()
    assert without.config.options == create(tiny_dataset()).config.options
    assert without.frame_embedding is None


class OneClip(Shapes):
    """A dataset whose train split shows one clip over and over."""

    def clips(self, split: Any, indices: Any, device: torch.device | None = None) -> Tensor:
        return super().clips(split, [0] * len(indices) if split == "train" else indices, device)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sample sheets: they take longer than a tiny training."""
    monkeypatch.setattr(Trainer, "write_preview", lambda run: None)


ENCODERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    LEARNT: lambda folder: EMBEDDING,
    "clip": lambda folder: embedding_options(str(saved_clip(folder / "clip"))),
}


CASES = [("vdm", LEARNT), ("videofusion", LEARNT), ("vdm", "clip")]


@pytest.mark.parametrize(("name", "encoder"), CASES)
def test_every_term_falls_by_a_fifth_in_40_steps(quiet: None, tmp_path: Path, name: str, encoder: str) -> None:
    model = MODELS[name](ENCODERS[encoder](tmp_path))
    before = _of_one_clip(model)
    train(model, OneClip(tiny_dataset().shape), replace(OPTIONS, steps=40), tmp_path / "x")
    after = _of_one_clip(model)
    assert all(after[term] < 0.8 * value for term, value in before.items()), (before, after)


def _of_one_clip(model: DiffusionModel) -> dict[str, float]:
    """The terms on one clip at many times."""
    clip = tiny_dataset().clips("train", [0] * 32).float() / 127.5 - 1
    with torch.no_grad():
        drawn = model.draw(32, torch.Generator().manual_seed(7))
        losses = model.training_losses(clip, [0] * 32, [""] * 32, ["none"] * 32, drawn)
    return {term: float(loss) for term, loss in losses.items()}


@pytest.mark.parametrize(("name", "encoder"), CASES)
def test_stopped_and_resumed_is_uninterrupted_bit_for_bit(quiet: None, tmp_path: Path, name: str, encoder: str) -> None:
    options, asked = ENCODERS[encoder](tmp_path), iter([False, True])
    train(MODELS[name](options), tiny_dataset(), OPTIONS, tmp_path / "whole")
    train(MODELS[name](options), tiny_dataset(), OPTIONS, tmp_path / "parts", stop=lambda: next(asked))
    resumed = MODELS[name](options)
    perturb(resumed)  # the initial weights of the new process do not matter
    train(resumed, tiny_dataset(), OPTIONS, tmp_path / "parts", resume=True)
    whole, parts = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "parts"))
    assert whole == parts


def test_the_command_runs_a_checkpoint_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vfbench: Command) -> None:
    sizes = {"base": {**NO_TIME, "patch": 4}, "residual": {**UNET, "patch": 4}, "embedding": EMBEDDING}
    monkeypatch.setitem(videofusion.PRESETS, "minute", {**videofusion.PRESETS["tiny"], **sizes})
    model, data = training.prepare_training("videofusion", "shapes", "minute")
    model.save(tmp_path / "model")
    asked = ["--model", "videofusion", "--dataset", "shapes", "--smoke", "--device", "cpu", "--steps", 2]
    done = vfbench("run", *asked, "--checkpoint", tmp_path / "model", "--output", tmp_path / "run")
    assert done.code == 0, done.err
    result = results(tmp_path / "run")
    assert set(result["scores"]) == {"fvd", "kvd", "is", "clipsim"}
    assert result["cost"]["calls"]["prior"] >= EMBEDDING["steps"]
    assert data.shape == model.config.shape
