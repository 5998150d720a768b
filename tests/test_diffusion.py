"""Schedules, priors, solvers and guidance against closed forms: Gaussian data has an exact denoiser."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import randn
from torch import Tensor

from vfbench.diffusion.priors import Decomposed, Independent, NoisePrior, normal_per_batch
from vfbench.diffusion.schedule import Parametrisation, Prediction, Schedule, clip_x0, to_prediction, v_target
from vfbench.diffusion.solvers import SOLVERS, Denoiser, guided, solve
from vfbench.errors import UserError
from vfbench.interfaces import ClipShape

SCHEDULES = ("cosine", "linear")
DETERMINISTIC = ("ddim", "dpm++2m")
COSINE = Schedule("cosine")
MEAN, STD = 0.3, 0.5  # of the Gaussian data
F64 = torch.float64


def gaussian(schedule: Schedule, mean: float = MEAN, std: float = STD) -> Denoiser:
    """E[x0 | z_t] for data N(mean, std^2), and the noise that then explains z_t."""

    def denoise(z: Tensor, t: int) -> Prediction:
        a = float(schedule.alpha_bar[t])
        x0 = mean + a**0.5 * std**2 / (a * std**2 + 1 - a) * (z - a**0.5 * mean)
        return Prediction(x0, (z - a**0.5 * x0) / (1 - a) ** 0.5)

    return denoise


def refused() -> Tensor:
    raise AssertionError("a deterministic solver asked for fresh noise")


def affine(solver: str, steps: int, schedule: Schedule = COSINE) -> tuple[float, float]:
    """With a linear denoiser a deterministic solver is x = slope z + shift: both, from z = 0 and z = 1."""
    z = torch.tensor([0.0, 1.0], dtype=F64).view(2, 1, 1, 1, 1)
    x = solve(gaussian(schedule), z, schedule, steps=steps, solver=solver, fresh_noise=refused).flatten()
    return float(x[1] - x[0]), float(x[0])


def standard_normal(seed: int, *shape: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=generator, dtype=F64)


# Schedules.


@pytest.mark.parametrize("name", SCHEDULES)
def test_alpha_bar_falls_from_almost_one_to_almost_zero(name: str) -> None:
    alpha_bar = Schedule(name).alpha_bar
    assert (alpha_bar.dtype, alpha_bar.shape) == (F64, (1000,))
    assert (alpha_bar.diff() < 0).all()
    assert 0.999 < alpha_bar[0] < 1
    assert 0 < alpha_bar[-1] < 1e-4


def test_cosine_is_the_published_formula() -> None:
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0, 1, 500, 900)]
    for t, value in zip((1, 500, 900), f[1:], strict=True):
        assert float(COSINE.alpha_bar[t - 1]) == pytest.approx(value / f[0], rel=1e-9)


def test_linear_is_that_of_ddpm_at_any_number_of_steps() -> None:
    assert float(Schedule("linear").alpha_bar[-1]) == pytest.approx(4.0358e-5, rel=1e-4)
    ends = [float(Schedule("linear", steps).alpha_bar[-1].log()) for steps in (200, 1000, 4000)]
    assert max(ends) / min(ends) == pytest.approx(1, abs=0.07)


def test_an_unknown_schedule_offers_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        Schedule("cosinus")


@pytest.mark.parametrize("count", [1, 2, 25, 333, 999, 1000])
def test_the_grid_starts_at_the_noisiest_and_falls(count: int) -> None:
    grid = COSINE.timesteps(count)
    assert (len(grid), grid[0]) == (count, 999)
    assert all(a > b for a, b in pairwise(grid))
    assert grid[-1] >= 0


def test_at_broadcasts_in_the_dtype_asked_for() -> None:
    a = COSINE.at(torch.tensor([0, 999]), torch.zeros(2, 4, 3, 8, 8))
    assert (a.shape, a.dtype) == ((2, 1, 1, 1, 1), torch.float32)
    assert a.flatten().tolist() == pytest.approx(COSINE.alpha_bar[[0, 999]].tolist(), rel=1e-6)


def test_at_keeps_one_copy_a_device_and_the_same_values() -> None:
    schedule, t, like = Schedule("linear"), torch.tensor([0, 7, 999]), torch.zeros(3, 2)
    meta = t.to("meta"), like.to("meta")
    assert [schedule.at(*pair).shape for pair in (meta, (t, like), meta)] == [(3, 1)] * 3
    kept = {device.type: table for device, table in schedule._tables.items()}
    assert kept["cpu"] is schedule.alpha_bar  # no copy where none is needed
    schedule.at(*meta)
    assert {device.type: id(table) for device, table in schedule._tables.items()} == {d: id(a) for d, a in kept.items()}
    for one in (schedule, copy.deepcopy(schedule)):
        assert torch.equal(one.at(t, like), one.alpha_bar[t].float()[:, None])
    fresh = Schedule("linear")
    with torch.inference_mode():
        fresh._tables[t.device] = fresh.alpha_bar.clone()  # as on another device: a copy, made while sampling
    weight = torch.ones(3, 2, requires_grad=True)
    # A table that sampling brought to a device serves training, too.
    (gradient,) = torch.autograd.grad((fresh.at(t, like) * weight).sum(), weight)
    assert torch.equal(gradient, schedule.at(t, like).expand(3, 2))


# Parametrisations.


@pytest.mark.parametrize("kind", ["eps", "v"])
@pytest.mark.parametrize("strength", [1.0, 0.3, 2.0])
def test_split_finds_x0_and_eps_for_noise_of_any_strength(kind: Parametrisation, strength: float) -> None:
    x0, eps = randn(5, 7, seed=1, dtype=F64), randn(5, 7, seed=2, dtype=F64)
    signal = torch.tensor([0.95, 0.8, 0.6, 0.3, 0.05], dtype=F64)[:, None]
    noise = strength * (1 - signal**2).sqrt()
    norm = (signal**2 + noise**2).sqrt()
    output = eps if kind == "eps" else (signal * eps - noise * x0) / norm
    found = to_prediction(output, signal * x0 + noise * eps, signal, noise, kind)
    assert torch.allclose(found.x0, x0, rtol=0, atol=1e-10)
    assert torch.allclose(found.eps, eps, rtol=0, atol=1e-10)


def test_v_without_any_noise_gives_the_clip_itself() -> None:
    z, output = randn(3, 4), randn(3, 4, seed=1)
    found = to_prediction(output, 0.5 * z, torch.full((3, 1), 0.5), torch.zeros(3, 1), "v")
    assert torch.allclose(found.x0, z)
    assert torch.equal(found.eps, output)


@pytest.mark.parametrize("t", [0, 500, 999])
def test_v_target_is_what_split_reads(t: int) -> None:
    x0, eps, a = randn(8, seed=1, dtype=F64), randn(8, seed=2, dtype=F64), COSINE.alpha_bar[t]
    z = a.sqrt() * x0 + (1 - a).sqrt() * eps
    found = to_prediction(v_target(x0, eps, a), z, a.sqrt(), (1 - a).sqrt(), "v")
    assert torch.allclose(found.x0, x0, rtol=0, atol=1e-10)
    assert torch.allclose(found.eps, eps, rtol=0, atol=1e-10)


def test_clip_limits_x0_and_lets_the_noise_explain_the_rest() -> None:
    a = torch.tensor(0.36, dtype=F64)
    x0, eps = torch.tensor([-3.0, -0.5, 0.0, 1.0, 1.5], dtype=F64), randn(5, dtype=F64)
    z = 0.6 * x0 + 0.8 * eps
    clipped = clip_x0(Prediction(x0, eps), z, a)
    assert torch.equal(clipped.x0, x0.clamp(-1, 1))
    assert torch.allclose(0.6 * clipped.x0 + 0.8 * clipped.eps, z)
    inside = x0.abs() <= 1
    assert torch.allclose(clipped.eps[inside], eps[inside])
    assert not torch.isclose(clipped.eps[~inside], eps[~inside]).any()


def far_out(batch: int = 3) -> tuple[Prediction, Tensor]:
    """A prediction at a = 0.36 of clips that leave [-1, 1] the further the later they come, and its z."""
    x0 = randn(batch, 4, 3, 2, 2, seed=1, dtype=F64) * torch.logspace(-1, 1, batch, dtype=F64).view(-1, 1, 1, 1, 1)
    x0[0] = x0[0].clamp(-0.9, 0.9)
    eps = randn(batch, 4, 3, 2, 2, seed=2, dtype=F64)
    return Prediction(x0, eps), 0.6 * x0 + 0.8 * eps


A36 = torch.tensor(0.36, dtype=F64)


@pytest.mark.parametrize("threshold", [None, 0.5, 0.9, 0.995])
def test_thresholding_keeps_x0_in_range_and_explains_z(threshold: float | None) -> None:
    prediction, z = far_out()
    found = clip_x0(prediction, z, A36, threshold)
    assert found.x0.abs().max() <= 1
    assert torch.allclose(0.6 * found.x0 + 0.8 * found.eps, z)
    assert torch.equal(found.x0[0], prediction.x0[0])  # was in range
    assert torch.allclose(found.eps[0], prediction.eps[0])


def test_dynamic_thresholding_is_the_published_rule_clip_by_clip() -> None:
    prediction, z = far_out()
    found = clip_x0(prediction, z, A36, 0.9).x0
    for x0, got in zip(prediction.x0.numpy(), found, strict=True):
        s = max(float(np.quantile(np.abs(x0), 0.9)), 1.0)
        assert torch.allclose(got, torch.from_numpy(np.clip(x0, -s, s) / s))
    alone = torch.cat([clip_x0(Prediction(x0[None], x0[None]), x0[None], A36, 0.9).x0 for x0 in prediction.x0])
    assert torch.equal(alone, found)
    assert not torch.isclose(found[2], clip_x0(prediction, z, A36).x0[2]).all()


# Solvers.


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("solver", "steps", "error"), [("ddim", 1000, 1e-2), ("dpm++2m", 200, 2e-3)])
def test_deterministic_solvers_carry_noise_to_the_data_distribution(
    solver: str, steps: int, error: float, name: str
) -> None:
    slope, shift = affine(solver, steps, Schedule(name))
    assert slope**2 == pytest.approx(STD**2, rel=error)
    assert shift == pytest.approx(MEAN, abs=error)


def test_ddpm_samples_have_the_mean_and_variance_of_the_data() -> None:
    n, fresh = 20_000, standard_normal(0, 20_000, 1, 1, 1, 1)
    x = solve(gaussian(COSINE), fresh(), COSINE, steps=500, solver="ddpm", fresh_noise=fresh)
    # Five standard errors, and for the variance 1 % more for 500 steps instead of infinitely many.
    assert float(x.mean()) == pytest.approx(MEAN, abs=5 * STD / n**0.5)
    assert float(x.var()) == pytest.approx(STD**2, rel=5 * (2 / n) ** 0.5 + 0.01)


def test_ddpm_is_not_deterministic_and_ddim_is_its_limit_without_noise() -> None:
    z = randn(4, 1, 1, 1, 1, dtype=F64)
    draws = [
        solve(gaussian(COSINE), z, COSINE, steps=10, solver="ddpm", fresh_noise=standard_normal(seed, 4, 1, 1, 1, 1))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.isclose(draws[0], draws[2]).any()


def test_the_second_order_solver_is_closer_at_20_steps() -> None:
    first, second = (abs(affine(solver, 20)[0] - STD) for solver in DETERMINISTIC)
    assert second < first / 5


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpm++2m", 2)])
def test_the_error_falls_with_the_order_of_the_solver(solver: str, order: int) -> None:
    # The last step ends at clean data, where the log signal-to-noise is infinite: the steps before have the order.
    errors = [abs(_slope_to(solver, steps) - _slope_to("exact", steps)) for steps in (50, 100, 200)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


def _slope_to(solver: str, steps: int) -> float:
    """How a unit of noise arrives after three quarters of the steps: by a solver, or along the exact flow."""
    grid = COSINE.timesteps(steps)
    seen: dict[int, Tensor] = {}
    exact = gaussian(COSINE, mean=0.0)

    def denoise(z: Tensor, t: int) -> Prediction:
        seen[t] = z
        return exact(z, t)

    t = grid[steps * 3 // 4]  # the same time for every number of steps, up to rounding
    if solver == "exact":
        a, start = float(COSINE.alpha_bar[t]), float(COSINE.alpha_bar[grid[0]])
        return math.sqrt((a * STD**2 + 1 - a) / (start * STD**2 + 1 - start))
    solve(denoise, torch.ones(1, dtype=F64), COSINE, steps=steps, solver=solver, fresh_noise=refused)
    return float(seen[t])


def arrival(solver: str, steps: int, eta: float | None = None) -> tuple[float, float]:
    """Mean and variance of the samples of a solver with a linear denoiser, exact: each noise is followed apart."""
    calls = iter(range(2, steps + 2))

    def fresh() -> Tensor:
        return torch.eye(steps + 2, dtype=F64)[next(calls)].view(-1, 1)

    z = torch.eye(steps + 2, dtype=F64)[1].view(-1, 1)  # row 0 without any noise, row 1 with that of the beginning
    x = solve(gaussian(COSINE), z, COSINE, steps=steps, solver=solver, eta=eta, fresh_noise=fresh).flatten()
    return float(x[0]), float(((x[1:] - x[0]) ** 2).sum())


@pytest.mark.parametrize(
    ("solver", "eta"), [("ddim", None), ("ddim", 0.3), ("ddim", 0.7), ("ddpm", None), ("dpm++2m", None)]
)
def test_more_steps_come_closer_to_the_data_distribution(solver: str, eta: float | None) -> None:
    found = [arrival(solver, steps, eta) for steps in (5, 10, 50, 100, 500)]
    wrong = [abs(variance / STD**2 - 1) for _, variance in found]
    assert all(fine < coarse for coarse, fine in pairwise(wrong))
    assert wrong[0] < 0.7  # five steps are not nonsense either
    assert wrong[-1] < 0.02
    assert [mean for mean, _ in found] == pytest.approx([MEAN] * len(found), abs=0.02)


def test_25_steps_of_the_default_solver_do_better_than_500_of_the_others() -> None:
    wrong = {solver: abs(arrival(solver, 500)[1] / STD**2 - 1) for solver in ("ddim", "ddpm")}
    assert abs(arrival("dpm++2m", 25)[1] / STD**2 - 1) < min(wrong.values()) / 5


@pytest.mark.parametrize(("eta", "same"), [(0.0, "ddim"), (1.0, "ddpm")])
def test_eta_leads_from_ddim_to_ddpm(eta: float, same: str) -> None:
    def solved(solver: str, eta: float | None) -> Tensor:
        fresh = standard_normal(1, 4, 1)
        return solve(
            gaussian(COSINE), randn(4, 1, dtype=F64), COSINE, steps=9, solver=solver, eta=eta, fresh_noise=fresh
        )

    assert torch.equal(solved("ddim", eta), solved(same, None))
    assert not torch.isclose(solved("ddim", 0.5), solved(same, None)).any()


@pytest.mark.parametrize(
    ("solver", "eta", "named"),
    [
        ("ddim", -0.1, r"eta -0\.1: choose a number in \[0, 1\]"),
        ("ddim", 1.5, r"eta 1\.5"),
        ("ddim", math.nan, "eta nan"),
        ("dpm++2m", 0.5, r"solver dpm\+\+2m has no eta, it is deterministic"),
        ("ddpm", 0.5, "solver ddpm has no eta, its eta is always 1"),
    ],
)
def test_an_eta_that_means_nothing_is_refused(solver: str, eta: float, named: str) -> None:
    with pytest.raises(UserError, match=named):
        solve(gaussian(COSINE), torch.zeros(1), COSINE, steps=2, solver=solver, eta=eta, fresh_noise=refused)


@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_and_float64_agree(solver: str) -> None:
    def solved(dtype: torch.dtype) -> Tensor:
        fresh, noise = standard_normal(3, 64, 1), randn(64, 1, dtype=F64).to(dtype)
        x = solve(gaussian(COSINE), noise, COSINE, steps=50, solver=solver, fresh_noise=lambda: fresh().to(dtype))
        assert x.dtype == dtype
        return x.double()

    assert torch.allclose(solved(torch.float32), solved(F64), rtol=0, atol=2e-5)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_each_step_calls_the_denoiser_once_on_the_grid(solver: str, steps: int) -> None:
    times, exact = [], gaussian(COSINE)

    def denoise(z: Tensor, t: int) -> Prediction:
        times.append(t)
        return exact(z, t)

    z = randn(3, 2, dtype=F64)
    kept = z.clone()
    x = solve(denoise, z, COSINE, steps=steps, solver=solver, fresh_noise=standard_normal(0, 3, 2))
    assert times == COSINE.timesteps(steps)
    assert torch.equal(z, kept)  # the caller's noise is not written to
    assert torch.isfinite(x).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_step_returns_what_the_denoiser_says(solver: str) -> None:
    z = randn(3, 2, dtype=F64)
    x = solve(gaussian(COSINE), z, COSINE, steps=1, solver=solver, fresh_noise=refused)
    assert torch.equal(x, gaussian(COSINE)(z, 999).x0)


def ddpm_correlation(prior: NoisePrior) -> Tensor:
    """Between the frames of samples that start from decomposed noise and go on with fresh noise of `prior`."""
    shape, normal = ClipShape(4, 1, 1), normal_per_batch(8000, torch.Generator().manual_seed(0))
    noise = Decomposed(4).noise(normal, shape)
    x = solve(gaussian(COSINE), noise, COSINE, steps=20, solver="ddpm", fresh_noise=lambda: prior.noise(normal, shape))
    return torch.corrcoef(x.transpose(1, 2).reshape(-1, 4).T)


def test_ddpm_keeps_the_correlation_of_the_prior_it_draws_from() -> None:
    # The denoiser is linear, so if every draw has the prior's correlation then so has the sample: 24,000 pairs.
    roots = Decomposed(4).lam.float().sqrt()
    expected = (roots[:, None] * roots).fill_diagonal_(1)
    assert torch.allclose(ddpm_correlation(Decomposed(4)), expected, atol=5 / 24_000**0.5)
    # Independent fresh noise would wash the correlation of the initial noise away.
    assert (ddpm_correlation(Independent()) - torch.eye(4)).abs().max() < 0.5


def test_an_unknown_solver_offers_the_nearest() -> None:
    with pytest.raises(UserError, match=r"did you mean 'dpm\+\+2m'"):
        solve(gaussian(COSINE), torch.zeros(1), COSINE, steps=2, solver="dpm++2", fresh_noise=refused)


@pytest.mark.parametrize("steps", [-1, 0, 1001])
def test_steps_out_of_range_are_refused_naming_them(steps: int) -> None:
    with pytest.raises(UserError, match=f"{steps}: choose 1 to 1000"):
        solve(gaussian(COSINE), torch.zeros(1), COSINE, steps=steps, solver="ddim", fresh_noise=refused)


# Guidance.


def predict(z: Tensor, t: Tensor, condition: Tensor) -> Prediction:
    """A denoiser that depends on everything and mixes nothing between clips."""
    return Prediction(z * condition + t[:, None], z - condition)


GUIDED = (randn(3, 2), torch.tensor([1, 5, 9]), randn(3, 2, seed=1), randn(3, 2, seed=2))


def test_guidance_weight_1_is_the_plain_model_at_its_plain_cost() -> None:
    sizes = []

    def counted(z: Tensor, t: Tensor, condition: Tensor) -> Prediction:
        sizes.append(len(z))
        return predict(z, t, condition)

    z, t, condition, null = GUIDED
    found = guided(counted, z, t, condition, null, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(found, predict(z, t, condition), strict=True))
    guided(counted, z, t, condition, null, 2.0)
    assert sizes == [3, 6]


@pytest.mark.parametrize("weight", [-1.0, 0.0, 0.5, 1.001, 3.0])
def test_guidance_mixes_linearly(weight: float) -> None:
    z, t, condition, null = GUIDED
    found = guided(predict, z, t, condition, null, weight)
    with_condition, without = predict(z, t, condition), predict(z, t, null)
    for got, yes, no in zip(found, with_condition, without, strict=True):
        assert torch.allclose(got, no + weight * (yes - no), atol=1e-5)
