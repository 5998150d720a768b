"""Noise priors against their closed forms: noise is linear in the normals it is made of, so covariances are exact."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
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


def mixing(prior: NoisePrior, frames: int) -> Tensor:
    """(normals, frames): how much of each independent normal is in one pixel of each frame."""
    drawn: list[tuple[int, ...]] = []

    def count(shape: tuple[int, ...]) -> Tensor:
        drawn.append(shape)
        return torch.zeros(1, *shape, dtype=torch.float64)

    prior.noise(count, ClipShape(frames, 1, 1))
    sizes = [math.prod(shape) for shape in drawn]
    parts: Iterator[Tensor] = iter(torch.split(torch.eye(sum(sizes), dtype=torch.float64), sizes, dim=1))
    noise = prior.noise(lambda shape: next(parts).reshape(-1, *shape), ClipShape(frames, 1, 1))
    return noise[:, :, 0, 0, 0]


def covariance(prior: NoisePrior, frames: int) -> Tensor:
    """(frames, frames), exact."""
    rows = mixing(prior, frames)
    return rows.T @ rows


def close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=0, atol=1e-12)


def of_lambdas(lam: Tensor) -> Tensor:
    """The covariance that the lambdas promise."""
    return (lam[:, None] * lam).sqrt().fill_diagonal_(1.0)


lengths = st.integers(1, 12)
schedules = st.sampled_from(SCHEDULES)


def a_place(data: st.DataObject, frames: int) -> int | str:
    return data.draw(st.one_of(st.sampled_from(PLACES), st.integers(0, frames - 1)))


# VideoFusion's split.


@quick
@given(lengths, unit, schedules, st.data())
def test_frames_have_unit_variance_and_the_covariance_of_their_lambdas(
    frames: int, lam: float, schedule: str, data: st.DataObject
) -> None:
    prior = Decomposed(frames, lam, base=a_place(data, frames), schedule=schedule)
    assert float(prior.lam[prior.base]) == 1
    assert float(prior.lam.min()) >= 0
    assert close(covariance(prior, frames), of_lambdas(prior.lam))


@quick
@given(st.lists(unit, min_size=1, max_size=12), st.data())
def test_so_they_do_with_a_lambda_of_their_own_each(lam: list[float], data: st.DataObject) -> None:
    base = data.draw(st.integers(0, len(lam) - 1))
    lam = [*lam[:base], 1.0, *lam[base + 1 :]]
    prior = Decomposed(len(lam), lam, base=base)
    assert close(covariance(prior, len(lam)), of_lambdas(torch.tensor(lam, dtype=torch.float64)))


@quick
@given(lengths, schedules, st.data())
def test_lambda_0_is_independent_noise_on_every_schedule(frames: int, schedule: str, data: st.DataObject) -> None:
    prior = Decomposed(frames, 0.0, base=a_place(data, frames), schedule=schedule)
    assert close(covariance(prior, frames), torch.eye(frames, dtype=torch.float64))


@pytest.mark.parametrize("base", PLACES)
def test_lambda_1_shares_everything(base: str) -> None:
    shape, seeds = ClipShape(4, 2, 2), [3, 4]
    shared = Decomposed(4, 1.0, base=base).noise(normal_per_clip(seeds, CPU), shape)
    assert torch.equal(shared, shared[:, :1].expand_as(shared))


def test_the_base_frame_has_the_base_noise_and_lambda_0_nothing_of_it() -> None:
    shape, seeds = ClipShape(4, 2, 2), [3, 4]
    normal = normal_per_clip(seeds, CPU)
    base, residual = normal((1, 3, 2, 2)), normal((4, 3, 2, 2))
    apart = Decomposed(4, 0.0).noise(normal_per_clip(seeds, CPU), shape)
    assert torch.equal(apart[:, 1], base[:, 0])
    assert torch.equal(apart[:, [0, 2, 3]], residual[:, [0, 2, 3]])


@pytest.mark.parametrize(("frames", "base"), [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (16, 7)])
def test_the_base_frame_is_the_middle_counted_from_1(frames: int, base: int) -> None:
    prior = Decomposed(frames)
    assert prior.base == base
    assert prior.lam.tolist() == [1.0 if i == base else 0.5 for i in range(frames)]


@pytest.mark.parametrize(("base", "place"), [("first", 0), ("middle", 2), ("last", 5), (0, 0), (3, 3), (5, 5)])
def test_the_base_frame_has_any_place(base: int | str, place: int) -> None:
    assert Decomposed(6, base=base).base == place
    assert Decomposed(6, base=base).lam.tolist() == [1.0 if i == place else 0.5 for i in range(6)]


def test_schedules_fall_with_the_distance_from_the_base_frame() -> None:
    linear = Decomposed(5, 0.8, base=1, schedule="linear").lam  # distances 1 0 1 2 3, over 4
    assert linear.tolist() == pytest.approx([0.6, 1, 0.6, 0.4, 0.2])
    cosine = Decomposed(5, 0.8, base=1, schedule="cosine").lam
    assert cosine.tolist() == pytest.approx([0.8 * math.cos(d * math.pi / 8) ** 2 if d else 1 for d in (1, 0, 1, 2, 3)])


def test_a_list_says_the_lambda_of_each_frame() -> None:
    assert Decomposed(4, [0.1, 0.2, 1.0, 0.4], base=2).lam.tolist() == [0.1, 0.2, 1.0, 0.4]


@pytest.mark.parametrize(
    ("lam", "options", "named"),
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
def test_what_does_not_fit_is_refused_naming_it(lam: float | list[float], options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
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
def test_frames_share_noise_where_more_than_one_has_some_of_the_base(prior: SharedNoisePrior, shares: bool) -> None:
    frames = len(prior.lam) if isinstance(prior, Decomposed) else 4
    assert prior.shares_noise == shares == bool(covariance(prior, frames).fill_diagonal_(0.0).any())


def test_a_prior_that_does_not_say_how_it_shares_cannot_be_made() -> None:
    class Silent(SharedNoisePrior):
        pass

    with pytest.raises(TypeError, match=r"abstract method '?combine"):
        Silent()  # type: ignore[abstract]


def test_a_seed_fixes_the_base_noise_whatever_the_length() -> None:
    long, short = (
        Decomposed(frames).noise(normal_per_clip([5, 6], CPU), ClipShape(frames, 4, 4)) for frames in (16, 4)
    )
    assert torch.equal(long[:, 7], short[:, 1])
    assert not torch.equal(long[0, 7], long[1, 7])


def test_the_default_draws_as_it_always_has() -> None:
    # Shipped checkpoints give their clips from these numbers: b first, then r, in float32.
    generator = torch.Generator().manual_seed(9)
    base, residual = torch.randn(1, 3, 2, 2, generator=generator), torch.randn(4, 3, 2, 2, generator=generator)
    half = torch.tensor(0.5).sqrt()
    expected = half * base + half * residual
    expected[1] = base[0]
    assert torch.equal(Decomposed(4).noise(normal_per_clip([9], CPU), ClipShape(4, 2, 2))[0], expected)


# PYoCo's noise.


@quick
@given(lengths, st.floats(0, 100))
def test_mixed_noise_has_one_correlation_for_all_pairs(frames: int, alpha: float) -> None:
    expected = torch.full((frames, frames), alpha**2 / (1 + alpha**2), dtype=torch.float64).fill_diagonal_(1.0)
    assert close(covariance(Mixed(alpha), frames), expected)


@quick
@given(lengths, st.floats(0, 100))
def test_progressive_noise_forgets_by_the_same_factor_each_frame(frames: int, alpha: float) -> None:
    places = torch.arange(frames)
    distance = (places[:, None] - places).abs()
    expected = torch.tensor(alpha / math.sqrt(1 + alpha**2), dtype=torch.float64) ** distance
    assert close(covariance(Progressive(alpha), frames), expected)


def test_the_recommended_alphas_are_the_defaults() -> None:
    assert float(covariance(Mixed(), 2)[0, 1]) == pytest.approx(0.5)
    assert float(covariance(Progressive(), 2)[0, 1]) == pytest.approx(0.894, abs=5e-4)


@pytest.mark.parametrize("base", [0, 7, 15])
def test_mixed_noise_at_alpha_1_is_videofusions_at_one_half_but_for_the_base_frame(base: int) -> None:
    others = [i for i in range(16) if i != base]
    mixed, split = covariance(Mixed(1.0), 16), covariance(Decomposed(16, 0.5, base=base), 16)
    assert close(mixed[others][:, others], split[others][:, others])
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


def test_alpha_may_be_a_whole_number(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_drawn_noise_has_the_exact_covariance(name: str) -> None:
    normal: Normal = normal_per_batch(8000, torch.Generator().manual_seed(0))
    draws = PRIORS[name].noise(normal, ClipShape(4, 1, 1)).transpose(1, 2).reshape(-1, 4).double()
    expected = covariance(PRIORS[name], 4)
    error = ((1 + expected**2) / len(draws)) ** 0.5  # of a covariance of unit normals
    assert ((torch.cov(draws.T) - expected).abs() < 5 * error).all()
    assert (draws.mean(0).abs() < 5 / len(draws) ** 0.5).all()


def test_independent_noise_has_no_covariance() -> None:
    assert close(covariance(Independent(), 4), torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("name", PRIORS)
def test_pixels_and_colours_are_independent(name: str) -> None:
    def once(shape: tuple[int, ...]) -> Tensor:
        """All zero but for the first pixel of the first colour."""
        noise = torch.zeros(1, *shape)
        noise[..., 0, 0, 0] = 1.0
        return noise

    noise = PRIORS[name].noise(once, ClipShape(4, 2, 2))
    assert (noise[:, :, 0, 0, 0] > 0).all()
    assert float(noise.abs().sum()) == pytest.approx(float(noise[:, :, 0, 0, 0].sum()))


@pytest.mark.parametrize("name", PRIORS)
def test_a_clips_noise_is_the_same_in_any_batch_and_order(name: str) -> None:
    shape, prior = ClipShape(4, 3, 5), PRIORS[name]

    def two_draws(seeds: Sequence[int]) -> Tensor:
        normal = normal_per_clip(seeds, CPU)
        return torch.stack([prior.noise(normal, shape), prior.noise(normal, shape)], dim=1)

    together = two_draws([11, 12, 13])
    assert together.shape == (3, 2, 4, 3, 3, 5)
    assert torch.equal(two_draws([13, 11, 12]), together[[2, 0, 1]])
    assert torch.equal(two_draws([12])[0], together[1])
    assert len(torch.unique(together[:, :, 0, 0, 0, 0])) == 6  # clips and draws differ
