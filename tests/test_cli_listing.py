"""Tests of `vfbench ls` and `vfbench show`, also for third-party plug-ins."""

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

pytestmark = pytest.mark.usefixtures("empty_cwd")

NOISE = ("run", "--model", "noise", "--device", "cpu", "--smoke")


@pytest.mark.parametrize(
    ("kind", "built_in"),
    [
        ("models", {"frozen", "noise", "real", "vdm", "videofusion"}),
        ("datasets", {"shapes", "ucf101"}),
        ("metrics", {"fvd", "kvd", "is", "clipsim"}),
        ("extractors", {"shapes_judge"}),
        ("protocols", {"shapes", "ucf101-smoke"}),
    ],
)
def test_ls_lists_names_with_a_description(kind: str, built_in: set[str], vfbench: Command) -> None:
    outcome = vfbench("ls", kind)
    assert (outcome.code, outcome.err) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert built_in <= rows.keys()
    assert all(rows.values())


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize(("kind", "name"), [("model", "vdm"), ("dataset", "ucf101"), ("metric", "is")])
def test_show_prints_options_and_presets(kind: str, name: str, vfbench: Command) -> None:
    outcome = vfbench("show", kind, name)
    assert outcome.code == 0
    option = {
        "vdm": "  solver = 'dpm++2m'  ddim, ddpm or dpm++2m      Sampling algorithm.",
        "ucf101": "  frames = 16               int                               Frames of a clip.",
        "is": "  eps = 0.0            float        Number added to the probabilities in both logarithms.",
    }[name]
    assert option in outcome.out.splitlines()
    assert ("  parametrisation = None  eps, v or None  " in outcome.out) is (name == "vdm")  # a training option
    assert any(line.startswith("tiny ") for line in outcome.out.splitlines()) is (name == "vdm")


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Package `theirs` of three models: VDM's copy, one without presets, one whose FLOPs cannot be counted."""
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


@pytest.mark.slow
@pytest.mark.usefixtures("third_party")
def test_a_third_party_model_is_shown_like_a_built_in_one(vfbench: Command) -> None:
    outcome, built_in = vfbench("show", "model", "theirs.like_vdm"), vfbench("show", "model", "vdm").out.splitlines()
    head, *options, _, tiny = outcome.out.splitlines()
    assert (outcome.code, outcome.err, head) == (0, "", "The model like_vdm.")
    assert any(line.startswith("  steps = None ") for line in options)
    assert set(options) <= set(built_in)
    assert tiny.split() in [line.split() for line in built_in]  # its parameters and FLOPs
    preset = vfbench("show", "model", "theirs.like_vdm", "--preset", "tiny")
    assert preset.out.splitlines()[1:] == vfbench("show", "model", "vdm", "--preset", "tiny").out.splitlines()[1:]


@pytest.mark.slow
@pytest.mark.usefixtures("third_party")
def test_a_model_without_presets_or_flops_is_shown(vfbench: Command) -> None:
    without = vfbench("show", "model", "theirs.no_sizes")
    assert (without.code, without.err) == (0, "")
    assert "  steps = None" in without.out
    assert "\npreset" not in without.out
    outcome = vfbench("show", "model", "theirs.no_steps")
    assert (outcome.code, outcome.err.count("\n")) == (0, 1)
    assert "'theirs.no_steps' takes no option 'steps'" in outcome.err
    assert "  dusk = 0.5  float" in outcome.out.splitlines()  # a plain annotation
    assert ["tiny", "not", "counted"] in [line.split() for line in outcome.out.splitlines()]


def test_a_broken_plugin_leaves_the_others_usable(
    vfbench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("def build(:\n")
    files = plugins._files
    third = [EntryPoint("absent", "no_such_package.model", "vfbench.models")]
    monkeypatch.setattr(plugins, "_files", lambda kind: [*files(kind), tmp_path / "broken.py"])
    monkeypatch.setattr(plugins, "registered", lambda kind, name="": third if name in ("", "absent") else [])
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # pytest turns warnings into errors, users see them
        outcome = vfbench("ls", "models")
    assert outcome.code == 0
    assert outcome.err.startswith("warning: broken.py")
    assert outcome.err.count("\n") == 1
    assert "videofusion" in outcome.out
    assert "no_such_package" in outcome.out
    refused = vfbench(*NOISE, "--model", "absent")
    assert refused.code == 2
    assert "'absent' cannot be imported" in refused.err


def test_a_closed_pipe_gives_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # buffered output is written at exit
    read_end, write_end = os.pipe()
    os.close(read_end)
    outcome = subprocess.run(
        [sys.executable, "-m", "vfbench", "ls", "models"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write_end)
    assert (outcome.returncode, outcome.stderr) == (1, "")
