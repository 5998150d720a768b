"""`table`, `report`, `compare`, `drift`, `gate`: results side by side, paired tests, and the regression gate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import vfbench
from vfbench.cli import _options as flags
from vfbench.cli import config
from vfbench.cli._options import option, print_table
from vfbench.errors import MissingData, UserError
from vfbench.utils import console, store

if TYPE_CHECKING:
    from vfbench.report.render import Table
    from vfbench.report.results import Result


Form = Literal["markdown", "csv", "csv-wide", "latex", "bibtex", "html", "json"]
SUFFIXES: Mapping[Form, str] = {
    **{"markdown": ".md", "csv": ".csv", "csv-wide": ".csv", "latex": ".tex", "bibtex": ".bib", "html": ".html"},
    "json": ".json",
}
Results = Annotated[list[Path], typer.Argument(help="Run folders or results.json files.")]
AllowMixed = Annotated[bool, option("--allow-mixed", help="Allow several protocols in one table, marked.")]
Published = Annotated[
    Literal["none", "high", "medium", "all"],
    option("--published", help="Add what papers print for the dataset, from this confidence on."),
]


def table(
    results: Results,
    form: Annotated[
        Form | None, option("--format", help="What to write; markdown by default, or what fits --output.")
    ] = None,
    output: Annotated[
        Path | None, option("--output", help="File to write instead; .md, .csv, .tex, .bib, .html or .json.")
    ] = None,
    allow_mixed: AllowMixed = False,
    mean: Annotated[
        bool, option("--mean", help="Put runs that differ in seed or training on one row, as their mean.")
    ] = False,
    published: Published = "none",
    as_json: flags.AsJson = False,
) -> None:
    """Put results side by side."""
    from vfbench.utils import files

    store.require_local("--output", output)
    _require_not_read("--output", output, results)
    chosen = _form("json" if as_json else form, output)
    content = vfbench.table(results, allow_mixed=allow_mixed, published=published, mean=mean)
    if output is None and chosen == "markdown":
        print_table(content)
        return
    text = _formatted(content, chosen)
    if output is None:
        console.result(text, end="")
        return
    files.write_text(output, text)
    console.info(f"wrote {output}")
    if chosen == "latex" and content.published:
        sources = output.with_suffix(".bib")
        files.write_text(sources, content.to_bibtex())
        console.info(f"wrote {sources}, which it cites")


def _form(form: Form | None, output: Path | None) -> Form:
    """Form of a table: the one asked for, else the first that has the suffix of the file."""
    if output is None:
        return form or "markdown"
    fitting = [name for name, suffix in SUFFIXES.items() if suffix == output.suffix]
    if not fitting:
        raise UserError(
            f"--output {output} has no known suffix: end it in {', '.join(dict.fromkeys(SUFFIXES.values()))}"
        )
    if form and form not in fitting:
        raise UserError(
            f"--output {output} is no {form} file: end it in {SUFFIXES[form]}, or leave out --format {form}"
        )
    return form or fitting[0]


def _formatted(table: Table, form: Form) -> str:
    if form == "json":
        from vfbench.utils import files

        return files.as_json([record.to_json() for record in table.records])
    if form in ("csv", "csv-wide"):
        return table.to_csv(wide=form == "csv-wide")
    forms = {"latex": table.to_latex, "bibtex": table.to_bibtex, "html": table.to_html, "markdown": table.to_markdown}
    return forms[form]()


def report(
    results: Results,
    output: Annotated[Path, option("-o", "--output", help="Folder of the report; an older report is replaced.")],
    num_clips: Annotated[int, option("--num-clips", help="Clips to show of each run made with --keep-clips.")] = 64,
    allow_mixed: AllowMixed = False,
    published: Published = "none",
) -> None:
    """Write a page with table, plots and clips side by side, which opens without a server."""
    page = vfbench.write_report(results, output, num_clips=num_clips, allow_mixed=allow_mixed, published=published)
    console.result(str(page))


def compare(
    a: Annotated[Path, typer.Argument(help="Run folder or results.json of model A.")],
    b: Annotated[Path, typer.Argument(help="The same of model B; a paired test needs the same seed.")],
    metrics: Annotated[str, option("--metrics", help="Comma-separated; by default all that both runs have.")] = "",
    power: Annotated[
        bool, option("--power", help="Also print the smallest difference that the test finds in 80 % of cases.")
    ] = False,
    as_json: flags.AsJson = False,
) -> None:
    """Test whether one model is better than another; paired where both answer the same requests."""
    from vfbench.report import results
    from vfbench.report.format import rounded
    from vfbench.utils import files

    comparisons = vfbench.compare(a, b, config.split_list(metrics))
    if as_json:
        records = [
            {
                **{"metric": each.title, **asdict(each.comparison)},
                **{"smallest_detectable": each.smallest_detectable, "unpaired_because": each.unpaired_because},
            }
            for each in comparisons
        ]
        print(files.as_json([_finite(record) for record in records]), end="")
        return
    (first,), (second,) = results.load([a]), results.load([b])
    comparable = "" if first.protocol.comparable else f"; {results.NOT_COMPARABLE}"
    console.result(
        f"A is {store.name(a)}{_integrity(first)}, B is {store.name(b)}{_integrity(second)}; "
        f"[95 % interval of the difference]{comparable}"
    )
    for reason in dict.fromkeys(each.unpaired_because for each in comparisons if each.unpaired_because):
        console.result(f"unpaired, by the intervals of both: {reason}")
    for each in comparisons:
        half_width = (each.comparison.high - each.comparison.low) / 2
        detectable = f"; smallest detectable {rounded([each.smallest_detectable], half_width)[0]}" if power else ""
        console.result(f"{each}{detectable}")


def drift(
    a: Annotated[Path, typer.Argument(help="Reference: a run with --keep-clips, `generate`, or a folder of clips.")],
    b: Annotated[list[Path], typer.Argument(help="The same of other recipes, with the same seed.")],
    output: Annotated[Path | None, option("--csv", help="File for the values clip by clip.")] = None,
    plot: Annotated[Path | None, option("--plot", help="Picture to write; .png, .svg or .pdf.")] = None,
    device: Annotated[str, option("--device", help="auto, cpu or cuda.")] = "auto",
    as_json: flags.AsJson = False,
) -> None:
    """Measure what an acceleration costs: closeness to a reference clip by clip, beside the speed-up."""
    from vfbench.utils import files

    if output is not None and output.suffix != ".csv":
        raise UserError(f"--csv {output} is no CSV file: end the name in .csv")
    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"--plot {plot} has no known suffix: end the name in .png, .svg or .pdf")
    result = vfbench.drift(a, *b, device=device)
    if as_json:
        print(files.as_json(result.to_json()), end="")
    else:
        print_table(result.table)
    if output is not None:
        files.write_text(output, result.to_csv())
        console.info(f"wrote {output}")
    if plot is not None:
        console.info(f"wrote {result.plot(plot)}")


def gate(
    result: Annotated[Path, typer.Argument(help="Run folder or results.json.")],
    baseline: Annotated[Path, option("--baseline", help="Result to compare with; a run folder, for a paired test.")],
    rule: Annotated[
        list[str] | None, option("--rule", help="Largest allowed worsening, e.g. fvd:+5% or is:-0.3.")
    ] = None,
    detectable: Annotated[
        float, option("--detectable", help="Percent of the baseline; fail if smaller changes go unseen.")
    ] = 100.0,
    history: Annotated[
        list[Path] | None,
        option("--history", help="Earlier runs, or a folder of them, for rules such as seconds:+10%+0.05."),
    ] = None,
    junit: Annotated[Path | None, option("--junit", help="JUnit XML file to write.")] = None,
    benchmark: Annotated[
        Path | None, option("--benchmark", help="Folder for the JSON files that github-action-benchmark draws.")
    ] = None,
    update: Annotated[bool, option("--update", help="Make RESULT the baseline instead, with --reason.")] = False,
    reason: Annotated[str, option("--reason", help="Why the new baseline is right; kept beside it.")] = "",
    as_json: flags.AsJson = False,
) -> None:
    """Exit 3 if a score is worse than its baseline by more than a rule allows, beyond its 95 % interval."""
    from vfbench.report import gate as gates
    from vfbench.report import gate_files
    from vfbench.utils import files

    _require_not_read("--junit", junit, [result, baseline, *(history or [])])
    (ours,) = vfbench.load_results(result)
    if update:
        reasons = gate_files.update(ours, baseline, reason)
        console.info(f"{baseline} is now {ours.label}; the reason is in {reasons}")
        return
    outcomes: list[gates.GateResult] = []
    failure: UserError | None = None
    try:
        (theirs,) = vfbench.load_results(baseline)
        outcomes = vfbench.gate(ours, theirs, rule or [], history=history or [], detectable=detectable)
        status = gates.status_of(outcomes)
    except gates.ProtocolMismatch as error:
        failure, status = error, gates.Status.PROTOCOL_MISMATCH
    except MissingData as error:
        failure, status = error, gates.Status.BASELINE_MISSING
    message = str(failure or "")
    if junit:
        files.write_text(junit, gate_files.junit(outcomes, status, message))
    if benchmark:
        gate_files.write_benchmark(benchmark, ours)
    gate_files.tell_github(outcomes, status, message)
    if as_json:
        rules = [_finite(asdict(outcome)) for outcome in outcomes]
        print(files.as_json({"status": status.value, "message": message, "rules": rules}), end="")
    elif failure is None:
        console.result("\n".join(map(str, outcomes)))
        for text in dict.fromkeys(each.unpaired_because for each in outcomes if each.unpaired_because):
            console.result(f"unpaired, by the intervals of both: {text}")
        for record in (ours, theirs):
            if record.integrity == "unsigned":
                console.result(f"{record.source} is unsigned: an edit would not be noticed")
        console.result(f"gate: {status.value}")
    if failure:
        raise failure
    gates.require(outcomes)


def _require_not_read(flag: str, output: Path | None, read: Sequence[Path]) -> None:
    """Raise `UserError` where a file to write is a result that the command reads."""
    if output and any(output.absolute() in (path.absolute(), path.absolute() / "results.json") for path in read):
        raise UserError(f"{flag} {output} is a result that is read: choose another file")


def _integrity(record: Result) -> str:
    """Mark of a result that was edited or has no signature; empty for the others."""
    return "" if record.integrity == "intact" else f" ({record.integrity})"


def _finite(record: dict[str, object]) -> dict[str, object]:
    """Record with null for numbers that JSON does not have: NaN and infinity."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
