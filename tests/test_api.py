"""Tests of the public functions of `vfbench`: signatures, tables and results, and what imports torch."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import ROOT, Command

import vfbench
from vfbench.errors import MissingData, UserError
from vfbench.pipeline.options import RunOptions
from vfbench.scoring.options import ScoreOptions
from vfbench.training.options import TrainJob

RECORDS = [ROOT / "results" / "records" / f"{model}.json" for model in ("vdm", "videofusion")]


def example(folder: Path) -> str:
    """All public functions and the types they return: checked by mypy, not run."""
    plan = vfbench.plan(model="vdm(steps=5)", dataset="shapes", metrics=["fvd"], smoke=True)
    result = vfbench.run(model="vdm", dataset="shapes", num_samples=8, seed=1, checkpoint=None, output=folder)
    theirs = vfbench.score(real="shapes", fake=folder / "clips", protocol="strict")
    checkpoint: Path = vfbench.train(model="pyoco(alpha=2)", steps=10, lr=1e-3, conditions={"class": 1.0})
    again = vfbench.replay(folder, model="my_package.mine", metrics=["fvd"]).largest
    cost = vfbench.drift(folder, "b", device="cpu").to_markdown()
    other = vfbench.import_results("theirs.json", "cd-fvd", name="theirs")
    better = [line.title for line in vfbench.compare(folder, checkpoint, ["fvd"]) if line.winner == "A"]
    better += [rule.metric for rule in vfbench.gate(result, folder, ["fvd:+5%"], history=[folder]) if rule.passed]
    table = vfbench.table([result, theirs, other, *vfbench.load_results(folder)], allow_mixed=True)
    page: Path = vfbench.write_report([folder], folder / "report", allow_mixed=True, published="high", num_clips=8)
    value: float = result.scores["fvd"].value
    return f"{vfbench.__version__} {page} {plan.describe()} {better} {value} {table.to_markdown()} {again} {cost}"


def test_public_names_are_documented() -> None:
    functions = [getattr(vfbench, name) for name in vfbench.__all__ if not name.startswith("__")]
    assert all(inspect.getdoc(function) for function in functions)
    assert not {path.stem for path in Path(vfbench.__file__).parent.iterdir()} & set(vfbench.__all__)


@pytest.mark.parametrize(
    ("function", "options"),
    [(vfbench.run, RunOptions), (vfbench.plan, RunOptions), (vfbench.score, ScoreOptions), (vfbench.train, TrainJob)],
)
def test_keyword_arguments_are_the_options(function: object, options: type) -> None:
    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    assert list(parameters) == [field.name for field in fields(options)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "vdmm"}, "did you mean 'vdm'"),
        ({"dataset": "shaps"}, "did you mean 'shapes'"),
        ({"metrics": ["fdv"]}, "did you mean 'fvd'"),
        ({"device": "gpu"}, "--device"),
        ({"dtype": "float16"}, "--dtype"),
        ({"weights": "rondom"}, "did you mean 'random'"),
        ({"solver": "dimm"}, "did you mean 'ddim'"),
        ({"steps": 0}, "--steps 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"guidance": float("nan")}, "guidance nan"),
        ({"threshold": 1.5}, "threshold 1.5"),
    ],
)
def test_wrong_options_are_refused_before_any_work(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        vfbench.run(**options)  # type: ignore[arg-type]


def test_a_table_is_shown_in_a_notebook_and_converted() -> None:
    results = vfbench.load_results(*RECORDS)
    table = vfbench.table([results[0], RECORDS[1]])
    assert "<b>" in table._repr_html_()
    assert len(table.to_frame()) == 2 * len(results[0].scores)
    assert list(results[0].to_frame()["metric"]) == list(results[0].scores)
    assert results[0].model in results[0]._repr_html_()
    assert table.to_csv().count("\n") == 1 + len(table.to_frame())
    assert r"\begin{table}" in table.to_latex()


def test_a_result_given_twice_is_one_row() -> None:
    assert len(vfbench.table([RECORDS[0], RECORDS[0], *vfbench.load_results(RECORDS[0])]).records) == 1
    with pytest.raises(UserError, match="list"):
        vfbench.table(str(RECORDS[0]))


def test_missing_results_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"results\.json does not exist"):
        vfbench.load_results(tmp_path)


FAST = [
    "--version",
    "--help",
    "run --help",
    "run --modle x",
    "run --model vdmm",
    "run --num-samples 1",
    "run --protocol stylegan",
    "run --checkpoint nowhere",
    "generate --output x --prompt a --label b",
    "train --model noise",
    "compare nowhere nowhere",
    "ls",
    "ls protocols",
    "show protocol strict",
    "diff-protocols strict digan",
    "published --dataset ucf101",
    "explain latte",
    "data status",
    "weights status",
    f"table {RECORDS[0]}",
    "import nowhere --format vbench",
    f"gate {RECORDS[0]} --baseline {RECORDS[0]} --rule fvd:+5%",
]


@pytest.mark.one_case
@pytest.mark.parametrize("command", FAST, ids=lambda command: " ".join(command.split()[:2]))
def test_commands_that_need_no_tensor_do_not_import_torch(command: str) -> None:
    arguments = [sys.executable, "-X", "importtime", "-m", "vfbench", *command.split()]
    process = subprocess.run(arguments, capture_output=True, text=True, check=False)
    modules = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines() if "import time:" in line}
    assert process.returncode in (0, 2, 4)  # answered, or refused
    assert "vfbench" in modules
    assert "torch" not in modules


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["weights", "status", "--json"], '"state": "missing"'),
        (["ls", "metrics", "--json"], '"fvd": "FVD'),
        (["diff-protocols", "strict", "digan", "--json"], '"selection": ['),
        (["table", RECORDS[0], "--json"], '"run_id"'),
        (["gate", RECORDS[0], "--baseline", RECORDS[0], "--rule", "fvd:+5%", "--json"], '"status": "'),
    ],
)
def test_tables_are_printed_as_json(arguments: list[object], expected: str, vfbench: Command) -> None:
    outcome = vfbench(*arguments)
    assert (outcome.code, expected in outcome.out) == (0, True)
