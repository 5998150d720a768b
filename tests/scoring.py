"""Array files of Moving Shapes clips and their scores, for the tests of `vfbench score`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vfbench.datasets import shapes
from vfbench.scoring.job import ScorePlan, score
from vfbench.scoring.options import ScoreOptions
from vfbench.scoring.plan import plan as make_plan


def shapes_clips(count: int, first: int = 0, frames: int = 16, side: int = 32) -> np.ndarray:
    """Test clips of Moving Shapes from index `first` on, (B, T, H, W, 3) uint8."""
    dataset = shapes.build(frames=frames, height=side, width=side)
    return dataset.clips("test", range(first, first + count)).permute(0, 1, 3, 4, 2).numpy()


def save_array(path: Path, values: np.ndarray) -> Path:
    """Save an array file of clips or features and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return path


def plan_score(fake: Path, **options: Any) -> ScorePlan:
    """Scoring plan; by default a smoke run against Moving Shapes."""
    return make_plan(ScoreOptions(fake=fake, **{"real": "shapes", "smoke": True, "device": "cpu", **options}))


def run_score(fake: Path, **options: Any) -> dict[str, Any]:
    """Result of scoring, with the defaults of `plan_score`."""
    return score(plan_score(fake, **options)).to_json()
