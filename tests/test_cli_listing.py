"""What `ls` and `show` tell, also of what others have written."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from conftest import Command

from vfbench import plugins

pytestmark = pytest.mark.usefixtures("elsewhere")

NOISE = ("run", "--model", "noise", "--device", "cpu", "--smoke")


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
    option = {"vdm": "  steps = 25  (int)", "ucf101": "  frames = 16  (int)", "is": "  splits = 1  (int)"}[name]
    assert option in done.out.splitlines()
    assert ("  parametrisation = None  (str or None)" in done.out.splitlines()) is (name == "vdm")  # to train
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
    assert "  steps = 25  (int)" in options
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
    assert "'theirs.no_steps' takes no option 'steps'" in done.err
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
