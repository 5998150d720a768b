"""Runs with clips to make reports of: tiny smoke runs of two controls."""

from __future__ import annotations

from pathlib import Path

import vfbench

CLIPS = 4  # of each run


def make_runs(folder: Path) -> list[Path]:
    """Folders of a run of `noise` and one of `frozen`, which keep their clips."""
    for model in ("noise", "frozen"):
        options = {"smoke": True, "keep_clips": True, "num_samples": CLIPS, "device": "cpu"}
        vfbench.run(model=model, dataset="shapes", output=folder / model, **options)  # type: ignore[arg-type]
    return [folder / "noise", folder / "frozen"]
