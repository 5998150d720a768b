"""What README, CONTRIBUTING and CHANGELOG say is so: commands parse, files exist, examples run."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from conftest import Command
from contract import check_dataset, check_fingerprint, check_metric, check_sampler
from helpers import perturb

import vfbench
from vfbench import errors, plugins
from vfbench.cli import app, config
from vfbench.datasets import shapes
from vfbench.diffusion.priors import normal_per_clip
from vfbench.interfaces import BuildContext, ClipShape, Request
from vfbench.pipeline.eval_setup import CLIPS
from vfbench.pipeline.options import RunOptions
from vfbench.plugins import Kind
from vfbench.training.trainer import Trainer

ROOT = Path(__file__).parent.parent
README, CONTRIBUTING, CHANGELOG = (
    (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
)
PAGES = {"README": README, "CONTRIBUTING": CONTRIBUTING}
SET_UP = [
    "pip install -e . && python -m vfbench run --model videofusion --dataset shapes",
    'pip install -e ".[dev]" && pytest',
]


def code(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


# The two lines.


def test_readme_has_exactly_the_two_set_up_lines() -> None:
    assert [line for line in README.splitlines() if "pip install" in line] == SET_UP


def test_ci_runs_the_same_two_lines_once_each() -> None:
    lines = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert [line for line in lines if line in SET_UP] == SET_UP


def test_contributing_sets_up_with_the_second() -> None:
    assert [line for line in CONTRIBUTING.splitlines() if "pip install" in line] == SET_UP[1:]


# Commands.


def said(text: str) -> Iterator[list[str]]:
    """The arguments of every `python -m vfbench ...` in code, fenced or inline."""
    fenced = [line for block in code(text, "sh") for line in block.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
    for line in [*fenced, *inline]:
        for command in line.split("&&"):
            words = shlex.split(command)
            if words[:3] == ["python", "-m", "vfbench"]:
                yield words[3:]


def parse(given: list[str]) -> None:
    """Let the command line read its arguments, without doing anything; raises what a user would see."""
    words = config.normalise_arguments(given)
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group has commands
    verb, *rest = words if words[:1] != ["--config"] else words[2:]
    if "--help" not in rest:
        commands[verb].make_context(verb, rest)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_parses(page: str) -> None:
    found = [words for words in said(PAGES[page]) if words]  # `python -m vfbench` alone is no command
    assert found
    for words in found:
        parse(words)


@pytest.mark.parametrize("wrong", [["runn"], ["run", "--modle", "vdm"], ["run", "-n", "many"], ["gate", "runs/x"]])
def test_a_wrong_command_would_be_seen(wrong: list[str]) -> None:
    with pytest.raises((KeyError, typer.BadParameter.__mro__[1])):
        parse(wrong)


def _commands(group: Any) -> list[Any]:
    """All commands, those of groups too."""
    found = []
    for command in group.commands.values():
        found += _commands(command) if hasattr(command, "commands") else [command]
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_exists(page: str) -> None:
    commands = _commands(typer.main.get_command(app))
    known = {flag for command in commands for option in command.params for flag in option.opts}
    flags = set(re.findall(r"(?<=`)--[a-z-]+", PAGES[page]))
    assert flags <= known | {"--config"}


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_every_name_in_a_command_exists(kind: Kind) -> None:
    pairs = [pair for text in PAGES.values() for words in said(text) for pair in pairwise(words)]
    named = {value for flag, value in pairs if flag == f"--{kind}" and not value.startswith("my_package.")}
    assert len({plugins.module(kind, plugins.parse(value).name) for value in named}) > 1


def test_the_python_example_uses_real_options() -> None:
    (block,) = (block for block in code(README, "python") if "import vfbench\n" in block)
    calls = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    given = {keyword.arg for call in calls for keyword in call.keywords}
    assert given
    assert given <= {field.name for field in fields(RunOptions)}


def test_the_training_loop_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = (block for block in code(README, "python") if "torchmetrics" in block)
    judge = plugins.load("extractor", "shapes_judge", torch.device("cpu"))
    monkeypatch.setattr(judge, "outputs", {"logits": 30})
    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda kind, *rest: judge if kind == "extractor" else load(kind, *rest))
    data = shapes.build()
    batches = [data.clips("train", range(start, start + 32)) for start in (0, 32, 64, 96)]
    exec(block, {"real_batches": batches, "generated_batches": batches[:2]})
    assert re.search(r"FrechetVideoDistance.*KernelVideoDistance", capsys.readouterr().out)


# Files.


def tree() -> dict[str, str]:
    """Every path in README's tree, with its comment."""
    (block,) = code(README, "text")
    found, folder = {}, ""
    for line in block.splitlines():
        indent, name, comment = re.fullmatch(r"( *)(\S+) +(\S.*)", line).groups()  # type: ignore[union-attr]
        folder = folder if indent else name
        found[f"{folder if indent else ''}{name}"] = comment
    return found


def test_every_file_of_the_tree_exists() -> None:
    missing = [path for path in tree() if not (ROOT / path).exists() or (ROOT / path).is_dir() != path.endswith("/")]
    assert missing == []


def test_every_file_named_in_the_trees_comments_exists() -> None:
    for path, comment in tree().items():
        folder = ROOT / path if path.endswith("/") else (ROOT / path).parent
        assert [name for name in re.findall(r"\w+\.py", comment) if not (folder / name).exists()] == [], path


def test_every_module_is_in_the_tree() -> None:
    package = ROOT / "vfbench"
    modules = {f"vfbench/{path.name}" for path in package.glob("*.py")}
    folders = {f"vfbench/{path.name}/" for path in package.iterdir() if path.is_dir() and not path.is_symlink()}
    top = {f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert (modules | folders | top) - {"vfbench/__pycache__/"} <= tree().keys()


def test_every_plug_in_is_in_the_tree() -> None:
    comments = tree()
    for folder in ("baselines", "metrics", "vfbench/models", "vfbench/datasets"):
        names = {path.name for path in (ROOT / folder).glob("[a-z]*.py")}
        below = {path.removeprefix(f"{folder}/") for path in comments if path.startswith(f"{folder}/")} - {""}
        assert names == below | set(re.findall(r"\w+\.py", comments[f"{folder}/"])), folder


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG"])
def test_links_and_pictures_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", {**PAGES, "CHANGELOG": CHANGELOG}[page])
    assert targets
    relative = [target.split("#")[0] for target in targets if not target.startswith("https://")]
    assert [target for target in relative if not (ROOT / target).exists()] == []


def test_the_picture_is_small() -> None:
    assert (ROOT / "results" / "shapes" / "shapes.png").stat().st_size < 200_000


# What is claimed.


def test_readme_counts_right() -> None:
    assert f"generates {CLIPS['cpu']:,} clips ({CLIPS['cuda']:,} on a GPU)" in README
    classes, motions, kinds = len(shapes.CLASSES), len(shapes.MOTIONS), len(shapes.SHAPES)
    assert f"{classes} classes ({motions} motions x {kinds} shapes)" in README


def test_readme_lists_the_exit_codes_of_every_error() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.UserError)]
    listed = [int(number) for number in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)]
    assert listed == sorted({0, *(kind.exit_code for kind in kinds)})


def test_the_numbers_of_the_pages_come_from_the_records() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
    for page, blocks in script["PAGES"].items():
        for name, make in blocks.items():
            assert script["block"](name).search(page.read_text())[0] == make(), f"{page}: run benchmarks/tables.py"
    assert script["mean_over_seeds"]([1.0, 2.0, 3.0]) == "2.0 ± 2.5"  # 4.303, t of two degrees, times 1 / sqrt(3)


def test_changelog_lines_are_short() -> None:
    entries = re.findall(r"^- (.*(?:\n  .*)*)", CHANGELOG, re.MULTILINE)
    assert len(entries) >= 5
    assert [entry for entry in entries if len(entry.split()) >= 25] == []


def test_the_changelog_knows_this_version() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert f"## [{version[1]}]" in CHANGELOG


# CONTRIBUTING's examples.


def examples() -> dict[str, str]:
    """Every Python example by the path it is to be saved under."""
    return dict(re.findall(r"`([\w/]+\.py)`:\n\n```python\n(.*?)^```$", CONTRIBUTING, re.DOTALL | re.MULTILINE))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`my_package`, as a third party would install it: the examples and the entry points of the page."""
    folder = tmp_path / "my_package"
    folder.mkdir()
    for path, source in examples().items():
        (folder / Path(path).name).write_text(source)
    (toml,) = code(CONTRIBUTING, "toml")
    entries = re.sub(r'\[project\.entry-points\."(.+)"\]', r"[\1]", toml).replace('"', "")
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entries)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


def test_there_is_an_example_of_each_kind() -> None:
    names = {"baselines/wash.py", "baselines/slide.py", "vfbench/datasets/ramps.py", "metrics/mean_shift.py"}
    assert examples().keys() == names
    assert len(code(CONTRIBUTING, "python")) == len(names), "an example that no test would find"


def test_the_model_keeps_the_contract(package: Path) -> None:
    data = plugins.load("dataset", "shapes(frames=4, height=16, width=16)")
    requests = [Request(i, 100 + i, 0, "") for i in range(3)]
    for name in ("my_package.wash", "wash"):
        check_sampler(plugins.load("model", name, BuildContext(data, torch.device("cpu"))), requests)
    bright, dark = (
        plugins.load("model", f"wash(dusk={dusk})", BuildContext(data, torch.device("cpu"))).sample(requests)
        for dusk in (0, 1.0)
    )
    assert (bright[:, -1] == bright[:, 0]).all()
    assert (dark[:, -1] == 0).all()


def test_the_trainable_model_slides_its_noise_and_keeps_the_contract(package: Path, tmp_path: Path) -> None:
    data = plugins.load("dataset", "shapes(frames=4, height=16, width=16)")
    module = plugins.module("model", "my_package.slide")
    for preset, speed in {"tiny": 1, "fast": 3}.items():
        prior = module.create(data, preset).noise_prior
        noise = prior.noise(normal_per_clip([1, 2], torch.device("cpu")), data.shape)
        assert torch.equal(noise[:, 2], noise[:, 0].roll(2 * speed, dims=-1))
        assert not torch.equal(noise[:, 2], noise[:, 0])
    model = module.create(data)
    perturb(model)
    model.save(tmp_path / "model")
    setting = BuildContext(data, torch.device("cpu"), checkpoint=tmp_path / "model")
    requests = [Request(i, 100 + i, i, caption) for i, caption in enumerate(data.captions("test", [0, 7, 19]))]
    check_sampler(plugins.load("model", "my_package.slide(steps=2)", setting), requests)


@pytest.mark.slow
def test_the_trainable_model_trains_and_runs_as_the_page_says(
    package: Path, tmp_path: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's own commands, short: two steps of training without a sheet of samples, and a few clips."""
    monkeypatch.setattr(Trainer, "write_preview", lambda run: None)
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in code(CONTRIBUTING, "sh") if "my_package.slide" in block)
    train, run = (shlex.split(line)[3:] for line in block.splitlines())
    short = {"train": ["--steps", "2", "--batch-size", "2"], "run": ["--smoke", "--num-samples", "8", "--steps", "2"]}
    for given in (train, run):
        done = vfbench(*given, *short[given[0]], "--device", "cpu")
        assert done.code == 0, done.err
    assert json.loads(Path("runs/slide/config.json").read_text())["options"]["speed"] == 3
    assert "python -m vfbench run --model my_package.slide" in Path("runs/slide/README.md").read_text()
    (result,) = Path("runs").glob("*/results.json")
    assert json.loads(result.read_text())["model"] == "my_package.slide"


def test_the_dataset_keeps_the_contract(package: Path) -> None:
    build: Callable[..., Any] = plugins.module("dataset", "ramps").build
    check_dataset(build())
    check_fingerprint(lambda s: build(frames=s.frames, height=s.height, width=s.width), ClipShape(4, 16, 16))
    brightening, darkening = build().clips("train", [0, 1]).float().mean((2, 3, 4))
    assert (brightening.diff() > 0).all()
    assert (darkening.diff() < 0).all()


def test_the_metric_keeps_the_contract(package: Path) -> None:
    check_metric(plugins.load("metric", "mean_shift"))
    check_metric(plugins.load("metric", "my_package.mean_shift"))


def test_the_examples_run_together(package: Path, tmp_path: Path) -> None:
    result = vfbench.benchmark(
        model="wash(dusk=0.8)",
        dataset="ramps",
        metrics=["fvd", "mean_shift"],
        device="cpu",
        smoke=True,
        output=tmp_path / "run",
    )
    assert (result.model_spec, result.dataset) == ("wash(dusk=0.8)", "ramps")
    assert result.scores.keys() == {"fvd", "mean_shift"}
    assert result.scores["mean_shift"].value > result.scores["mean_shift"].floor


def test_the_model_runs_on_shapes_as_the_page_says(package: Path, tmp_path: Path) -> None:
    result = vfbench.benchmark(
        model="my_package.wash", dataset="shapes", device="cpu", smoke=True, output=tmp_path / "run"
    )
    assert result.model == "my_package.wash"
    assert not result.protocol.comparable
    assert (tmp_path / "run" / "results.json").is_file()


def test_the_examples_are_in_the_house_style() -> None:
    for path, source in examples().items():
        assert max(map(len, source.splitlines())) <= 120, path
        body = ast.parse(source)
        texts = [body, *(node for node in body.body if isinstance(node, ast.ClassDef | ast.FunctionDef))]
        assert all(map(ast.get_docstring, texts)), path
