"""The command line: what is typed wrongly is refused by name and exit code, what is right is read from every place."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Command, contents, results

from vfbench import cli, plugins, weights
from vfbench.plan import RunOptions, plan
from vfbench.store import RunFolder

NOISE = ("run", "--model", "noise", "--device", "cpu", "--smoke")
HEAVY = {"torch", "numpy", "pandas", "pydantic", "scipy", "transformers", "PIL", "rich"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, where a run that is not told where to go makes `runs`."""
    monkeypatch.chdir(tmp_path)


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
    "verb", ["run", "generate", "score", "train", "table", "compare", "calibrate", "gate", "ls", "show"]
)
def test_every_command_has_help(verb: str, vfbench: Command) -> None:
    done = vfbench(verb, "--help")
    assert (done.code, done.err) == (0, "")
    assert verb in done.out


def test_commands_are_shown_in_the_order_of_work(vfbench: Command) -> None:
    shown = vfbench("--help").out.partition("Commands:\n")[2]
    order = ["run", "generate", "score", "train", "table", "compare", "calibrate", "gate"]
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


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "'rnu'.*'run'"),
        (["run", "--modle", "vdm"], "--modle.*--model"),
        (["run", "--num-sample", "9"], "--num-sample.*--num-samples"),
        (["run", "--model", "vidofusion"], "no model called 'vidofusion': did you mean 'videofusion'"),
        (["run", "--dataset", "shaps"], "no dataset called 'shaps': did you mean 'shapes'"),
        (["run", "--dataset", "shaps", "--smoke"], "did you mean 'shapes'"),
        ([*NOISE, "--metrics", "fvd,kvv"], "no metric called 'kvv': did you mean 'kvd'"),
        ([*NOISE, "--protocol", "shape"], "no protocol called 'shape': did you mean 'shapes'"),
        ([*NOISE, "--dtype", "float23"], "no --dtype called 'float23': did you mean 'float32'"),
        ([*NOISE, "--device", "cudaa"], "no --device called 'cudaa': did you mean 'cuda'"),
        ([*NOISE, "--model", "noise(step=2)"], "no option of model noise called 'step'"),
        ([*NOISE, "--steps", "2"], "no option of model noise called 'steps'"),
        ([*NOISE, "--dataset", "shapes(frame=8)"], "called 'frame': did you mean 'frames'"),
        ([*NOISE, "--dataset", "shapes(frames='8')"], "frames='8' of dataset shapes must be int"),
        ([*NOISE, "--model", "noise(("], r"cannot read 'noise\(\('"),
        ([*NOISE, "--batch-size", "many"], "--batch-size many"),
        ([*NOISE, "--batch-size", "0"], "--batch-size 0: at least 1"),
        ([*NOISE, "-n", "1"], "a score needs at least 2 generated clips, not 1"),
        ([*NOISE, "-n", "eight"], "--num-samples"),
        ([*NOISE, "--seed", "1.5"], "--seed"),
        ([*NOISE, "surprise"], "surprise"),
        (["ls", "modells"], "'modells' is not one of 'models'"),
        (["show", "model", "vdmm"], "did you mean 'vdm'"),
        (["show", "model", "vdm(steps=3)"], r"vdm\(steps=3\): give the name alone, vdm"),
        (["show", "model", "my_package.absent"], "'my_package.absent' cannot be imported: No module"),
        (["generate", "--output", "x", "--format", "gif"], "--format.*'gif' is not one of 'mp4', 'webp'"),
        (["table", "x", "--format", "markdwon"], "'markdwon' is not one of 'markdown'"),
        (["train", "--model", "noise"], "'noise' cannot be trained; these can: pyoco, vdit, vdm, videofusion"),
        (["train", "--preset", "tinny"], "no videofusion preset called 'tinny': did you mean 'tiny'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_does_not_exist_is_named_with_what_is_near(arguments: list[str], said: str, vfbench: Command) -> None:
    done = vfbench(*arguments)
    assert done.code == 2
    assert re.search(said, done.err), done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert list(Path().iterdir()) == []  # and nothing was begun


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--solver", "dpm++3m"], "no solver called 'dpm++3m': did you mean 'dpm++2m'"),
        (["--steps", "0"], "--steps 0"),
        (["--guidance", "nan"], "guidance nan: choose a finite number"),
    ],
)
def test_sampling_options_are_refused_by_the_model(
    options: list[str], said: str, vfbench: Command, checkpoints: Path
) -> None:
    done = vfbench("run", "--model", "vdm", "--device", "cpu", "--smoke", "--checkpoint", checkpoints / "vdm", *options)
    assert done.code == 2
    assert re.search(re.escape(said).replace(r"\.\*", ".*"), done.err), done.err


@pytest.mark.parametrize("count", [8, 63])
def test_too_few_clips_are_refused_naming_what_each_metric_needs(count: int, vfbench: Command) -> None:
    done = vfbench("run", "--model", "noise", "--device", "cpu", "-n", count)
    assert done.code == 2
    assert f"{count:,} generated clips are too few: " in done.err
    needs = {"fvd": 64, "kvd": 32, "is": 64, "clipsim": 16}
    assert {name: f"{name} needs {n}" in done.err for name, n in needs.items()} == {
        k: count < n for k, n in needs.items()
    }
    assert "--smoke" in done.err
    assert (
        vfbench("run", "--model", "noise", "--device", "cpu", "-n", 16, "--metrics", "clipsim", "--dry-run").code == 0
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_an_environment_error(vfbench: Command) -> None:
    done = vfbench("run", "--model", "noise", "--device", "cuda")
    assert (done.code, "torch sees no CUDA device" in done.err) == (5, True)


# Before any work.


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever takes long fails the test."""
    for name in ("vfbench.plan.measure", "vfbench.run.generate", "vfbench.run.real_features"):
        monkeypatch.setattr(name, lambda *_, name=name: pytest.fail(f"{name} was called"))


@pytest.mark.usefixtures("no_work")
def test_an_output_that_cannot_be_written_stops_a_run_before_it_works(vfbench: Command) -> None:
    Path("file").write_text("")
    done = vfbench(*NOISE, "--output", "file/run")
    assert done.code == 5
    assert re.search("cannot write to file/run: .*file is not a folder", done.err)
    Path("runs").symlink_to("file")  # where runs go by themselves
    assert vfbench(*NOISE).code == 5


@pytest.mark.usefixtures("no_work")
def test_a_disk_that_is_too_small_stops_a_run_before_it_works(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=21_000_000))
    done = vfbench(*NOISE, "-n", 64, "--keep-clips", "--output", "run")
    assert done.code == 5
    assert "run needs about 23 MB and its disk has 21 MB free" in done.err  # 64 clips of 48 KiB
    assert not Path("run").exists()


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"a": [1, 2]}))


def of_another_size(folder: Path) -> None:
    weights.write(folder / "model.safetensors", {"network.stem.weight": torch.zeros(3)})


def of_another_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model": "videofusion"}))


def of_another_dataset(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dataset": "ucf101"}))


def garbled(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (cut, r"model\.safetensors is damaged or not a safetensors file"),
        (pickled, r"model\.safetensors is damaged or not a safetensors file"),
        (of_another_size, r"model\.safetensors does not fit this model"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"no model\.safetensors: copy that file too"),
        (of_another_model, r"is a checkpoint of 'videofusion', not of 'vdm'"),
        (of_another_dataset, "was trained on ucf101"),
        (garbled, r"config\.json cannot be read"),
        (lambda folder: (folder / "config.json").unlink(), r"holds no config\.json: give the --output of"),
        (shutil.rmtree, "does not exist: give the --output of"),
    ],
)
def test_a_checkpoint_that_is_not_right_is_named(
    harm: Callable[[Path], None], said: str, checkpoints: Path, vfbench: Command
) -> None:
    folder = shutil.copytree(checkpoints / "vdm", Path("mine"))
    harm(folder)
    done = vfbench("run", "--model", "vdm", "--device", "cpu", "--smoke", "--checkpoint", folder)
    assert done.code == 4
    assert re.search(f"mine.*{said}", done.err), done.err
    assert "Traceback" not in done.err


@pytest.mark.usefixtures("no_work")
def test_ucf101_says_what_it_needs(vfbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VFBENCH_DATA", raising=False)
    for where in ([], ["--data-root", "nowhere"]):
        missing = vfbench(*NOISE, "--dataset", "ucf101", *where)
        assert missing.code == 4
        assert "https://www.crcv.ucf.edu" in missing.err
        assert "--data-root DIR" in missing.err


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
    assert options["metrics"] == {"value": "['fvd', 'is']", "origin": "configuration file"}
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


def test_python_callers_are_recorded_too() -> None:
    options = plan(RunOptions(model="noise", smoke=True, device="cpu")).specification["options"]
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
    specification: Mapping[str, Any] = plan(RunOptions(model="noise", smoke=True, device="cpu")).specification
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


# Listing.


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("models", {"frozen", "noise", "real", "vdm", "videofusion"}),
        ("datasets", {"shapes", "ucf101"}),
        ("metrics", {"fvd", "kvd", "is", "clipsim"}),
        ("extractors", {"shapes_judge"}),
        ("protocols", {"shapes", "ucf101-smoke"}),
    ],
)
def test_ls_lists_names_with_a_line_of_text(kind: str, known: set[str], vfbench: Command) -> None:
    done = vfbench("ls", kind)
    assert (done.code, done.err) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert known <= rows.keys()
    assert all(rows.values())


@pytest.mark.parametrize(("kind", "name"), [("model", "vdm"), ("dataset", "ucf101"), ("metric", "is")])
def test_show_tells_options_and_presets(kind: str, name: str, vfbench: Command) -> None:
    done = vfbench("show", kind, name)
    assert done.code == 0
    assert {"vdm": "  steps = 25", "ucf101": "  frames = 16", "is": "  splits = 1"}[name] in done.out.splitlines()
    assert any(line.startswith("tiny ") for line in done.out.splitlines()) is (name == "vdm")


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A package where the user works: a model like VDM, one without sizes, one that cannot be counted."""
    sources = {
        "like_vdm": "from vfbench.baselines.vdm import PRESETS as ALL, build, create\nPRESETS = {'tiny': ALL['tiny']}",
        "no_sizes": "from vfbench.baselines.vdm import build, create",
        "no_steps": "from vfbench.baselines.vdm import PRESETS, create\ndef build(setting, *, dusk: float = 0.5): ...",
    }
    (tmp_path / "theirs").mkdir()
    for name, source in sources.items():
        (tmp_path / "theirs" / f"{name}.py").write_text(f'"""The model {name}."""\n{source}\n')
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirs"]:
        del sys.modules[name]


@pytest.mark.usefixtures("theirs")
def test_a_model_of_a_third_party_is_shown_as_a_built_in_one(vfbench: Command) -> None:
    done, built_in = vfbench("show", "model", "theirs.like_vdm"), vfbench("show", "model", "vdm").out.splitlines()
    head, *options, _, tiny = done.out.splitlines()
    assert (done.code, done.err, head) == (0, "", "The model like_vdm.")
    assert "  steps = 25" in options
    assert set(options) <= set(built_in)
    assert tiny.split() in [line.split() for line in built_in]  # its parameters and FLOPs
    preset = vfbench("show", "model", "theirs.like_vdm", "--preset", "tiny")
    assert preset.out.splitlines()[1:] == vfbench("show", "model", "vdm", "--preset", "tiny").out.splitlines()[1:]


@pytest.mark.usefixtures("theirs")
def test_a_model_that_cannot_be_counted_is_shown_all_the_same(vfbench: Command) -> None:
    without = vfbench("show", "model", "theirs.no_sizes")
    assert (without.code, without.err) == (0, "")
    assert "  steps = 25" in without.out
    assert "preset" not in without.out
    done = vfbench("show", "model", "theirs.no_steps")
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert "'theirs.no_steps' takes no option 'steps': the FLOPs of a clip cannot be counted" in done.err
    assert "  dusk = 0.5" in done.out
    assert ["tiny", "not", "counted"] in [line.split() for line in done.out.splitlines()]


def test_a_broken_plugin_breaks_only_itself(vfbench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def build(:\n")
    files = plugins._files
    third = [EntryPoint("absent", "no_such_package.model", "vfbench.models")]
    monkeypatch.setattr(plugins, "_files", lambda kind: [*files(kind), tmp_path / "broken.py"])
    monkeypatch.setattr(plugins, "entry_points", lambda group, name=None: third if name in (None, "absent") else [])
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # as for a user: here warnings are errors
        done = vfbench("ls", "models")
    assert done.code == 0
    assert done.err.startswith("warning: broken.py is broken and cannot be used")
    assert done.err.count("\n") == 1
    assert "videofusion" in done.out
    assert "no_such_package" in done.out
    refused = vfbench(*NOISE, "--model", "absent")
    assert refused.code == 2
    assert "model 'absent' cannot be imported" in refused.err


def test_a_reader_that_has_seen_enough_gets_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # the output shall be left for the last moment
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        [sys.executable, "-m", "vfbench", "ls", "models"], stdout=writes, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writes)
    assert (done.returncode, done.stderr) == (1, "")
