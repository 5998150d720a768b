"""Clips of Moving Shapes as others would save them, and their scores, for the tests of `vfbench score`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vfbench.datasets import shapes
from vfbench.scoring.job import ScorePlan, score
from vfbench.scoring.options import ScoreOptions
from vfbench.scoring.plan import plan as plan_score


def drawn(count: int, first: int = 0, frames: int = 16, side: int = 32) -> np.ndarray:
    """Clips (B, T, H, W, 3) from number `first` on."""
    dataset = shapes.build(frames=frames, height=side, width=side)
    return dataset.clips("test", range(first, first + count)).permute(0, 1, 3, 4, 2).numpy()


def saved(path: Path, values: np.ndarray) -> Path:
    """An array file of clips or of features."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return path


def looked(fake: Path, **options: Any) -> ScorePlan:
    """What is found: unless told otherwise, against Moving Shapes, with few clips."""
    given = {"real": "shapes", "smoke": True, "device": "cpu", **options}
    return plan_score(ScoreOptions(fake=fake, **given))


def scored(fake: Path, **options: Any) -> dict[str, Any]:
    """The result of it."""
    return score(looked(fake, **options)).to_json()
