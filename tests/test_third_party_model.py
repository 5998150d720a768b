"""Tests of third-party models that break the interface: refused with a reason instead of a traceback."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command, CommandResult
from helpers import tiny_dataset

from vfbench.baselines.noise import Noise
from vfbench.errors import UserError
from vfbench.interfaces import Request
from vfbench.pipeline.sample import require_sampler, sample

HEAD = '''"""A third-party model."""

from __future__ import annotations

import torch

from vfbench.baselines.noise import Noise
'''
BATCH = [Request(i, i, 0, "") for i in range(8)]


@pytest.fixture
def run_model(empty_cwd: None, monkeypatch: pytest.MonkeyPatch, vfbench: Command) -> Callable[..., CommandResult]:
    """Write a model into a module of the working directory, and run it."""
    monkeypatch.syspath_prepend(Path.cwd())
    Path("my_pkg").mkdir()

    def run(text: str, model: str = "my_pkg.model") -> CommandResult:
        monkeypatch.delitem(sys.modules, "my_pkg", raising=False)
        monkeypatch.delitem(sys.modules, "my_pkg.model", raising=False)
        Path("my_pkg", "model.py").write_text(HEAD + text)
        return vfbench("run", "--smoke", "--device", "cpu", "--output", "run", "--model", model)

    return run


def model_source(answer: str = "None", attributes: str = "") -> str:
    """Source of a model whose sampler has these attributes and returns `answer`."""
    return (
        f"\nclass Custom(Noise):\n    {attributes or 'pass'}\n"
        f"\n    def sample(self, requests):\n        return {answer}\n"
        "\n\ndef build(context, *, steps: int = 1):\n    return Custom(context.dataset)\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("build = 3", "a BuildContext and keyword-only options (3 is not a callable object); see CONTRIBUTING.md"),
        ("def build(): ...", "a BuildContext and keyword-only options (too many positional arguments)"),
        ("def build(context, foo): ...", "keyword-only options (missing a required argument: 'foo')"),
        ("def build(context, *, steps: Nothing): ...", "an annotation of build cannot be read: name 'Nothing'"),
        (
            "def build(context, *, steps: int): ...",
            "model my_pkg.model needs option steps: write my_pkg.model(steps=...)",
        ),
        ("def build(context): ...", "no sampler: it has no `sample` ('NoneType' object has no attribute 'sample')"),
        ("def build(context): return 5", "no sampler: it has no `sample`"),
        (model_source(attributes="conditioning = 'audio'"), "no conditioning called 'audio': known: class, none, text"),
        (model_source("torch.zeros(len(requests))"), "clip 0 cannot be scored: sample must return a torch tensor"),
        (model_source(), "sample must return a torch tensor of uint8 (B, T, 3, H, W), not NoneType"),
    ],
    ids=lambda value: value[:40].strip(),
)
def test_models_that_break_the_interface_are_refused(
    text: str, message: str, run_model: Callable[..., CommandResult]
) -> None:
    outcome = run_model(text)
    assert outcome.code == 2
    assert message in outcome.err
    assert "my_pkg.model" in outcome.err or "clip 0" in outcome.err
    assert not Path("run").exists()


def test_the_message_names_the_file_of_the_model(run_model: Callable[..., CommandResult]) -> None:
    assert re.search(r"model 'my_pkg\.model' \(.*model\.py\): build must take", run_model("build = 3").err)


@pytest.mark.parametrize(
    "text", ["def build(context):\n    return [][1]", model_source("[][1]")], ids=["in build", "in sample"]
)
def test_errors_of_the_models_code_are_not_caught(text: str, run_model: Callable[..., CommandResult]) -> None:
    with pytest.raises(IndexError):
        run_model(text)


def test_a_file_in_the_current_folder_needs_a_package(run_model: Callable[..., CommandResult]) -> None:
    Path("m_ok.py").write_text(HEAD + model_source())
    outcome = run_model("", "m_ok")
    assert outcome.code == 2
    assert "no model called 'm_ok'" in outcome.err
    assert "your own module with its package: package.m_ok" in outcome.err
    assert "m_ok" not in sys.modules


# Samplers and clips.


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
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
def test_attributes_of_wrong_type_are_refused(attribute: str, value: object, message: str) -> None:
    sampler = Noise(tiny_dataset())
    require_sampler("x", sampler)
    setattr(sampler, attribute, value)
    with pytest.raises(UserError, match=re.escape(message)):
        require_sampler("x", sampler)


def test_a_missing_attribute_is_refused() -> None:
    sampler = Noise(tiny_dataset())
    del sampler.shape
    with pytest.raises(UserError, match=r"model 'x': .* no `shape`"):
        require_sampler("x", sampler)


class FixedAnswer(Noise):
    """Sampler that returns the same value for every batch."""

    def __init__(self, answer: object) -> None:
        super().__init__(tiny_dataset())
        self.answer = answer

    def sample(self, requests: Sequence[Request]) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "description"),
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
def test_invalid_batches_of_clips_are_refused(answer: object, description: str) -> None:
    message = (
        f"clips 0 to 7 cannot be scored: sample must return a torch tensor of uint8 (B, T, 3, H, W), not {description}"
    )
    with pytest.raises(UserError, match=re.escape(message) + "$"):
        sample(FixedAnswer(answer), BATCH)
