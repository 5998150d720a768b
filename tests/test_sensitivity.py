"""Tests of `vfbench sensitivity`: the ladder of corruptions, and worse scores for stronger ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from vfbench.errors import UserError
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.sensitivity import damaged_models, sensitivity
from vfbench.report import table


def test_the_ladder_has_real_clips_and_each_kind_by_strength() -> None:
    ladder = damaged_models(["blur", "freeze"])
    assert [str(rung) for rung in ladder[:2]] == ["real", "corrupted(kind='blur', strength=0.5)"]
    assert [rung.options["kind"] for rung in ladder[1:]] == ["blur"] * 4 + ["freeze"] * 3
    assert {str(rung.options["kind"]) for rung in damaged_models()[1:]} > {"noise", "shuffle", "fewer_frames"}


def test_an_unknown_kind_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'freeze'"):
        damaged_models(["frieze"])


@pytest.mark.slow
def test_stronger_corruption_scores_worse_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = RunOptions(metrics=["kvd"], num_samples=32, num_real=64, output=tmp_path, device="cpu")
    results = sensitivity(options, ["noise"])
    values = [result.scores["kvd"].value for result in results]
    assert values[-1] > max(values[:-1]) + 20  # weaker ones are within the noise of 32 clips
    assert len({result.protocol.id for result in results}) == 1
    rows = table.build(results).rows
    assert [row.kind for row in rows] == ["reference"] * 5 + ["floor"]
    assert rows[4].label == "corrupted(kind='noise', strength=0.2)"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == sorted(
        ["real", "corrupted-noise-0.02", "corrupted-noise-0.05", "corrupted-noise-0.1", "corrupted-noise-0.2"]
    )
    assert "corrupted(kind='noise', strength=0.2)" in (tmp_path / "table.md").read_text()
    repeated = sensitivity(options, ["noise"])
    assert [result.scores for result in repeated] == [result.scores for result in results]
