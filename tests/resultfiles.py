"""Records of runs in the format of `results.json`, for the tests of tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from vfbench.report import table
from vfbench.report.render import Table
from vfbench.report.results import Result

Record: TypeAlias = dict[str, Any]

PROTOCOL: Record = {
    "id": "3f2a9c01be77",
    "name": "shapes",
    "comparable": True,
    "resolution": 32,
    "frames": 16,
    "n_fake": 256,
}
OTHER = PROTOCOL | {"id": "9a8b7c6d5e4f", "name": "tats", "resolution": 64}
SMOKE_RUN = PROTOCOL | {"id": "0000aaaa1111", "name": "smoke", "comparable": False, "n_fake": 8}


def score(value: float, half: float = 2.0, *, title: str = "FVD", better: str = "lower", **more: Any) -> Record:
    interval = {"value": value, "low": value - half, "high": value + half, "floor": 2.1}
    return {**interval, "n_real": 2048, "n_fake": 256, "title": title, "better": better, "note": "", **more}


def record(
    model: str, fvd: float = 41.3, *, protocol: Record = PROTOCOL, run: str = "1a2b", extra: Record | None = None
) -> Record:
    return {
        "schema": 1,
        "model": model,
        "dataset": "shapes",
        "protocol": protocol,
        "scores": {"fvd": score(fvd), **(extra or {})},
        "cost": {"flops_per_clip": 5.1e10, "evaluations": 25},
        "run_dir": f"runs/{model}-shapes-{run}",
        "run_id": run,
        "model_spec": f"{model}(steps=25)",
        "reference": model in ("real", "noise", "frozen"),
    }


def build(records: Sequence[Record], *, allow_mixed: bool = False) -> Table:
    return table.build([Result.model_validate(each).signed() for each in records], allow_mixed=allow_mixed)


def inception(value: float) -> Record:
    return score(value, 0.12, title="IS", better="higher", floor=7.9)


def labels(table: Table) -> list[str]:
    return [row.label for row in table.rows]


def best(table: Table, column: int = 0) -> list[str]:
    return [row.label for row in table.rows if row.cells[column].best]
