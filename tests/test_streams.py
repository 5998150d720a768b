"""Tests of commands in containers and pipes: closed, full or narrow streams, other encodings, no home folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from vfbench.errors import BadEnvironment
from vfbench.utils import console, files

ROOT = Path(__file__).parent.parent
BASELINE = ROOT / "results/baselines/ci/results.json"


def shell(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Result of a line of bash, in which `VFBENCH` stands for the command."""
    line = f"set -o pipefail; {command.replace('VFBENCH', f'{sys.executable} -m vfbench')}"
    environment = {**os.environ, **variables}
    return subprocess.run(["bash", "-c", line], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.one_case
@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("VFBENCH ls models > /dev/full", 5, "cannot write to stdout"),
        ("VFBENCH ls models >&-", 0, ""),
        ("VFBENCH ls models <&- >&- 2>&-", 0, ""),
        ("VFBENCH ls nothing 2> /dev/full", 2, ""),
    ],
)
def test_streams_that_cannot_be_written_give_no_traceback(line: str, code: int, message: str) -> None:
    outcome = shell(line)
    assert outcome.returncode == code
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "Exception ignored" not in outcome.stderr


def test_an_encoding_without_arrows_prints_question_marks() -> None:
    outcome = shell(f"VFBENCH table {BASELINE}", PYTHONIOENCODING="ascii")
    assert outcome.returncode == 0, outcome.stderr
    assert "FVD ?" in outcome.stdout


@pytest.fixture
def _no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("VFBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files._temporary_cache.cache_clear()


@pytest.mark.usefixtures("_no_home")
def test_without_a_home_folder_the_cache_is_temporary(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = files.cache_folder()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "VFBENCH_CACHE" in capfd.readouterr().err


@pytest.mark.usefixtures("_no_home")
def test_a_temporary_cache_of_others_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / f"vfbench-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(BadEnvironment, match="VFBENCH_CACHE"):
        files.cache_folder()


@pytest.mark.usefixtures("_no_home")
def test_a_given_cache_needs_no_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFBENCH_CACHE", str(tmp_path / "mine"))
    assert files.cache_folder() == tmp_path / "mine"


def test_the_console_script_finds_a_plug_in_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/wash.py").write_text("def build(context, *, level: int = 3): ...\n")
    code = "import sys; sys.path[0] = '/'; from vfbench.cli import main; main()"  # as a script in another folder does
    arguments = [sys.executable, "-c", code, "show", "model", "mine.wash"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    outcome = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "level" in outcome.stdout, outcome.stderr


def test_no_line_is_lost_where_one_thread_writes_and_another_takes() -> None:
    lines, count, taken, interval = console.Lines(), 20_000, list[str](), sys.getswitchinterval()
    writer = threading.Thread(target=lambda: [lines.write(f"{number}\n") for number in range(count)])
    try:
        sys.setswitchinterval(1e-6)
        writer.start()
        while writer.is_alive():
            taken += lines.taken()
    finally:
        sys.setswitchinterval(interval)
    assert [*taken, *lines.taken()] == [str(number) for number in range(count)]
