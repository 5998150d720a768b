"""Tests of the gate's rules on seconds and memory, and of the forms in which other projects use the gate."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import Command
from resultfiles import record

from vfbench.errors import UserError
from vfbench.report import cost_gate
from vfbench.report.gate import Status
from vfbench.report.results import Result

ROOT = Path(__file__).parent.parent


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results `old`, `same` and `worse`, outside any CI."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    for name, fvd in (("old", 40.0), ("same", 40.0), ("worse", 60.0)):
        Result.model_validate(record("vdm", fvd)).write(tmp_path / f"{name}.json")
    return tmp_path


def costly(run: str, seconds: float | None, memory: int = 10**9, **machine: str) -> Result:
    """Result with costs, of a run on a machine."""
    environment = {"device": "H200", "torch": "2.14.1", **machine}
    costs = {"seconds_per_clip": seconds, "peak_memory_bytes": memory}
    return Result.model_validate(record("vdm", run=run) | {"cost": costs, "environment": environment})


@pytest.mark.parametrize(
    ("seconds", "rule", "status"),
    [
        (1.05, "seconds:+10%+0.01", Status.PASS),
        (1.15, "seconds:+10%+0.01", Status.REGRESSION),
        (1.15, "seconds:+10%+0.2", Status.PASS),  # both amounts must be exceeded
        (0.8, "seconds:+10%+0.05", Status.IMPROVED),
        (None, "seconds:+10%+0.05", Status.INCOMPLETE),
        (1.0, "memory:+10%+10", Status.REGRESSION),
    ],
)
def test_costs_are_compared_with_the_median_of_the_cohort(seconds: float | None, rule: str, status: Status) -> None:
    cohort = [
        costly(str(i), value) for i, value in enumerate((9.0, 9.0, 1.0, 1.0, 1.0, 1.0, 5.0))
    ]  # the last five count
    others = [costly("other", 0.01, device="a laptop"), costly("older", 0.01, torch="2.0")]
    new = costly("new", seconds, memory=12 * 10**8 if rule.startswith("memory") else 10**9)
    (outcome,) = cost_gate.gate(new, new, [rule], [*cohort, *others])
    assert outcome.status == status
    (alone,) = cost_gate.gate(new, new, [rule], [*others, new])
    assert alone.status == (Status.BASELINE_MISSING if seconds else Status.INCOMPLETE)


@pytest.mark.parametrize("rule", ["seconds:+10%", "seconds:-10%+1", "memory:+1", "memory:+1%+x", "seconds"])
def test_a_cost_rule_needs_both_amounts(rule: str) -> None:
    with pytest.raises(UserError, match=r"seconds:\+10%\+0\.05"):
        cost_gate.gate(costly("a", 1.0), costly("b", 1.0), [rule], [])


def test_the_command_reads_the_history_and_writes_charts(runs: Path, vfbench: Command) -> None:
    for i, seconds in enumerate((1.0, 1.1, 2.0)):
        (runs / f"run{i}").mkdir()
        costly(str(i), seconds).write(runs / f"run{i}" / "results.json")
    gate = ("gate", runs / "run2", "--baseline", runs / "run0", "--history", runs, "--rule", "fvd:+5%,seconds:+10%+0.1")
    outcome = vfbench(*gate, "--benchmark", runs / "charts")
    assert outcome.code == 3
    assert "seconds" in outcome.err
    smaller, bigger = (
        json.loads((runs / "charts" / f"{name}-is-better.json").read_text()) for name in ("smaller", "bigger")
    )
    assert {entry["name"]: entry["value"] for entry in smaller}["vdm: seconds per clip"] == 2.0
    assert bigger == []
    assert vfbench(*gate[:5], runs / "none", *gate[6:]).code == 4


@pytest.mark.slow
@pytest.mark.parametrize(("new", "passed"), [("same", 1), ("worse", 0)])
def test_the_example_of_the_pytest_plug_in_runs(runs: Path, new: str, passed: int) -> None:
    page = (ROOT / "docs" / "gate.md").read_text()
    (example,) = re.findall(r"```python\n(.*?def test_quality.*?)```", page, re.DOTALL)
    for old, path in (("runs/mine", runs / f"{new}.json"), ("baseline.json", runs / "old.json")):
        assert old in example
        example = example.replace(old, str(path))
    (runs / "test_example.py").write_text(example)
    # by its module, so that the test does not depend on how vfbench is installed
    plugin = (
        "-p",
        "no:vfbench",
        "-p",
        "vfbench.report.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(runs),
    )
    command = [sys.executable, "-m", "pytest", *plugin, str(runs / "test_example.py")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, cwd=runs, env=environment)
    assert outcome.returncode == (0 if passed else 1), outcome.stdout
    assert ("REGRESSION" in outcome.stdout) != bool(passed)


@pytest.mark.parametrize("worse", [False, True])
def test_the_action_runs_the_gate(runs: Path, worse: bool) -> None:
    action = (ROOT / ".github/actions/gate/action.yml").read_text()
    script = textwrap.dedent(action.partition("run: |\n")[2])
    names = {"RESULT": runs / ("worse.json" if worse else "same.json"), "BASELINE": runs / "old.json"}
    inputs = {"RULES": "fvd:+5%", "HISTORY": "", "DETECTABLE": "100", "JUNIT": runs / "j.xml", "BENCHMARK": ""}
    environment = {**os.environ, **{f"GATE_{name}": str(value) for name, value in {**names, **inputs}.items()}}
    path = f"{Path(sys.executable).parent}:{environment['PATH']}"
    outcome = subprocess.run(["bash", "-e", "-c", script], env={**environment, "PATH": path}, check=False)
    assert outcome.returncode == (3 if worse else 0)
    assert (runs / "j.xml").exists()
