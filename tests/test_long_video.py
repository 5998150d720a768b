"""Tests of `vfbench.diffusion.long_video`: clips longer than the model's, from windows that share the base noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import CPU, build_context, requests, tiny_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vfbench.diffusion.long_video import LongVideoPlan
from vfbench.diffusion.priors import Decomposed, Mixed, SharedNoisePrior
from vfbench.diffusion.sampler import DiffusionSampler
from vfbench.diffusion.schedule import Prediction
from vfbench.diffusion.solver_options import SOLVERS
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import BuildContext, ClipShape, Request, derive_seed
from vfbench.models import videofusion

quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def sampler(folder: Path, **options: Any) -> DiffusionSampler:
    return videofusion.build(build_context(folder), **{"steps": 2, **options})


# Windows.


@quick
@given(st.integers(1, 16), st.integers(0, 60), st.data())
def test_windows_cover_all_frames_and_count_each_once(length: int, more: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, length // 2)) if more else 0
    windows = LongVideoPlan.of(Mixed(), length, length + more, overlap)
    window_starts = list(windows.window_starts)
    assert window_starts[0] == 0
    assert window_starts[-1] + length >= length + more > window_starts[-1] + overlap  # enough windows, none superfluous
    total = torch.zeros(window_starts[-1] + length, 1, 1, 1, dtype=torch.float64)
    for start in window_starts:
        weights = windows.blend_weights(start)
        assert (weights > 0).all()
        total[start : start + length] += weights
    assert torch.allclose(total, torch.ones_like(total))


def covariance(prior: SharedNoisePrior, windows: LongVideoPlan, count: int = 4000) -> Tensor:
    """Covariance (T, T) of the frames of sampled noise."""
    shape = ClipShape(windows.length, 1, 1)
    noise = windows.noise(prior, shape, [Request(i, i, 0, "") for i in range(count)], CPU)()
    return torch.cov(noise.transpose(1, 2).reshape(-1, noise.shape[1]).T.double())


@pytest.mark.parametrize("overlap", [0, 1])
def test_noise_has_unit_variance_and_one_base_in_all_windows(overlap: int) -> None:
    prior, windows = Decomposed(4), LongVideoPlan.of(Decomposed(4), 4, 10, overlap)
    measured = covariance(prior, windows)
    lam = torch.cat([prior.lam, *[prior.lam[overlap:]] * (len(windows.window_starts) - 1)])
    expected = (lam[:, None] * lam).sqrt().fill_diagonal_(1.0)
    assert len(measured) == len(lam) >= 10
    assert torch.allclose(measured, expected, atol=5 * (2 / 12_000) ** 0.5)
    bases = [start + 1 for start in windows.window_starts]
    assert torch.allclose(measured[bases][:, bases], torch.ones(len(bases), len(bases)).double(), atol=0.1)


def test_mixed_noise_has_one_correlation_across_windows() -> None:
    measured = covariance(Mixed(1.0), LongVideoPlan.of(Mixed(1.0), 4, 10, 2))
    expected = torch.full_like(measured, 0.5).fill_diagonal_(1.0)
    assert torch.allclose(measured, expected, atol=5 * (2 / 12_000) ** 0.5)


def test_windows_do_not_change_a_framewise_denoiser() -> None:
    windows, z = (
        LongVideoPlan.of(Mixed(), 4, 10, 2),
        torch.randn(2, 10, 3, 2, 2, generator=torch.Generator().manual_seed(0)),
    )
    inputs: list[Tensor] = []

    def denoise(z: Tensor, t: int) -> Prediction:
        inputs.append(z)
        return Prediction(2 * z, z - t)

    prediction = windows.denoiser(denoise)(z, 7)
    assert torch.allclose(prediction.x0, 2 * z)
    assert torch.allclose(prediction.eps, z - 7, atol=1e-5)
    assert [part.shape[1] for part in inputs] == [4, 4, 4, 4]
    assert torch.equal(inputs[0][:, 2:], inputs[1][:, :2])  # equal inputs in the overlap


def test_overlapping_windows_are_blended_linearly() -> None:
    windows, z = LongVideoPlan.of(Mixed(), 6, 10, 2), torch.zeros(1, 10, 3, 2, 2)
    outputs = iter([torch.zeros(1, 6, 3, 2, 2), torch.ones(1, 6, 3, 2, 2)])

    def denoise(z: Tensor, t: int) -> Prediction:
        output = next(outputs)
        return Prediction(output, -output)

    prediction = windows.denoiser(denoise)(z, 0)
    assert prediction.x0[0, :, 0, 0, 0].tolist() == pytest.approx([0, 0, 0, 0, 1 / 3, 2 / 3, 1, 1, 1, 1])
    assert torch.equal(prediction.eps, -prediction.x0)


@pytest.mark.parametrize(
    ("prior", "possible"),
    [
        (Decomposed(16), "0, 1, 2, 3, 4, 5, 6, 7"),
        (Decomposed(16, base="first"), "0"),
        (Decomposed(16, schedule="linear"), "0"),
        (Decomposed(16, 1.0), None),
    ],
    ids=["middle", "first", "linear", "all shared"],
)
def test_the_overlap_needs_equal_lambdas_in_both_windows(prior: Decomposed, possible: str | None) -> None:
    if possible is None:
        assert list(LongVideoPlan.of(prior, 16, 40, 8).window_starts) == [0, 8, 16, 24]
        return
    with pytest.raises(UserError, match=f"overlap 8: .*choose one of {possible}$"):
        LongVideoPlan.of(prior, 16, 40, 8)
    for overlap in map(int, possible.split(", ")):
        LongVideoPlan.of(prior, 16, 40, overlap)


# Clips.


@pytest.mark.one_case
@pytest.mark.parametrize("solver", SOLVERS)
def test_without_overlap_every_window_is_a_separate_short_clip(checkpoint: Path, solver: str) -> None:
    short, long = sampler(checkpoint, solver=solver), sampler(checkpoint, solver=solver, frames=10)
    (request,) = requests(4)
    clip = long.sample([request])
    assert (long.shape, clip.shape) == (ClipShape(10, 8, 8), (1, 10, 3, 8, 8))
    assert torch.equal(clip[:, :4], short.sample([request]))
    seeds = [derive_seed(request.seed, window, "window") for window in (1, 2)]
    others = [short.sample([replace(request, seed=seed, base=request.seed)]) for seed in seeds]
    assert torch.equal(clip[:, 4:8], others[0])
    assert torch.equal(clip[:, 8:], others[1][:, :2])  # the last window is truncated
    assert torch.equal(clip[:, 5], clip[:, 1])  # one base frame
    assert not torch.equal(clip[:, 4:8], clip[:, :4])


@pytest.mark.one_case
@pytest.mark.parametrize("options", [{}, {"overlap": 1}, {"overlap": 1, "solver": "ddpm", "threshold": 0.9}], ids=str)
def test_a_long_clip_depends_on_its_request_only(checkpoint: Path, options: dict[str, Any]) -> None:
    model, batch = sampler(checkpoint, frames=11, **options), requests(4, 5, 6)
    together = model.sample(batch)
    assert torch.equal(together, model.sample(batch))
    alone = torch.cat([model.sample([request]) for request in reversed(batch)]).flip(0)
    assert (together.int() - alone.int()).abs().max() <= 1
    assert (together[0].int() - together[1].int()).abs().max() > 20


def test_the_base_of_another_clip_is_used_in_every_window(checkpoint: Path) -> None:
    model, (first, second) = sampler(checkpoint, frames=8, solver="ddim"), requests(4, 4)
    moved = replace(second, seed=77, base=first.seed)
    clips = model.sample([first]), model.sample([moved])
    assert torch.equal(clips[0][:, [1, 5]], clips[1][:, [1, 5]])
    assert not torch.equal(clips[0][:, 0], clips[1][:, 0])


@pytest.mark.slow
def test_a_clip_of_512_frames_has_no_repeated_windows(checkpoint: Path) -> None:
    clip = sampler(checkpoint, frames=512, steps=1).sample(requests(4))
    assert clip.shape == (1, 512, 3, 8, 8)
    window_starts = range(0, 512, 4)
    assert len({bytes(clip[0, start : start + 4].numpy().tobytes()) for start in window_starts}) == len(window_starts)


def test_long_clips_fit_a_dataset_of_long_clips(checkpoint: Path) -> None:
    long = BuildContext(tiny_dataset(9), CPU, checkpoint=checkpoint)
    assert videofusion.build(long, frames=9).shape == tiny_dataset(9).shape
    with pytest.raises(MissingData, match=r"4x8x8.*9x8x8"):
        videofusion.build(long)
    with pytest.raises(MissingData, match=r"4x8x8.*9x16x16"):
        videofusion.build(BuildContext(tiny_dataset(9, 16), CPU, checkpoint=checkpoint), frames=9)
