"""Who may import whom, read from the source: the house stays in layers, and plug-ins stay strangers to each other."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vfbench"
FOLDERS = ("vfbench", "metrics", "baselines", "tests", "benchmarks")

LAYERS = {
    "words": ("interfaces", "errors"),
    "tools": (
        *("protocol", "files", "video", "resize", "weights", "pretrained", "diffusion", "nets", "progress", "device"),
        *("presets", "folders", "cut", "windows", "inventory", "manifest", "prepared", "prefetch", "archives"),
        *("members", "rar", "hub", "remote", "memory"),
    ),
    "plug-ins": ("datasets", "models", "baselines", "metrics"),
    "registry": ("plugins", "annotations"),
    "engine": (
        *(
            "plan",
            "record",
            "measuring",
            "networks",
            "rules",
            "generate",
            "make",
            "selection",
            "evaluate",
            "run",
            "executors",
            "store",
            "cost",
            "matching",
            "estimate",
            "widths",
            "modelcard",
            "train",
            "training",
        ),
        *("results", "table", "cells", "notes", "render", "compare", "gate", "report", "calibrate", "score", "card"),
        *("data", "prepare", "shards"),
    ),
    "wiring": ("cli", "arguments", "torchmetrics", "__main__", "__init__"),
}
MAY_IMPORT = {
    "words": (),
    "tools": ("words", "tools"),
    "plug-ins": ("words", "tools"),  # and the underscore helpers of their own folder
    "registry": ("words", "registry"),
    "engine": ("words", "tools", "registry", "engine"),  # a plug-in never by name, only through the registry
    "wiring": ("words", "tools", "registry", "engine", "wiring"),
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}


def sources(folder: Path) -> list[Path]:
    """Its Python files and those one folder down, through symlinks."""
    return sorted([*folder.glob("*.py"), *folder.glob("*/*.py")])


def imported(source: str, package: str) -> Iterator[str]:
    """Every absolute name that a module of `package` imports, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def allowed(importer: str, target: str) -> bool:
    """Whether the module `vfbench.a.b` may import the dotted name `target`."""
    if target.split(".")[0] != "vfbench":
        return True
    own, theirs = (name.split(".")[1:] for name in (importer, target))
    if not theirs or LAYER_OF.get(theirs[0]) is None:
        return False  # the package as a whole, or a module that has no layer yet
    layer = LAYER_OF[own[0] if own else "__init__"]
    if layer == "plug-ins" and theirs[0] == own[0]:
        return len(theirs) > 1 and theirs[1].startswith("_")
    return LAYER_OF[theirs[0]] in MAY_IMPORT[layer]


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    package = module if is_package else module.rpartition(".")[0]
    return [target for target in imported(source, package) if not allowed(module, target)]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", sources(PACKAGE), ids=module_of)
def test_every_module_keeps_to_its_layer(path: Path) -> None:
    top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert top in LAYER_OF, f"give {top} a layer in the table above"
    found = violations(path.read_text(), module_of(path), is_package=path.name == "__init__.py")
    assert found == [], f"{module_of(path)} may not import these"


def test_the_folders_of_plug_ins_are_looked_into() -> None:
    seen = {module_of(path) for path in sources(PACKAGE)}
    assert {"vfbench.metrics.fvd", "vfbench.baselines.vdm", "vfbench.nets.unet", "vfbench"} <= seen


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vfbench.errors", "from vfbench import interfaces"),
        ("vfbench.video", "from vfbench.train import train"),
        ("vfbench.nets.unet", "import vfbench.plugins"),
        ("vfbench.weights", "from . import plugins"),
        ("vfbench.diffusion.model", "def f():\n    from vfbench.models.videofusion import VideoFusion"),
        ("vfbench.models.videofusion", "from ..baselines import vdm"),
        ("vfbench.models.videofusion", "from vfbench.plugins import load"),
        ("vfbench.baselines.vdm", "if True:\n    import vfbench.models.videofusion as v"),
        ("vfbench.metrics.fvd", "from vfbench.metrics import kvd"),
        ("vfbench.metrics.fvd", "from .kvd import build"),
        ("vfbench.metrics.fvd", "from vfbench.metrics import *"),
        ("vfbench.train", "from vfbench.models import videofusion"),
        ("vfbench.cli", "import vfbench.datasets.shapes"),
        ("vfbench.plugins", "import vfbench.train"),
        ("vfbench.plan", "import vfbench"),
        ("vfbench.plan", "from vfbench import nonsense"),
    ],
)
def test_the_checker_catches(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vfbench.diffusion.model", "from vfbench.nets.embedding import Condition"),
        ("vfbench.metrics.fvd", "from vfbench.metrics._frechet import frechet_distance"),
        ("vfbench.metrics.fvd", "from ._frechet import frechet_distance"),
        ("vfbench.baselines.vdm", "import torch, vfbench.errors"),
        ("vfbench.train", "from . import plugins"),
        ("vfbench.cli", "from vfbench import plan, plugins"),
    ],
)
def test_the_checker_lets_pass(module: str, source: str) -> None:
    assert violations(source, module) == []


def strays(source: str) -> list[str]:
    """Imports of `metrics` or `baselines` as modules of their own, which would collide with the user's."""
    return [name for name in imported(source, "here") if name.split(".")[0] in ("metrics", "baselines")]


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
