"""The rungs of the corruption ladder do what they say, and nothing else."""

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
SETTING = BuildContext(DATA, CPU)


def requests(count: int = 4) -> list[Request]:
    return [Request(i, 40 + i, 0, "", source=i) for i in range(count)]


def sample(kind: str, strength: float, asked: Sequence[Request] | None = None) -> Tensor:
    return corrupted.build(SETTING, kind=kind, strength=strength).sample(asked or requests())


CLEAN = real.build(SETTING).sample(requests())


@pytest.mark.parametrize("kind", STRENGTHS)
def test_each_rung_damages_more_than_the_one_below(kind: str) -> None:
    damage = [(sample(kind, strength).int() - CLEAN.int()).abs().float().mean().item() for strength in STRENGTHS[kind]]
    assert damage[0] > 0
    assert damage == sorted(damage)


@pytest.mark.parametrize("kind", STRENGTHS)
def test_a_clip_depends_on_its_own_request_alone(kind: str) -> None:
    strength = STRENGTHS[kind][1]
    assert torch.equal(sample(kind, strength)[2:3], sample(kind, strength, requests()[2:3]))


def test_noise_has_the_deviation_it_names() -> None:
    inside = (CLEAN > 60) & (CLEAN < 195)  # where clamping cannot bite
    difference = (sample("noise", 0.05).float() - CLEAN.float())[inside]
    assert difference.std().item() == pytest.approx(0.05 * 255, rel=0.05)


@pytest.mark.parametrize("kind", ["shuffle", "freeze", "fewer_frames"])
def test_damage_in_time_leaves_every_picture_whole(kind: str) -> None:
    for strength in STRENGTHS[kind]:
        for clip, clean in zip(sample(kind, strength), CLEAN, strict=True):
            assert all(any(torch.equal(frame, other) for other in clean) for frame in clip)


def test_a_shuffle_keeps_the_frames_and_moves_its_share() -> None:
    marked = torch.arange(16, dtype=torch.uint8).view(16, 1, 1, 1).expand(16, 3, 4, 4)
    for strength, moved in ((0.25, 4), (0.5, 8), (1.0, 16)):
        order = corrupted._shuffle(marked, strength, torch.Generator().manual_seed(0))[:, 0, 0, 0]
        assert sorted(order.tolist()) == list(range(16))
        assert (order != torch.arange(16)).sum() == moved


def test_frozen_whole_is_the_control_of_that_name() -> None:
    assert torch.equal(sample("freeze", 1.0), frozen.build(SETTING).sample(requests()))


def test_fewer_frames_shows_each_as_often_as_it_says() -> None:
    clip = sample("fewer_frames", 4.0)[0]
    assert all(torch.equal(clip[i], CLEAN[0, i // 4 * 4]) for i in range(16))


def test_blur_keeps_the_mean_and_loses_the_edges() -> None:
    blurred = sample("blur", 2.0).float()
    assert blurred.mean().item() == pytest.approx(CLEAN.float().mean().item(), rel=0.05)
    assert blurred.diff(dim=-1).abs().mean() < 0.5 * CLEAN.float().diff(dim=-1).abs().mean()


@pytest.mark.parametrize(
    ("kind", "strength", "named"),
    [("blurr", 1.0, "did you mean 'blur'"), ("noise", 0.0, "strength = 0.0 of noise"), ("freeze", 1.5, "at most 1")],
)
def test_wrong_damage_is_refused(kind: str, strength: float, named: str) -> None:
    with pytest.raises(UserError, match=named):
        corrupted.build(SETTING, kind=kind, strength=strength)
