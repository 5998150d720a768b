"""The `results.json` of runs are read once, refused where they are damaged, and told apart by their protocols."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from resultfiles import PROTOCOL, record, score

from vfbench.errors import MissingData
from vfbench.report.results import differences, load


def write(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "results.json").write_text(content)
    return folder


def test_load_reads_a_folder_and_a_file_and_each_only_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", json.dumps(record("vdm")))
    other = write(tmp_path / "b", json.dumps(record("pyoco"))) / "results.json"
    assert [r["model"] for r in load([folder, str(other), folder / "results.json"])] == ["vdm", "pyoco"]


def test_load_fills_in_where_the_record_was_found(tmp_path: Path) -> None:
    bare = record("vdm")
    del bare["run_dir"]
    folder = write(tmp_path / "a", json.dumps(bare))
    assert load([folder])[0]["run_dir"] == str(folder)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        (json.dumps(record("vdm") | {"schema": 2}), "schema 2, expected 1"),
        (json.dumps(record("vdm") | {"model": None}), "'model' is missing"),
        (json.dumps(record("vdm") | {"protocol": {}}), "no 'id'"),
        (json.dumps(record("vdm", fvd=1, extra={"kvd": {"better": "lower"}})), "score 'kvd' has no 'floor'"),
        (json.dumps(record("vdm", extra={"kvd": score(1, better="up")})), "score 'kvd' does not say"),
    ],
)
def test_load_names_a_damaged_file_and_the_command_that_makes_one(tmp_path: Path, content: str, problem: str) -> None:
    folder = write(tmp_path / "run", content)
    with pytest.raises(MissingData) as caught:
        load([folder])
    for part in (str(folder / "results.json"), problem, "python -m vfbench run"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 4


def test_load_names_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "absent.json"):
        with pytest.raises(MissingData, match=rf"{path}.*python -m vfbench run"):
            load([path])


def test_differences_stop_after_a_few_fields() -> None:
    many = {f"f{i}": i for i in range(6)}
    assert differences(many, {"f0": 0}) == (
        "f1 1 vs absent, f2 2 vs absent, f3 3 vs absent, f4 4 vs absent, and 1 more"
    )
    assert differences(PROTOCOL, PROTOCOL | {"name": "x", "id": "y"}) == "no recorded field"
