"""Write the tables of README.md and results/shapes from the runs in `results`: python benchmarks/tables.py

A test checks that the pages are up to date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from _studies import PAGES as STUDY_PAGES
from _studies import markdown, study_table

from vfbench.report import render, results, seeds, table
from vfbench.report.format import DASH

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
STUDY, FEW_STEPS = RESULTS / "shapes" / "equal-compute", RESULTS / "shapes" / "few-steps"
EFFICIENCY, LONG_CLIPS = RESULTS / "shapes" / "efficiency.jsonl", RESULTS / "shapes" / "long-clips.jsonl"


def main() -> None:
    for page, blocks in PAGES.items():
        text = page.read_text()
        for name, make in blocks.items():
            if not block(name).search(text):
                raise SystemExit(f"{page} has no lines <!-- {name}:begin --> and <!-- {name}:end -->")
            before, after = block(name).split(text)
            text = f"{before}{make()}{after}"
        page.write_text(text)


def block(name: str) -> re.Pattern[str]:
    """Pattern for the text between the begin and end marks of a name."""
    return re.compile(rf"(?<=<!-- {name}:begin -->\n).*?(?=<!-- {name}:end -->)", re.DOTALL)


def runs(folder: Path, *, notes: int | None = None, without: Sequence[str] = ()) -> str:
    """Table of the records in a folder, those of some names left out; with `notes` of its notes, by default all."""
    shown = table.build(results.load([path for path in _records(folder) if path.stem not in without]))
    return render.to_markdown(replace(shown, notes=shown.notes[:notes]))


def study() -> str:
    """Table of metrics by model: one row per training seed, and one for their mean."""
    records = {folder.name.removeprefix("seed-"): results.load(_records(folder)) for folder in sorted(STUDY.iterdir())}
    lines = []
    for seed, trained in records.items():
        seed_table = table.build(trained)
        rows = [row for row in seed_table.rows if row.kind == "model"]
        lines += [[row.label, seed, *(cell.text for cell in row.cells)] for row in rows]
    means = table.build(seeds.averaged([record for trained in records.values() for record in trained]))
    count = f"mean of {len(records)}"
    lines += [[row.label, count, *(cell.text for cell in row.cells)] for row in means.rows if row.kind == "model"]
    floors = [[f"*{row.label}*", "", *(cell.text for cell in row.cells)] for row in means.rows if row.kind == "floor"]
    head = [["model", "training seed", *means.header[1:]], [":--", "--:", *["--:"] * (len(means.header) - 1)]]
    return markdown([*head, *sorted(lines), *floors]) + f"\n{means.caption} Means ± half of Student's 95 % interval.\n"


def few_steps() -> str:
    """Table of the shipped models by sampling steps and guidance, with the network calls of a clip."""
    by_run = _table(FEW_STEPS)
    lines = [
        [record.model_spec, str(record.cost.evaluations if record.cost else DASH), *(cell.text for cell in row.cells)]
        for record, row in zip(by_run.records, by_run.rows, strict=False)  # the floor has a row and no record
    ]
    head = ["model", "network calls", *by_run.header[1:]]
    return markdown([head, [":--", "--:", *["--:"] * len(by_run.header[1:])], *sorted(lines)]) + f"\n{by_run.caption}\n"


def _table(folder: Path) -> render.Table:
    return table.build(results.load(_records(folder)))


def _records(folder: Path) -> list[Path]:
    records = sorted(folder.glob("*.json"), key=lambda path: path.stem)
    if not records:
        raise SystemExit(f"no records in {folder}: copy the results.json of each run there")
    return records


def efficiency() -> str:
    """Table of the costs of each model, with ratios to the first."""
    first, *others = (json.loads(line) for line in EFFICIENCY.read_text().splitlines())
    rows = [_costs(row, first) for row in (first, *others)]
    head = ["model", "clip", "parameters", "GFLOP", "seconds", "memory (MB)"]
    return markdown([head, [":--", ":--", *["--:"] * 4], *rows])


def _costs(row: Mapping[str, object], first: Mapping[str, object]) -> list[str]:
    def cell(key: str, form: str) -> str:
        value, reference = float(str(row[key])), float(str(first[key]))
        return f"{value:{form}}" if row is first else f"{value:{form}} ({value / reference:.2f})"

    forms = {"parameters": ",.0f", "gflop_per_clip": ",.0f", "seconds_per_clip": ".2f", "memory_mb": ",.0f"}
    return [f"{row['model']} {row['preset']}", str(row["clip"]), *(cell(key, form) for key, form in forms.items())]


def long_clips() -> str:
    """Table of the scores of windows of long clips, and of how alike each is to the first."""
    lines = [json.loads(line) for line in LONG_CLIPS.read_text().splitlines()]
    shown = {
        "first frame": ("first_frame", "d"),
        "FVD ↓": ("fvd", ".1f"),
        "CLIPSIM ↑": ("clipsim", ".3f"),
        **{f"{name} ↑": (name, ".3f") for name in ("motion", "shape", "size", "colour", "ground", "texture")},
        "likeness": ("likeness", ".3f"),
        "to another clip": ("likeness_to_another", ".3f"),
    }
    rows = [[format(line[key], form) for key, form in shown.values()] for line in lines]
    made = f"{lines[0]['clips']} clips of {lines[0]['frames']} frames against 2,048 real ones of 16 frames. "
    return markdown([[*shown], ["--:"] * len(shown), *rows]) + f"\n{made}Machine: {lines[0]['machine']}.\n"


SHORTER = ("frozen", "pyoco-tiny-progressive")  # records that README leaves out

PAGES: Mapping[Path, Mapping[str, Callable[[], str]]] = {
    ROOT / "README.md": {"results": partial(runs, RESULTS / "records", notes=1, without=SHORTER)},
    RESULTS / "shapes" / "README.md": {
        "results": partial(runs, RESULTS / "records"),
        "equal-compute": study,
        "few-steps": few_steps,
        "efficiency": efficiency,
        "long-clips": long_clips,
    },
    **{page: {study: partial(study_table, study) for study in studies} for page, studies in STUDY_PAGES.items()},
}


if __name__ == "__main__":
    main()
