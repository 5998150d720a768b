"""Tests of `vfbench.diffusion.priors`: covariances, which are exact since noise is linear in independent normals."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vfbench.diffusion.priors import (
    MAX_ALPHA,
    Decomposed,
    Independent,
    Mixed,
    NoisePrior,
    Normal,
    Progressive,
    SharedNoisePrior,
    covariance,
    motion_information,
    normal_per_batch,
    normal_per_clip,
)
from vfbench.errors import UserError
from vfbench.interfaces import ClipShape

CPU = torch.device("cpu")
SCHEDULES = ("constant", "linear", "cosine")
PLACES = ("first", "middle", "last")
quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)
unit = st.floats(0, 1)


def all_close(actual: Tensor, expected: Tensor) -> bool:
    return torch.allclose(actual, expected, rtol=0, atol=1e-12)


def expected_covariance(lam: Tensor) -> Tensor:
    """Covariance of frames that follows from their lambdas."""
    return (lam[:, None] * lam).sqrt().fill_diagonal_(1.0)


lengths = st.integers(1, 12)
schedules = st.sampled_from(SCHEDULES)


def any_base_frame(data: st.DataObject, frames: int) -> int | str:
    return data.draw(st.one_of(st.sampled_from(PLACES), st.integers(0, frames - 1)))


# Decomposed noise of VideoFusion.


@quick
@given(lengths, unit, schedules, st.data())
def test_covariance_follows_from_lambda(frames: int, lam: float, schedule: str, data: st.DataObject) -> None:
    prior = Decomposed(frames, lam, base=any_base_frame(data, frames), schedule=schedule)
    assert float(prior.lam[prior.base]) == 1
    assert float(prior.lam.min()) >= 0
    assert all_close(covariance(prior, frames), expected_covariance(prior.lam))


@quick
@given(st.lists(unit, min_size=1, max_size=12), st.data())
def test_covariance_follows_from_a_list_of_lambdas(lam: list[float], data: st.DataObject) -> None:
    base = data.draw(st.integers(0, len(lam) - 1))
    lam = [*lam[:base], 1.0, *lam[base + 1 :]]
    prior = Decomposed(len(lam), lam, base=base)
    assert all_close(covariance(prior, len(lam)), expected_covariance(torch.tensor(lam, dtype=torch.float64)))


@quick
@given(lengths, schedules, st.data())
def test_lambda_0_is_independent_noise_on_every_schedule(frames: int, schedule: str, data: st.DataObject) -> None:
    prior = Decomposed(frames, 0.0, base=any_base_frame(data, frames), schedule=schedule)
    assert all_close(covariance(prior, frames), torch.eye(frames, dtype=torch.float64))


@pytest.mark.parametrize("base", PLACES)
def test_with_lambda_1_all_frames_are_equal(base: str) -> None:
    shape, seeds = ClipShape(4, 2, 2), [3, 4]
    shared = Decomposed(4, 1.0, base=base).noise(normal_per_clip(seeds, CPU), shape)
    assert torch.equal(shared, shared[:, :1].expand_as(shared))


def test_with_lambda_0_only_the_base_frame_has_the_base_noise() -> None:
    shape, seeds = ClipShape(4, 2, 2), [3, 4]
    normal = normal_per_clip(seeds, CPU)
    base, residual = normal((1, 3, 2, 2)), normal((4, 3, 2, 2))
    independent = Decomposed(4, 0.0).noise(normal_per_clip(seeds, CPU), shape)
    assert torch.equal(independent[:, 1], base[:, 0])
    assert torch.equal(independent[:, [0, 2, 3]], residual[:, [0, 2, 3]])


@pytest.mark.parametrize(("frames", "base"), [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (16, 7)])
def test_the_base_frame_is_the_middle_counted_from_1(frames: int, base: int) -> None:
    prior = Decomposed(frames)
    assert prior.base == base
    assert prior.lam.tolist() == [1.0 if i == base else 0.5 for i in range(frames)]


@pytest.mark.parametrize(("base", "place"), [("first", 0), ("middle", 2), ("last", 5), (0, 0), (3, 3), (5, 5)])
def test_the_base_frame_can_be_chosen(base: int | str, place: int) -> None:
    assert Decomposed(6, base=base).base == place
    assert Decomposed(6, base=base).lam.tolist() == [1.0 if i == place else 0.5 for i in range(6)]


def test_scheduled_lambdas_fall_with_the_distance_from_the_base_frame() -> None:
    linear = Decomposed(5, 0.8, base=1, schedule="linear").lam  # distances 1 0 1 2 3, over 4
    assert linear.tolist() == pytest.approx([0.6, 1, 0.6, 0.4, 0.2])
    cosine = Decomposed(5, 0.8, base=1, schedule="cosine").lam
    assert cosine.tolist() == pytest.approx([0.8 * math.cos(d * math.pi / 8) ** 2 if d else 1 for d in (1, 0, 1, 2, 3)])


def test_a_list_sets_the_lambda_of_each_frame() -> None:
    assert Decomposed(4, [0.1, 0.2, 1.0, 0.4], base=2).lam.tolist() == [0.1, 0.2, 1.0, 0.4]


@pytest.mark.parametrize(
    ("lam", "options", "message"),
    [
        (-0.1, {}, r"lambda -0\.1"),
        (1.1, {}, r"lambda 1\.1"),
        (math.nan, {"schedule": "linear"}, "lambda nan"),
        ([0.5, 1.0, 1.5, 0.5], {}, r"lambda 1\.5 of frame 2"),
        ([0.5, 1.0, 0.5], {}, "3 values, the clip 4 frames"),
        ([0.5, 0.5, 0.5, 0.5], {}, r"lambda 0\.5 of frame 1: it is the base frame"),
        ([0.5, 1.0, 0.5, 0.5], {"schedule": "linear"}, "lambda schedule 'linear': .* not a list"),
        (0.5, {"schedule": "cosinus"}, "did you mean 'cosine'"),
        (0.5, {"base": "midle"}, "did you mean 'middle'"),
        (0.5, {"base": 4}, "base frame 4: a clip of 4 frames has 0 to 3"),
        (0.5, {"base": -1}, "base frame -1"),
    ],
    ids=str,
)
def test_invalid_lambdas_and_base_frames_are_refused(
    lam: float | list[float], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Decomposed(4, lam, **options)


@pytest.mark.parametrize(
    ("prior", "shares"),
    [
        (Decomposed(4), True),
        (Decomposed(4, 0.0), False),
        (Decomposed(4, [0.0, 1.0, 0.0, 0.0]), False),
        (Decomposed(4, [0.0, 1.0, 0.0, 1e-3]), True),
        (Decomposed(1), False),
        (Mixed(), True),
        (Mixed(0.0), False),
    ],
)
def test_shares_noise_follows_from_the_covariance(prior: SharedNoisePrior, shares: bool) -> None:
    frames = len(prior.lam) if isinstance(prior, Decomposed) else 4
    assert prior.shares_noise == shares == bool(covariance(prior, frames).fill_diagonal_(0.0).any())


def test_a_shared_prior_without_combine_is_refused() -> None:
    class Incomplete(SharedNoisePrior):
        pass

    with pytest.raises(TypeError, match=r"abstract method '?combine"):
        Incomplete()  # type: ignore[abstract]


def test_a_seed_fixes_the_base_noise_at_any_length() -> None:
    long, short = (
        Decomposed(frames).noise(normal_per_clip([5, 6], CPU), ClipShape(frames, 4, 4)) for frames in (16, 4)
    )
    assert torch.equal(long[:, 7], short[:, 1])
    assert not torch.equal(long[0, 7], long[1, 7])


def test_default_noise_is_pinned() -> None:
    # Recorded clips depend on this order: base noise first, then residual noise, in float32.
    generator = torch.Generator().manual_seed(9)
    base, residual = torch.randn(1, 3, 2, 2, generator=generator), torch.randn(4, 3, 2, 2, generator=generator)
    half = torch.tensor(0.5).sqrt()
    expected = half * base + half * residual
    expected[1] = base[0]
    assert torch.equal(Decomposed(4).noise(normal_per_clip([9], CPU), ClipShape(4, 2, 2))[0], expected)


# Noise of PYoCo.


@quick
@given(lengths, st.floats(0, 100))
def test_mixed_noise_has_one_correlation_for_all_pairs(frames: int, alpha: float) -> None:
    expected = torch.full((frames, frames), alpha**2 / (1 + alpha**2), dtype=torch.float64).fill_diagonal_(1.0)
    assert all_close(covariance(Mixed(alpha), frames), expected)


@quick
@given(lengths, st.floats(0, 100))
def test_progressive_noise_has_geometric_correlation(frames: int, alpha: float) -> None:
    places = torch.arange(frames)
    distance = (places[:, None] - places).abs()
    expected = torch.tensor(alpha / math.sqrt(1 + alpha**2), dtype=torch.float64) ** distance
    assert all_close(covariance(Progressive(alpha), frames), expected)


def test_the_recommended_alphas_are_the_defaults() -> None:
    assert float(covariance(Mixed(), 2)[0, 1]) == pytest.approx(0.5)
    assert float(covariance(Progressive(), 2)[0, 1]) == pytest.approx(0.894, abs=5e-4)


@pytest.mark.parametrize("base", [0, 7, 15])
def test_mixed_noise_at_alpha_1_equals_decomposed_at_one_half_without_base(base: int) -> None:
    others = [i for i in range(16) if i != base]
    mixed, split = covariance(Mixed(1.0), 16), covariance(Decomposed(16, 0.5, base=base), 16)
    assert all_close(mixed[others][:, others], split[others][:, others])
    assert split[base, others].tolist() == pytest.approx([0.5**0.5] * 15)
    assert mixed[base, others].tolist() == pytest.approx([0.5] * 15)


@pytest.mark.parametrize("prior", [Mixed, Progressive])
@pytest.mark.parametrize("alpha", [-0.5, 1.1e6, 1e200, math.inf, math.nan])
def test_an_alpha_out_of_range_is_refused(prior: type[Mixed] | type[Progressive], alpha: float) -> None:
    with pytest.raises(UserError, match=re.escape(f"alpha {alpha}: choose a number from 0")):
        prior(alpha)


@pytest.mark.parametrize("prior", [Mixed, Progressive])
def test_the_largest_alpha_has_noise_of_unit_variance(prior: type[Mixed] | type[Progressive]) -> None:
    noise = prior(MAX_ALPHA).noise(normal_per_clip([3], CPU), ClipShape(8, 32, 32))
    assert float(noise.var()) == pytest.approx(1, abs=5 * (2 / 3072) ** 0.5)


def test_alpha_may_be_an_integer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    assert Mixed(1).alpha == Progressive(1).alpha == 1.0


# All priors.

PRIORS: dict[str, NoisePrior] = {
    "independent": Independent(),
    "mixed": Mixed(),
    "progressive": Progressive(),
    "decomposed": Decomposed(4),
    "list": Decomposed(4, [0.1, 0.9, 0.4, 1.0], base="last"),
}


@pytest.mark.parametrize("name", PRIORS)
def test_sampled_noise_has_the_exact_covariance(name: str) -> None:
    normal: Normal = normal_per_batch(8000, torch.Generator().manual_seed(0))
    draws = PRIORS[name].noise(normal, ClipShape(4, 1, 1)).transpose(1, 2).reshape(-1, 4).double()
    expected = covariance(PRIORS[name], 4)
    error = ((1 + expected**2) / len(draws)) ** 0.5  # of a covariance of unit normals
    assert ((torch.cov(draws.T) - expected).abs() < 5 * error).all()
    assert (draws.mean(0).abs() < 5 / len(draws) ** 0.5).all()


@pytest.mark.parametrize(
    ("prior", "frames", "expected"),
    [
        (Independent(), 16, 1.0),
        (Independent(), 1, 1.0),
        (Mixed(0.0), 5, 1.0),
        (Mixed(1.0), 2, 4 / 3),  # C^-1 of two frames at correlation 1/2
        (Progressive(1.0), 2, 2.0),  # at correlation sqrt(1/2)
        (Decomposed(2, 0.5), 2, 2.0),
    ],
)
def test_motion_stands_out_more_from_shared_noise(prior: NoisePrior, frames: int, expected: float) -> None:
    assert motion_information(prior, frames) == pytest.approx(expected)


def test_independent_noise_has_no_covariance() -> None:
    assert all_close(covariance(Independent(), 4), torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("name", PRIORS)
def test_pixels_and_colours_are_independent(name: str) -> None:
    def one_pixel(shape: tuple[int, ...]) -> Tensor:
        """Zeros but for the first pixel of the first colour."""
        noise = torch.zeros(1, *shape)
        noise[..., 0, 0, 0] = 1.0
        return noise

    noise = PRIORS[name].noise(one_pixel, ClipShape(4, 2, 2))
    assert (noise[:, :, 0, 0, 0] > 0).all()
    assert float(noise.abs().sum()) == pytest.approx(float(noise[:, :, 0, 0, 0].sum()))


@pytest.mark.parametrize("name", PRIORS)
def test_noise_of_a_clip_does_not_depend_on_the_batch(name: str) -> None:
    shape, prior = ClipShape(4, 3, 5), PRIORS[name]

    def two_draws(seeds: Sequence[int]) -> Tensor:
        normal = normal_per_clip(seeds, CPU)
        return torch.stack([prior.noise(normal, shape), prior.noise(normal, shape)], dim=1)

    batch = two_draws([11, 12, 13])
    assert batch.shape == (3, 2, 4, 3, 3, 5)
    assert torch.equal(two_draws([13, 11, 12]), batch[[2, 0, 1]])
    assert torch.equal(two_draws([12])[0], batch[1])
    assert len(torch.unique(batch[:, :, 0, 0, 0, 0])) == 6  # clips and draws differ
