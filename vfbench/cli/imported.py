"""`import`: take over scores that other tools have computed, marked as unverified."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import vfbench
from vfbench.cli import _options as flags
from vfbench.cli._options import next_command, option, print_result
from vfbench.utils import console


def import_(
    file: Annotated[Path, typer.Argument(help="File that the other tool wrote.")],
    tool: Annotated[
        Literal["cd-fvd", "stylegan-v", "vbench", "torch-fidelity"],
        option("--format", help="Tool that wrote the file.", env=False),
    ],
    output: Annotated[
        Path | None, option("--output", help="Folder of the result; runs/import-<file> by default.")
    ] = None,
    name: Annotated[str, option("--name", help="Row in tables; that of the file by default.", env=False)] = "",
    dataset: Annotated[str, option("--dataset", help="Dataset that was scored, for the record.", env=False)] = "",
    as_json: flags.AsJson = False,
) -> None:
    """Import the scores of another tool as a result marked unverified."""
    result = vfbench.import_results(file, tool, output=output, name=name, dataset=dataset)
    print_result(result, as_json)
    console.info(f"import: {result.run_dir}")
    next_command("table", result.run_dir, "OTHER_RUN", "--allow-mixed")
