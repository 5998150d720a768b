"""Tests of clips that are NaN: named, made again in float32, then counted as failed; never left out of a score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import Command, results

import vfbench as package
from vfbench import video
from vfbench.baselines.noise import Noise
from vfbench.datasets import shapes
from vfbench.interfaces import Clips, Request
from vfbench.utils.tensor_files import read_tensors

RUN = ("run", "--model", "noise", "-n", 20, "--smoke", "--device", "cpu", "--batch-size", 8)
BAD = {5, 12}
original = Noise.sample


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the undisturbed run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    package.run(model="noise", num_samples=20, smoke=True, device="cpu", batch_size=8, output=folder)
    return folder


def not_finite(sampler: Noise, requests: Sequence[Request]) -> Clips:
    """Clips of which some are NaN."""
    if any(request.index in BAD for request in requests):
        return video.to_uint8(torch.full((len(requests), 16, 3, 32, 32), torch.nan))
    return original(sampler, requests)


class Precise(Noise):
    """Sampler that makes the clips which are NaN otherwise."""

    def sample(self, requests: Sequence[Request]) -> Clips:
        return original(self, requests)


def chunk(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder / "chunks" / "000000.safetensors")[0]


def test_a_clip_that_stays_nan_is_named_and_leaves_the_run_without_a_score(
    finished: Path, tmp_path: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr(Noise, "sample", not_finite)
    outcome = vfbench(*RUN, "--output", folder)
    assert (outcome.code, "2 of 20 clips failed" in outcome.err) == (1, True), outcome.err
    assert "clips 0 to 7 cannot be scored" in outcome.err
    assert not (folder / "results.json").exists()
    assert json.loads((folder / "timings" / "000000.json").read_text())["failed"].keys() == {"5", "12"}
    good = [row for row in range(20) if row not in BAD]
    for name, expected in chunk(finished).items():
        values = chunk(folder)[name]
        assert set(torch.isnan(values).all(1).nonzero().flatten().tolist()) == BAD
        torch.testing.assert_close(values[good], expected[good], rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(Noise, "sample", original)  # what has failed stays failed
    assert vfbench(*RUN, "--output", folder).code == 1
    assert not (folder / "results.json").exists()


def test_a_clip_that_is_whole_in_float32_is_scored(
    finished: Path, tmp_path: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Noise, "sample", not_finite)
    monkeypatch.setattr(Noise, "in_float32", lambda _: Precise(shapes.build()), raising=False)
    outcome = vfbench(*RUN, "--output", tmp_path / "run")
    assert (outcome.code, "again in float32" in outcome.err) == (0, True), outcome.err
    for name, score in results(finished)["scores"].items():
        assert results(tmp_path / "run")["scores"][name]["value"] == pytest.approx(score["value"], rel=1e-3, abs=1e-4)


def test_generate_ends_at_such_a_clip(tmp_path: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noise, "sample", not_finite)
    outcome = vfbench("generate", "--model", "noise", "-n", 8, "--device", "cpu", "--output", tmp_path / "clips")
    assert (outcome.code, "clip 5 cannot be scored" in outcome.err) == (2, True)
    assert not (tmp_path / "clips").exists()
