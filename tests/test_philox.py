"""Tests of the counter-based random generator, and of the noise that is drawn by it."""

from __future__ import annotations

import pytest
import torch
from helpers import CPU, requests, tiny_videofusion

from vfbench.diffusion.philox import NormalStreams, philox
from vfbench.diffusion.priors import noise_generator, normal_per_clip
from vfbench.diffusion.sampler import DiffusionSampler, SamplerOptions
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan

# Known answers of the authors' library Random123: counter, key and output, in words.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
SEEDS = [3, (1 << 62) + 5, 7, -1]
SHAPE = (3, 5, 7)  # no multiple of four


def words(text: str) -> list[torch.Tensor]:
    return [torch.tensor([int(word, 16)]) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_philox_gives_the_published_answers(counter: str, key: str, output: str) -> None:
    assert " ".join(f"{int(word):08x}" for word in philox(words(counter), words(key))) == output


def test_the_noise_of_a_clip_does_not_depend_on_its_batch() -> None:
    batch = NormalStreams(SEEDS, CPU)
    draws = [batch(SHAPE), batch(SHAPE)]
    for row, seed in enumerate(SEEDS):
        single = NormalStreams([seed], CPU)
        assert all(torch.equal(draw[row], single(SHAPE)[0]) for draw in draws)
    assert len({float(x) for draw in draws for x in draw[:, 0, 0, 0]}) == 2 * len(SEEDS)


def test_the_noise_is_standard_normal_and_independent() -> None:
    x = NormalStreams([1, 2], CPU)((200_000,)).double()
    assert x.mean(1).abs().max() < 0.01
    assert (x.var(1) - 1).abs().max() < 0.02
    assert ((x**4).mean(1) - 3).abs().max() < 0.1
    assert (x.abs() > 4).double().mean() == pytest.approx(6.33e-5, rel=0.5)  # both tails
    lags = torch.stack([(x[:, lag:] * x[:, : x.shape[1] - lag]).mean(1) for lag in range(1, 6)])
    assert torch.cat([lags.flatten(), (x[0] * x[1]).mean()[None]]).abs().max() < 0.01


def test_a_gpu_draws_its_own_noise_and_a_cpu_as_before() -> None:
    assert [noise_generator(torch.device(name)) for name in ("cpu", "cuda")] == ["mt19937", "philox"]
    twister = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    assert torch.equal(normal_per_clip([3], CPU)(SHAPE)[0], twister)


@pytest.mark.parametrize("options", [{}, {"solver": "ddpm"}, {"frames": 9, "overlap": 1}], ids=str)
def test_clips_of_philox_noise_do_not_depend_on_their_batch(options: dict[str, object]) -> None:
    sampling = SamplerOptions(steps=2, **options)  # type: ignore[arg-type]
    sampler = DiffusionSampler(tiny_videofusion(), "none", CPU, sampling=sampling, noise="philox")
    clips = sampler.sample(requests(4, 5, 6))
    single = torch.cat([sampler.sample([request]) for request in requests(4, 5, 6)])
    assert (clips.int() - single.int()).abs().max() <= 1
    twister = DiffusionSampler(tiny_videofusion(), "none", CPU, sampling=sampling)
    assert not torch.equal(clips, twister.sample(requests(4, 5, 6)))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_gpu_draws_the_numbers_of_a_cpu() -> None:
    on_gpu = NormalStreams(SEEDS, torch.device("cuda"))(SHAPE).cpu()
    torch.testing.assert_close(on_gpu, NormalStreams(SEEDS, CPU)(SHAPE), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_only_another_generator_than_that_of_a_cpu_is_part_of_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    options = RunOptions(model="videofusion", dataset="shapes", smoke=True, steps=1, device="cpu")
    as_before = plan(options)
    monkeypatch.setattr("vfbench.diffusion.sampler.noise_generator", lambda device: "philox")  # as on a GPU
    as_gpu = plan(options)
    assert "noise_generator" not in as_before.specification.determines
    assert as_gpu.specification.determines["noise_generator"] == "philox"
    assert as_gpu.specification.id != as_before.specification.id
