"""Tests of benchmarks/study.py: its rows can be trained, and its tables are means over the trainings that are there."""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from resultfiles import PROTOCOL, record, score

from vfbench import plugins

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def studies() -> Iterator[Any]:
    """Module of the rows and tables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("_studies")


def test_every_row_names_a_model_of_its_own(studies: Any) -> None:
    for study, rows in studies.STUDIES.items():
        assert len(set(rows.values())) == len(rows), study
        for flags in rows.values():
            given = dict(zip(*[iter(shlex.split(flags))] * 2, strict=True))
            spec, preset = plugins.parse(given.pop("--model")), given.pop("--preset", "tiny")
            options = {name.removeprefix("--").replace("-", "_"): value for name, value in given.items()}
            assert plugins.validated_options("model", spec.merged(options), "create").keys() >= options.keys()
            assert preset in plugins.constants("model", spec.name).presets


def line(
    flags: str, motion: float, *, seed: int = 0, steps: int = 3000, protocol: str = PROTOCOL["id"]
) -> dict[str, Any]:
    """Line of a finished row."""
    names = {"attributes", "motion", "shape", "size", "colour", "ground", "texture", "clipsim", "base_flicker"}
    scores = {name: score(motion, 0.06, title=name, better="higher") for name in names}
    result = record(flags.split()[1].split("(")[0].strip("'\""), extra=scores)
    machine = {"machine": "a machine", "threads": 1, "torch": "2"}
    counts = {"seed": seed, "steps": steps, "clips": 256, "protocol": protocol, "seconds": 90}
    commands = [f"python -m vfbench train {flags} --seed {seed} --output train/x-seed-{seed}"]
    result["run_id"] = f"{flags} {seed}"
    return {"flags": flags, **counts, **machine, "commands": commands, "result": result}


def test_a_table_has_the_mean_over_the_seeds_that_are_there(
    studies: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "LINES", tmp_path / "study.jsonl")
    assert "|" not in studies.study_table("base-frame")
    joint, paper, _ = studies.STUDIES["base-frame"].values()
    lines = [line(joint, 0.4), line(joint, 0.6, seed=1), line(paper, 0.3), line(paper, 0.9, steps=10)]
    lines += [line("--model real", 1.0), line("--model vdm", 0.8)]
    studies.LINES.write_text("".join(json.dumps(each) + "\n" for each in lines))
    table = studies.study_table("base-frame")
    assert "| R moves the base frame | 2 | 0.5 ± 1.3 |" in table  # Student's t of one degree of freedom: 12.7
    assert "| B moves the base frame | 1 | 0.300 ± 0.060 |" in table
    assert "| *real* |  | 1.000 ± 0.060 |" in table
    assert "Not trained yet: R moves it; both read its embedding." in table
    assert "--seed SEED --output train/x-seed-SEED" in table
    studies.LINES.write_text("".join(json.dumps(each) + "\n" for each in [*lines, line(paper, 0.2, protocol="other")]))
    with pytest.raises(SystemExit, match="other"):
        studies.study_table("base-frame")
