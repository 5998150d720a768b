"""The command line: its help, where flags are read from, what it prints, and whose folder it writes to."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, contents, results

from vfbench import cli
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan

pytestmark = pytest.mark.usefixtures("elsewhere")

NOISE = ("run", "--model", "noise", "--device", "cpu", "--smoke")
HEAVY = {"torch", "numpy", "pandas", "pydantic", "scipy", "transformers", "PIL", "rich"}


def recorded(vfbench: Command, *arguments: object) -> dict[str, dict[str, str]]:
    """The options that a run would record: value and origin of each."""
    done = vfbench(*arguments, "--dry-run", "--json")
    assert done.code == 0, done.err
    options: dict[str, dict[str, str]] = json.loads(done.out)["options"]
    return options


# Help.


def imported(*arguments: str) -> set[str]:
    """The packages that a Python process imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}


def test_help_imports_nothing_heavy() -> None:
    found = imported("-m", "vfbench", "--help")
    assert "typer" in found
    assert found & HEAVY == set()


def test_the_test_of_imports_can_fail() -> None:
    assert imported("-c", "import vfbench.cli, numpy") & HEAVY == {"numpy"}


@pytest.mark.parametrize(
    "verb", ["run", "generate", "score", "train", "table", "compare", "sensitivity", "gate", "ls", "show"]
)
def test_every_command_has_help(verb: str, vfbench: Command) -> None:
    done = vfbench(verb, "--help")
    assert (done.code, done.err) == (0, "")
    assert verb in done.out


def test_commands_are_shown_in_the_order_of_work(vfbench: Command) -> None:
    shown = vfbench("--help").out.partition("Commands:\n")[2]
    order = ["run", "generate", "score", "train", "table", "compare", "sensitivity", "gate"]
    order += ["ls", "show", "diff-protocols", "data", "weights", "hub"]
    assert [line.split()[0] for line in shown.splitlines()] == order


def test_nothing_typed_is_a_usage_error_that_shows_the_commands(vfbench: Command) -> None:
    done = vfbench()
    assert done.code == 2
    assert "gate" in done.out + done.err


def test_a_flag_that_means_the_same_in_two_commands_is_written_once() -> None:
    written = [
        tuple(ast.dump(part) for part in (*call.args, *call.keywords))
        for path in Path(cli.__file__).parent.glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "option"
    ]
    assert len(written) > 50
    assert {flag: count for flag, count in Counter(written).items() if count > 1} == {}


# Spelling and places of flags.


def test_underscores_are_dashes(vfbench: Command) -> None:
    options = recorded(vfbench, *NOISE, "--num_samples", 9, "--batch_size=3", "--keep_clips", "--output", "a_b")
    assert [options[name]["value"] for name in ("num_samples", "batch_size", "output")] == ["9", "3", "a_b"]


def test_a_flag_comes_from_the_first_place_that_has_it(vfbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("c.toml").write_text('[run]\nseed = 1\nbatch-size = 11\nnum_samples = 12\nmetrics = ["fvd", "is"]\n')
    monkeypatch.setenv("VFBENCH_SEED", "2")
    monkeypatch.setenv("VFBENCH_BATCH_SIZE", "22")
    options = recorded(vfbench, "--config", "c.toml", *NOISE, "--seed", 3)
    assert options["seed"] == {"value": "3", "origin": "command line"}
    assert options["batch_size"] == {"value": "22", "origin": "environment"}
    assert options["num_samples"] == {"value": "12", "origin": "configuration file"}
    assert options["metrics"] == {"value": "('fvd', 'is')", "origin": "configuration file"}
    assert options["guidance"] == {"value": "None", "origin": "default"}
    assert options.keys() == RunOptions.__dataclass_fields__.keys() - {"origins"}


def test_the_configuration_may_stand_behind_the_command_or_in_the_environment(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("c.toml").write_text("[run]\nsmoke = true\nseed = 7\n[train]\nsteps = 3\n")
    bare = ["run", "--model", "noise", "--device", "cpu"]
    assert recorded(vfbench, *bare, "--config=c.toml")["smoke"] == {"value": "True", "origin": "configuration file"}
    assert recorded(vfbench, *bare, "--config", "c.toml", "-n", 9)["seed"]["value"] == "7"
    monkeypatch.setenv("VFBENCH_CONFIG", "c.toml")
    assert recorded(vfbench, *bare)["seed"]["value"] == "7"


def test_the_environment_names_networks_with_blanks_and_the_folder_of_weights(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("VFBENCH_EXTRACTOR", "i3d=i3d(dtype='bfloat16', weights='random')")
    options = recorded(vfbench, *NOISE, "--protocol", "strict", "--metrics", "fvd")
    assert options["weights"]["value"] == "default"
    assert options["extractors"]["value"] == str(("i3d=i3d(dtype='bfloat16', weights='random')",))


def test_python_callers_are_recorded_too() -> None:
    options = plan(RunOptions(model="noise", smoke=True, device="cpu")).specification.options
    assert options["model"] == {"value": "noise", "origin": "call"}
    assert options["seed"] == {"value": "0", "origin": "default"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[run]\nstep = 5", r"no key of \[run\] in c.toml called 'step': did you mean 'steps'"),
        ("[rum]\nsteps = 5", r"no table .* in c.toml called 'rum': did you mean 'run'"),
        ("steps = 5", "no table .* in c.toml called 'steps'"),
        ("run = 5", "no table .* in c.toml called 'run'"),
        ("[run]\nseed = 1.5", r"--seed.*\(from the configuration file\)"),
        ("[run]\nseed = 'abc'", r"--seed.*\(from the configuration file\)"),
        ("[run]\nsmoke = 'perhaps'", r"--smoke.*\(from the configuration file\)"),
        ("[run", "--config c.toml: "),
        (None, "--config c.toml: .*No such file"),
    ],
)
def test_a_configuration_that_is_not_right_is_refused(content: str | None, said: str, vfbench: Command) -> None:
    if content is not None:
        Path("c.toml").write_text(content)
    done = vfbench("--config", "c.toml", *NOISE[:5])
    assert done.code == 2
    assert re.search(said, done.err), done.err


def test_a_mistake_in_the_environment_is_refused(vfbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFBENCH_SEED", "abc")
    done = vfbench(*NOISE)
    assert done.code == 2
    assert re.search(r"--seed.*\(from VFBENCH_SEED\)", done.err), done.err
    assert "(from" not in vfbench(*NOISE, "--seed", "abc").err


# Results.


def test_dry_run_prints_the_plan_and_writes_nothing(vfbench: Command) -> None:
    done = vfbench(*NOISE, "-n", 70, "--dry-run")
    assert (done.code, done.err) == (0, "")
    assert re.search("^clips +70 in 3 chunks, against 64 real ones$", done.out, re.MULTILINE)
    assert re.search("^protocol .*not comparable$", done.out, re.MULTILINE)
    assert re.search("^run +runs/noise-shapes-[0-9a-f]{8}$", done.out, re.MULTILINE)
    assert list(Path().iterdir()) == []


def test_json_is_the_file_and_nothing_else(vfbench: Command) -> None:
    done = vfbench(*NOISE, "--output", "run", "--json")
    assert done.code == 0
    assert done.out == Path("run/results.json").read_text()
    assert done.err.splitlines()[-1] == "next: python -m vfbench table run OTHER_RUN --allow-mixed"


@pytest.mark.usefixtures("few_real")
def test_smoke_is_loud_and_stands_in_no_table(vfbench: Command) -> None:
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
    assert mixed.out.count("not comparable") == 2  # its row and its floor
    assert vfbench("table", "full").out.startswith("| model")


def test_a_table_is_written_in_the_form_of_its_name(vfbench: Command) -> None:
    assert vfbench(*NOISE, "--output", "run").code == 0
    begins = {"t.csv": "model,dataset", "t.tex": "\\begin{table}", "t.md": "| model"}
    for name, begin in begins.items():
        done = vfbench("table", "run", "--allow-mixed", "--output", name)
        assert (done.code, done.out, done.err) == (0, "", f"wrote {name}\n")
        assert Path(name).read_text().startswith(begin)
    assert vfbench("table", "run", "--allow-mixed", "--format", "csv").out == Path("t.csv").read_text()
    assert vfbench("table", "run", "--allow-mixed", "--output", "t.pdf").code == 2
    assert vfbench("table", "run", "--allow-mixed", "--output", "no/t.md").code == 5
    assert vfbench("table", "none").code == 4


def write_result(folder: Path, fvd: float, **protocol: Any) -> None:
    score: dict[str, Any] = {"value": fvd, "low": fvd - 1, "high": fvd + 1, "floor": 1.0, "n_real": 128, "n_fake": 64}
    score |= {"note": "", "title": "FVD", "better": "lower"}
    protocol = {"id": "aa", "name": "shapes", "comparable": True, **protocol}
    record = {"schema": 1, "model": "vdm", "dataset": "shapes", "protocol": protocol, "scores": {"fvd": score}}
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(record))


def test_gate_ends_with_what_it_found(vfbench: Command) -> None:
    write_result(Path("old"), 100.0)
    write_result(Path("same"), 104.0)
    write_result(Path("worse"), 120.0)
    write_result(Path("other"), 100.0, id="bb")
    passed = vfbench("gate", "same", "--baseline", "old", "--rule", "fvd:+5%")
    assert (passed.code, passed.out.count("pass"), passed.err) == (0, 1, "")
    failed = vfbench("gate", "worse", "--baseline", "old/results.json", "--rule", "fvd:+5%")
    assert failed.code == 3
    assert "fvd" in failed.err
    assert "FAIL" in failed.out
    assert not failed.err.startswith("error:")  # a verdict, not a mistake
    assert vfbench("gate", "worse", "--baseline", "old", "--rule", "fvd:+25%").code == 0
    assert vfbench("gate", "other", "--baseline", "old", "--rule", "fvd:+5%").code == 2
    assert vfbench("gate", "same", "--baseline", "old", "--rule", "fvd").code == 2
    assert vfbench("gate", "same", "--baseline", "old").code == 2
    assert vfbench("gate", "same", "--baseline", "none", "--rule", "fvd:+5%").code == 4


# Whose folder it is.


def test_a_folder_of_another_run_is_refused_and_kept(vfbench: Command) -> None:
    assert vfbench(*NOISE, "--output", "run").code == 0
    before = contents(Path("run"))
    refused = vfbench(*NOISE, "--output", "run", "--seed", 1)
    assert refused.code == 2
    assert "run holds another run (seed: 0 there, 1 asked for)" in refused.err
    assert contents(Path("run")) == before


def test_a_folder_in_use_is_refused(vfbench: Command) -> None:
    specification = plan(RunOptions(model="noise", smoke=True, device="cpu")).specification
    with RunFolder.hold(Path("run"), specification):
        refused = vfbench(*NOISE, "--output", "run")
    assert refused.code == 5
    assert "run is in use by another run" in refused.err
    assert vfbench(*NOISE, "--output", "run").code == 0


def test_files_of_others_in_the_folder_stay(vfbench: Command) -> None:
    Path("run/chunks").mkdir(parents=True)
    for name in ("notes.txt", "chunks/.note", "chunks/notes.safetensors"):
        Path("run", name).write_text("mine")
    assert vfbench(*NOISE, "--output", "run").code == 0
    assert {name for name, content in contents(Path("run")).items() if content == b"mine"} == {
        *("notes.txt", "chunks/.note", "chunks/notes.safetensors")
    }


@pytest.mark.parametrize("given", [["--output", ""], ["--output="], ["--checkpoint", ""], ["--manifest", ""]])
def test_an_empty_place_is_not_taken_for_this_folder(vfbench: Command, given: list[str]) -> None:
    done = vfbench("run", "--model", "noise", "--smoke", *given)
    assert done.code == 2
    assert done.err == f"error: {given[0].rstrip('=')} is empty: give a path, or leave the flag out\n"
