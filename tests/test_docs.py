"""Tests of README, docs, CONTRIBUTING and CHANGELOG: commands parse, snippets run, files exist, facts hold."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from conftest import Command
from pages import CHANGELOG, CONTRIBUTING, DOCS, PAGES, README, ROOT, code, examples

import vfbench
from vfbench import errors, plugins
from vfbench.cli import command_line, config
from vfbench.datasets import _shapes_scene
from vfbench.interfaces import Clips, Comparison, Features, Request, WeightStatus
from vfbench.pipeline.cost import ClipCost
from vfbench.pipeline.eval_setup import CLIPS
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.replay import Replay
from vfbench.plugins import Kind
from vfbench.protocol import presets
from vfbench.report.compare import ComparisonResult
from vfbench.report.drift_table import Drift, DriftRow
from vfbench.report.similarity import PairScores
from vfbench.scoring.options import ScoreOptions
from vfbench.training.options import TrainJob

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SET_UP = [
    "pip install -e . && python -m vfbench run --model videofusion --dataset shapes",
    'pip install -e ".[dev]" && pytest',
]


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    """Pages that a build writes from the code, by path below docs/_generated."""
    made: dict[str, str] = runpy.run_path(str(ROOT / "docs" / "generate.py"))["files"]()
    return made


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Current folder with the records of the repository, and with runs called as on the pages."""
    (tmp_path / "results").symlink_to(ROOT / "results")
    for name in ("videofusion", "vdm", "noise"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        shutil.copy(ROOT / "results" / "records" / f"{name}.json", tmp_path / "runs" / name / "results.json")
    shutil.copy(ROOT / "results" / "baselines" / "ci" / "scored.safetensors", tmp_path / "runs" / "videofusion")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Setup lines.


def test_readme_has_exactly_the_two_set_up_lines() -> None:
    assert [line for line in README.splitlines() if "pip install" in line] == SET_UP


def test_ci_runs_both_set_up_lines_once() -> None:
    lines = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert [line for line in lines if line in SET_UP] == SET_UP


def test_contributing_has_the_second_set_up_line() -> None:
    assert [line for line in CONTRIBUTING.splitlines() if "pip install" in line] == SET_UP[1:]


def test_every_extra_that_is_named_exists() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    named = set(re.findall(r"\.\[([a-z,]+)\]", "\n".join(PAGES.values()))) | set(re.findall(r"extra `(\w+)`", README))
    assert {"dev", "docs"} <= named <= extras.keys()


def test_ci_builds_the_documentation_after_the_types() -> None:
    steps = re.findall(r'^step "(.+)"\n(.*)$', (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    names = [name for name, _ in steps]
    assert names.index("docs") == names.index("types") + 1
    assert "sphinx-build -W --keep-going" in dict(steps)["docs"]
    (dev,) = (line for line in PYPROJECT["project"]["optional-dependencies"]["dev"] if line.startswith("vfbench["))
    assert "docs" in dev


# Length.


def test_pages_are_short(generated: dict[str, str]) -> None:
    assert len(README.split()) <= 900
    made = {name: text for name, text in generated.items() if name.endswith(".md")}
    texts = {
        name: re.sub(r"\{include\} \S*_generated/(\S+)", lambda m: generated[m[1]], text) for name, text in DOCS.items()
    }
    lengths = {name: len(text.split()) for name, text in {**texts, **made}.items()}
    assert {name: length for name, length in lengths.items() if length >= 1200} == {}


# Commands.


def documented_commands(text: str) -> Iterator[list[str]]:
    """Arguments of every `python -m vfbench ...` in code, fenced or inline."""
    fenced = [line for block in code(text, "sh") for line in block.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
    for line in [*fenced, *inline]:
        for command in line.split("&&"):
            words = shlex.split(command) if "vfbench" in command else []
            if words[:3] == ["python", "-m", "vfbench"]:
                yield words[3:]


def parse(arguments: list[str]) -> None:
    """Parse a command line without running it; raises the user's errors."""
    words = config.normalise_arguments(arguments)
    commands = command_line().commands
    verb, *rest = words if words[:1] != ["--config"] else words[2:]
    if verb != "--help" and "--help" not in rest:
        _parse(commands[verb], verb, rest)


def _parse(command: Any, verb: str, rest: list[str]) -> None:
    if hasattr(command, "commands"):
        _parse(command.commands[rest[0]], rest[0], rest[1:])
    else:
        command.make_context(verb, rest)


COMMANDS = {page: [words for words in documented_commands(text) if words] for page, text in PAGES.items()}


@pytest.mark.parametrize("page", [page for page, commands in COMMANDS.items() if commands])
def test_every_command_parses(page: str) -> None:
    for words in COMMANDS[page]:
        parse(words)


@pytest.mark.parametrize(
    "page", ["README", *(f"docs/{name}" for name in ("tour", "datasets", "training", "protocols"))]
)
def test_the_pages_for_users_have_commands(page: str) -> None:
    assert len(COMMANDS[page]) >= 4


@pytest.mark.parametrize(
    "wrong",
    [["runn"], ["run", "--modle", "vdm"], ["run", "-n", "many"], ["gate", "runs/x"], ["data", "verify", "x", "--ful"]],
)
def test_wrong_commands_do_not_parse(wrong: list[str]) -> None:
    with pytest.raises((KeyError, typer.BadParameter.__mro__[1])):
        parse(wrong)


def _runs_at_once(words: list[str]) -> bool:
    """True for a command that reads nothing but the package and the runs of `workplace`."""
    read_only = (["ls"], ["show", "protocol"], ["show", "dataset"], ["diff-protocols"], ["table"], ["gate"])
    status = (["data", "status"], ["weights", "status"])
    return any(words[: len(start)] == start for start in (*read_only, *status)) or words[-1] == "--help"


CHEAP = sorted({tuple(words) for commands in COMMANDS.values() for words in commands if _runs_at_once(words)})


@pytest.mark.parametrize("words", [words for words in CHEAP if words != ("show", "protocol", "x")], ids=" ".join)
def test_cheap_commands_run(words: tuple[str, ...], vfbench: Command, workplace: Path) -> None:
    outcome = vfbench(*words)
    assert outcome.code == 0, outcome.err
    assert outcome.out or "--output" in words


@pytest.mark.slow
def test_the_dry_run_prints_the_disk_of_the_readme(vfbench: Command, workplace: Path) -> None:
    (words,) = (words for words in COMMANDS["README"] if "--dry-run" in words)
    outcome = vfbench(*words, "--device", "cpu", "--steps", 2)
    assert outcome.code == 0, outcome.err
    disk = re.search(r"disk +about (\d+) MB", outcome.out + outcome.err)
    assert disk
    assert f"about {disk[1]} MB" in one_line(README)


def _commands(group: Any) -> list[Any]:
    """All commands, including those of groups."""
    leaves = []
    for command in group.commands.values():
        leaves += _commands(command) if hasattr(command, "commands") else [command]
    return leaves


def _flags() -> set[str]:
    group = command_line()
    return {flag for command in (group, *_commands(group)) for option in command.params for flag in option.opts}


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_exists(page: str) -> None:
    flags = set(
        re.findall(r"(?<=`)--[a-z-]+", re.sub(r"`(torchrun|accelerate|sphinx-build|pytest) [^`]*`", "", PAGES[page]))
    )
    assert flags <= _flags() | {"--help"}


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_every_name_in_a_command_exists(kind: Kind) -> None:
    pairs = [pair for commands in COMMANDS.values() for words in commands for pair in pairwise(words)]
    named = {value for flag, value in pairs if flag == f"--{kind}" and not value.startswith("my_package.")}
    assert len({plugins.module(kind, plugins.parse(value).name) for value in named}) > 1
    for value in named:
        if kind == "dataset":
            plugins.validated_options(kind, plugins.parse(value))


def test_every_protocol_in_a_command_exists() -> None:
    pairs = [pair for commands in COMMANDS.values() for words in commands for pair in pairwise(words)]
    named = {value for flag, value in pairs if flag in ("--protocol", "protocol")} - {"x"}
    assert len(named) > 1
    assert named <= presets.available().keys()


# Python.


SNIPPETS = {
    f"{page}, {i}": block
    for page, text in PAGES.items()
    if not page.startswith("docs/plugins/")
    for i, block in enumerate(code(text, "python"))
    if "torchmetrics" not in block
}


@pytest.mark.one_case
@pytest.mark.parametrize("name", SNIPPETS)
def test_every_snippet_runs(name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long jobs only check their options, and answer with a recorded result; the cost of a clip is not measured."""

    def answer(options: type, result: object) -> Callable[..., object]:
        return lambda **given: options(**given) and result

    (record,) = vfbench.load_results("runs/videofusion")
    pair = ComparisonResult("FVD", "lower", Comparison(1.0, -1.0, 3.0, 0.5))
    for function, options, result in (
        ("run", RunOptions, record),
        ("score", ScoreOptions, record),
        ("train", TrainJob, Path("runs/mine")),
    ):
        monkeypatch.setattr(vfbench, function, answer(options, result))
    measures = {"psnr": PairScores("PSNR", "higher", (30.0, 31.0))}
    row = DriftRow("b", Path("b"), ("1", "2"), 0, measures, None, None, ())
    monkeypatch.setattr(vfbench, "drift", lambda a, *others: Drift("a", (row,)))
    monkeypatch.setattr(vfbench, "replay", lambda run, **given: Replay(record, record, ()))
    monkeypatch.setattr(vfbench, "import_results", lambda file, format, **given: record)
    cost = ClipCost(parameters=1, flops_per_clip=1, evaluations=1, calls={}, seconds=1.0)
    monkeypatch.setattr("vfbench.pipeline.plan.measure", lambda sampler, request: cost)
    monkeypatch.setattr(vfbench, "compare", lambda a, b, metrics=(): [pair for _ in metrics])
    exec(SNIPPETS[name], {})


def test_readme_and_the_python_page_have_snippets() -> None:
    assert {"README, 0", "docs/python, 3"} <= SNIPPETS.keys()
    shown = "\n".join(SNIPPETS.values())
    assert [name for name in vfbench.__all__ if not name.startswith("__") and f"vfbench.{name}(" not in shown] == []


class PixelRows:
    """Extractor that needs no network: the first 30 pixels of each clip."""

    name = fingerprint = "pixel_rows"
    weight_status: WeightStatus = "verified"
    outputs: Mapping[str, int] = {"logits": 30}

    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        return dict.fromkeys(outputs, clips.flatten(1)[:, :30].float())


@pytest.mark.slow
def test_the_training_loop_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = (block for text in PAGES.values() for block in code(text, "python") if "torchmetrics" in block)
    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda kind, *rest: PixelRows() if kind == "extractor" else load(kind, *rest))
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(256, (32, 2, 3, 4, 4), generator=generator, dtype=torch.uint8) for _ in range(4)]
    exec(block, {"real_batches": batches, "generated_batches": batches[:2]})
    assert re.search(r"FrechetVideoDistance.*KernelVideoDistance", capsys.readouterr().out)


# Generated pages.


def test_every_flag_of_every_command_has_a_page(generated: dict[str, str]) -> None:
    def check(command: Any, path: tuple[str, ...]) -> None:
        if hasattr(command, "commands"):
            for name, child in command.commands.items():
                check(child, (*path, name))
            return
        section = generated[f"commands/{path[0]}.md"].split(f"# {' '.join(path)}\n")[1].split("\n## ")[0]
        options = [option for option in command.params if option.param_type_name == "option"]
        assert [o.opts for o in options if not any(f"{flag}" in section for flag in o.opts)] == [], path

    for name, command in command_line().commands.items():
        check(command, (name,))


def test_flags_are_in_the_groups_of_the_help(generated: dict[str, str]) -> None:
    model, sampling = (
        generated["commands/run.md"].split(f"**{group}**")[1].split("**")[0] for group in ("Model", "Sampling")
    )
    assert "`--checkpoint" in model
    assert "`--steps" in sampling
    assert "`--steps" not in model


def test_every_field_of_every_protocol_has_value_and_source(generated: dict[str, str]) -> None:
    for name, preset in presets.available().items():
        page = generated[f"protocols/{name}.md"].replace("\\", "")
        for field, source in preset.sources.items():
            assert re.search(rf"^\| `{field}[`.].*\| {re.escape(source.replace('|', ''))}", page, re.MULTILINE), (
                name,
                field,
            )
        for field in preset.instead:
            assert f"| `{field}` | unknown; here `" in page, (name, field)
        assert all(deviation in page for deviation in preset.deviations)
        assert name in generated["protocols.txt"]


def test_every_option_of_the_functions_is_listed(generated: dict[str, str]) -> None:
    for name, options in (("run", RunOptions), ("score", ScoreOptions), ("train", TrainJob)):
        listed = re.findall(r"^\| `(\w+)`", generated[f"options-{name}.txt"], re.MULTILINE)
        fields = options.__dataclass_fields__
        assert listed == [field for field in fields if field != "origins"]


def test_the_notebook_table_shows_the_records(generated: dict[str, str]) -> None:
    assert generated["notebook.txt"].startswith("<table>")
    assert all(f"<th>{name}</th>" in generated["notebook.txt"] for name in ("vdm", "videofusion"))


# Files.


def tree() -> dict[str, str]:
    """Comment of every path in the tree of the design page."""
    (block,) = (block for block in code(DOCS["docs/design"], "text") if "__main__.py" in block)
    comments, folder = {}, ""
    for line in block.splitlines():
        indent, name, comment = re.fullmatch(r"( *)(\S+) +(\S.*)", line).groups()  # type: ignore[union-attr]
        folder = folder if indent else name
        comments[f"{folder if indent else ''}{name}"] = comment
    return comments


def test_every_file_of_the_tree_exists() -> None:
    missing = [path for path in tree() if not (ROOT / path).exists() or (ROOT / path).is_dir() != path.endswith("/")]
    assert missing == []


def test_every_file_in_the_comments_of_the_tree_exists() -> None:
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
def test_relative_links_exist(page: str) -> None:
    folder = (ROOT / page).parent
    targets = re.findall(r"\]\(([^)\s]+)\)", {**PAGES, "CHANGELOG": CHANGELOG}[page])
    relative = [target.split("#")[0] for target in targets if not target.startswith("https://")]
    assert [target for target in relative if not (folder / target).exists()] == []


def test_readme_links_to_every_page_for_users() -> None:
    linked = set(re.findall(r"\]\((docs/[\w/-]+)\.md\)", README))
    assert linked == {name for name in DOCS if name.count("/") == 1} - {"docs/index"}


def test_every_file_that_is_named_exists() -> None:
    folders = "vfbench|tests|metrics|baselines|benchmarks|results|docs"
    pattern = rf"(?<![\w/])(?:{folders})/[\w./-]*\.(?:py|toml|json|md|png)(?!\w)"
    named = {path for text in PAGES.values() for path in re.findall(pattern, text)}
    made_up = {*examples(), *(f"{path}/x.{end}" for path, end in EXAMPLE_FOLDERS), "metrics/_x.py"}
    assert len(named) > 20
    assert [path for path in sorted(named - made_up) if not (ROOT / path).exists()] == []


EXAMPLE_FOLDERS = (
    *(("vfbench/models", "py"), ("vfbench/datasets", "py"), ("vfbench/protocol", "toml")),
    *(("baselines", "py"), ("metrics", "py")),
)


def test_the_picture_is_small() -> None:
    assert (ROOT / "results" / "shapes" / "shapes.png").stat().st_size < 200_000


# Facts.


def one_line(text: str) -> str:
    """Text without the breaks of its lines."""
    return " ".join(text.split())


def test_pages_have_the_numbers_of_clips_and_classes() -> None:
    classes, motions, kinds = len(_shapes_scene.CLASSES), len(_shapes_scene.MOTIONS), len(_shapes_scene.SHAPES)
    assert f"generates {CLIPS['cpu']:,} clips ({CLIPS['cuda']:,} on a GPU)" in one_line(README)
    assert f"generate {CLIPS['cpu']:,} clips, on a GPU {CLIPS['cuda']:,}" in one_line(DOCS["docs/tour"])
    for page in (README, DOCS["docs/datasets"]):
        assert f"{classes} classes ({motions} motions x {kinds} shapes)" in one_line(page)


def test_readme_has_the_time_and_the_disk_on_record() -> None:
    record = json.loads((ROOT / "results" / "records" / "videofusion.json").read_text())
    seconds = record["cost"]["seconds_per_clip"]
    readme = one_line(README)
    assert f"a clip takes {seconds:.2f} s" in readme
    minutes = {2: "two", 3: "three", 4: "four", 5: "five"}[round(seconds * CLIPS["cpu"] / 60)]
    assert f"about {minutes} minutes" in readme
    assert "2 cores" in record["environment"]["device"]
    size = re.search(r"packages take (\d+ GB)", (ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert size
    assert f"packages take {size[1]}" in readme


def test_the_command_line_page_lists_the_exit_codes_of_every_error() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.UserError)]
    listed = [int(number) for number in re.findall(r"^\| (\d+) \|", DOCS["docs/commands"], re.MULTILINE)]
    assert listed == sorted({0, *(kind.exit_code for kind in kinds)})


def test_the_metrics_page_has_every_metric_with_its_smallest_n() -> None:
    rows = re.findall(r"^\| (`.*) [↓↑] \|.* \| (\d+) \|$", DOCS["docs/metrics"], re.MULTILINE)
    listed = {name: int(number) for names, number in rows for name in re.findall(r"`(\w+)`", names)}
    assert listed == {name: plugins.load("metric", name).minimum for name in plugins.names("metric")}


@pytest.mark.parametrize(("kind", "page"), [("model", "docs/models"), ("dataset", "docs/datasets")])
def test_the_page_of_a_kind_has_every_plug_in(kind: Kind, page: str) -> None:
    rows = re.findall(r"^\| (`.*?) \|", DOCS[page], re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == plugins.names(kind).keys()


def test_the_numbers_of_the_datasets_are_those_of_their_modules() -> None:
    for name in ("ucf101", "sky_timelapse", "taichi_hd"):
        (row,) = re.findall(rf"^\| `{name}` \| (.*) \|$", DOCS["docs/datasets"], re.MULTILINE)
        assert set(re.findall(r"[\d,]{3,}", row.replace("UCF101", ""))) <= set(
            re.findall(r"[\d,]{3,}", plugins.names("dataset")[name])
        ), name


def test_the_models_page_has_the_presets_of_diffusers() -> None:
    (line,) = re.findall(r"Presets are ([^.]*)\. Clips have", one_line(DOCS["docs/models"]))
    assert set(re.findall(r"`([\w-]+)`", line)) == plugins.constants("model", "diffusers").presets.keys()


def test_the_tables_match_the_recorded_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    script = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
    for page, blocks in script["PAGES"].items():
        for name, make in blocks.items():
            assert script["block"](name).search(page.read_text())[0] == make(), f"{page}: run benchmarks/tables.py"


def test_changelog_lines_are_short() -> None:
    entries = re.findall(r"^- (.*(?:\n  .*)*)", CHANGELOG, re.MULTILINE)
    assert len(entries) >= 5
    assert [entry for entry in entries if len(entry.split()) >= 25] == []


def test_the_changelog_has_one_heading_and_its_groups() -> None:
    assert re.findall(r"^##+ (.*)", CHANGELOG, re.MULTILINE) == ["[Unreleased]", "Added", "Changed", "Fixed", "Removed"]
    assert f"in the works is {vfbench.__version__}." in CHANGELOG


def test_the_citation_has_the_current_version_and_licence() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {vfbench.__version__}\n" in citation
    assert f"\nlicense: {PYPROJECT['project']['license']}\n" in citation
    (bibtex,) = code(DOCS["docs/models"], "bibtex")
    names = re.findall(r"family-names: (\w+), given-names: (\w+)", citation)
    authors = re.findall(r"author += \{(.*?)\}", bibtex, re.DOTALL)
    assert [" and ".join(map(", ".join, names))] == [re.sub(r"\s+", " ", text) for text in authors]
