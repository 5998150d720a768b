"""Test of the noise levels of training: where they reach the noise in which motion is decided, motion is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import CPU
from torch import Tensor

from vfbench.baselines import vdm
from vfbench.baselines.vdm import VDM
from vfbench.diffusion.sampler import DiffusionSampler, SamplerOptions
from vfbench.diffusion.schedule import AUTO
from vfbench.interfaces import Clips, ClipShape, Request, Split
from vfbench.training.distributed import ProcessGroup
from vfbench.training.options import TrainOptions
from vfbench.training.trainer import Trainer

FRAMES, SIDE, SQUARE = 16, 8, 4
STEPS = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}  # of a frame, in pixels
NETWORK = {"channels": [16, 32], "attention": [1], "embedding": 64, "frame_condition": True}
CHANCE = 1 / len(STEPS)
OPTIONS = TrainOptions(
    steps=300,
    batch_size=8,
    lr=3e-3,
    lr_schedule="constant",
    warmup=20,
    ema=0.98,
    conditions={"class": 0.9, "none": 0.1},
    dtype="float32",
    device="cpu",
)


class MovingSquare:
    """A white square on black that moves a pixel a frame and comes back on the other side; the class is the motion."""

    name, classes, words, fingerprint = "moving-square", tuple(STEPS), ("moves",), "0" * 64
    shape = ClipShape(FRAMES, SIDE, SIDE)

    def size(self, split: Split) -> int:
        return 4096

    def labels(self, split: Split, indices: Sequence[int]) -> list[int]:
        return [index % len(STEPS) for index in indices]

    def captions(self, split: Split, indices: Sequence[int]) -> list[str]:
        return ["moves"] * len(indices)

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Clips:
        return torch.stack([self._clip(index) for index in indices])

    def _clip(self, index: int) -> Tensor:
        place = torch.randint(SIDE, (2,), generator=torch.Generator().manual_seed(index)).tolist()
        down, right = list(STEPS.values())[index % len(STEPS)]
        frame = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
        frame[:, :SQUARE, :SQUARE] = 255
        return torch.stack([frame.roll((place[0] + t * down, place[1] + t * right), (1, 2)) for t in range(FRAMES)])


def motions(clips: Clips) -> list[int]:
    """Class of each clip: the step by which a frame looks most like the one before."""
    x = clips.float().mean(2) / 127.5 - 1
    likeness = [(x[:, 1:] * x[:, :-1].roll(step, (-2, -1))).flatten(1).sum(1) for step in STEPS.values()]
    return torch.stack(likeness).argmax(0).tolist()


def share_right(time_shift: float | str, folder: Path) -> float:
    """Share of 128 clips with the motion asked for, after a short training."""
    data = MovingSquare()
    torch.manual_seed(0)
    config = vdm.create(data, time_shift=time_shift).config
    model = VDM(replace(config, options={**config.options, "network": NETWORK}))
    trainer = Trainer(model, data, OPTIONS, folder, ProcessGroup("cpu"))
    for _ in range(OPTIONS.steps):
        trainer.advance()
    sampler = DiffusionSampler(trainer.ema, "none", CPU, sampling=SamplerOptions(steps=10, condition="class"))
    asked = data.labels("test", range(128))
    made = motions(sampler.sample([Request(i, i, label, "moves") for i, label in enumerate(asked)]))
    return sum(a == b for a, b in zip(asked, made, strict=True)) / len(asked)


@pytest.mark.slow  # two trainings, a minute together
def test_shifted_times_teach_the_motion_that_even_times_hardly_visit(tmp_path: Path) -> None:
    assert motions(MovingSquare().clips("test", range(40))) == MovingSquare().labels("test", range(40))
    even, shifted = share_right(1.0, tmp_path), share_right(AUTO, tmp_path)
    assert shifted > 0.7 > 2 * CHANCE
    assert shifted > even + 0.2
