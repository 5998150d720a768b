"""Tests of `vfbench.pipeline.batch_size`: the trial of sizes, by a sampler whose time and memory are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace

import pytest
import torch
from helpers import requests, tiny_dataset
from torch import nn

from vfbench.baselines.noise import Noise
from vfbench.interfaces import Clips, Request
from vfbench.pipeline import batch_size
from vfbench.plugins import Spec

CUDA = torch.device("cuda")


class TimedNoise(Noise):
    """Noise that takes `seconds(clips)` a batch, on the clock of the test, and holds at most `memory` clips."""

    def __init__(self, seconds: Callable[[int], float], memory: int = 10**6, networks: int = 1) -> None:
        super().__init__(tiny_dataset())
        self.seconds, self.memory, self.now, self.tried = seconds, memory, 0.0, list[int]()
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


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Choose the batch size of a sampler on a GPU that this machine does not have."""
    gpu = SimpleNamespace(name="GPU", total_memory=1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)

    def call(sampler: TimedNoise, model: str = "timed", count: int = 500, device: torch.device = CUDA) -> int:
        monkeypatch.setattr(batch_size, "time", SimpleNamespace(monotonic=lambda: sampler.now))
        return batch_size.choose_batch_size(
            "auto", Spec(model, {}), sampler, requests(*range(count)), device, torch.float32
        )

    return call


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (TimedNoise(lambda clips: 10 + clips / 40), 512),  # 1,024 would be faster still, but 512 take over 20 s
        (TimedNoise(lambda clips: float(clips)), 1),  # as fast in any size
        (TimedNoise(lambda clips: max(clips, 64) / 64), 64),
        (TimedNoise(lambda clips: 1.0, memory=50), 32),
        (TimedNoise(lambda clips: 1.0, networks=0), 256),  # no networks: nothing to try
        (TimedNoise(lambda clips: 30.0), 1),
    ],
)
def test_the_fastest_size_that_fits_is_found(
    sampler: TimedNoise, expected: int, choose: Callable[..., int], request: pytest.FixtureRequest
) -> None:
    assert choose(sampler, request.node.name, 600) == expected


def test_a_size_is_tried_once_and_no_larger_than_the_requests_need(choose: Callable[..., int]) -> None:
    sampler = TimedNoise(lambda clips: max(clips, 64) / 64)
    assert choose(sampler, "twice") == 64
    sampler.tried.clear()
    assert (choose(sampler, "twice"), choose(sampler, "twice", count=10), sampler.tried) == (64, 10, [])


def test_nothing_is_tried_on_a_cpu(choose: Callable[..., int]) -> None:
    sampler = TimedNoise(lambda clips: 1.0)
    assert (choose(sampler, "cpu", device=torch.device("cpu")), sampler.tried) == (32, [])
