"""Tests of the recorded results in the repository: order of models, shared protocol, shipped weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.report import results
from vfbench.report.result_parts import ScoreRecord
from vfbench.utils import checkpoint
from vfbench.utils.files import file_sha256, read_json

ROOT = Path(__file__).parent.parent
MODELS = ("videofusion", "vdm", "vdit", "pyoco", "pyoco-tiny-progressive")
RECORDS = {path.stem: results.load([path])[0] for path in sorted((ROOT / "results" / "records").glob("*.json"))}


def worse(score: ScoreRecord, other: ScoreRecord) -> bool:
    """True if `score` is worse than `other` with disjoint intervals."""
    return score.low > other.high if score.better == "lower" else score.high < other.low


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("metric", ["fvd", "kvd", "is", "clipsim"])
def test_models_beat_noise_on_every_metric(model: str, metric: str) -> None:
    assert worse(RECORDS["noise"].scores[metric], RECORDS[model].scores[metric])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("metric", ["fvd", "kvd"])
def test_models_beat_frozen_clips_on_motion_metrics(model: str, metric: str) -> None:
    assert worse(RECORDS["frozen"].scores[metric], RECORDS[model].scores[metric])


def test_real_clips_score_near_the_floor() -> None:
    for name, score in RECORDS["real"].scores.items():
        slack = score.high - score.low
        assert abs(score.value - score.floor) <= slack, name


def test_records_share_a_protocol_and_the_shipped_weights() -> None:
    assert len({record.protocol.id for record in RECORDS.values()}) == 1
    for name in MODELS:
        folder = checkpoint.shipped("shapes", name)
        assert folder is not None
        assert RECORDS[name].weights == file_sha256(folder / "model.safetensors")
    judge = plugins.load("extractor", "shapes_judge", torch.device("cpu"))
    for record in RECORDS.values():
        assert record.protocol.extractors == {"shapes_judge": judge.fingerprint}
        assert record.protocol.to_json()["data_fingerprint"] == shapes.build().fingerprint


def test_shipped_models_are_small_and_of_equal_cost() -> None:
    costs = [cost for name in MODELS if (cost := RECORDS[name].cost)]
    assert all(1e6 < cost.parameters < 4e6 for cost in costs)
    flops_per_call = [cost.flops_per_clip / (cost.evaluations or 0) for cost in costs]
    assert flops_per_call == pytest.approx([flops_per_call[0]] * len(MODELS), rel=0.03)
    folders = [checkpoint.shipped("shapes", name) for name in MODELS]
    assert sum((folder / "model.safetensors").stat().st_size for folder in folders if folder) < 30e6


def test_no_record_tells_where_it_was_made() -> None:
    paths = sorted((ROOT / "results").rglob("*.json"))
    assert [path.name for path in paths if Path(read_json(path).get("run_dir", "")).is_absolute()] == []


def test_the_baseline_of_the_gate_equals_the_record() -> None:
    baseline = results.load([ROOT / "results" / "baselines" / "ci" / "results.json"])[0]
    assert baseline.scores == RECORDS["videofusion"].scores
