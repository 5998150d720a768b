"""The part of a run's id that stands for our code: it changes with the code that moves numbers, and with no other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from vfbench.utils.environment import PACKAGE, UNHASHED_CODE, code_version

PLACES = sorted({path.relative_to(PACKAGE).parts[0] for path in (*PACKAGE.glob("*.py"), *PACKAGE.glob("*/*.py"))})


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package's sources."""
    copy = tmp_path_factory.mktemp("copy") / "vfbench"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("checkpoints", "__pycache__"))
    return copy


@pytest.fixture
def touched(package: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a folder or root module, a file of which has one comment more."""
    place = package / request.param
    file = place if place.is_file() else next(iter(sorted(place.glob("*.py"))))
    before = file.read_bytes()
    file.write_bytes(before + b"# a comment\n")
    yield request.param
    file.write_bytes(before)


@pytest.mark.parametrize("touched", PLACES, indirect=True)
def test_a_comment_changes_the_id_only_where_code_moves_numbers(package: Path, touched: str) -> None:
    changed = code_version.__wrapped__(package) != code_version()
    assert changed is (touched not in UNHASHED_CODE)


def test_every_name_apart_exists() -> None:
    assert set(UNHASHED_CODE) <= set(PLACES)
    assert {"cli", "report"} <= set(UNHASHED_CODE)
    assert not {"metrics", "baselines", "models", "diffusion", "pipeline", "clips", "utils"} & set(UNHASHED_CODE)
