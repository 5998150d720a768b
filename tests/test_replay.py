"""Tests of `vfbench replay`: the same scores again, what differs, and records that somebody else has written."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Command
from resultfiles import record, score

import vfbench
from vfbench import plugins
from vfbench.errors import GateFailed, MissingData, UserError
from vfbench.pipeline import replay as replays
from vfbench.pipeline.job import run
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan
from vfbench.pipeline.replay import Repeated, Replay, replay_options
from vfbench.report.results import Result

RECORD = ROOT / "results" / "records" / "vdm.json"
OPTIONS = RunOptions(model="noise", smoke=True, device="cpu", metrics=("fvd",), seed=3)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a smoke run of noise, scored by FVD alone."""
    folder = tmp_path_factory.mktemp("replay") / "first"
    run(plan(replace(OPTIONS, output=folder)))
    return folder


@pytest.fixture
def copy(first: Path, tmp_path: Path) -> Path:
    """Copy of that run to change."""
    return Path(shutil.copytree(first, tmp_path / "copy"))


def change(file: Path, **fields: Any) -> None:
    """Replace fields of a JSON file; a dotted name is that of a nested one."""
    content = json.loads(file.read_text())
    for name, value in fields.items():
        *parents, last = name.split("__")
        part = content
        for parent in parents:
            part = part[parent]
        part[last] = value
    file.write_text(json.dumps(content))


@pytest.mark.slow
def test_a_replay_makes_the_same_scores(first: Path, tmp_path: Path, vfbench: Command) -> None:
    outcome = vfbench("replay", first, "--output", tmp_path / "again", "--json")
    assert outcome.code == 0, outcome.err
    printed = json.loads(outcome.out)
    assert (printed["largest"], printed["changes"]) == (0.0, [])
    assert printed["scores"]["fvd"]["recorded"] == printed["scores"]["fvd"]["now"]
    change(first_copy := Path(shutil.copytree(first, tmp_path / "copy")) / "results.json", scores__fvd__value=1.0)
    change(first_copy, weights="f" * 64)
    far = vfbench("replay", first_copy.parent, "--output", tmp_path / "again")
    assert (far.code, "fvd" in far.err, "was edited" in far.err, "weights: ffff" in far.out) == (3, True, True, True)
    assert vfbench("replay", first_copy.parent, "--output", tmp_path / "again", "--tolerance", 1e9).code == 0


def test_options_are_those_of_the_record_with_what_auto_stood_for(first: Path) -> None:
    options = replay_options(first, Repeated(), {"output": None, "device": None})
    expected = {"model": "noise", "seed": 3, "smoke": True, "metrics": ("fvd",), "dtype": "float32", "batch_size": 32}
    assert {name: getattr(options, name) for name in expected} == expected
    assert (options.num_samples, options.checkpoint, options.log_to) == (None, None, None)
    assert str(options.output).startswith("runs/replay-")


def test_a_result_alone_gives_model_protocol_seed_and_numbers() -> None:
    options = replay_options(RECORD, Repeated(), {"device": "cpu"})
    told = (options.model, options.dataset, options.protocol, options.seed, options.num_samples, options.device)
    assert told == ("vdm", "shapes", "shapes", 0, 256, "cpu")
    assert options.metrics == ("fvd", "kvd", "is", "clipsim", "attributes")


def result(fvd: float, low: float, high: float) -> Result:
    return Result.model_validate(record("m", extra={}) | {"scores": {"fvd": score(fvd) | {"low": low, "high": high}}})


@pytest.mark.parametrize(
    ("before", "now", "difference"),
    [
        (result(50, 45, 55), result(51, 46, 56), 0.02),
        (result(0.5, -9.5, 10.5), result(1.5, 0, 2), 0.1),  # in units of half the interval
        (result(0, 0, 0), result(0, 0, 0), 0.0),
        (result(0, 0, 0), result(1, 0, 0), math.inf),
        (result(math.nan, 0, 0), result(math.nan, 0, 0), 0.0),
        (result(1, 0, 2), result(math.nan, 0, 0), math.inf),
    ],
)
def test_a_difference_is_a_share_of_the_score_or_its_interval(before: Result, now: Result, difference: float) -> None:
    again = Replay(before, now, ())
    assert again.differences == {"fvd": pytest.approx(difference)}
    again.require(difference)
    if difference:
        with pytest.raises(GateFailed, match="fvd"):
            again.require(difference / 2 if math.isfinite(difference) else 1e9)
    assert "fvd" in again.describe()


def test_a_score_that_only_one_has_differs() -> None:
    before = result(50, 45, 55)
    now = before.model_copy(update={"scores": {}})
    assert Replay(before, now, ()).largest == math.inf
    assert "no score" in Replay(now, before, ()).describe()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"options__seed__value": "x"}, "options.seed"),
        ({"options__seed__value": "1.5"}, "options.seed"),
        ({"options__seed__value": "True"}, "options.seed"),
        ({"options__steps__value": "'5'"}, "options.steps"),
        ({"options__steps__value": "("}, "options.steps"),
        ({"options__metrics__value": "open('x')"}, "options.metrics"),
        ({"options__metrics__value": "(1, 2)"}, "options.metrics"),
        ({"options__smoke__value": "1"}, "options.smoke"),
        ({"options__steps__value": 5}, "options.steps"),
        ({"options__steps": None}, "options.steps"),
        ({"options__steps__value": "[" * 3000}, "options.steps"),
        ({"options": {}}, "no options"),
        ({"options": [1]}, "no options"),
    ],
)
def test_damaged_options_are_refused(fields: dict[str, Any], message: str, copy: Path) -> None:
    change(copy / "run.json", **fields)
    with pytest.raises(MissingData, match=message):
        replay_options(copy, Repeated(), {})


def test_what_cannot_be_replayed_is_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--output"):
        replay_options(copy, Repeated(), {"output": copy})
    (copy / "run.json").unlink()
    with pytest.raises(UserError, match=r"run\.json"):  # of a smoke run
        replay_options(copy, Repeated(), {})
    change(copy / "results.json", seed=None)
    with pytest.raises(UserError, match="made elsewhere"):
        replay_options(copy, Repeated(), {})
    with pytest.raises(MissingData, match="absent"):
        vfbench.replay(tmp_path / "absent")


# Modules of third parties.


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder on the path of imports with a module `trap_package.trap`, which writes the file `imported`."""
    (tmp_path / "trap_package").mkdir()
    code = f"open({str(tmp_path / 'imported')!r}, 'w').close()\nfrom vfbench.errors import UserError\n"
    code += "def build(*context): raise UserError('built')\n"
    for name in ("__init__", "trap"):
        (tmp_path / "trap_package" / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("trap_package")]:
        del sys.modules[name]
    plugins._typed.clear()


MODULE = "trap_package.trap"
NAMED = {
    "--model": {"options__model__value": MODULE},
    "--dataset": {"options__dataset__value": MODULE},
    "--metrics": {"options__metrics__value": f"('{MODULE}',)"},
    "--extractor": {"options__extractors__value": f"('shapes_judge={MODULE}',)"},
}


@pytest.mark.parametrize("flag", NAMED)
def test_no_module_is_imported_that_only_a_record_names(flag: str, copy: Path, trap: Path, vfbench: Command) -> None:
    change(copy / "run.json", **NAMED[flag])
    command = ("replay", copy, "--output", trap / "again")
    outcome = vfbench(*command)
    assert (outcome.code, f"{flag} " in outcome.err, (trap / "imported").exists()) == (2, True, False)
    other = vfbench(*command, flag, "shapes_judge=my.other" if flag == "--extractor" else "my.other")
    assert (other.code, "my.other" in other.err, (trap / "imported").exists()) == (2, True, False)
    repeated = f"shapes_judge={MODULE}" if flag == "--extractor" else MODULE
    assert "built" in vfbench(*command, flag, repeated).err
    assert (trap / "imported").exists()


@pytest.mark.parametrize("spec", [f"cascade(base='{MODULE}')", f"cascade(base=\"cascade(base='{MODULE}(k=1)')\")"])
def test_nor_one_that_it_names_as_a_stage_of_a_cascade(spec: str, copy: Path, trap: Path) -> None:
    change(copy / "run.json", options__model__value=spec)
    with pytest.raises(UserError, match="--model"):
        replay_options(copy, Repeated(), {})
    assert replay_options(copy, Repeated(model=spec), {}).model == spec
    with pytest.raises(UserError, match="--model"):
        replay_options(copy, Repeated(model="cascade"), {})


def test_a_manifest_that_is_gone_is_that_of_the_run(copy: Path) -> None:
    change(copy / "run.json", options__manifest__value="gone.csv")
    assert replays.replay_options(copy, Repeated(), {}).manifest == str(copy / "manifest.csv")
