"""Tests of benchmarks/parity.py: metrics and extractors equal those of published packages."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def parity() -> Iterator[Any]:
    """Module of the script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("parity")


def failed(parity: Any, package: str, count: int) -> list[Any]:
    """Failed comparisons with a package, of `count` in all."""
    checks = list(parity.PACKAGES[package]())
    assert len(checks) == count
    assert all(np.abs(np.asarray(check.theirs)).max() > 0 for check in checks)
    return [(check.what, check.difference) for check in checks if not check.passed]


@pytest.mark.slow
def test_pytorch_fid(parity: Any) -> None:
    assert failed(parity, "pytorch-fid", 1) == []


@pytest.mark.slow
def test_torch_fidelity(parity: Any) -> None:
    assert failed(parity, "torch-fidelity", 14) == []


@pytest.mark.slow
def test_cd_fvd(parity: Any) -> None:
    pytest.importorskip("cdfvd", reason="pip install cd-fvd")
    assert failed(parity, "cd-fvd", 8) == []


@pytest.mark.slow
def test_prdc(parity: Any) -> None:
    pytest.importorskip("prdc", reason="pip install prdc")
    assert failed(parity, "prdc", 8) == []


# Script.


@pytest.mark.parametrize(
    ("ours", "theirs", "passed"),
    [
        (1 + 1e-7, 1.0, True),
        (1 + 1e-5, 1.0, False),
        (np.array([100.0, 1e-5]), np.array([100.0, 0.0]), True),  # relative to the largest value
        (np.array([1.0, 1e-5]), np.array([1.0, 0.0]), False),
        (float("nan"), 1.0, False),
        (1.0, float("nan"), False),
    ],
)
def test_a_difference_is_relative_to_the_largest_value(parity: Any, ours: Any, theirs: Any, passed: bool) -> None:
    assert parity.Check("both", ours, theirs).passed is passed


def test_arrays_of_different_shapes_are_refused(parity: Any) -> None:
    with pytest.raises(ValueError, match=r"both: .*\(2,\).*\(1, 2\)"):
        _ = parity.Check("both", np.ones(2), np.ones((1, 2))).difference


def test_every_comparison_prints_a_line(
    parity: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [
        parity.Check("a length", np.array([3.0, 4.0]), np.array([3.0, 4.0])),
        parity.Check("a number", -0.5, -0.5),
    ]
    monkeypatch.setattr(parity, "PACKAGES", {"some": lambda: iter(checks)})
    assert parity.main([]) == 0
    _, first, second = (line.split("  ") for line in capsys.readouterr().out.splitlines())
    assert [cell.strip() for cell in first if cell] == ["some", "a length", "5", "5", "0.0e+00", "pass"]
    assert [cell.strip() for cell in second if cell] == ["some", "a number", "-0.5", "-0.5", "0.0e+00", "pass"]


def test_a_failed_comparison_exits_with_1(
    parity: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [parity.Check("equal", 1.0, 1.0), parity.Check("unequal", 1.0, 2.0), parity.Check("equal", 1.0, 1.0)]
    monkeypatch.setattr(parity, "PACKAGES", {"some": lambda: iter(checks)})
    assert parity.main(["some"]) == 1
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]] == ["pass", "FAIL", "pass"]


def test_a_missing_package_is_named_and_the_others_compared(
    parity: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent() -> Iterator[Any]:
        importlib.import_module("no_such_package")
        yield from ()

    checks = [parity.Check("equal", 1.0, 1.0)]
    monkeypatch.setattr(parity, "PACKAGES", {"absent": absent, "installed": lambda: iter(checks)})
    assert parity.main([]) == 1
    captured = capsys.readouterr()
    assert "pip install absent" in captured.err
    assert captured.out.splitlines()[1].endswith("pass")


def test_an_unknown_package_is_refused(parity: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        parity.main(["clean-fid"])
    assert exited.value.code == 2
    error = capsys.readouterr().err
    assert all(name in error for name in ("clean-fid", "pytorch-fid", "torch-fidelity", "cd-fvd"))
