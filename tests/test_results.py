"""Tests of `vfbench.report.results`: loading `results.json`, damaged files, differences of protocols, the schema."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jsonschema
import pytest
from resultfiles import PROTOCOL, record, score

from vfbench.errors import MissingData
from vfbench.report.comparison_cache import COMPARED_FILE
from vfbench.report.result_parts import ProtocolRecord
from vfbench.report.results import Result, describe_differences, load

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((ROOT / "vfbench/report/result.schema.json").read_text())


def write(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "results.json").write_text(content)
    return folder


def test_load_reads_folders_and_files_once_each(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", json.dumps(record("vdm")))
    other = write(tmp_path / "b", json.dumps(record("pyoco"))) / "results.json"
    assert [r.model for r in load([folder, str(other), folder / "results.json"])] == ["vdm", "pyoco"]


def test_load_fills_in_the_run_folder(tmp_path: Path) -> None:
    content = record("vdm")
    del content["run_dir"]
    folder = write(tmp_path / "a", json.dumps(content))
    assert load([folder])[0].run_dir == str(folder)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        (json.dumps(record("vdm") | {"schema": 2}), "schema 2, expected 1"),
        (json.dumps(record("vdm") | {"model": None}), "model: "),
        (json.dumps(record("vdm") | {"protocol": {}}), "protocol.id: "),
        (json.dumps(record("vdm", fvd=1, extra={"kvd": {"better": "lower"}})), "scores.kvd."),
        (json.dumps(record("vdm", extra={"kvd": score(1, better="up")})), "scores.kvd.better: "),
    ],
)
def test_load_refuses_a_damaged_file(tmp_path: Path, content: str, problem: str) -> None:
    folder = write(tmp_path / "run", content)
    with pytest.raises(MissingData) as caught:
        load([folder])
    for part in (str(folder / "results.json"), problem, "python -m vfbench run"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 4


def test_load_refuses_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "absent.json"):
        with pytest.raises(MissingData, match=rf"{path}.*python -m vfbench run"):
            load([path])


def test_differences_stop_after_a_few_fields() -> None:
    many = ProtocolRecord.model_validate({"id": "x", **{f"f{i}": i for i in range(6)}})
    assert describe_differences(many, ProtocolRecord.model_validate({"id": "y", "f0": 0})) == (
        "f1 1 vs absent, f2 2 vs absent, f3 3 vs absent, f4 4 vs absent, and 1 more"
    )
    renamed = ProtocolRecord.model_validate(PROTOCOL | {"name": "x", "id": "y"})
    assert describe_differences(ProtocolRecord.model_validate(PROTOCOL), renamed) == "no recorded field"


VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
RECORDS = sorted(path for path in (ROOT / "results").rglob("*.json") if path.name != COMPARED_FILE)  # a cache


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_recorded_results_fit_the_schema_and_round_trip(path: Path) -> None:
    """Sign records of an older version with `python benchmarks/sign_results.py`."""
    content = json.loads(path.read_text())
    VALIDATOR.validate(content)
    (result,) = load([path])
    assert result.to_json() == content
    assert result.integrity == "intact"


def test_the_published_schema_is_up_to_date() -> None:
    """Regenerate with `python benchmarks/result_schema.py`."""
    assert Result.model_json_schema() == SCHEMA


def test_nonfinite_numbers_are_null_in_files_and_nan_when_read() -> None:
    infinite = score(1.0, high=math.inf, error=math.nan, limit=None)
    result = Result.model_validate(record("vdm") | {"scores": {"fvd": infinite}})
    written = result.to_json()["scores"]["fvd"]
    assert (written["high"], written["error"], written["limit"]) == (None, None, None)
    restored = Result.model_validate(json.loads(json.dumps(result.to_json()))).scores["fvd"]
    assert math.isnan(restored.high)
    assert restored.limit is None
