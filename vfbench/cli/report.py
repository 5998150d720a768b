"""`table`, `compare` and `gate`: tables of results, paired tests, and the regression gate."""

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
    output: Annotated[Path | None, option("--output", help="File to write instead; .md, .csv or .tex.")] = None,
    allow_mixed: Annotated[bool, option("--allow-mixed", help="Allow several protocols in one table, marked.")] = False,
) -> None:
    """Put results side by side."""
    from vfbench.report import render
    from vfbench.report import table as tables
    from vfbench.report.results import load
    from vfbench.utils import files

    content = tables.build(load(results), allow_mixed=allow_mixed)
    suffixes = {".md": "markdown", ".csv": "csv", ".tex": "latex"}
    if output is not None and output.suffix not in suffixes:
        raise UserError(f"--output {output} has no known suffix: end the name in {', '.join(suffixes)}")
    file_format = suffixes[output.suffix] if output else form
    renderers = {"markdown": render.to_markdown, "csv": render.to_csv, "latex": render.to_latex}
    render_table = renderers[file_format]
    if output is None:
        print(render_table(content), end="")
        return
    files.write_text(output, render_table(content))
    print(f"wrote {output}", file=sys.stderr)


def compare(
    a: Annotated[Path, typer.Argument(help="Run folder of model A.")],
    b: Annotated[Path, typer.Argument(help="Run folder of model B, of the same protocol and seed.")],
    metrics: Annotated[str, option("--metrics", help="Comma-separated; by default all that both runs have.")] = "",
) -> None:
    """Test whether one model is better than another, on the same requests and real clips."""
    from vfbench.report import results
    from vfbench.report.compare import compare as compare_runs

    comparisons = compare_runs(a, b, config.split_list(metrics))
    comparable = results.load([a])[0].protocol.comparable
    print(
        f"A is {a}, B is {b}; [95 % interval of the difference]" + ("" if comparable else f"; {results.NOT_COMPARABLE}")
    )
    for comparison in comparisons:
        print(comparison)


def gate(
    result: Annotated[Path, typer.Argument(help="Run folder or results.json.")],
    baseline: Annotated[Path, option("--baseline", help="Result to compare with.")],
    rule: Annotated[list[str], option("--rule", help="Largest allowed worsening, e.g. fvd:+5% or is:-0.3.")],
) -> None:
    """Exit 3 if a score is worse than its baseline by more than a rule allows, beyond both 95 % intervals."""
    from vfbench.report import gate as gates
    from vfbench.report import results

    ours, theirs = results.load([result])[0], results.load([baseline])[0]
    outcomes = gates.gate(ours, theirs, rule)
    for outcome in outcomes:
        print(outcome)
    gates.require(outcomes)
