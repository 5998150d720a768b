"""Tests of `vfbench score --paired`: PSNR, SSIM and LPIPS against the real clips of the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scoring import plan_score, run_score, save_array, shapes_clips

from vfbench.errors import MissingData, UserError

COUNT = 6


def sides(folder: Path, names: list[str] | None = None) -> dict[str, Any]:
    """Folders of real clips and of the same clips 5 levels brighter."""
    clips = np.clip(shapes_clips(COUNT), 0, 200)
    for number, clip in enumerate(clips):
        save_array(folder / "real" / f"{number:03}.npy", clip[None])
        name = names[number] if names else f"{number:03}"
        save_array(folder / "fake" / f"{name}.npy", clip[None] + 5)
    return {"real": str(folder / "real"), "fake": folder / "fake", "metrics": ["is"], "output": folder / "out"}


@pytest.mark.slow
def test_pairs_are_scored_beside_the_other_metrics(tmp_path: Path) -> None:
    options = sides(tmp_path)
    first = run_score(**options, paired=True)
    again = run_score(**options, paired=True)
    assert list(first["scores"]) == list(again["scores"]) == ["is", "psnr", "ssim"]
    psnr = first["scores"]["psnr"]
    assert (psnr["value"], psnr["better"], psnr["n_fake"]) == (pytest.approx(20 * np.log10(255 / 5)), "higher", COUNT)
    assert psnr["low"] == pytest.approx(psnr["high"])
    assert 0.8 < first["scores"]["ssim"]["value"] < 1
    assert "no LPIPS" in first["note"]
    with pytest.raises(UserError, match="paired"):  # another score, which is kept apart
        run_score(**options)


def test_clips_without_a_partner_are_named(tmp_path: Path) -> None:
    options = sides(tmp_path, [*(f"{number:03}" for number in range(COUNT - 1)), "other"])
    with pytest.raises(MissingData, match=r"lacks 1 of the 6 clips.*other"):
        plan_score(**options, paired=True)
    assert plan_score(**options)


def test_a_dataset_has_no_names_to_pair_by(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--real"):
        plan_score(**{**sides(tmp_path), "real": "shapes"}, paired=True)


def test_features_are_not_paired(tmp_path: Path) -> None:
    for side in ("real", "fake"):
        save_array(tmp_path / side / "features.npy", np.zeros((70, 4), np.float32))
    with pytest.raises(UserError, match="--paired"):
        plan_score(tmp_path / "fake", real=str(tmp_path / "real"), paired=True)
