"""Fixture `vfbench_gate` for pytest: a test of a training repository that fails when quality drops.

    def test_quality(vfbench_gate):
        vfbench_gate("runs/mine", baseline="baseline.json", rules=["fvd:+5%"])

pytest finds it once vfbench is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest


@pytest.fixture(name="vfbench_gate", scope="session")
def _vfbench_gate() -> Callable[..., None]:
    """Function that fails a test where `vfbench gate` would exit with another code than 0."""
    return check


def check(
    result: str | Path,
    *,
    baseline: str | Path,
    rules: Sequence[str],
    history: Sequence[str | Path] = (),
    detectable: float = 100.0,
) -> None:
    """Fail the running test unless every rule passes; the arguments are those of `vfbench.gate`."""
    __tracebackhide__ = True
    from vfbench.errors import UserError
    from vfbench.report import cost_gate
    from vfbench.report.gate import require
    from vfbench.report.results import load

    try:
        (ours,), (theirs,) = load([result]), load([baseline])
        runs = cost_gate.load_history([Path(path) for path in history])
        require(cost_gate.gate(ours, theirs, rules, runs, detectable=detectable))
    except UserError as error:
        pytest.fail(str(error), pytrace=False)
