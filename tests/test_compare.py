"""Is A better than B: paired runs, and what cannot be paired."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Better, Comparison
from vfbench.pipeline.job import run
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan
from vfbench.report.compare import PairedResult, compare
from vfbench.scoring.job import score
from vfbench.scoring.options import ScoreOptions
from vfbench.scoring.plan import plan as plan_score
from vfbench.utils.tensor_files import read_tensors, write_tensors


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs by what is special about them."""
    folder = tmp_path_factory.mktemp("runs")
    options: dict[str, Any] = {"num_samples": 64, "num_real": 128, "device": "cpu"}
    special: dict[str, dict[str, Any]] = {
        "noise": {"model": "noise"},
        "mild": {"model": "corrupted(kind='noise', strength=0.05)"},
        "strong": {"model": "corrupted(kind='noise', strength=0.4)"},
        "other-seed": {"model": "noise", "seed": 1},
        "other-protocol": {"model": "noise", "num_real": 64},
        "fvd-alone": {"model": "noise", "metrics": ["fvd", "precision"]},
        "fvd": {"model": "noise", "metrics": ["fvd"]},
    }
    for name, more in special.items():
        run(plan(RunOptions(**{**options, **more, "output": folder / name})))
    return folder


def test_the_better_one_is_told_either_way(runs: Path) -> None:
    for a, b, winner in (("mild", "strong", "A"), ("strong", "mild", "B")):
        found = {verdict.title: verdict for verdict in compare(runs / a, runs / b)}
        assert found.keys() == {"FVD", "KVD", "IS", "CLIPSIM"}
        assert {verdict.winner for verdict in found.values()} == {winner}
        assert f"{winner} is better" in str(found["FVD"])


def test_the_difference_is_that_of_the_scores(runs: Path) -> None:
    scores = [json.loads((runs / name / "results.json").read_text())["scores"] for name in ("mild", "strong")]
    for verdict, name in zip(compare(runs / "mild", runs / "strong"), scores[0], strict=True):
        assert verdict.comparison.difference == pytest.approx(
            scores[0][name]["value"] - scores[1][name]["value"], rel=1e-6
        )


def test_runs_of_unlike_metrics_are_compared_by_those_they_share(runs: Path) -> None:
    for a, b in (("mild", "fvd"), ("fvd", "mild")):
        assert [verdict.title for verdict in compare(runs / a, runs / b)] == ["FVD"]


def test_draws_are_compared_each_with_its_own_clips_and_averaged(runs: Path, tmp_path: Path) -> None:
    folders = [shutil.copytree(runs / name, tmp_path / name) for name in ("mild", "strong")]
    for folder in folders:
        tensors, metadata = read_tensors(folder / "scored.safetensors")
        tensors |= {name: torch.cat([values, values]) for name, values in tensors.items() if name.startswith("fake.")}
        tensors |= {
            name.replace(".0.", ".1."): values.clone() for name, values in tensors.items() if name.startswith("real.0.")
        }
        write_tensors(folder / "scored.safetensors", tensors, **metadata)
        result = json.loads((folder / "results.json").read_text())
        result["protocol"]["repeats"] = 2
        (folder / "results.json").write_text(json.dumps(result))
    ours, theirs = folders
    one = compare(runs / "mild", runs / "strong", ["kvd"])[0].comparison
    two = compare(ours, theirs, ["kvd"])[0].comparison
    assert two.difference == pytest.approx(one.difference)
    assert (two.low, two.high) == pytest.approx((one.low, one.high))
    assert two.p_value == pytest.approx(one.p_value, rel=1e-2, abs=1e-12)
    assert two.note.startswith("mean of 2 draws")


def test_a_run_is_no_better_than_itself(runs: Path) -> None:
    for verdict in compare(runs / "mild", runs / "mild"):
        assert verdict.comparison.difference == pytest.approx(0, abs=1e-9)
        assert verdict.winner == ""
        assert "no difference beyond chance" in str(verdict)


BOTH: tuple[Better, ...] = ("higher", "lower")


def test_a_higher_score_wins_where_higher_is_better() -> None:
    found = Comparison(0.5, 0.4, 0.6, 0.001)
    assert [PairedResult("x", better, found).winner for better in BOTH] == ["A", "B"]
    assert str(PairedResult("x", "higher", found)) == "x: A - B = 0.50 [0.40, 0.60], p = 0.001: A is better"


def test_the_command_prints_a_line_for_each_metric(runs: Path, vfbench: Command) -> None:
    done = vfbench("compare", runs / "mild", runs / "strong", "--metrics", "fvd,kvd")
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.partition(":")[0] for line in lines[1:]] == ["FVD", "KVD"]
    assert "not comparable" not in lines[0]


def test_runs_that_do_not_compare_say_so(runs: Path, tmp_path: Path, vfbench: Command) -> None:
    smoke = shutil.copytree(runs / "mild", tmp_path / "smoke")
    result = json.loads((smoke / "results.json").read_text())
    result["protocol"]["comparable"] = False
    (smoke / "results.json").write_text(json.dumps(result))
    assert vfbench("compare", smoke, smoke).out.splitlines()[0].endswith("; not comparable")


@pytest.mark.parametrize(
    ("other", "metrics", "said"),
    [
        ("other-seed", [], "seeds, 0 and 1.*--seed"),
        ("other-protocol", [], "protocols.*n_real 128 vs 64"),
        ("fvd-alone", [], "different protocols"),
        ("mild", ["fdv"], "no metric that both runs have called 'fdv': did you mean 'fvd'"),
    ],
)
def test_what_cannot_be_paired_is_refused(runs: Path, other: str, metrics: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        compare(runs / "noise", runs / other, metrics)


@pytest.mark.slow
def test_clips_made_elsewhere_are_paired_by_their_prompts(tmp_path: Path) -> None:
    data = shapes.build()
    rng = np.random.default_rng(0)
    (tmp_path / "prompts").write_text(
        "".join(f"clips.npy[{i}]\ta circle\n" if i % 2 else f"clips.npy[{i}]\ta square\n" for i in range(64))
    )
    for name, noise in (("clean", 0), ("noisy", 90)):
        clips = data.clips("test", range(64)).permute(0, 1, 3, 4, 2).numpy()
        damaged = np.clip(clips + rng.normal(0, noise, clips.shape), 0, 255).astype(np.uint8)
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "clips.npy", damaged)
        for prompts in (None, tmp_path / "prompts"):
            options = ScoreOptions(
                real="shapes", fake=tmp_path / name, metrics=["fvd"], prompts=prompts, num_real=64, device="cpu"
            )
            score(plan_score(replace(options, output=tmp_path / f"{name}-{bool(prompts)}")))
    (verdict,) = compare(tmp_path / "clean-True", tmp_path / "noisy-True")
    assert verdict.winner == "A"
    with pytest.raises(UserError, match="--prompts"):
        compare(tmp_path / "clean-False", tmp_path / "noisy-False")


def test_a_metric_without_a_paired_test_is_left_out_or_refused(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda kind, spec: object() if "precision" in spec else load(kind, spec))
    assert [verdict.title for verdict in compare(runs / "fvd-alone", runs / "fvd-alone")] == ["FVD"]
    with pytest.raises(UserError, match="precision: compare by another"):
        compare(runs / "fvd-alone", runs / "fvd-alone", ["precision"])


def test_a_folder_without_its_features_is_refused(runs: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(runs / "mild", tmp_path / "bare")
    (bare / "scored.safetensors").write_bytes(b"cut off")
    with pytest.raises(MissingData, match=r"bare/scored\.safetensors cannot be used"):
        compare(bare, runs / "strong")


def test_features_that_were_not_kept_are_missed(runs: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(runs / "mild", tmp_path / "bare")
    tensors, metadata = read_tensors(bare / "scored.safetensors")
    del tensors["fake.shapes_judge.logits"]
    write_tensors(bare / "scored.safetensors", tensors, **metadata)
    with pytest.raises(MissingData, match=r"features of is .*--metrics is"):
        compare(bare, runs / "strong", ["is"])


def test_other_real_clips_are_seen(runs: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(runs / "mild", tmp_path / "moved")
    tensors, metadata = read_tensors(moved / "scored.safetensors")
    tensors["real.0.shapes_judge.logits"] += 1
    write_tensors(moved / "scored.safetensors", tensors, **metadata)
    with pytest.raises(MissingData, match=r"different real clips \(real\.0\.shapes_judge\.logits\)"):
        compare(moved, runs / "strong")
