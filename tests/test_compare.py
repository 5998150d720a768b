"""Tests of `vfbench.report.compare` and of the gate between run folders: paired and unpaired tests, and their cache."""

from __future__ import annotations

import json
import math
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
from vfbench.report import feature_tests
from vfbench.report.compare import ComparisonResult, compare
from vfbench.scoring.job import score
from vfbench.scoring.options import ScoreOptions
from vfbench.scoring.plan import plan as plan_score
from vfbench.utils.tensor_files import read_tensors, write_tensors


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with one run per variant of model, seed, protocol and metrics."""
    folder = tmp_path_factory.mktemp("runs")
    options: dict[str, Any] = {"num_samples": 64, "num_real": 128, "device": "cpu"}
    variants: dict[str, dict[str, Any]] = {
        "noise": {"model": "noise", "metrics": ["fvd", "is"]},
        "mild": {"model": "corrupted(kind='noise', strength=0.05)"},
        "strong": {"model": "corrupted(kind='noise', strength=0.4)"},
        "other-seed": {"model": "noise", "metrics": ["fvd", "is"], "seed": 1},
        "other-protocol": {"model": "noise", "metrics": ["fvd", "is"], "num_real": 64},
        "fvd-alone": {"model": "noise", "metrics": ["fvd", "precision"]},
        "fvd": {"model": "noise", "metrics": ["fvd"]},
    }
    for name, more in variants.items():
        run(plan(RunOptions(**{**options, **more, "output": folder / name})))
    return folder


def test_the_better_run_wins_in_either_order(runs: Path) -> None:
    for a, b, winner in (("mild", "strong", "A"), ("strong", "mild", "B")):
        results = {result.title: result for result in compare(runs / a, runs / b)}
        assert {"FVD", "KVD", "IS", "CLIPSIM", "attributes", "motion"} <= results.keys()
        assert {result.winner for result in results.values()} == {winner}
        assert f"{winner} is better" in str(results["FVD"])


def test_the_difference_is_the_difference_of_the_scores(runs: Path) -> None:
    scores = [json.loads((runs / name / "results.json").read_text())["scores"] for name in ("mild", "strong")]
    for result, name in zip(compare(runs / "mild", runs / "strong"), scores[0], strict=True):
        difference = scores[0][name]["value"] - scores[1][name]["value"]
        assert result.comparison.difference == pytest.approx(difference, rel=1e-6)


def test_runs_are_compared_by_their_shared_metrics(runs: Path) -> None:
    for a, b in (("mild", "fvd"), ("fvd", "mild")):
        assert [result.title for result in compare(runs / a, runs / b)] == ["FVD"]


def test_comparisons_are_averaged_over_draws(runs: Path, tmp_path: Path) -> None:
    folders = [shutil.copytree(runs / name, tmp_path / name) for name in ("mild", "strong")]
    for folder in folders:
        tensors, metadata = read_tensors(folder / "scored.safetensors")
        tensors |= {name: torch.cat([values, values]) for name, values in tensors.items() if name.startswith("fake.")}
        real = {name: values for name, values in tensors.items() if name.startswith("real.0.")}
        tensors |= {name.replace(".0.", ".1."): values.clone() for name, values in real.items()}
        write_tensors(folder / "scored.safetensors", tensors, **metadata)
        result = json.loads((folder / "results.json").read_text())
        result["protocol"]["repeats"] = 2
        (folder / "results.json").write_text(json.dumps(result))
    one_draw = compare(runs / "mild", runs / "strong", ["kvd"])[0].comparison
    two_draws = compare(folders[0], folders[1], ["kvd"])[0].comparison
    assert two_draws.difference == pytest.approx(one_draw.difference)
    assert (two_draws.low, two_draws.high) == pytest.approx((one_draw.low, one_draw.high))
    assert two_draws.p_value == pytest.approx(one_draw.p_value, rel=1e-2, abs=1e-12)
    assert two_draws.note.startswith("mean of 2 draws")


def test_a_run_equals_itself(runs: Path) -> None:
    for result in compare(runs / "mild", runs / "mild"):
        assert result.comparison.difference == pytest.approx(0, abs=1e-9)
        assert result.winner == ""
        assert "no difference beyond chance" in str(result)


DIRECTIONS: tuple[Better, ...] = ("higher", "lower")


def test_a_higher_score_wins_where_higher_is_better() -> None:
    comparison = Comparison(0.5, 0.4, 0.6, 0.001)
    assert [ComparisonResult("x", better, comparison).winner for better in DIRECTIONS] == ["A", "B"]
    text = str(ComparisonResult("x", "higher", comparison))
    assert text == "x: A - B = 0.50 [0.40, 0.60], p = 0.001: A is better"


def test_the_command_prints_a_line_for_each_metric(runs: Path, vfbench: Command) -> None:
    outcome = vfbench("compare", runs / "mild", runs / "strong", "--metrics", "fvd,kvd")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert [line.partition(":")[0] for line in lines[1:]] == ["FVD", "KVD"]
    assert "not comparable" not in lines[0]


def test_runs_that_are_not_comparable_are_marked(runs: Path, tmp_path: Path, vfbench: Command) -> None:
    smoke = shutil.copytree(runs / "mild", tmp_path / "smoke")
    result = json.loads((smoke / "results.json").read_text())
    result["protocol"]["comparable"] = False
    (smoke / "results.json").write_text(json.dumps(result))
    assert vfbench("compare", smoke, smoke).out.splitlines()[0].endswith("; not comparable")


@pytest.mark.parametrize(
    ("other", "metrics", "message"),
    [
        ("other-protocol", [], "protocols.*n_real 128 vs 64"),
        ("fvd-alone", [], "different protocols"),
        ("mild", ["fdv"], "'fdv'.*'fvd'"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(runs: Path, other: str, metrics: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare(runs / "noise", runs / other, metrics)


@pytest.mark.slow
def test_scored_clips_are_paired_by_their_prompts(tmp_path: Path) -> None:
    data = shapes.build()
    rng = np.random.default_rng(0)
    lines = [f"clips.npy[{i}]\ta {'circle' if i % 2 else 'square'}\n" for i in range(64)]
    (tmp_path / "prompts").write_text("".join(lines))
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
    for captioned, reason in ((True, ""), (False, "--prompts")):
        (result,) = compare(tmp_path / f"clean-{captioned}", tmp_path / f"noisy-{captioned}")
        assert result.winner == "A"
        assert reason in result.unpaired_because
        assert bool(result.unpaired_because) is bool(reason)


def test_a_metric_without_a_paired_test_is_compared_by_its_intervals(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda kind, spec: object() if "precision" in spec else load(kind, spec))
    copy = shutil.copytree(runs / "fvd-alone", tmp_path / "copy")
    results = compare(copy, copy)
    assert [(each.title, bool(each.unpaired_because)) for each in results] == [("FVD", False), ("Precision", True)]
    assert "no paired test" in results[1].unpaired_because


@pytest.mark.parametrize("other", ["other-seed", "results alone"])
def test_results_without_common_requests_or_features_are_compared_unpaired(
    other: str, runs: Path, tmp_path: Path, vfbench: Command
) -> None:
    b = runs / other
    if other == "results alone":
        b = Path(shutil.copy(runs / "strong" / "results.json", tmp_path / "baseline.json"))
    for a, winner in (("mild", {"A"}), ("noise", {""} if other == "other-seed" else {"B"})):
        results = compare(runs / a, b, ["fvd", "is"])
        assert {each.winner for each in results} == winner
        assert all("unpaired" in str(each) for each in results)
    scores = [json.loads(file.read_text())["scores"]["fvd"] for file in (runs / "noise" / "results.json", _file(b))]
    arms = math.hypot(scores[0]["value"] - scores[0]["low"], scores[1]["high"] - scores[1]["value"])
    half = scores[0]["value"] - scores[1]["value"] - results[0].comparison.low
    assert half == pytest.approx(arms) if other == "results alone" else 0 < half < 0.9 * arms  # real clips cancel
    out = vfbench("compare", runs / "noise", b, "--metrics", "fvd", "--power").out.splitlines()
    assert ("--seed" if other == "other-seed" else "scored.safetensors") in out[1]
    assert "smallest detectable" in out[2]
    printed = json.loads(vfbench("compare", runs / "noise", b, "--metrics", "fvd", "--json").out)[0]
    assert printed["smallest_detectable"] == pytest.approx(results[0].smallest_detectable)
    assert printed["unpaired_because"]


def _file(path: Path) -> Path:
    return path / "results.json" if path.is_dir() else path


def test_a_score_without_an_interval_is_left_out_or_refused(runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs / "other-seed", tmp_path / "copy")
    result = json.loads((copy / "results.json").read_text())
    result["scores"]["fvd"].update(low=None, high=None)
    (copy / "results.json").write_text(json.dumps(result))
    assert "FVD" not in [each.title for each in compare(runs / "noise", copy)]
    with pytest.raises(UserError, match="fvd has no interval"):
        compare(runs / "noise", copy, ["fvd"])


def test_the_gate_pairs_run_folders_and_says_so(runs: Path, vfbench: Command) -> None:
    (test,) = compare(runs / "strong", runs / "mild", ["fvd"])
    arguments = ("gate", runs / "strong", "--baseline", runs / "mild" / "results.json", "--rule", "fvd:+5%")
    failed = vfbench(*arguments, "--json")
    assert failed.code == 3
    outcome = json.loads(failed.out)["rules"][0]
    assert (outcome["test"], outcome["unpaired_because"]) == ("paired", "")
    interval = [outcome[key] for key in ("difference", "low", "high")]
    assert interval == [test.comparison.difference, test.comparison.low, test.comparison.high]
    assert outcome["detectable"] == pytest.approx(0.05 * outcome["baseline"] + test.smallest_detectable)
    assert "paired: REGRESSION" in vfbench(*arguments).out
    unpaired = vfbench("gate", runs / "noise", "--baseline", runs / "other-seed", "--rule", "fvd:+0%")
    assert (unpaired.code, "unpaired: WITHIN_NOISE" in unpaired.out, "--seed" in unpaired.out) == (0, True, True)


def test_a_test_is_kept_until_features_change(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (Path(shutil.copytree(runs / name, tmp_path / name)) for name in ("mild", "strong"))
    (first,) = compare(a, b, ["fvd"])
    monkeypatch.setattr(feature_tests, "_test", lambda *_: pytest.fail("the test was made again"))
    assert compare(a, b, ["fvd"]) == [first]
    (a / "comparisons.json").unlink()  # the other run keeps it, too
    (mirrored,) = compare(b, a, ["fvd"])
    assert (mirrored.comparison.low, mirrored.winner) == (-first.comparison.high, "B")
    tensors, metadata = read_tensors(b / "scored.safetensors")
    tensors["fake.shapes_judge.features"][0] += 1
    write_tensors(b / "scored.safetensors", tensors, **metadata)
    with pytest.raises(pytest.fail.Exception):
        compare(b, a, ["fvd"])


def test_a_run_and_its_file_are_one(runs: Path) -> None:
    assert not any(each.winner for each in compare(runs / "mild", runs / "mild" / "results.json"))


def test_unreadable_features_are_refused(runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs / "mild", tmp_path / "copy")
    (copy / "scored.safetensors").write_bytes(b"cut off")
    with pytest.raises(MissingData, match=r"copy/scored\.safetensors cannot be used"):
        compare(copy, runs / "strong")


def test_missing_features_name_the_metric(runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs / "mild", tmp_path / "copy")
    tensors, metadata = read_tensors(copy / "scored.safetensors")
    del tensors["fake.shapes_judge.logits"]
    write_tensors(copy / "scored.safetensors", tensors, **metadata)
    with pytest.raises(MissingData, match=r"--metrics is"):
        compare(copy, runs / "strong", ["is"])


@pytest.mark.parametrize("other", ["strong", "other-seed"])
def test_other_real_clips_are_refused(other: str, runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs / "mild", tmp_path / "copy")
    tensors, metadata = read_tensors(copy / "scored.safetensors")
    tensors["real.0.shapes_judge.logits"] += 1
    write_tensors(copy / "scored.safetensors", tensors, **metadata)
    with pytest.raises(MissingData, match=r"different real clips \(real\.0\.shapes_judge\.logits\)"):
        compare(copy, runs / other)
