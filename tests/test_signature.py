"""Tests of the signature of a result: what is an edit, what is none, and how tables, `compare` and `run` tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from resultfiles import Record, best, record, score

from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.result import write_result
from vfbench.report import table
from vfbench.report.latex import to_latex
from vfbench.report.render import to_markdown
from vfbench.report.results import Result, load

EXACT = {"fvd": score(0.1 + 0.2, 1e-17, error=5e-324, limit=None), "kvd": score(float("nan"), 1 / 3, title="KVD")}
CONTENT = record("vdm") | {"scores": EXACT, "seed": 0, "note": "a", "mine": [1.0, {"x": 2}]}


def written(folder: Path, content: Record = CONTENT) -> Path:
    folder.mkdir(exist_ok=True)
    Result.model_validate(content).write(folder / "results.json")
    return folder / "results.json"


def change(path: Path, edit: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


EDITS: dict[str, Callable[[Any], object]] = {
    "value": lambda r: r["scores"]["fvd"].update(value=0.3),
    "last digit": lambda r: r["scores"]["fvd"].update(value=0.30000000000000010),
    "interval": lambda r: r["scores"]["fvd"].update(low=0),
    "better": lambda r: r["scores"]["fvd"].update(better="higher"),
    "value for none": lambda r: r["scores"]["kvd"].update(value=1.0),
    "score removed": lambda r: r["scores"].pop("kvd"),
    "score added": lambda r: r["scores"].update(is_=score(1.0)),
    "protocol id": lambda r: r["protocol"].update(id="9a8b7c6d5e4f"),
    "field of the protocol": lambda r: r["protocol"].update(resolution=64),
    "comparable": lambda r: r["protocol"].update(comparable=False),
    "model": lambda r: r.update(model="videofusion"),
    "seed": lambda r: r.update(seed=1),
    "cost": lambda r: r["cost"].update(flops_per_clip=1.0),
    "unknown field": lambda r: r["mine"].append(1),
    "signature": lambda r: r.update(signature="0" * 64),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_noticed(name: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    assert load([path])[0].integrity == "intact"
    change(path, EDITS[name])
    assert load([path])[0].integrity == "edited"


NO_EDITS: dict[str, Callable[[Any], object]] = {
    "indentation": lambda r: None,
    "order": lambda r: r.update(scores=dict(reversed(r["scores"].items()))),
    "run folder": lambda r: r.update(run_dir="elsewhere"),
    "no run folder": lambda r: r.pop("run_dir"),
    "whole number": lambda r: (r["cost"].update(flops_per_clip=51_000_000_000), r["mine"].__setitem__(0, 1)),
}


@pytest.mark.parametrize("name", NO_EDITS)
def test_another_spelling_of_the_same_content_is_no_edit(name: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    change(path, NO_EDITS[name])
    assert load([path])[0].integrity == "intact"


def test_a_signed_result_round_trips(tmp_path: Path) -> None:
    first = load([written(tmp_path / "a")])[0]
    second = load([written(tmp_path / "b", first.to_json())])[0]
    assert (second.to_json(), second.integrity) == (first.to_json(), "intact")


def test_edited_and_unsigned_results_are_marked_in_tables(tmp_path: Path) -> None:
    names = {"a": 10, "b": 50, "c": 70, "d": 90}
    files = {name: written(tmp_path / name, record(name, fvd)) for name, fvd in names.items()}
    change(files["a"], lambda r: r["scores"]["fvd"].update(value=9))
    for name in ("c", "d"):
        change(files[name], lambda r: r.pop("signature"))
    shown = table.build(load(files.values()))
    assert [row.mark for row in shown.rows] == ["‡", "", "", "", ""]
    assert best(shown) == ["b"]  # an edited score is never the best
    assert sum(note.startswith("‡") and note.endswith(": a") for note in shown.notes) == 1
    assert sum(note.startswith("unsigned") and note.endswith(": c, d") for note in shown.notes) == 1
    assert "| a ‡ " in to_markdown(shown)
    assert r"a \ddag{} &" in to_latex(shown)
    assert shown.to_frame()["integrity"].tolist() == ["edited", "intact", "unsigned", "unsigned"]


def test_compare_tells_of_edited_and_unsigned_results(tmp_path: Path, vfbench: Command) -> None:
    edited, unsigned = (written(tmp_path / name, record(name)) for name in "ab")
    change(edited, lambda r: r["scores"]["fvd"].update(value=9))
    change(unsigned, lambda r: r.pop("signature"))
    outcome = vfbench("compare", edited, unsigned)
    assert outcome.code == 0
    assert "a/results.json (edited), B is" in outcome.out
    assert "b/results.json (unsigned); " in outcome.out
    assert f"warning: {edited} was edited" in outcome.err


def test_a_run_does_not_sign_the_edits_of_an_earlier_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measures = {name: {"metric": name, "source": "judge.features"} for name in ("fvd", "kvd")}
    content = record("vdm", protocol=CONTENT["protocol"] | {"measures": measures})
    path, folder = written(tmp_path, content), RunFolder(tmp_path, content["run_id"])
    folder.tables.mkdir()
    later = Result.model_validate(content | {"scores": {"kvd": score(1.0, title="KVD")}})
    assert set(write_result(folder, later).scores) == {"fvd", "kvd"}
    change(path, lambda r: r["scores"]["fvd"].update(value=9))
    assert set(write_result(folder, later).scores) == {"kvd"}
    assert f"{path} was edited" in capsys.readouterr().err
    assert load([path])[0].integrity == "intact"
