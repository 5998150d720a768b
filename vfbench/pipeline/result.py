"""The result of a run or a score, written to its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vfbench.errors import MissingData
from vfbench.pipeline.folder import RunFolder
from vfbench.report import render, table
from vfbench.report.results import SCORED
from vfbench.utils import files
from vfbench.utils.tensor_files import read_tensors, write_tensors

SCHEMA = 1


def keep_scored(folder: RunFolder, tensors: dict[str, Tensor]) -> None:
    """Write what scores were made of, beside what an earlier command of the same run left there."""
    path, earlier = folder.path / SCORED, dict[str, Tensor]()
    if path.exists():
        with contextlib.suppress(ValueError):  # damaged, or another run's: it is made anew
            earlier = read_tensors(path, run=folder.run_id)[0]
    write_tensors(path, {**earlier, **tensors}, run=folder.run_id)


def keep(folder: RunFolder, result: dict[str, Any]) -> None:
    """Write a result and its table into its folder; what an earlier command of the same run measured stays in it."""
    if folder.results.exists():
        with contextlib.suppress(MissingData):  # damaged: it is made anew
            (earlier,) = table.load([folder.results])
            if earlier.get("run_id") == result["run_id"]:
                _take_over(earlier, result)
    files.write_json(folder.results, result)
    made = table.build([result], allow_mixed=True)
    write = {"md": render.to_markdown, "csv": render.to_csv, "tex": render.to_latex}
    for suffix, text in write.items():
        files.write_text(folder.tables / f"table.{suffix}", text(made))


def _take_over(earlier: Mapping[str, Any], result: dict[str, Any]) -> None:
    """Add the scores and notes of an earlier result of the same run, and the memory that it took if that was more.

    For a command that finds the clips there has made none.
    """
    found = {**earlier["scores"], **result["scores"]}
    result["scores"] = {name: found[name] for name in result["protocol"]["measures"] if name in found}
    notes = [note for each in (earlier, result) for note in str(each.get("note") or "").split("; ")]
    result["note"] = "; ".join(filter(None, dict.fromkeys(notes)))
    if result["cost"]:
        peaks = [each["cost"]["peak_memory_bytes"] for each in (earlier, result)]
        result["cost"]["peak_memory_bytes"] = max(peaks)
