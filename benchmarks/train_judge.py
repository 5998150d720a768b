"""Train the judge of Moving Shapes: python benchmarks/train_judge.py [--steps 1500] [--side 32] [--output DIR]

Classes by cross-entropy, captions by the symmetric contrastive loss of CLIP (arXiv 2103.00020). Half of each batch gets
faint noise, so that the judge does not rely on differences of one grey level. Prints held-out accuracy and retrieval.
The shipped judge takes small clips for other ones: train another with `--frames 8 --side 16`, and score with
`--extractor "shapes_judge=shapes_judge(weights_dir='DIR')"`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from _measure import make_parser
from torch import Tensor

from vfbench.clips.transform import resize
from vfbench.datasets import _shapes_scene as scene
from vfbench.datasets import shapes
from vfbench.interfaces import derive_seed
from vfbench.metrics._shapes_judge import SIDE, Judge
from vfbench.utils import files, tensor_files
from vfbench.utils.files import file_sha256

SHIPPED = Path(__file__).parent.parent / "vfbench" / "checkpoints" / "shapes" / "judge"


def main() -> None:
    parser = make_parser(__doc__, steps=1500, batch_size=64, lr=2e-3, frames=16, side=32)
    parser.add_argument("--output", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    data = shapes.build(frames=arguments.frames, height=arguments.side, width=arguments.side)
    judge = Judge(len(data.classes), data.words).to(device)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=arguments.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, arguments.lr, total_steps=arguments.steps)
    started = time.monotonic()
    for step in range(arguments.steps):
        loss = _loss(judge, data, derive_seed(1, step), arguments.batch_size, device)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if (step + 1) % 250 == 0 or step + 1 == arguments.steps:
            seconds = round(time.monotonic() - started)
            print(
                json.dumps(
                    {"step": step + 1, "loss": round(loss.item(), 4), "seconds": seconds, **evaluate(judge, data)}
                ),
                flush=True,
            )
            _save(judge, data, arguments.output)


def _loss(judge: Judge, data: shapes.Shapes, seed: int, count: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(data.size("train"), (count,), generator=generator).tolist()
    x = _input(data.clips("train", indices, device))
    strength = torch.rand(count // 2, 1, 1, 1, 1, generator=generator) * 0.1
    x[: count // 2] += (strength * torch.randn(x[: count // 2].shape, generator=generator)).to(device)
    features = judge(x)
    classes = torch.tensor(data.labels("train", indices), device=device)
    similarity = judge.clip_embedding(features) @ judge.caption_embedding(data.captions("train", indices)).T
    scores, targets = similarity * judge.temperature.exp(), torch.arange(count, device=device)
    contrastive = (F.cross_entropy(scores, targets) + F.cross_entropy(scores.T, targets)) / 2
    return F.cross_entropy(judge.class_logits(features), classes) + contrastive


def _input(clips: Tensor) -> Tensor:
    """Clips as the extractor passes them to the judge."""
    return resize(clips, SIDE, SIDE).float().div(127.5).sub(1)


@torch.inference_mode()
def evaluate(judge: Judge, data: shapes.Shapes, clips: int = 1000) -> dict[str, float]:
    """Held-out class accuracy, and top-1 retrieval of a clip by its caption among 100, over `clips` test clips."""
    device = judge.temperature.device
    judge.eval()
    correct, retrieved = 0, 0
    for start in range(0, clips, 100):
        indices = range(start, start + 100)
        features = judge(_input(data.clips("test", indices, device)))
        labels = torch.tensor(data.labels("test", indices), device=device)
        correct += int((judge.class_logits(features).argmax(1) == labels).sum())
        scores = judge.caption_embedding(data.captions("test", indices)) @ judge.clip_embedding(features).T
        retrieved += int((scores.argmax(1) == torch.arange(100, device=device)).sum())
    judge.train()
    return {"accuracy": correct / clips, "retrieval": retrieved / clips}


def _save(judge: Judge, data: shapes.Shapes, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.safetensors"
    tensor_files.write(path, judge.state_dict())
    attributes = {"motion": scene.MOTIONS, "shape": scene.SHAPES, "size": tuple(scene.SIZES)}
    attributes |= {"colour": tuple(scene.COLOURS), "ground": tuple(scene.COLOURS), "texture": scene.TEXTURES}
    known = {"classes": data.classes, "words": data.words, "attributes": attributes}
    config = {**known, "sha256": file_sha256(path)}
    files.write_json(folder / "config.json", config)


if __name__ == "__main__":
    main()
