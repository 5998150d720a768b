"""The options of sampling, as every built-in model takes them, and clips that share their base noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from embedded import embedded
from helpers import requests, setting, tiny_vdm, tiny_videofusion
from torch import Tensor

from vfbench import plugins
from vfbench.baselines import vdm
from vfbench.diffusion.priors import Decomposed, Independent, Mixed, Normal, Progressive, normal_per_clip
from vfbench.diffusion.sampler import DiffusionSampler, builder
from vfbench.diffusion.solvers import SOLVERS
from vfbench.errors import UserError
from vfbench.interfaces import Request
from vfbench.models import videofusion
from vfbench.models.videofusion import VideoFusion

MIDDLE = 1  # the base frame of four


def sampler(folder: Path, **options: Any) -> DiffusionSampler:
    return videofusion.build(setting(folder), **{"steps": 3, **options})


# Options.


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": 0}, "--steps 0: choose 1 to 1000"),
        ({"steps": 1001}, "--steps 1001: choose 1 to 1000"),
        ({"solver": "ddmp"}, "no solver called 'ddmp': did you mean 'ddpm'"),
        ({"eta": 0.5}, r"eta 0\.5: solver dpm\+\+2m has no eta"),
        ({"solver": "ddim", "eta": 1.1}, r"eta 1\.1: choose a number in \[0, 1\]"),
        ({"guidance": float("inf")}, "guidance inf: choose a finite number"),
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
def test_what_is_out_of_range_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, options: dict[str, Any], named: str
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no type checker around the code
    with pytest.raises(UserError, match=named):
        sampler(checkpoint, **options)


def test_guidance_of_a_clip_of_which_nothing_is_said_needs_an_embedding_to_lead_to(tmp_path: Path) -> None:
    embedded("videofusion").save(tmp_path)
    plain, led = (sampler(tmp_path, condition="none", guidance=guidance) for guidance in (1.0, 3.0))
    assert not torch.equal(plain.sample(requests(4)), led.sample(requests(4)))


def test_every_built_in_model_shows_the_same_options() -> None:
    shown = [plugins.options("model", name) for name in ("videofusion", "vdm", "pyoco", "vdit")]
    assert all(options == shown[0] for options in shown)
    assert shown[0].keys() == {"steps", "solver", "guidance", "condition", "eta", "threshold", "frames", "overlap"}
    assert (shown[0]["steps"], shown[0]["solver"]) == (25, "dpm++2m")


def test_a_model_may_have_defaults_of_its_own(tmp_path: Path) -> None:
    tiny_vdm().save(tmp_path)
    build = builder("vdm", vdm.VDM, steps=2, solver="ddim")
    own, said = build(setting(tmp_path)), vdm.build(setting(tmp_path), steps=2, solver="ddim")
    assert torch.equal(own.sample(requests(4)), said.sample(requests(4)))
    assert (build(setting(tmp_path), steps=7).sampling.steps, own.sampling.steps) == (7, 2)


def test_options_that_are_typed_reach_the_clips(checkpoint: Path) -> None:
    wanted = requests(4, 5)
    typed = plugins.load("model", "videofusion(steps=3, solver='ddim', eta=1)", setting(checkpoint))
    assert torch.equal(typed.sample(wanted), sampler(checkpoint, solver="ddpm").sample(wanted))
    assert torch.equal(
        sampler(checkpoint, solver="ddim", eta=0.0).sample(wanted), sampler(checkpoint, solver="ddim").sample(wanted)
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_works_in_few_steps_and_in_many(checkpoint: Path, solver: str) -> None:
    clips = [sampler(checkpoint, solver=solver, steps=steps).sample(requests(4)) for steps in (1, 2, 5, 10, 25)]
    assert all(not torch.equal(a, b) for i, a in enumerate(clips) for b in clips[:i])


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_more_steps_change_a_clip_less_and_less(checkpoint: Path, solver: str) -> None:
    # With fresh noise there is no limit of a single clip to come closer to.
    clips = [sampler(checkpoint, solver=solver, steps=steps).sample(requests(4, 5)).float() for steps in (10, 50, 100)]
    if solver != "ddpm":
        assert (clips[2] - clips[1]).abs().mean() < (clips[1] - clips[0]).abs().mean()
    assert all(torch.isfinite(clip).all() for clip in clips)


def test_dynamic_thresholding_tames_guidance_clip_by_clip(checkpoint: Path) -> None:
    wanted = requests(4, 5, 6)
    plain, tamed = (sampler(checkpoint, guidance=20.0, threshold=threshold) for threshold in (None, 0.9))
    together = tamed.sample(wanted)
    alone = torch.cat([tamed.sample([request]) for request in wanted])
    assert (together.int() - alone.int()).abs().max() <= 1

    def saturated(clips: Tensor) -> float:
        return float(((clips == 0) | (clips == 255)).float().mean())

    assert saturated(together) < 0.8 * saturated(plain.sample(wanted))


# A base noise of another clip.


def moved(wanted: Sequence[Request], base: int | None) -> list[Request]:
    return [replace(request, base=base) for request in wanted]


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_base_noise_makes_one_base_frame_and_other_motion(checkpoint: Path, solver: str) -> None:
    model, first = sampler(checkpoint, solver=solver), requests(4)[0]
    others = [replace(first, seed=seed, base=first.seed) for seed in (1, 2)]
    kept, *clips = (model.sample([request])[0] for request in (first, *others))
    for clip in clips:
        assert torch.equal(clip[MIDDLE], kept[MIDDLE])
        assert all(not torch.equal(clip[i], kept[i]) for i in (0, 2, 3))
    assert not torch.equal(clips[0], clips[1])
    assert not torch.equal(model.sample([replace(others[0], base=None)])[0, MIDDLE], kept[MIDDLE])


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_a_clips_own_seed_as_base_changes_nothing(checkpoint: Path, solver: str) -> None:
    model, wanted = sampler(checkpoint, solver=solver), requests(4, 5, 6)
    own = [replace(request, base=request.seed) for request in wanted]
    assert torch.equal(model.sample(own), model.sample(wanted))
    mixed = model.sample([wanted[0], replace(wanted[1], base=wanted[0].seed), wanted[2]])
    assert torch.equal(mixed[[0, 2]], model.sample(wanted)[[0, 2]])


@pytest.mark.parametrize("prior", [Decomposed(4), Mixed(1.0)], ids=["decomposed", "mixed"])
def test_it_has_the_shared_part_of_one_clip_and_the_own_part_of_the_other(
    checkpoint: Path, prior: Decomposed | Mixed
) -> None:
    model = sampler(checkpoint)
    shape, cpu = model.shape, model.device
    draw = model.window_plan.noise(prior, shape, [Request(0, 7, 0, "", base=9)], cpu)
    seventh, ninth = normal_per_clip([7], cpu), normal_per_clip([9], cpu)
    for _ in range(3):  # to begin with, and whenever a solver asks for more
        expected = prior.combine(prior.draw_parts(ninth, shape)[0], prior.draw_parts(seventh, shape)[1])
        assert torch.equal(draw(), expected)


def test_what_is_left_to_chance_in_the_condition_belongs_to_the_base(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
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


@pytest.mark.parametrize(
    "prior",
    [Independent(), Progressive(), Mixed(0.0), Decomposed(4, 0.0)],
    ids=["independent", "progressive", "alpha 0", "lambda 0"],
)
def test_a_model_whose_frames_share_nothing_refuses_it(tmp_path: Path, prior: Any) -> None:
    tiny_vdm().save(tmp_path)
    model = vdm.build(setting(tmp_path), steps=2)
    model.model.noise_prior = prior
    assert not model.shares_base
    assert sampler_of_videofusion_shares(tmp_path / "other")
    with pytest.raises(UserError, match=r"its frames share no noise; choose .*: videofusion"):
        model.sample(moved(requests(4), 1))
    with pytest.raises(UserError, match=r"frames 8: .*its frames share no noise"):
        DiffusionSampler(model.model, "none", model.device, sampling=replace(model.sampling, frames=8))


def sampler_of_videofusion_shares(folder: Path) -> bool:
    tiny_videofusion().save(folder)
    return sampler(folder).shares_base
