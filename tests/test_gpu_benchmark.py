"""Tests of benchmarks/gpu.py: every case runs at a smaller size on a CPU, once, and is reported."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SAMPLING = ("sample-vdm-tiny-eager-tf32", "layout-vdm-tiny-channels-first-float32")


@pytest.fixture(scope="module")
def gpu() -> Iterator[Any]:
    """Module of the script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("gpu")


def main(gpu: Any, patch: pytest.MonkeyPatch, *arguments: str) -> None:
    patch.setattr(sys, "argv", ["gpu.py", *arguments])
    gpu.main()


@pytest.mark.slow
def test_measurements_are_made_once_and_reported(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scale = gpu.Scale.of(smoke=True)
    cases = {**gpu.sampling_cases(scale), **gpu.layout_cases(scale)}
    speed = tmp_path / "speed"
    gpu.run_cases(speed, {name: cases[name] for name in SAMPLING}, math.inf)
    (speed / "matrix-tf32.json").write_text(json.dumps({"case": "matrix-tf32", "flops_per_second": 1e12}))
    before = {path: path.read_bytes() for path in speed.iterdir()}
    main(gpu, monkeypatch, "noise", "report", "--smoke", "--out", str(tmp_path))
    report = json.loads((tmp_path / "performance" / "gpu.json").read_text())
    assert {case["case"] for case in report["cases"]} == {*SAMPLING, "matrix-tf32", "noise-mt19937", "noise-philox"}
    assert all(case.get("clips_per_second", 1) > 0 and "error" not in case for case in report["cases"])
    assert all(path.read_bytes() == content for path, content in before.items())
    (row,) = (line for line in (tmp_path / "performance" / "gpu.md").read_text().splitlines() if SAMPLING[0] in line)
    assert "%" in row


@pytest.mark.slow
def test_a_compiled_case_and_a_training_are_measured(gpu: Any, tmp_path: Path) -> None:
    scale = gpu.Scale.of(smoke=True)
    cases = {**gpu.sampling_cases(scale), **gpu.training_cases(scale), **gpu.extractor_cases(scale)}
    names = ("sample-vdit-tiny-graphs-float32", "train-pyoco-tiny-eager-float32", "extract-shapes_judge")
    gpu.run_cases(tmp_path, {name: cases[name] for name in names}, math.inf)
    assert all(json.loads((tmp_path / f"{name}.json").read_text())["clips_per_second"] > 0 for name in names)


def test_cases_resume_and_a_failed_case_is_a_measurement(
    gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []

    def case(name: str, *, fails: bool = False) -> dict[str, float]:
        calls.append(name)
        if fails:
            raise RuntimeError("no kernel")
        return {"clips_per_second": 1.0}

    cases = {"a": lambda: case("a", fails=True), "b": lambda: case("b")}
    gpu.run_cases(tmp_path, cases, 0.0)
    assert (calls, "2 of 2 cases are left" in capsys.readouterr().out) == ([], True)
    for _ in range(2):
        gpu.run_cases(tmp_path, cases, math.inf)
    assert calls == ["a", "b"]
    assert json.loads((tmp_path / "a.json").read_text())["error"] == "RuntimeError: no kernel"


def test_each_model_and_precision_is_a_case(gpu: Any) -> None:
    names = gpu.sampling_cases(gpu.Scale.of(smoke=False)).keys()
    for part in ("videofusion", "vdm", "pyoco", "vdit", "eager", "compiled", "graphs", "float32", "tf32", "bfloat16"):
        assert any(part in name.split("-") for name in names)


def test_without_a_gpu_smoke_is_needed(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        main(gpu, monkeypatch, "noise", "--out", str(tmp_path))
    assert "--smoke" in capsys.readouterr().err
