"""Tests of the baseline `corrupted`: real clips damaged by each kind and strength of corruption."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from helpers import CPU, tiny_dataset
from torch import Tensor

from vfbench.baselines import corrupted, frozen, real
from vfbench.baselines.corrupted import STRENGTHS
from vfbench.errors import UserError
from vfbench.interfaces import BuildContext, Request

DATA = tiny_dataset(frames=16, side=16)
CONTEXT = BuildContext(DATA, CPU)


def requests(count: int = 4) -> list[Request]:
    return [Request(i, 40 + i, 0, "", source=i) for i in range(count)]


def sample(kind: str, strength: float, batch: Sequence[Request] | None = None) -> Tensor:
    return corrupted.build(CONTEXT, kind=kind, strength=strength).sample(batch or requests())


CLEAN = real.build(CONTEXT).sample(requests())


@pytest.mark.parametrize("kind", STRENGTHS)
def test_damage_grows_with_the_strength(kind: str) -> None:
    damage = [(sample(kind, strength).int() - CLEAN.int()).abs().float().mean().item() for strength in STRENGTHS[kind]]
    assert damage[0] > 0
    assert damage == sorted(damage)


@pytest.mark.parametrize("kind", STRENGTHS)
def test_a_clip_depends_on_its_request_only(kind: str) -> None:
    strength = STRENGTHS[kind][1]
    assert torch.equal(sample(kind, strength)[2:3], sample(kind, strength, requests()[2:3]))


def test_the_strength_of_noise_is_its_standard_deviation() -> None:
    unclamped = (CLEAN > 60) & (CLEAN < 195)
    difference = (sample("noise", 0.05).float() - CLEAN.float())[unclamped]
    assert difference.std().item() == pytest.approx(0.05 * 255, rel=0.05)


@pytest.mark.parametrize("kind", ["shuffle", "freeze", "fewer_frames"])
def test_temporal_damage_keeps_every_frame_intact(kind: str) -> None:
    for strength in STRENGTHS[kind]:
        for clip, clean in zip(sample(kind, strength), CLEAN, strict=True):
            assert all(any(torch.equal(frame, other) for other in clean) for frame in clip)


def test_shuffle_moves_a_share_of_the_frames() -> None:
    numbered = torch.arange(16, dtype=torch.uint8).view(16, 1, 1, 1).expand(16, 3, 4, 4)
    for strength, moved in ((0.25, 4), (0.5, 8), (1.0, 16)):
        order = corrupted._shuffle(numbered, strength, torch.Generator().manual_seed(0))[:, 0, 0, 0]
        assert sorted(order.tolist()) == list(range(16))
        assert (order != torch.arange(16)).sum() == moved


def test_freeze_at_strength_1_equals_the_control_frozen() -> None:
    assert torch.equal(sample("freeze", 1.0), frozen.build(CONTEXT).sample(requests()))


def test_fewer_frames_repeats_each_frame() -> None:
    clip = sample("fewer_frames", 4.0)[0]
    assert all(torch.equal(clip[i], CLEAN[0, i // 4 * 4]) for i in range(16))


def test_blur_keeps_the_mean_and_reduces_gradients() -> None:
    blurred = sample("blur", 2.0).float()
    assert blurred.mean().item() == pytest.approx(CLEAN.float().mean().item(), rel=0.05)
    assert blurred.diff(dim=-1).abs().mean() < 0.5 * CLEAN.float().diff(dim=-1).abs().mean()


@pytest.mark.parametrize(
    ("kind", "strength", "message"),
    [
        ("blurr", 1.0, "'blurr'.*'blur'"),
        ("noise", 0.0, "strength = 0.0"),
        ("freeze", 1.5, "strength = 1.5"),
        ("fewer_frames", 0.1, "strength = 0.1"),
        ("blur", float("inf"), "strength = inf"),
    ],
)
def test_invalid_kinds_and_strengths_are_refused(kind: str, strength: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        corrupted.build(CONTEXT, kind=kind, strength=strength)
