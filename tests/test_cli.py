"""Tests of the command line: help, sources of flags, printed results and output folders."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, file_contents, results

from vfbench import cli
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan

pytestmark = pytest.mark.usefixtures("empty_cwd")

NOISE = ("run", "--model", "noise", "--device", "cpu", "--smoke")
HEAVY = {"torch", "numpy", "pandas", "pydantic", "scipy", "transformers", "PIL", "rich", "fsspec"}


def recorded_options(vfbench: Command, *arguments: object) -> dict[str, dict[str, str]]:
    """Options that a run would record: value and origin of each."""
    outcome = vfbench(*arguments, "--dry-run", "--json")
    assert outcome.code == 0, outcome.err
    options: dict[str, dict[str, str]] = json.loads(outcome.out)["options"]
    return options


# Help.


def imported_packages(*arguments: str) -> set[str]:
    """Top-level packages that a Python process imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    outcome = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in outcome.stderr.splitlines()}


def test_help_imports_no_heavy_package() -> None:
    packages = imported_packages("-m", "vfbench", "--help")
    assert "typer" in packages
    assert packages & HEAVY == set()


def test_heavy_imports_are_detected() -> None:
    assert imported_packages("-c", "import vfbench.cli, numpy") & HEAVY == {"numpy"}


@pytest.mark.parametrize(
    "verb",
    [
        "run",
        "generate",
        "score",
        "train",
        "table",
        "report",
        "compare",
        "drift",
        "gate",
        "ls",
        "show",
        "status",
        "replay",
        "import",
    ],
)
def test_every_command_has_help(verb: str, vfbench: Command) -> None:
    outcome = vfbench(verb, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert verb in outcome.out


def test_help_lists_commands_in_workflow_order(vfbench: Command) -> None:
    commands = vfbench("--help").out.partition("Commands:\n")[2]
    order = ["run", "status", "replay", "generate", "score", "train", "import", "table", "report"]
    order += ["compare", "drift", "sensitivity", "gate"]
    order += ["ls", "show", "diff-protocols", "published", "explain", "data", "weights", "hub"]
    assert [line.split()[0] for line in commands.splitlines()] == order


def test_no_command_is_a_usage_error_that_lists_the_commands(vfbench: Command) -> None:
    outcome = vfbench()
    assert outcome.code == 2
    assert "gate" in outcome.out + outcome.err


@pytest.mark.parametrize("flags", [["--quiet"], ["--verbose"]])
def test_flags_without_a_command_are_a_usage_error(flags: list[str], vfbench: Command) -> None:
    outcome = vfbench(*flags)
    assert (outcome.code, outcome.out) == (2, "")


@pytest.mark.slow
def test_quiet_prints_the_result_alone(vfbench: Command) -> None:
    outcome = vfbench(*NOISE, "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    assert "| *noise*" in outcome.out


def test_shared_flags_are_defined_once() -> None:
    definitions = [
        tuple(ast.dump(part) for part in (*call.args, *call.keywords))
        for path in Path(cli.__file__).parent.glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "option"
    ]
    assert len(definitions) > 20
    assert {flag: count for flag, count in Counter(definitions).items() if count > 1} == {}


# Spelling and sources of flags.


def test_flags_may_be_written_with_underscores(vfbench: Command) -> None:
    options = recorded_options(vfbench, *NOISE, "--num_samples", 9, "--batch_size=3", "--keep_clips", "--output", "a_b")
    assert [options[name]["value"] for name in ("num_samples", "batch_size", "output")] == ["9", "3", "a_b"]


def test_command_line_precedes_environment_precedes_configuration(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("c.toml").write_text('[run]\nseed = 1\nbatch-size = 11\nnum_samples = 12\nmetrics = ["fvd", "is"]\n')
    monkeypatch.setenv("VFBENCH_SEED", "2")
    monkeypatch.setenv("VFBENCH_BATCH_SIZE", "22")
    options = recorded_options(vfbench, "--config", "c.toml", *NOISE, "--seed", 3)
    assert options["seed"] == {"value": "3", "origin": "command line"}
    assert options["batch_size"] == {"value": "22", "origin": "environment"}
    assert options["num_samples"] == {"value": "12", "origin": "configuration file"}
    assert options["metrics"] == {"value": "('fvd', 'is')", "origin": "configuration file"}
    assert options["guidance"] == {"value": "None", "origin": "default"}
    assert options.keys() == RunOptions.__dataclass_fields__.keys() - {"origins"}


def test_the_configuration_file_may_be_named_after_the_command_or_in_the_environment(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("c.toml").write_text("[run]\nsmoke = true\nseed = 7\n[train]\nsteps = 3\n")
    arguments = ["run", "--model", "noise", "--device", "cpu"]
    assert recorded_options(vfbench, *arguments, "--config=c.toml")["smoke"] == {
        "value": "True",
        "origin": "configuration file",
    }
    assert recorded_options(vfbench, *arguments, "--config", "c.toml", "-n", 9)["seed"]["value"] == "7"
    monkeypatch.setenv("VFBENCH_CONFIG", "c.toml")
    assert recorded_options(vfbench, *arguments)["seed"]["value"] == "7"


@pytest.mark.slow
def test_environment_variables_set_extractors_and_the_weights_folder(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("VFBENCH_EXTRACTOR", "i3d=i3d(dtype='bfloat16', weights='random')")
    options = recorded_options(vfbench, *NOISE, "--protocol", "strict", "--metrics", "fvd")
    assert options["weights"]["value"] == "default"
    assert options["extractors"]["value"] == str(("i3d=i3d(dtype='bfloat16', weights='random')",))


def test_options_of_python_calls_are_recorded() -> None:
    options = plan(RunOptions(model="noise", smoke=True, device="cpu")).specification.options
    assert options["model"] == {"value": "noise", "origin": "call"}
    assert options["seed"] == {"value": "0", "origin": "default"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[run]\nstep = 5", r"\[run\] in c.toml .*'step'.*'steps'"),
        ("[rum]\nsteps = 5", r"c.toml .*'rum'.*'run'"),
        ("steps = 5", "c.toml .*'steps'"),
        ("run = 5", "c.toml .*'run'"),
        ("[run]\nseed = 1.5", r"--seed.*configuration file"),
        ("[run]\nseed = 'abc'", r"--seed.*configuration file"),
        ("[run]\nsmoke = 'perhaps'", r"--smoke.*configuration file"),
        ("[run", "--config c.toml: "),
        (None, "--config c.toml: .*does not exist"),
        ("a = " + "[" * 100_000, "--config c.toml: "),
    ],
)
def test_a_bad_configuration_is_refused(content: str | None, message: str, vfbench: Command) -> None:
    if content is not None:
        Path("c.toml").write_text(content)
    outcome = vfbench("--config", "c.toml", *NOISE[:5])
    assert outcome.code == 2
    assert re.search(message, outcome.err), outcome.err


def test_a_bad_environment_variable_is_refused(vfbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFBENCH_SEED", "abc")
    outcome = vfbench(*NOISE)
    assert outcome.code == 2
    assert re.search(r"--seed.*VFBENCH_SEED", outcome.err), outcome.err
    assert "VFBENCH_SEED" not in vfbench(*NOISE, "--seed", "abc").err


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("STPES", "VFBENCH_STEPS"),
        ("CACHE_DIR", "VFBENCH_CACHE"),
        ("ZZZZZZ", "unset"),
        ("RUN_STEPS", "STEPS"),
        ("", "unset"),
    ],
)
def test_a_variable_of_no_flag_is_refused(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch, variable: str, nearest: str
) -> None:
    monkeypatch.setenv(f"VFBENCH_{variable}", "1")
    outcome = vfbench("ls", "models")
    assert outcome.code == 2
    assert f"VFBENCH_{variable}:" in outcome.err
    assert nearest in outcome.err
    assert vfbench("run", "--help").code == 0


def test_variables_of_other_commands_and_of_no_command_are_accepted(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CACHE", "DATA", "WEIGHTS", "TEST_DATA", "STEPS", "FLIP", "RULE", "PRIVATE", "FULL"):
        monkeypatch.setenv(f"VFBENCH_{name}", "1")
    assert vfbench("ls", "models").code == 0


# Results.


def test_dry_run_prints_the_plan_and_writes_nothing(vfbench: Command) -> None:
    outcome = vfbench(*NOISE, "-n", 70, "--dry-run")
    assert (outcome.code, outcome.err) == (0, "")
    assert re.search("^clips +70 in 3 chunks, against 64 real ones$", outcome.out, re.MULTILINE)
    assert re.search("^protocol .*not comparable$", outcome.out, re.MULTILINE)
    assert re.search("^run +runs/noise-shapes-[0-9a-f]{8}$", outcome.out, re.MULTILINE)
    assert re.search("^measured +.* clips/s by one worker, over [1-9]", outcome.out, re.MULTILINE)
    assert list(Path().iterdir()) == []


def test_dry_run_estimates_time_and_price_for_all_workers(vfbench: Command) -> None:
    outcome = vfbench(*NOISE, "-n", 70, "--dry-run", "--workers", 4, "--price-per-hour", 7200, "--json")
    estimate = json.loads(outcome.out)["estimate"]
    assert (outcome.code, estimate["workers"], estimate["clips_measured"]) == (0, 4, 38)
    assert estimate["seconds"] == estimate["seconds_with_workers"]  # the cores are shared
    assert estimate["price"] == pytest.approx(2 * estimate["seconds"])
    assert estimate["clips_per_second"] == pytest.approx(70 / estimate["seconds"])
    several = json.loads(vfbench(*NOISE, "-n", 70, "--dry-run", "--seed", "1,2", "--json").out)
    assert [each["estimate"]["workers"] for each in several] == [1, 1]


@pytest.mark.parametrize("flags", [["--price-per-hour", 3], ["--dry-run", "--price-per-hour", 0]])
def test_a_price_without_dry_run_or_of_nothing_is_refused(vfbench: Command, flags: list[object]) -> None:
    outcome = vfbench(*NOISE, *flags)
    assert (outcome.code, f"--price-per-hour {flags[-1]}" in outcome.err) == (2, True)


def test_json_prints_results_json_only(vfbench: Command) -> None:
    outcome = vfbench(*NOISE, "--output", "run", "--json")
    assert outcome.code == 0
    assert outcome.out == Path("run/results.json").read_text()
    assert "python -m vfbench table run" in outcome.err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("few_real")
def test_smoke_runs_are_marked_and_kept_out_of_tables(vfbench: Command) -> None:
    smoke = vfbench(*NOISE, "--output", "smoke")
    assert smoke.code == 0
    assert "not comparable" in smoke.out
    assert results(Path("smoke"))["protocol"]["comparable"] is False
    full = vfbench("run", "--model", "noise", "--device", "cpu", "-n", 64, "--output", "full")
    assert full.code == 0
    assert "not comparable" not in full.out
    refused = vfbench("table", "smoke", "full")
    assert (refused.code, refused.out) == (2, "")
    assert "--allow-mixed" in refused.err
    mixed = vfbench("table", "smoke", "full", "--allow-mixed")
    assert mixed.code == 0
    assert mixed.out.count("not comparable") == 4  # its row and its floor row, of scores and of attributes
    assert vfbench("table", "full").out.startswith("| model")


def test_a_table_is_written_in_the_format_of_its_suffix(vfbench: Command) -> None:
    assert vfbench(*NOISE, "--output", "run").code == 0
    first_lines = {"t.csv": "model,dataset", "t.tex": "% needs", "t.md": "| model", "t.html": "<table>", "t.json": "["}
    for name, first_line in first_lines.items():
        outcome = vfbench("table", "run", "--allow-mixed", "--output", name)
        assert (outcome.code, outcome.out, outcome.err) == (0, "", f"wrote {name}\n")
        assert Path(name).read_text().startswith(first_line)
    assert vfbench("table", "run", "--allow-mixed", "--format", "csv").out == Path("t.csv").read_text()
    assert vfbench("table", "run", "--allow-mixed", "--output", "t.pdf").code == 2
    assert vfbench("table", "run", "--allow-mixed", "--output", "t.csv", "--format", "latex").code == 2
    assert vfbench("table", "run", "--allow-mixed", "--output", "no/t.md").code == 5
    assert vfbench("table", "none").code == 4


@pytest.mark.slow
def test_several_seeds_make_several_runs_and_their_mean(vfbench: Command) -> None:
    outcome = vfbench(*NOISE, "--seed", "1,2", "--output", "runs")
    assert outcome.code == 0
    assert "mean of 2 runs (seeds 1, 2)" in " ".join(outcome.out.split())
    alone = [
        json.loads(Path(f"runs/seed-{seed}/results.json").read_text())["scores"]["fvd"]["value"] for seed in (1, 2)
    ]
    (row,) = csv.DictReader(
        io.StringIO(
            vfbench("table", "runs/seed-1", "runs/seed-2", "--allow-mixed", "--mean", "--format", "csv-wide").out
        )
    )
    assert float(row["fvd"]) == pytest.approx(sum(alone) / 2)
    for bad in ("1,1", "", "1,x"):
        assert vfbench(*NOISE, "--seed", bad).code == 2


def write_result(folder: Path, fvd: float, **protocol: Any) -> None:
    score: dict[str, Any] = {"value": fvd, "low": fvd - 1, "high": fvd + 1, "floor": 1.0, "n_real": 128, "n_fake": 64}
    score |= {"note": "", "title": "FVD", "better": "lower"}
    protocol = {"id": "aa", "name": "shapes", "comparable": True, **protocol}
    record = {"schema": 1, "model": "vdm", "dataset": "shapes", "protocol": protocol, "scores": {"fvd": score}}
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(record))


def test_gate_exits_with_its_verdict(vfbench: Command) -> None:
    write_result(Path("old"), 100.0)
    write_result(Path("same"), 103.0)
    write_result(Path("worse"), 120.0)
    write_result(Path("other"), 100.0, id="bb")
    passed = vfbench("gate", "same", "--baseline", "old", "--rule", "fvd:+5%")
    assert (passed.code, passed.out.count("PASS"), passed.err) == (0, 2, "")
    failed = vfbench("gate", "worse", "--baseline", "old/results.json", "--rule", "fvd:+5%")
    assert failed.code == 3
    assert "fvd" in failed.err
    assert "REGRESSION" in failed.out
    assert not failed.err.startswith("error:")  # a failed gate is no error
    assert vfbench("gate", "worse", "--baseline", "old", "--rule", "fvd:+25%").code == 0
    assert vfbench("gate", "other", "--baseline", "old", "--rule", "fvd:+5%").code == 2
    assert vfbench("gate", "same", "--baseline", "old", "--rule", "fvd").code == 2
    assert vfbench("gate", "same", "--baseline", "old").code == 2
    assert vfbench("gate", "same", "--baseline", "none", "--rule", "fvd:+5%").code == 4


# Output folders.


def test_the_folder_of_another_run_is_refused(vfbench: Command) -> None:
    assert vfbench(*NOISE, "--output", "run").code == 0
    before = file_contents(Path("run"))
    refused = vfbench(*NOISE, "--output", "run", "--seed", 1)
    assert refused.code == 2
    assert "run holds another run (seed: 0" in refused.err
    assert file_contents(Path("run")) == before


def test_unknown_files_in_the_output_folder_stay(vfbench: Command) -> None:
    Path("run/chunks").mkdir(parents=True)
    for name in ("notes.txt", "chunks/.note", "chunks/notes.safetensors"):
        Path("run", name).write_text("mine")
    assert vfbench(*NOISE, "--output", "run").code == 0
    unchanged = {name for name, content in file_contents(Path("run")).items() if content == b"mine"}
    assert unchanged == {"notes.txt", "chunks/.note", "chunks/notes.safetensors"}


@pytest.mark.parametrize(
    "command",
    [
        ["table", "a.json", "--output", "a.json"],
        ["gate", "run", "--baseline", "a.json", "--junit", "run/results.json"],
        ["drift", "clips", "clips", "--csv", "clips/0.npy"],
    ],
)
def test_a_file_that_is_read_is_not_overwritten(
    vfbench: Command, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = vfbench(*command)
    assert outcome.code == 2
    assert " ".join(command[-2:]) in outcome.err
    assert not Path(command[-1]).exists()


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        *(("run", flag) for flag in (["--output", ""], ["--output="], ["--checkpoint", ""], ["--manifest", ""])),
        *(("gate", [flag, ""]) for flag in ("--baseline", "--history", "--benchmark", "--junit")),
        *(("drift", [flag, ""]) for flag in ("--csv", "--plot")),
        ("report", ["-o", ""]),
    ],
)
def test_an_empty_path_is_refused(vfbench: Command, command: str, flag: list[str]) -> None:
    outcome = vfbench(command, "--model", "noise", "--smoke", *flag)
    assert outcome.code == 2
    assert f"{flag[0].rstrip('=')} is empty" in outcome.err
