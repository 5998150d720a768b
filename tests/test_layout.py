"""Tests of the layers: which folder imports which, read from the source; plug-ins do not import each other."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vfbench"
FOLDERS = ("vfbench", "metrics", "baselines", "tests", "benchmarks")

WORDS = ("interfaces", "errors", "plugins")
TOOLS = ("utils", "video", "nets", "weights", "protocol", "clips", "diffusion", "report")
SIDE_BY_SIDE = ("models", "baselines", "metrics", "datasets", "pipeline", "training", "data")
PLUG_INS = ("models", "baselines", "metrics", "datasets")
JOBS = ("scoring",)
WIRING = ("cli", "torchmetrics", "__main__", "__init__")
ROOT_MODULES = {"__init__.py", "__main__.py", "interfaces.py", "errors.py", "plugins.py", "torchmetrics.py"}
MAY_IMPORT: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(WORDS, WORDS),
    **dict.fromkeys(TOOLS, WORDS + TOOLS),
    **dict.fromkeys(("pipeline", "training", "data"), WORDS + TOOLS),  # a plug-in only through `plugins`, by its name
    **dict.fromkeys(PLUG_INS, ("interfaces", "errors", *TOOLS)),
    **dict.fromkeys(JOBS, (*WORDS, *TOOLS, "pipeline")),
    **dict.fromkeys(WIRING, (*WORDS, *TOOLS, "pipeline", "training", "data", *JOBS, *WIRING)),
}
RESOLVERS = ("pipeline", "scoring", "training", "cli")  # only these apply a protocol to a dataset
LONGEST_CHAIN = 8


def sources(folder: Path) -> list[Path]:
    """Python files of a folder and of those one level down, through symlinks."""
    return sorted([*folder.glob("*.py"), *folder.glob("*/*.py")])


@cache
def imported(source: str, package: str) -> list[str]:
    """Every absolute name that a module of `package` imports, also inside functions."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            names += [f"{origin}.{alias.name}" for alias in node.names]
    return names


def allowed(importer: str, target: str) -> bool:
    """True where the module `vfbench.a.b` may import the dotted name `target`."""
    if target.split(".")[0] != "vfbench":
        return True
    own, theirs = (name.split(".")[1:] for name in (importer, target))
    here = own[0] if own else "__init__"
    if not theirs:  # the public functions
        return here in WIRING
    if theirs[0] not in MAY_IMPORT:
        return False  # a module without a layer
    if theirs[:2] == ["protocol", "resolve"] and here not in (*RESOLVERS, "protocol"):
        return False
    if theirs[0] != here:
        return theirs[0] in MAY_IMPORT[here]
    return here not in PLUG_INS or (len(theirs) > 1 and theirs[1].startswith("_"))


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    package = module if is_package else module.rpartition(".")[0]
    return [target for target in imported(source, package) if not allowed(module, target)]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", sources(PACKAGE), ids=module_of)
def test_every_module_keeps_to_its_layer(path: Path) -> None:
    top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert top in MAY_IMPORT, f"give {top} a layer in the table above"
    forbidden = violations(path.read_text(), module_of(path), is_package=path.name == "__init__.py")
    assert forbidden == [], f"{module_of(path)} may not import these"


def folder_imports() -> dict[str, set[str]]:
    """The folders and root modules that each folder or root module imports."""
    graph: dict[str, set[str]] = {}
    for path in sources(PACKAGE):
        module = module_of(path)
        folder = [*module.split("."), "__init__"][1]
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        names = [name.split(".") for name in imported(path.read_text(), package)]
        targets = {name[1] for name in names if name[0] == "vfbench" and len(name) > 1 and name[1] in MAY_IMPORT}
        graph.setdefault(folder, set()).update(targets - {folder})
    return graph


def longest_chain(graph: Mapping[str, set[str]], start: str, above: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The longest chain of imports from `start`; raises ValueError naming a circle."""
    if start in above:
        raise ValueError(f"circle of imports: {' -> '.join([*above[above.index(start) :], start])}")
    chains = [longest_chain(graph, target, (*above, start)) for target in sorted(graph.get(start, ()))]
    return (start, *max(chains, key=len, default=()))


def test_six_modules_stand_at_the_root() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == ROOT_MODULES


def test_no_circle_of_folders_and_no_long_chain() -> None:
    graph = folder_imports()
    longest = max((longest_chain(graph, folder) for folder in graph), key=len)
    assert len(longest) <= LONGEST_CHAIN, " -> ".join(longest)


def test_the_chain_check_can_fail() -> None:
    assert longest_chain({"a": {"b"}, "b": {"c"}}, "a") == ("a", "b", "c")
    with pytest.raises(ValueError, match="b -> c -> b"):
        longest_chain({"a": {"b"}, "b": {"c"}, "c": {"b"}}, "a")


def test_plug_in_folders_are_checked() -> None:
    seen = {module_of(path) for path in sources(PACKAGE)}
    assert {"vfbench.metrics.fvd", "vfbench.baselines.vdm", "vfbench.nets.unet", "vfbench"} <= seen


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vfbench.errors", "from vfbench import utils"),
        ("vfbench.video", "from vfbench.training import train"),
        ("vfbench.nets.unet", "import vfbench.pipeline.plan"),
        ("vfbench.utils.checkpoint", "from ..training import train"),
        ("vfbench.diffusion.model", "def f():\n    from vfbench.models.videofusion import VideoFusion"),
        ("vfbench.models.videofusion", "from ..baselines import vdm"),
        ("vfbench.models.videofusion", "from vfbench.plugins import load"),
        ("vfbench.baselines.vdm", "if True:\n    import vfbench.models.videofusion as v"),
        ("vfbench.metrics.fvd", "from vfbench.metrics import kvd"),
        ("vfbench.metrics.fvd", "from .kvd import build"),
        ("vfbench.metrics.fvd", "from vfbench.metrics import *"),
        ("vfbench.pipeline.plan", "from vfbench.training import budget"),
        ("vfbench.training.train", "from vfbench.data import sources"),
        ("vfbench.training.train", "from vfbench.models import videofusion"),
        ("vfbench.pipeline.plan", "from vfbench.scoring import look"),
        ("vfbench.clips.read", "from vfbench.protocol import resolve"),
        ("vfbench.datasets.folder", "from vfbench.protocol.resolve import Rules"),
        ("vfbench.cli", "import vfbench.datasets.shapes"),
        ("vfbench.plugins", "import vfbench.training.train"),
        ("vfbench.pipeline.plan", "import vfbench"),
        ("vfbench.pipeline.plan", "from vfbench import nonsense"),
    ],
)
def test_the_checker_catches(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vfbench.diffusion.model", "from vfbench.nets.embedding import ConditioningEmbedding"),
        ("vfbench.metrics.fvd", "from vfbench.metrics._frechet import frechet_distance"),
        ("vfbench.metrics.fvd", "from ._frechet import frechet_distance"),
        ("vfbench.baselines.vdm", "import torch, vfbench.errors"),
        ("vfbench.training.train", "from vfbench import plugins"),
        ("vfbench.scoring.clips", "from vfbench.pipeline import plan"),
        ("vfbench.cli", "from vfbench import plugins\nfrom vfbench.training import budget"),
    ],
)
def test_the_checker_lets_pass(module: str, source: str) -> None:
    assert violations(source, module) == []


def strays(source: str) -> list[str]:
    """Imports of `metrics` or `baselines` as modules of their own, which would collide with the user's."""
    return [name for name in imported(source, "here") if name.split(".")[0] in ("metrics", "baselines")]


@pytest.mark.one_case
@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_imports_metrics_or_baselines_from_the_top_level(folder: str) -> None:
    paths = sources(ROOT / folder)
    assert paths
    assert {str(path): found for path in paths if (found := strays(path.read_text()))} == {}


@pytest.mark.parametrize("source", ["import metrics", "from metrics.fvd import build", "import os, baselines.vdm as v"])
def test_the_stray_check_can_fail(source: str) -> None:
    assert len(strays(source)) == 1
    assert strays("from vfbench.metrics import fvd\nfrom . import metrics") == []


def test_every_package_is_installed() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        installed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    packages = {module_of(path) for path in sources(PACKAGE) if path.name == "__init__.py"}
    assert {"vfbench", "vfbench.cli"} <= packages
    assert packages <= set(installed)


@pytest.mark.parametrize("name", ["metrics", "baselines"])
def test_the_folders_are_linked_relatively(name: str) -> None:
    link = PACKAGE / name
    assert link.is_symlink(), "check out with core.symlinks=true"
    assert link.readlink() == Path("..") / name
    assert link.samefile(ROOT / name)
