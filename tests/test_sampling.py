"""Tests of sampling options of diffusion models, and of requests that share their base noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from embedded import embedding_model
from helpers import build_context, requests, tiny_vdm, tiny_videofusion
from torch import Tensor

from vfbench import plugins
from vfbench.baselines import vdm
from vfbench.diffusion.priors import Decomposed, Independent, Mixed, Normal, Progressive, normal_per_clip
from vfbench.diffusion.sampler import DiffusionSampler
from vfbench.diffusion.solver_options import SOLVERS
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Conditioning, Request
from vfbench.models import videofusion
from vfbench.models.videofusion import VideoFusion

BASE_FRAME = 1  # of four frames


def sampler(folder: Path, **options: Any) -> DiffusionSampler:
    return videofusion.build(build_context(folder), **{"steps": 3, **options})


# Options.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "--steps 0: choose 1 to 1000"),
        ({"steps": 1001}, "--steps 1001: choose 1 to 1000"),
        ({"solver": "ddmp"}, "no solver called 'ddmp': did you mean 'ddpm'"),
        ({"eta": 0.5}, r"eta 0\.5: solver dpm\+\+2m has no eta"),
        ({"solver": "ddim", "eta": 1.1}, r"eta 1\.1: choose a number in \[0, 1\]"),
        ({"guidance": float("inf")}, "guidance inf: choose 0 to"),
        ({"guidance": float("nan")}, "guidance nan"),
        ({"guidance": 3.0, "condition": "none"}, r"guidance 3\.0 has no effect .*: leave it out"),
        ({"threshold": 0.0}, r"threshold 0\.0: .* between 0 and 1"),
        ({"threshold": 1.0}, r"threshold 1\.0"),
        ({"threshold": float("nan")}, "threshold nan"),
        ({"condition": "txt"}, "did you mean 'text'"),
        ({"frames": 3}, "frames 3: this model makes clips of 4 frames or longer"),
        ({"frames": 20_000}, "frames 20000: choose at most 10,000"),
        ({"overlap": 1}, "overlap 1: a clip of 4 frames is a single window"),
        ({"frames": 9, "overlap": -1}, "overlap -1: windows of 4 frames may share 0 to 2"),
        ({"frames": 9, "overlap": 3}, "overlap 3: windows of 4 frames may share 0 to 2"),
        ({"frames": 9, "overlap": 2}, "overlap 2: .* same lambda .* choose one of 0, 1$"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside of tests
    with pytest.raises(UserError, match=message):
        sampler(checkpoint, **options)


@pytest.mark.slow
def test_guidance_without_conditioning_uses_the_frame_embedding(tmp_path: Path) -> None:
    embedding_model("videofusion").save(tmp_path)
    plain, guided = (sampler(tmp_path, condition="none", guidance=guidance) for guidance in (1.0, 3.0))
    assert not torch.equal(plain.sample(requests(4)), guided.sample(requests(4)))


def test_built_in_models_have_the_same_options() -> None:
    videofusion_options, *others = (plugins.options("model", name) for name in ("videofusion", "vdm", "pyoco", "vdit"))
    assert all(options == videofusion_options for options in others)
    names = {"steps", "solver", "guidance", "condition", "eta", "threshold", "frames", "overlap", "preset"}
    assert videofusion_options.keys() == names
    assert videofusion_options["solver"] == "dpm++2m"


@pytest.mark.parametrize(
    ("sampling", "conditions", "options", "expected"),
    [
        ({}, {}, {}, (16, 1.0)),
        ({"steps": 3, "guidance": 2.0}, {}, {}, (3, 2.0)),
        ({"steps": 3, "guidance": 2.0}, {}, {"steps": 5, "guidance": 0.0}, (5, 0.0)),
        ({"steps": 3, "guidance": 2.0}, {}, {"condition": "none"}, (3, 1.0)),  # guidance has no effect
        ({"guidance": 2.0}, {"text": 1.0}, {}, (16, 1.0)),  # not trained without a caption
    ],
)
def test_a_preset_sets_steps_and_guidance(
    sampling: dict[str, float],
    conditions: dict[Conditioning, float],
    options: dict[str, Any],
    expected: tuple[int, float],
    tmp_path: Path,
) -> None:
    model = tiny_vdm()
    options_of_preset = {**model.config.options, "sampling": sampling}
    type(model)(replace(model.config, options=options_of_preset, conditions=conditions)).save(tmp_path)
    built = vdm.build(build_context(tmp_path), **options)
    assert (built.steps, built.guidance) == expected
    assert {
        "steps": expected[0],
        "guidance": expected[1],
        "solver": "dpm++2m",
    }.items() <= built.sampling_options.items()


@pytest.mark.parametrize(
    "sampling",
    [
        {"steps": 0},
        {"steps": "3"},
        {"steps": 3.5},
        {"steps": True},
        {"guidance": -1},
        {"guidance": None},
        {"eta": 1.0},
        3,
        [],
    ],
)
def test_damaged_sampling_options_of_a_preset_are_refused(sampling: Any, tmp_path: Path) -> None:
    model = tiny_vdm()
    type(model)(replace(model.config, options={**model.config.options, "sampling": sampling})).save(tmp_path)
    with pytest.raises(MissingData, match=r"sampling|steps|guidance"):
        vdm.build(build_context(tmp_path))


def test_options_in_a_spec_reach_the_sampler(checkpoint: Path) -> None:
    batch = requests(4, 5)
    from_spec = plugins.load("model", "videofusion(steps=3, solver='ddim', eta=1)", build_context(checkpoint))
    assert torch.equal(from_spec.sample(batch), sampler(checkpoint, solver="ddpm").sample(batch))
    assert torch.equal(
        sampler(checkpoint, solver="ddim", eta=0.0).sample(batch), sampler(checkpoint, solver="ddim").sample(batch)
    )


@pytest.mark.one_case
@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_work_with_few_and_many_steps(checkpoint: Path, solver: str) -> None:
    clips = [sampler(checkpoint, solver=solver, steps=steps).sample(requests(4)) for steps in (1, 2, 5, 10, 25)]
    assert all(not torch.equal(a, b) for i, a in enumerate(clips) for b in clips[:i])


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_clips_converge_with_more_steps(checkpoint: Path, solver: str) -> None:
    # ddpm adds fresh noise, so a single clip does not converge.
    clips = [sampler(checkpoint, solver=solver, steps=steps).sample(requests(4, 5)).float() for steps in (10, 50, 100)]
    if solver != "ddpm":
        assert (clips[2] - clips[1]).abs().mean() < (clips[1] - clips[0]).abs().mean()
    assert all(torch.isfinite(clip).all() for clip in clips)


def test_dynamic_thresholding_reduces_saturation_per_clip(checkpoint: Path) -> None:
    batch = requests(4, 5, 6)
    plain, thresholded = (sampler(checkpoint, guidance=20.0, threshold=threshold) for threshold in (None, 0.9))
    clips = thresholded.sample(batch)
    single_clips = torch.cat([thresholded.sample([request]) for request in batch])
    assert (clips.int() - single_clips.int()).abs().max() <= 1

    def saturated(clips: Tensor) -> float:
        return float(((clips == 0) | (clips == 255)).float().mean())

    assert saturated(clips) < 0.8 * saturated(plain.sample(batch))


# Base noise of another clip.


def with_base(batch: Sequence[Request], base: int | None) -> list[Request]:
    return [replace(request, base=base) for request in batch]


@pytest.mark.one_case
@pytest.mark.parametrize("solver", SOLVERS)
def test_equal_base_noise_gives_equal_base_frames_and_other_motion(checkpoint: Path, solver: str) -> None:
    model, first = sampler(checkpoint, solver=solver), requests(4)[0]
    others = [replace(first, seed=seed, base=first.seed) for seed in (1, 2)]
    reference, *clips = (model.sample([request])[0] for request in (first, *others))
    for clip in clips:
        assert torch.equal(clip[BASE_FRAME], reference[BASE_FRAME])
        assert all(not torch.equal(clip[i], reference[i]) for i in (0, 2, 3))
    assert not torch.equal(clips[0], clips[1])
    assert not torch.equal(model.sample([replace(others[0], base=None)])[0, BASE_FRAME], reference[BASE_FRAME])


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_the_seed_of_the_clip_as_base_changes_nothing(checkpoint: Path, solver: str) -> None:
    model, batch = sampler(checkpoint, solver=solver), requests(4, 5, 6)
    explicit = [replace(request, base=request.seed) for request in batch]
    assert torch.equal(model.sample(explicit), model.sample(batch))
    mixed = model.sample([batch[0], replace(batch[1], base=batch[0].seed), batch[2]])
    assert torch.equal(mixed[[0, 2]], model.sample(batch)[[0, 2]])


@pytest.mark.parametrize("prior", [Decomposed(4), Mixed(1.0)], ids=["decomposed", "mixed"])
def test_base_noise_of_one_seed_and_residual_noise_of_another(checkpoint: Path, prior: Decomposed | Mixed) -> None:
    model = sampler(checkpoint)
    shape, cpu = model.shape, model.device
    draw = model.window_plan.noise(prior, shape, [Request(0, 7, 0, "", base=9)], cpu)
    normal_7, normal_9 = normal_per_clip([7], cpu), normal_per_clip([9], cpu)
    for _ in range(3):  # initial noise, and each later draw of a solver
        expected = prior.combine(prior.draw_parts(normal_9, shape)[0], prior.draw_parts(normal_7, shape)[1])
        assert torch.equal(draw(), expected)


def test_random_conditioning_uses_the_base_seed(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    draws: list[Tensor] = []

    def conditioning_vectors(model: VideoFusion, labels: Any, captions: Any, modes: Any, normal: Normal) -> Tensor:
        draws.append(normal((4,)))
        vectors: Tensor = model.condition(labels, captions, modes)
        return vectors

    monkeypatch.setattr(VideoFusion, "conditioning_vectors", conditioning_vectors)
    first, second = requests(4, 5)
    sampler(checkpoint).sample([first, second, replace(second, base=first.seed)])
    assert torch.equal(draws[0][2], draws[0][0])
    assert not torch.equal(draws[0][1], draws[0][0])


@pytest.mark.one_case
@pytest.mark.parametrize(
    "prior",
    [Independent(), Progressive(), Mixed(0.0), Decomposed(4, 0.0)],
    ids=["independent", "progressive", "alpha 0", "lambda 0"],
)
def test_base_noise_is_refused_without_shared_noise(tmp_path: Path, prior: Any) -> None:
    tiny_vdm().save(tmp_path)
    model = vdm.build(build_context(tmp_path), steps=2)
    model.model.noise_prior = prior
    assert not model.shares_base
    assert videofusion_shares_base(tmp_path / "other")
    with pytest.raises(UserError, match=r"its frames share no noise; choose .*: videofusion"):
        model.sample(with_base(requests(4), 1))
    with pytest.raises(UserError, match=r"frames 8: .*its frames share no noise"):
        DiffusionSampler(model.model, "none", model.device, sampling=replace(model.sampling, frames=8))


def videofusion_shares_base(folder: Path) -> bool:
    tiny_videofusion().save(folder)
    return sampler(folder).shares_base
