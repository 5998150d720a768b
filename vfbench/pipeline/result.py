"""The files of a finished run or score: result, table, and the features that the scores were computed from."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from torch import Tensor

from vfbench.errors import MissingData
from vfbench.pipeline.folder import RunFolder
from vfbench.report import latex, render, results, table
from vfbench.report.results import SCORED_FILE, Result
from vfbench.utils import console, files
from vfbench.utils.tensor_files import read_tensors, write_tensors


def write_scored(folder: RunFolder, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors that scores were computed from, beside those of an earlier command of the same run."""
    path, earlier = folder.path / SCORED_FILE, dict[str, Tensor]()
    with files.one_at_a_time(folder.path):
        folder.fetch(path)
        if path.exists():
            with contextlib.suppress(ValueError):  # damaged, or of another run: written anew
                earlier = read_tensors(path, run=folder.run_id)[0]
        write_tensors(path, {**earlier, **tensors}, run=folder.run_id)
        folder.publish(path)


def write_result(folder: RunFolder, result: Result) -> Result:
    """Write a result, signed, and its table into the run folder; returns it with the scores of earlier commands.

    Scores of an earlier command that were edited since are left out, with a warning.
    """
    with files.one_at_a_time(folder.path):
        folder.fetch(folder.results)
        if folder.results.exists():
            with contextlib.suppress(MissingData):  # damaged: written anew
                (earlier,) = results.load([folder.results])
                if earlier.integrity == "edited":
                    console.warn(f"{folder.results} was edited: its earlier scores are left out; repeat their commands")
                elif earlier.run_id == result.run_id:
                    result = _merged(earlier, result)
        result = result.signed()
        result.write(folder.results)
    row = table.build([result], allow_mixed=True)
    for suffix, render_as in {"md": render.to_markdown, "csv": render.to_csv, "tex": latex.to_latex}.items():
        files.write_text(folder.tables / f"table.{suffix}", render_as(row))
    folder.publish(folder.tables, folder.results)  # the result last: with it the run is finished
    return result


def _merged(earlier: Result, result: Result) -> Result:
    """The result with the scores and notes of an earlier one of the same run."""
    scores = {**earlier.scores, **result.scores}
    notes = [note for each in (earlier, result) for note in each.note.split("; ")]
    return result.model_copy(
        update={
            "scores": {name: scores[name] for name in (*result.protocol.measures, *scores) if name in scores},
            "note": "; ".join(filter(None, dict.fromkeys(notes))),
        }
    )
