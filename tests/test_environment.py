"""Tests of `vfbench.utils.environment.code_version`: changes of the code that change the ids of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from vfbench.utils.environment import PACKAGE, UNHASHED_CODE, code_version

TOP_LEVEL = sorted({path.relative_to(PACKAGE).parts[0] for path in (*PACKAGE.glob("*.py"), *PACKAGE.glob("*/*.py"))})


@pytest.mark.parametrize("name", TOP_LEVEL)
def test_only_hashed_code_changes_the_version(tmp_path: Path, name: str) -> None:
    file = tmp_path / name if name.endswith(".py") else tmp_path / name / "module.py"
    file.parent.mkdir(exist_ok=True)

    def version(source: str) -> str:
        file.write_text(source)
        return code_version.__wrapped__(tmp_path)

    before = version("NUMBER = 1\n")
    assert (
        version('# a comment\n\n"""A docstring\nof two lines."""  # and a comment\nNUMBER = 1  # another\n') == before
    )
    for changed in ("NUMBER = 2\n", 'NUMBER = 1\nTEXT = "# no comment"\n'):
        assert (version(changed) != before) is (name not in UNHASHED_CODE)


def test_a_file_that_is_being_written_is_hashed_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "interfaces.py").write_text('TEXT = """')
    assert len(code_version.__wrapped__(tmp_path)) == 64


def test_unhashed_names_exist() -> None:
    assert set(UNHASHED_CODE) <= set(TOP_LEVEL)
    assert {"cli", "report"} <= set(UNHASHED_CODE)
    assert not {"metrics", "baselines", "models", "diffusion", "pipeline", "clips", "utils"} & set(UNHASHED_CODE)
