"""How soon a network learns the motion that a caption asks for: python benchmarks/motion_learning.py [--steps 1000]

Trains a small VDM on Moving Shapes of 8x16x16 from scratch, only in the strong noise in which motion is decided (times
900 to 999), with and without the option `frame_condition`. Prints a JSON line every 250 steps: the loss on held-out
clips at time 990, and by how much it is higher with another motion in the caption. As long as that is near 0, the
caption's motion is not used.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace

import torch
from _measure import make_parser
from torch import Tensor

from vfbench.baselines import vdm
from vfbench.datasets import _shapes_scene as scene
from vfbench.datasets import shapes
from vfbench.interfaces import derive_seed

NETWORK = {"channels": [16, 32, 48], "blocks": 1, "patch": 2, "attention": [1, 2], "embedding": 128}
BATCH, HELD_OUT = 16, range(1000, 1048)
STRONG_NOISE = range(900, 1000)


def main() -> None:
    parser = make_parser(__doc__, steps=1000, lr=2e-3, seed=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = shapes.build(frames=8, height=16, width=16)
    for frame_condition in (False, True):
        torch.manual_seed(arguments.seed)
        config = vdm.create(data).config
        model = vdm.VDM(
            replace(config, options={**config.options, "network": {**NETWORK, "frame_condition": frame_condition}})
        )
        started = time.monotonic()
        optimizer = torch.optim.AdamW(model.parameters(), arguments.lr)
        for step in range(arguments.steps):
            generator = torch.Generator().manual_seed(derive_seed(arguments.seed, step))
            optimizer.param_groups[0]["lr"] = arguments.lr * min(1, (step + 1) / 30)
            loss = _loss(model, data, generator)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if (step + 1) % 250 == 0:
                seconds = round(time.monotonic() - started)
                line = {"frame_condition": frame_condition, "step": step + 1, "seconds": seconds, **probe(model, data)}
                print(json.dumps(line), flush=True)


def _loss(model: vdm.VDM, data: shapes.Shapes, generator: torch.Generator) -> Tensor:
    indices = torch.randint(data.size("train"), (BATCH,), generator=generator).tolist()
    x = data.clips("train", indices).float().div(127.5).sub(1)
    strata = (torch.randperm(BATCH, generator=generator) + torch.rand(BATCH, generator=generator)) / BATCH
    times = (STRONG_NOISE.start + strata * len(STRONG_NOISE)).long().clamp(max=STRONG_NOISE[-1])
    noise = torch.randn(x.shape, generator=generator)
    condition = model.condition(data.labels("train", indices), data.captions("train", indices), ["text"] * BATCH)
    return model.losses(x, noise, times, condition)["network"]


@torch.no_grad()
def probe(model: vdm.VDM, data: shapes.Shapes) -> dict[str, float]:
    """Loss on held-out clips at time 990, and how much higher it is with another motion in the caption."""
    x = data.clips("test", HELD_OUT).float().div(127.5).sub(1)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    times, captions = torch.full((len(x),), 990), data.captions("test", HELD_OUT)
    right, wrong = (
        float(model.losses(x, noise, times, model.condition([0] * len(x), texts, ["text"] * len(x)))["network"])
        for texts in (captions, [another_motion(caption) for caption in captions])
    )
    return {"loss": round(right, 4), "more_with_another_motion": round(wrong - right, 5)}


def another_motion(caption: str) -> str:
    """The caption with the next motion of the list."""
    motion = max((each for each in scene.MOTIONS if each in caption), key=len)
    return caption.replace(motion, scene.MOTIONS[(scene.MOTIONS.index(motion) + 1) % len(scene.MOTIONS)])


if __name__ == "__main__":
    main()
