"""`table`, `compare` and `gate`: results side by side, which is better, and whether one may replace another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from vfbench.cli import config
from vfbench.cli._options import option
from vfbench.errors import UserError


def table(
    results: Annotated[list[Path], typer.Argument(help="Run folders or results.json files.")],
    form: Annotated[
        Literal["markdown", "csv", "latex"], option("--format", help="What to print on stdout.")
    ] = "markdown",
    output: Annotated[Path | None, option("--output", help="Write there instead; .md, .csv or .tex.")] = None,
    allow_mixed: Annotated[bool, option("--allow-mixed", help="Show different protocols together, marked.")] = False,
) -> None:
    """Put results side by side."""
    from vfbench.report import render
    from vfbench.report import table as tables
    from vfbench.utils import files

    made = tables.build(tables.load(results), allow_mixed=allow_mixed)
    suffixes = {".md": "markdown", ".csv": "csv", ".tex": "latex"}
    if output is not None and output.suffix not in suffixes:
        raise UserError(f"--output {output}: end the name in {', '.join(suffixes)}")
    chosen = suffixes[output.suffix] if output else form
    write = {"markdown": render.to_markdown, "csv": render.to_csv, "latex": render.to_latex}[chosen]
    if output is None:
        print(write(made), end="")
        return
    files.write_text(output, write(made))
    print(f"wrote {output}", file=sys.stderr)


def compare(
    a: Annotated[Path, typer.Argument(help="Run folder of model A.")],
    b: Annotated[Path, typer.Argument(help="Run folder of model B, of the same protocol and seed.")],
    metrics: Annotated[str, option("--metrics", help="Comma-separated; all that both have by default.")] = "",
) -> None:
    """Test whether one model is better than another, on the same requests and real clips."""
    from vfbench.report import results
    from vfbench.report.compare import compare as paired

    verdicts = paired(a, b, config.listed(metrics))
    comparable = results.load([a])[0]["protocol"].get("comparable")
    print(
        f"A is {a}, B is {b}; [95 % interval of the difference]" + ("" if comparable else f"; {results.NOT_COMPARABLE}")
    )
    for verdict in verdicts:
        print(verdict)


def gate(
    result: Annotated[Path, typer.Argument(help="Run folder or results.json.")],
    baseline: Annotated[Path, option("--baseline", help="Result to compare with.")],
    rule: Annotated[list[str], option("--rule", help="How much worse is allowed, e.g. fvd:+5% or is:-0.3.")],
) -> None:
    """Exit 3 when a score is worse than its baseline by more than a rule allows, and outside both intervals."""
    from vfbench.report import gate as gates
    from vfbench.report import results

    ours, theirs = results.load([result])[0], results.load([baseline])[0]
    verdicts = gates.gate(ours, theirs, rule)
    for verdict in verdicts:
        print(verdict)
    gates.require(verdicts)
