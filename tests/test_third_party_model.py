"""A model of a user's own that breaks the interface is refused with the reason, and not with a traceback."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command, Done
from helpers import tiny_dataset

from vfbench.baselines.noise import Noise
from vfbench.errors import UserError
from vfbench.interfaces import Request
from vfbench.pipeline.sample import require_sampler, sample

HEAD = '''"""A model of my own."""

from __future__ import annotations

import torch

from vfbench.baselines.noise import Noise
'''
BATCH = [Request(i, i, 0, "") for i in range(8)]


@pytest.fixture
def ran(elsewhere: None, monkeypatch: pytest.MonkeyPatch, vfbench: Command) -> Callable[..., Done]:
    """Write a model into a file of the folder where the command runs, and run it."""
    monkeypatch.syspath_prepend(Path.cwd())
    Path("mm").mkdir()

    def run(text: str, model: str = "mm.own") -> Done:
        monkeypatch.delitem(sys.modules, "mm", raising=False)
        monkeypatch.delitem(sys.modules, "mm.own", raising=False)
        Path("mm", "own.py").write_text(HEAD + text)
        return vfbench("run", "--smoke", "--device", "cpu", "--output", "run", "--model", model)

    return run


def own(answer: str = "None", parts: str = "") -> str:
    """A file whose sampler has these parts, and answers so."""
    return (
        f"\nclass Own(Noise):\n    {parts or 'pass'}\n\n    def sample(self, requests):\n        return {answer}\n"
        "\n\ndef build(setting, *, steps: int = 1):\n    return Own(setting.dataset)\n"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("build = 3", "a BuildContext and keyword-only options (3 is not a callable object); see CONTRIBUTING.md"),
        ("def build(): ...", "a BuildContext and keyword-only options (too many positional arguments)"),
        ("def build(setting, foo): ...", "keyword-only options (missing a required argument: 'foo')"),
        ("def build(setting, *, steps: Nothing): ...", "an annotation of build cannot be read: name 'Nothing'"),
        ("def build(setting, *, steps: int): ...", "model mm.own needs option steps: write mm.own(steps=...)"),
        ("def build(setting): ...", "no sampler: it has no `sample` ('NoneType' object has no attribute 'sample')"),
        ("def build(setting): return 5", "model 'mm.own': what build returned is no sampler: it has no `sample`"),
        (own(parts="conditioning = 'audio'"), "no conditioning called 'audio': known: class, none, text"),
        (own("torch.zeros(len(requests))"), "clip 0 cannot be scored: sample must return a torch tensor of uint8"),
        (own(), "sample must return a torch tensor of uint8 (B, T, 3, H, W), not NoneType"),
    ],
    ids=lambda value: value[:40].strip(),
)
def test_a_model_that_breaks_the_interface_is_told_how(text: str, said: str, ran: Callable[..., Done]) -> None:
    done = ran(text)
    assert done.code == 2
    assert said in done.err
    assert "mm.own" in done.err or "clip 0" in done.err
    assert not Path("run").exists()


def test_the_file_of_a_wrong_build_is_named(ran: Callable[..., Done]) -> None:
    assert re.search(r"model 'mm\.own' \(.*own\.py\): build must take", ran("build = 3").err)


@pytest.mark.parametrize("text", ["def build(setting):\n    return [][1]", own("[][1]")], ids=["in build", "in sample"])
def test_what_its_own_code_raises_stays_as_it_is(text: str, ran: Callable[..., Done]) -> None:
    with pytest.raises(IndexError):
        ran(text)


def test_a_file_in_the_current_folder_needs_a_package(ran: Callable[..., Done]) -> None:
    Path("m_ok.py").write_text(HEAD + own())
    done = ran("", "m_ok")
    assert done.code == 2
    assert "no model called 'm_ok'" in done.err
    assert "your own module with its package: package.m_ok" in done.err
    assert "m_ok" not in sys.modules


# What is a sampler, and what are clips.


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("sample", 3, "its `sample` must be a Callable, not int"),
        ("shape", (4, 8, 8), "its `shape` must be a ClipShape, not tuple"),
        ("conditioning", None, "its `conditioning` must be a str, not NoneType"),
        ("conditioning", "txt", "model 'x': no conditioning called 'txt': did you mean 'text'"),
        ("networks", [torch.nn.Identity()], "its `networks` must be a Mapping, not list"),
        ("networks", {"base": 3}, "its `networks` must be a Mapping of names to torch modules"),
        ("weights", None, "its `weights` must be a str, not NoneType"),
    ],
)
def test_the_part_that_is_wrong_is_named(part: str, value: object, said: str) -> None:
    sampler = Noise(tiny_dataset())
    require_sampler("x", sampler)
    setattr(sampler, part, value)
    with pytest.raises(UserError, match=re.escape(said)):
        require_sampler("x", sampler)


def test_the_part_that_lacks_is_named() -> None:
    sampler = Noise(tiny_dataset())
    del sampler.shape
    with pytest.raises(UserError, match="model 'x': what build returned is no sampler: it has no `shape`"):
        require_sampler("x", sampler)


class Answers(Noise):
    """A sampler that answers with whatever it is told."""

    def __init__(self, answer: object) -> None:
        super().__init__(tiny_dataset())
        self.answer = answer

    def sample(self, requests: Sequence[Request]) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (0.5, "float"),
        (None, "NoneType"),
        ([torch.zeros(4, 3, 8, 8, dtype=torch.uint8)] * 8, "list"),
        (np.zeros((8, 4, 3, 8, 8), np.uint8), "ndarray"),
        (torch.rand(8, 4, 3, 8, 8), "float32 (8, 4, 3, 8, 8): see vfbench.video.to_uint8"),
        (torch.zeros(8, 4, 3, 8, 8, dtype=torch.int64), "int64 (8, 4, 3, 8, 8)"),
        (torch.zeros(8, 4, 8, 8, 3, dtype=torch.uint8), "uint8 (8, 4, 8, 8, 3)"),
        (torch.zeros(8, 3, 8, 8, dtype=torch.uint8), "uint8 (8, 3, 8, 8)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_batch_of_clips_is_refused(answer: object, found: str) -> None:
    said = f"clips 0 to 7 cannot be scored: sample must return a torch tensor of uint8 (B, T, 3, H, W), not {found}"
    with pytest.raises(UserError, match=re.escape(said) + "$"):
        sample(Answers(answer), BATCH)
