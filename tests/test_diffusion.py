"""Tests of noise schedules, noise priors, solvers and guidance against closed forms for Gaussian data."""

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
from vfbench.diffusion.schedule import (
    Parametrisation,
    Prediction,
    Schedule,
    clip_x0,
    natural_time_shift,
    to_prediction,
    v_target,
)
from vfbench.diffusion.solver_options import SOLVERS
from vfbench.diffusion.solvers import Denoiser, guided, solve
from vfbench.errors import UserError
from vfbench.interfaces import ClipShape
from vfbench.utils.device import DeviceConstant

SCHEDULES = ("cosine", "linear")
DETERMINISTIC = ("ddim", "dpm++2m")
COSINE = Schedule("cosine")
MEAN, STD = 0.3, 0.5  # of the Gaussian data
F64 = torch.float64


def gaussian_denoiser(schedule: Schedule, mean: float = MEAN, std: float = STD) -> Denoiser:
    """Exact denoiser of data N(mean, std^2): x0 = E[x0 | z_t], and the eps that solves for z_t."""

    def denoise(z: Tensor, t: int) -> Prediction:
        a = float(schedule.alpha_bar[t])
        x0 = mean + a**0.5 * std**2 / (a * std**2 + 1 - a) * (z - a**0.5 * mean)
        return Prediction(x0, (z - a**0.5 * x0) / (1 - a) ** 0.5)

    return denoise


def no_noise() -> Tensor:
    raise AssertionError("a deterministic solver drew fresh noise")


def affine(solver: str, steps: int, schedule: Schedule = COSINE) -> tuple[float, float]:
    """Slope and shift of a deterministic solver with a linear denoiser, x = slope z + shift."""
    z = torch.tensor([0.0, 1.0], dtype=F64).view(2, 1, 1, 1, 1)
    x = solve(gaussian_denoiser(schedule), z, schedule, steps=steps, solver=solver, fresh_noise=no_noise).flatten()
    return float(x[1] - x[0]), float(x[0])


def standard_normal(seed: int, *shape: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=generator, dtype=F64)


# Schedules.


@pytest.mark.parametrize("name", SCHEDULES)
def test_alpha_bar_decreases_from_nearly_1_to_nearly_0(name: str) -> None:
    alpha_bar = Schedule(name).alpha_bar
    assert (alpha_bar.dtype, alpha_bar.shape) == (F64, (1000,))
    assert (alpha_bar.diff() < 0).all()
    assert 0.999 < alpha_bar[0] < 1
    assert 0 < alpha_bar[-1] < 1e-4


def test_cosine_is_the_published_formula() -> None:
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0, 1, 500, 900)]
    for t, value in zip((1, 500, 900), f[1:], strict=True):
        assert float(COSINE.alpha_bar[t - 1]) == pytest.approx(value / f[0], rel=1e-9)


def test_linear_is_ddpms_schedule_at_any_number_of_steps() -> None:
    assert float(Schedule("linear").alpha_bar[-1]) == pytest.approx(4.0358e-5, rel=1e-4)
    ends = [float(Schedule("linear", steps).alpha_bar[-1].log()) for steps in (200, 1000, 4000)]
    assert max(ends) / min(ends) == pytest.approx(1, abs=0.07)


def test_an_unknown_schedule_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'cosinus'.*'cosine'"):
        Schedule("cosinus")


@pytest.mark.parametrize("count", [1, 2, 25, 333, 999, 1000])
def test_the_timestep_grid_decreases_from_the_noisiest(count: int) -> None:
    grid = COSINE.timesteps(count)
    assert (len(grid), grid[0]) == (count, 999)
    assert all(a > b for a, b in pairwise(grid))
    assert grid[-1] >= 0


def test_at_broadcasts_in_the_dtype_of_its_argument() -> None:
    a = COSINE.at(torch.tensor([0, 999]), torch.zeros(2, 4, 3, 8, 8))
    assert (a.shape, a.dtype) == ((2, 1, 1, 1, 1), torch.float32)
    assert a.flatten().tolist() == pytest.approx(COSINE.alpha_bar[[0, 999]].tolist(), rel=1e-6)


def test_at_copies_its_table_once_per_device_and_type() -> None:
    schedule, t, like = Schedule("linear"), torch.tensor([0, 7, 999]), torch.zeros(3, 2)
    constants: list[torch.dtype] = []
    schedule._table = DeviceConstant(lambda dtype: constants.append(dtype) or schedule.alpha_bar.to(dtype))  # type: ignore[func-returns-value]
    meta = t.to("meta"), like.to("meta")
    assert [schedule.at(*pair).shape for pair in (meta, (t, like), meta, (t, like))] == [(3, 1)] * 4
    schedule.at(t, like.double())
    assert constants == [torch.float32, torch.float32, torch.float64]
    for each in (schedule, copy.deepcopy(schedule)):
        assert torch.equal(each.at(t, like), each.alpha_bar[t].float()[:, None])
    fresh = Schedule("linear")
    with torch.inference_mode():
        fresh.at(t, like)
    weight = torch.ones(3, 2, requires_grad=True)
    # Training can use a table that sampling created.
    (gradient,) = torch.autograd.grad((fresh.at(t, like) * weight).sum(), weight)
    assert torch.equal(gradient, schedule.at(t, like).expand(3, 2))


# Parametrisations.


@pytest.mark.parametrize("kind", ["eps", "v"])
@pytest.mark.parametrize("strength", [1.0, 0.3, 2.0])
def test_to_prediction_recovers_x0_and_eps_for_any_noise_strength(kind: Parametrisation, strength: float) -> None:
    x0, eps = randn(5, 7, seed=1, dtype=F64), randn(5, 7, seed=2, dtype=F64)
    signal = torch.tensor([0.95, 0.8, 0.6, 0.3, 0.05], dtype=F64)[:, None]
    noise = strength * (1 - signal**2).sqrt()
    norm = (signal**2 + noise**2).sqrt()
    output = eps if kind == "eps" else (signal * eps - noise * x0) / norm
    prediction = to_prediction(output, signal * x0 + noise * eps, signal, noise, kind)
    assert torch.allclose(prediction.x0, x0, rtol=0, atol=1e-10)
    assert torch.allclose(prediction.eps, eps, rtol=0, atol=1e-10)


def test_v_without_noise_recovers_the_clip() -> None:
    z, output = randn(3, 4), randn(3, 4, seed=1)
    prediction = to_prediction(output, 0.5 * z, torch.full((3, 1), 0.5), torch.zeros(3, 1), "v")
    assert torch.allclose(prediction.x0, z)
    assert torch.equal(prediction.eps, output)


@pytest.mark.parametrize("t", [0, 500, 999])
def test_to_prediction_inverts_v_target(t: int) -> None:
    x0, eps, a = randn(8, seed=1, dtype=F64), randn(8, seed=2, dtype=F64), COSINE.alpha_bar[t]
    z = a.sqrt() * x0 + (1 - a).sqrt() * eps
    prediction = to_prediction(v_target(x0, eps, a), z, a.sqrt(), (1 - a).sqrt(), "v")
    assert torch.allclose(prediction.x0, x0, rtol=0, atol=1e-10)
    assert torch.allclose(prediction.eps, eps, rtol=0, atol=1e-10)


def test_clipping_x0_adjusts_eps() -> None:
    a = torch.tensor(0.36, dtype=F64)
    x0, eps = torch.tensor([-3.0, -0.5, 0.0, 1.0, 1.5], dtype=F64), randn(5, dtype=F64)
    z = 0.6 * x0 + 0.8 * eps
    clipped = clip_x0(Prediction(x0, eps), z, a)
    assert torch.equal(clipped.x0, x0.clamp(-1, 1))
    assert torch.allclose(0.6 * clipped.x0 + 0.8 * clipped.eps, z)
    in_range = x0.abs() <= 1
    assert torch.allclose(clipped.eps[in_range], eps[in_range])
    assert not torch.isclose(clipped.eps[~in_range], eps[~in_range]).any()


def out_of_range(batch: int = 3) -> tuple[Prediction, Tensor]:
    """Prediction at alpha_bar = 0.36 of clips increasingly outside [-1, 1], the first inside, and its z."""
    x0 = randn(batch, 4, 3, 2, 2, seed=1, dtype=F64) * torch.logspace(-1, 1, batch, dtype=F64).view(-1, 1, 1, 1, 1)
    x0[0] = x0[0].clamp(-0.9, 0.9)
    eps = randn(batch, 4, 3, 2, 2, seed=2, dtype=F64)
    return Prediction(x0, eps), 0.6 * x0 + 0.8 * eps


A36 = torch.tensor(0.36, dtype=F64)


@pytest.mark.parametrize("threshold", [None, 0.5, 0.9, 0.995])
def test_thresholding_limits_x0_and_adjusts_eps(threshold: float | None) -> None:
    prediction, z = out_of_range()
    clipped = clip_x0(prediction, z, A36, threshold)
    assert clipped.x0.abs().max() <= 1
    assert torch.allclose(0.6 * clipped.x0 + 0.8 * clipped.eps, z)
    assert torch.equal(clipped.x0[0], prediction.x0[0])  # in range
    assert torch.allclose(clipped.eps[0], prediction.eps[0])


def test_dynamic_thresholding_equals_the_published_rule() -> None:
    prediction, z = out_of_range()
    thresholded = clip_x0(prediction, z, A36, 0.9).x0
    for x0, x0_thresholded in zip(prediction.x0.numpy(), thresholded, strict=True):
        s = max(float(np.quantile(np.abs(x0), 0.9)), 1.0)
        assert torch.allclose(x0_thresholded, torch.from_numpy(np.clip(x0, -s, s) / s))
    alone = torch.cat([clip_x0(Prediction(x0[None], x0[None]), x0[None], A36, 0.9).x0 for x0 in prediction.x0])
    assert torch.equal(alone, thresholded)
    assert not torch.isclose(thresholded[2], clip_x0(prediction, z, A36).x0[2]).all()


# Solvers.


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("solver", "steps", "error"), [("ddim", 1000, 1e-2), ("dpm++2m", 200, 2e-3)])
def test_deterministic_solvers_map_noise_to_the_data_distribution(
    solver: str, steps: int, error: float, name: str
) -> None:
    slope, shift = affine(solver, steps, Schedule(name))
    assert slope**2 == pytest.approx(STD**2, rel=error)
    assert shift == pytest.approx(MEAN, abs=error)


def test_ddpm_samples_have_mean_and_variance_of_the_data() -> None:
    n, fresh = 20_000, standard_normal(0, 20_000, 1, 1, 1, 1)
    x = solve(gaussian_denoiser(COSINE), fresh(), COSINE, steps=500, solver="ddpm", fresh_noise=fresh)
    # Five standard errors; for the variance 1 % more, as 500 steps are finite.
    assert float(x.mean()) == pytest.approx(MEAN, abs=5 * STD / n**0.5)
    assert float(x.var()) == pytest.approx(STD**2, rel=5 * (2 / n) ** 0.5 + 0.01)


def test_ddpm_depends_on_the_seed_of_its_noise() -> None:
    z = randn(4, 1, 1, 1, 1, dtype=F64)
    draws = [
        solve(
            gaussian_denoiser(COSINE),
            z,
            COSINE,
            steps=10,
            solver="ddpm",
            fresh_noise=standard_normal(seed, 4, 1, 1, 1, 1),
        )
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.isclose(draws[0], draws[2]).any()


def test_the_second_order_solver_is_more_accurate_at_20_steps() -> None:
    first, second = (abs(affine(solver, 20)[0] - STD) for solver in DETERMINISTIC)
    assert second < first / 5


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpm++2m", 2)])
def test_the_error_falls_with_the_order_of_the_solver(solver: str, order: int) -> None:
    # The last step ends at infinite log-SNR and has no order; measure before it.
    errors = [
        abs(slope_at_three_quarters(solver, steps) - slope_at_three_quarters("exact", steps))
        for steps in (50, 100, 200)
    ]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


def slope_at_three_quarters(solver: str, steps: int) -> float:
    """Scale of unit noise after three quarters of the steps, by a solver or along the "exact" flow."""
    grid = COSINE.timesteps(steps)
    states: dict[int, Tensor] = {}
    exact = gaussian_denoiser(COSINE, mean=0.0)

    def denoise(z: Tensor, t: int) -> Prediction:
        states[t] = z
        return exact(z, t)

    t = grid[steps * 3 // 4]  # up to rounding the same for every number of steps
    if solver == "exact":
        a, start = float(COSINE.alpha_bar[t]), float(COSINE.alpha_bar[grid[0]])
        return math.sqrt((a * STD**2 + 1 - a) / (start * STD**2 + 1 - start))
    solve(denoise, torch.ones(1, dtype=F64), COSINE, steps=steps, solver=solver, fresh_noise=no_noise)
    return float(states[t])


def sample_moments(solver: str, steps: int, eta: float | None = None) -> tuple[float, float]:
    """Exact mean and variance of a solver's samples with a linear denoiser: each noise is a separate row."""
    calls = iter(range(2, steps + 2))

    def fresh() -> Tensor:
        return torch.eye(steps + 2, dtype=F64)[next(calls)].view(-1, 1)

    z = torch.eye(steps + 2, dtype=F64)[1].view(-1, 1)  # row 0 without noise, row 1 with the initial noise
    x = solve(gaussian_denoiser(COSINE), z, COSINE, steps=steps, solver=solver, eta=eta, fresh_noise=fresh).flatten()
    return float(x[0]), float(((x[1:] - x[0]) ** 2).sum())


@pytest.mark.parametrize(
    ("solver", "eta"), [("ddim", None), ("ddim", 0.3), ("ddim", 0.7), ("ddpm", None), ("dpm++2m", None)]
)
def test_more_steps_approach_the_data_distribution(solver: str, eta: float | None) -> None:
    moments = [sample_moments(solver, steps, eta) for steps in (5, 10, 50, 100, 500)]
    errors = [abs(variance / STD**2 - 1) for _, variance in moments]
    assert all(fine < coarse for coarse, fine in pairwise(errors))
    assert errors[0] < 0.7
    assert errors[-1] < 0.02
    assert [mean for mean, _ in moments] == pytest.approx([MEAN] * len(moments), abs=0.02)


def test_25_steps_of_the_default_solver_beat_500_of_the_others() -> None:
    errors = {solver: abs(sample_moments(solver, 500)[1] / STD**2 - 1) for solver in ("ddim", "ddpm")}
    assert abs(sample_moments("dpm++2m", 25)[1] / STD**2 - 1) < min(errors.values()) / 5


@pytest.mark.parametrize(("eta", "equal_solver"), [(0.0, "ddim"), (1.0, "ddpm")])
def test_eta_interpolates_ddim_and_ddpm(eta: float, equal_solver: str) -> None:
    def sample(solver: str, eta: float | None) -> Tensor:
        fresh = standard_normal(1, 4, 1)
        return solve(
            gaussian_denoiser(COSINE),
            randn(4, 1, dtype=F64),
            COSINE,
            steps=9,
            solver=solver,
            eta=eta,
            fresh_noise=fresh,
        )

    assert torch.equal(sample("ddim", eta), sample(equal_solver, None))
    assert not torch.isclose(sample("ddim", 0.5), sample(equal_solver, None)).any()


@pytest.mark.parametrize(
    ("solver", "eta", "message"),
    [
        ("ddim", -0.1, r"eta -0\.1"),
        ("ddim", 1.5, r"eta 1\.5"),
        ("ddim", math.nan, "eta nan"),
        ("dpm++2m", 0.5, r"dpm\+\+2m has no eta"),
        ("ddpm", 0.5, "ddpm has no eta"),
    ],
)
def test_an_invalid_eta_is_refused(solver: str, eta: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        solve(gaussian_denoiser(COSINE), torch.zeros(1), COSINE, steps=2, solver=solver, eta=eta, fresh_noise=no_noise)


@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_and_float64_agree(solver: str) -> None:
    def sample(dtype: torch.dtype) -> Tensor:
        fresh, noise = standard_normal(3, 64, 1), randn(64, 1, dtype=F64).to(dtype)
        x = solve(
            gaussian_denoiser(COSINE), noise, COSINE, steps=50, solver=solver, fresh_noise=lambda: fresh().to(dtype)
        )
        assert x.dtype == dtype
        return x.double()

    assert torch.allclose(sample(torch.float32), sample(F64), rtol=0, atol=2e-5)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_each_step_calls_the_denoiser_once_on_the_grid(solver: str, steps: int) -> None:
    times, exact = [], gaussian_denoiser(COSINE)

    def denoise(z: Tensor, t: int) -> Prediction:
        times.append(t)
        return exact(z, t)

    z = randn(3, 2, dtype=F64)
    copy_of_z = z.clone()
    x = solve(denoise, z, COSINE, steps=steps, solver=solver, fresh_noise=standard_normal(0, 3, 2))
    assert times == COSINE.timesteps(steps)
    assert torch.equal(z, copy_of_z)  # the input is not modified
    assert torch.isfinite(x).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_step_returns_the_denoised_clip(solver: str) -> None:
    z = randn(3, 2, dtype=F64)
    x = solve(gaussian_denoiser(COSINE), z, COSINE, steps=1, solver=solver, fresh_noise=no_noise)
    assert torch.equal(x, gaussian_denoiser(COSINE)(z, 999).x0)


def ddpm_correlation(prior: NoisePrior) -> Tensor:
    """Correlation (T, T) of sampled frames, from decomposed initial noise and fresh noise of `prior`."""
    shape, normal = ClipShape(4, 1, 1), normal_per_batch(8000, torch.Generator().manual_seed(0))
    noise = Decomposed(4).noise(normal, shape)
    x = solve(
        gaussian_denoiser(COSINE),
        noise,
        COSINE,
        steps=20,
        solver="ddpm",
        fresh_noise=lambda: prior.noise(normal, shape),
    )
    return torch.corrcoef(x.transpose(1, 2).reshape(-1, 4).T)


def test_ddpm_keeps_the_correlation_of_its_noise_prior() -> None:
    # With a linear denoiser, samples have the correlation of the prior; 24,000 pairs.
    roots = Decomposed(4).lam.float().sqrt()
    expected = (roots[:, None] * roots).fill_diagonal_(1)
    assert torch.allclose(ddpm_correlation(Decomposed(4)), expected, atol=5 / 24_000**0.5)
    # Independent fresh noise removes the correlation of the initial noise.
    assert (ddpm_correlation(Independent()) - torch.eye(4)).abs().max() < 0.5


def test_an_unknown_solver_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'dpm\+\+2'.*'dpm\+\+2m'"):
        solve(gaussian_denoiser(COSINE), torch.zeros(1), COSINE, steps=2, solver="dpm++2", fresh_noise=no_noise)


@pytest.mark.parametrize("steps", [-1, 0, 1001])
def test_steps_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(UserError, match=f"{steps}: .*1 to 1000"):
        solve(gaussian_denoiser(COSINE), torch.zeros(1), COSINE, steps=steps, solver="ddim", fresh_noise=no_noise)


# Guidance.


def predict(z: Tensor, t: Tensor, condition: Tensor) -> Prediction:
    """Denoiser that depends on every argument, clip by clip."""
    return Prediction(z * condition + t[:, None], z - condition)


GUIDED = (randn(3, 2), torch.tensor([1, 5, 9]), randn(3, 2, seed=1), randn(3, 2, seed=2))


def test_guidance_1_is_one_call_of_the_model() -> None:
    sizes = []

    def counting_predict(z: Tensor, t: Tensor, condition: Tensor) -> Prediction:
        sizes.append(len(z))
        return predict(z, t, condition)

    z, t, condition, null = GUIDED
    prediction = guided(counting_predict, z, t, condition, null, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(prediction, predict(z, t, condition), strict=True))
    guided(counting_predict, z, t, condition, null, 2.0)
    assert sizes == [3, 6]


@pytest.mark.parametrize("weight", [-1.0, 0.0, 0.5, 1.001, 3.0])
def test_guidance_mixes_linearly(weight: float) -> None:
    z, t, condition, null = GUIDED
    prediction = guided(predict, z, t, condition, null, weight)
    conditional, unconditional = predict(z, t, condition), predict(z, t, null)
    for guided_part, with_condition, without in zip(prediction, conditional, unconditional, strict=True):
        assert torch.allclose(guided_part, without + weight * (with_condition - without), atol=1e-5)


# Shifted times.


def snr(schedule: Schedule, t: Tensor) -> Tensor:
    return schedule.alpha_bar[t] / (1 - schedule.alpha_bar[t])


@pytest.mark.parametrize("name", ["cosine", "linear"])
@pytest.mark.parametrize("shift", [1.0, 4.0, 16.0])
def test_shifted_times_have_the_divided_signal_to_noise_ratio(name: str, shift: float) -> None:
    schedule = Schedule(name, time_shift=shift)
    t = torch.arange(0, 1000, 7)
    shifted = schedule.shifted(t)
    wanted = snr(schedule, t).log() - math.log(shift)
    inside = shifted < 999
    neighbours = torch.stack([shifted[inside] - 1, shifted[inside], shifted[inside] + 1]).clamp(min=0)
    errors = (snr(schedule, neighbours).log() - wanted[inside]).abs()
    assert (errors[1] <= errors.min(0).values + 1e-9).all()
    assert (shifted >= t).all()


@pytest.mark.parametrize("count", [1, 5, 25, 500, 1000])
def test_a_shifted_sampling_grid_visits_more_noise(count: int) -> None:
    plain, shifted = (Schedule(time_shift=shift).timesteps(count) for shift in (1.0, 16.0))
    assert len(set(shifted)) == count
    assert sorted(shifted, reverse=True) == shifted
    assert shifted[0] == plain[0]
    assert sum(shifted) >= sum(plain)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_training_times_are_stratified_and_a_share_is_shifted(share: float) -> None:
    schedule, generator = Schedule(time_shift=16.0, shifted_share=share), torch.Generator().manual_seed(0)
    batches = torch.stack([schedule.training_times(10, generator) for _ in range(400)])
    late = float((batches >= 900).double().mean())  # a tenth of the uniform times
    expected = 0.1 * (1 - share) + share * float((schedule.shifted(torch.arange(1000)) >= 900).double().mean())
    assert late == pytest.approx(expected, abs=0.01)
    if share == 0:
        assert ((batches // 100).sort(1).values == torch.arange(10)).all()


@pytest.mark.parametrize(
    ("clip", "prior", "expected"),
    [
        (ClipShape(1, 64, 64), Independent(), 1.0),
        (ClipShape(16, 32, 32), Independent(), 16.0),
        (ClipShape(16, 128, 128), Independent(), 64.0),
        (ClipShape(2, 32, 32), Decomposed(2), 4.0),  # motion stands out twice as much
    ],
)
def test_the_natural_shift_follows_from_frames_pixels_and_prior(
    clip: ClipShape, prior: NoisePrior, expected: float
) -> None:
    assert natural_time_shift(clip, prior) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "message"), [({"time_shift": 0.5}, "time_shift 0.5"), ({"shifted_share": 1.5}, "shifted_share 1.5")]
)
def test_a_shift_out_of_range_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Schedule("cosine", **options)  # type: ignore[arg-type]  # options by name
