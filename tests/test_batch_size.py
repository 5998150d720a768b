"""Tests of `vfbench.pipeline.batch_size`: the trial of sizes, by a sampler whose time and memory are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import requests, tiny_dataset
from torch import nn

from vfbench.baselines.noise import Noise
from vfbench.interfaces import Clips, Request
from vfbench.pipeline import batch_size
from vfbench.plugins import Spec

CUDA, NUMBERS = torch.device("cuda"), count()


class TimedNoise(Noise):
    """Noise that takes `seconds(clips)` a batch, on the clock of the test, and holds at most `memory` clips."""

    def __init__(self, seconds: Callable[[int], float], memory: int = 10**6, networks: int = 1) -> None:
        super().__init__(tiny_dataset())
        self.seconds, self.memory, self.now, self.tried = seconds, memory, 0.0, list[int]()
        self.name = f"timed{next(NUMBERS)}"  # what was found for another is not read
        self._networks = {str(i): nn.Identity() for i in range(networks)}

    @property
    def networks(self) -> Mapping[str, nn.Module]:  # type: ignore[override]
        return self._networks

    def sample(self, requests: Sequence[Request]) -> Clips:
        if len(requests) > self.memory:
            raise torch.OutOfMemoryError
        self.tried.append(len(requests))
        self.now += self.seconds(len(requests))
        return super().sample(requests)


FREE = [10e9]  # bytes of the GPU that no program uses


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Choose the batch size of a sampler on a GPU that this machine does not have."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(name="GPU"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (FREE[-1], 0))

    def call(sampler: TimedNoise, number: int = 600, device: torch.device = CUDA, *, begun: bool = False) -> int:
        monkeypatch.setattr(batch_size, "time", SimpleNamespace(monotonic=lambda: sampler.now))
        model, asked = Spec(sampler.name, {}), requests(*range(number))
        return batch_size.choose_batch_size("auto", model, sampler, asked, device, torch.float32, begun=begun)

    return call


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (TimedNoise(lambda clips: 10 + clips / 8), 128),  # 256 would be faster still, but 128 take over 20 s
        (TimedNoise(lambda clips: 1.0), 256),  # the largest
        (TimedNoise(lambda clips: float(clips)), 1),  # as fast in any size
        (TimedNoise(lambda clips: max(clips, 64) / 64), 64),
        (TimedNoise(lambda clips: 1.0, memory=50), 32),
        (TimedNoise(lambda clips: 1.0, memory=0), 1),
        (TimedNoise(lambda clips: 1.0, networks=0), 256),  # no networks: nothing to try
    ],
)
def test_the_fastest_size_that_fits_is_found(sampler: TimedNoise, expected: int, choose: Callable[..., int]) -> None:
    assert choose(sampler) == expected


def test_another_error_and_a_gpu_with_less_free_memory_leave_no_size(
    choose: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(clips: int) -> float:
        raise RuntimeError("a fault of the model")

    with pytest.raises(RuntimeError, match="a fault of the model"):
        choose(TimedNoise(fail))
    sampler = TimedNoise(lambda clips: 1.0, memory=50)
    assert choose(sampler) == 32  # another program has filled the rest
    sampler.memory = 600
    assert choose(sampler) == 32
    monkeypatch.setattr("test_batch_size.FREE", [80e9])
    assert choose(sampler) == 256


def test_a_size_is_tried_once_and_no_larger_than_the_requests_need(choose: Callable[..., int]) -> None:
    sampler = TimedNoise(lambda clips: max(clips, 64) / 64)
    assert (choose(sampler, number=10), max(sampler.tried)) == (8, 8)
    assert choose(sampler) == 64
    sampler.tried.clear()
    assert (choose(sampler), sampler.tried) == (64, [])


@pytest.mark.parametrize(
    ("seconds", "options", "expected", "tried"),
    [
        (30.0, {}, 1, 1),  # one clip takes too long for a trial
        (1.0, {"number": 1}, 1, 1),
        (1.0, {"begun": True}, 256, 0),
        (1.0, {"device": torch.device("cpu")}, 32, 0),
    ],
)
def test_a_trial_that_would_not_pay_is_left_out(
    seconds: float, options: dict[str, Any], expected: int, tried: int, choose: Callable[..., int]
) -> None:
    sampler = TimedNoise(lambda clips: seconds)
    assert (choose(sampler, **options), len(sampler.tried)) == (expected, tried)
