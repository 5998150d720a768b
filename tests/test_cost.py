"""The cost ledger is counted: parameters, operations and network calls agree with a count by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vfbench import video, weights
from vfbench.cost import measure, peak_memory
from vfbench.datasets import shapes
from vfbench.generate import requests
from vfbench.interfaces import Clips, ClipShape, Conditioning, Request, Setting
from vfbench.models import videofusion
from vfbench.plan import RunOptions, plan


class Convolution:
    """A sampler that is one convolution over each of two 4x4 frames, three times."""

    shape = ClipShape(2, 4, 4)
    conditioning: Conditioning = "none"
    weights = "none"

    def __init__(self) -> None:
        self.network = nn.Conv2d(3, 3, 3, padding=1)
        self.networks: Mapping[str, nn.Module] = {"network": self.network, "again": nn.Sequential(self.network)}

    def sample(self, requests: Sequence[Request]) -> Clips:
        x = torch.rand(len(requests), 3, 4, 4)
        for _ in range(3):
            frames = torch.stack([self.network(x), self.network(x)], dim=1)
        return video.to_uint8(frames.detach().abs().clamp(0, 1))


def test_flops_are_those_of_a_count_by_hand() -> None:
    cost = measure(Convolution(), Request(0, 0, 0, ""))
    # three times two frames; two operations for each of 3x3x3 weights at each of 3x4x4 outputs
    assert cost.flops_per_clip == 3 * 2 * 2 * (3 * 3 * 3) * (3 * 4 * 4)
    assert cost.parameters == 3 * 3 * 3 * 3 + 3  # shared by two networks, and counted once
    assert (cost.evaluations, cost.calls) == (6, {"network": 6, "again": 0})


@pytest.mark.parametrize(("guidance", "times"), [(1.0, 1), (2.0, 2)])
def test_evaluations_are_steps_and_guidance_doubles_them(guidance: float, times: int, checkpoints: Path) -> None:
    folder = checkpoints / "videofusion"
    setting = Setting(shapes.build(), torch.device("cpu"), checkpoint=folder)
    sampler = videofusion.build(setting, steps=3, guidance=guidance)
    cost = measure(sampler, requests(setting.dataset, "test", 1, 0)[0])
    assert cost.evaluations == cost.calls["base"] == cost.calls["residual"] == 3 * times
    assert cost.parameters == sum(tensor.numel() for tensor in weights.read(folder / "model.safetensors").values())
    assert torch.backends.mha.get_fastpath_enabled()


def test_flops_grow_with_steps_and_not_with_the_batch(checkpoints: Path) -> None:
    given: dict[str, Any] = {"model": "vdm", "checkpoint": checkpoints / "vdm", "smoke": True, "device": "cpu"}
    costs = [plan(RunOptions(steps=steps, batch_size=size, **given)).cost for steps, size in [(1, 1), (3, 1), (3, 9)]]
    one, three, batched = (cost.flops_per_clip for cost in costs)
    assert three == batched
    assert 2.9 * one < three < 3 * one  # the condition is computed once


@pytest.mark.parametrize("control", ["real", "noise", "frozen"])
def test_controls_cost_nothing(control: str) -> None:
    cost = plan(RunOptions(model=control, smoke=True, device="cpu")).cost
    assert (cost.parameters, cost.flops_per_clip, cost.evaluations, cost.calls) == (0, 0, 0, {})


def test_the_peak_of_memory_is_in_bytes() -> None:
    assert 1e8 < peak_memory(torch.device("cpu")) < 1e12
