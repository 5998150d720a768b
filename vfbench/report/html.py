"""Report of runs: one folder with an `index.html` that opens from disk, without a server or a network.

index.html report.css report.js   the page
clips/       sheets, one a clip
plots/       every plot as SVG, PDF and PNG
table.csv    all scores at full precision; table.tex and table.md the table as shown
report.json  ids of the results; by this file an older report is known, and replaced
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vfbench.errors import Incomplete, UserError
from vfbench.report import page as pages
from vfbench.report import plots, table
from vfbench.report.gallery import Picture, RecallRun
from vfbench.report.page import Page
from vfbench.report.published import Published
from vfbench.report.results import Result
from vfbench.utils import console, escape, files, store

MARKER = "report.json"
TEMPLATES = Path(__file__).with_name("templates")


def write(
    results: Sequence[Result],
    output: Path,
    recall: RecallRun,
    *,
    allow_mixed: bool,
    published: Published,
    num_clips: int,
    version: str,
) -> Path:
    """Write the report of `results` to the folder `output`, and return its `index.html`.

    Raises `UserError` as `vfbench.report.table.build` does and where `output` holds something else, and `Incomplete`
    where a clip is missing: the report is written, with a placeholder.
    """
    store.require_local("--output", output)
    _require_free(output)
    if num_clips < 1:
        raise UserError(f"--num-clips {num_clips}: give at least 1")
    damaged = [record for record in results if plots.damage(record)]
    others = [record for record in results if record not in damaged]
    content = table.build(others or damaged, allow_mixed=allow_mixed, published=published)
    temporary = files.temporary_path(output)
    try:
        (temporary / "plots").mkdir(parents=True)
        page = pages.make(content, damaged, temporary, recall, num_clips, version)
        _write_files(page, temporary)
        if output.exists():
            shutil.rmtree(output)
        temporary.replace(output)
    except OSError as error:
        raise files.write_error(output, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for note in page.gallery.notes:
        console.info(note)
    if page.gallery.incomplete:
        lines = "; ".join(page.gallery.incomplete)
        raise Incomplete(f"{lines}: {output / 'index.html'} has a placeholder there; repeat the command of the run")
    return output / "index.html"


def _require_free(output: Path) -> None:
    """Raise `UserError` where `output` is neither free nor a report, `BadEnvironment` where it cannot be written."""
    files.require_writable(output.parent)
    is_empty = output.is_dir() and not any(output.iterdir())
    if output.exists() and not (output / MARKER).is_file() and not is_empty:
        raise UserError(f"{output} is there already and is no report: choose another --output, or remove it")


def _write_files(page: Page, folder: Path) -> None:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: escape.printable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # a browser reads no NaN; keys stay in their order
    text = environment.get_template("report.html.j2").render(page=page, data=_data(page))
    files.write_text(folder / "index.html", text)
    for name in ("report.css", "report.js"):
        shutil.copyfile(TEMPLATES / name, folder / name)
    files.write_text(folder / "table.csv", page.table.to_csv())
    files.write_text(folder / "table.tex", page.table.to_latex())
    files.write_text(folder / "table.md", page.table.to_markdown())
    files.write_json(folder / MARKER, {"results": [record.run_id for record in page.table.records]})


def _data(page: Page) -> dict[str, Any]:
    """Data for the script of the page: the clips and the examples."""
    columns = [{"label": escape.printable(each.label), "kind": each.kind} for each in page.gallery.columns]
    requests = [
        {
            "index": each.index,
            "caption": escape.printable(each.caption),
            "class": escape.printable(each.class_name),
            "clips": list(map(_clip, each.pictures)),
        }
        for each in page.gallery.requests
    ]
    return {"columns": columns, "requests": requests, "examples": [asdict(group) for group in page.examples]}


def _clip(picture: Picture) -> dict[str, Any]:
    values = {title: value for title, value in picture.values.items() if math.isfinite(value)}
    if picture.sprite is None:
        return {"missing": escape.printable(picture.missing)}
    return {**asdict(picture.sprite), "values": values}
