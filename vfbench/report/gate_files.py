"""Files of the gate: JUnit XML, GitHub's annotations and job summary, charts over commits, and a new baseline."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from vfbench.errors import UserError
from vfbench.report.gate import GateResult, Status
from vfbench.report.results import Result
from vfbench.utils import console, escape, files


def junit(outcomes: Sequence[GateResult], status: Status, message: str = "") -> str:
    """JUnit XML with one test case per rule; `message` stands for all rules where nothing could be compared."""
    cases = [(each.metric, each.status, str(each)) for each in outcomes] or [("gate", status, message)]
    counts = {
        "tests": len(cases),
        "failures": sum(case == Status.REGRESSION for _, case, _ in cases),
        "errors": sum(case != Status.REGRESSION and case.exit_code != 0 for _, case, _ in cases),
    }
    suite = ElementTree.Element("testsuite", {"name": "vfbench gate", **{k: str(v) for k, v in counts.items()}})
    for name, case, text in cases:
        element = ElementTree.SubElement(
            suite, "testcase", {"classname": "vfbench.gate", "name": escape.printable(name)}
        )
        if case.exit_code:
            kind = "failure" if case == Status.REGRESSION else "error"
            ElementTree.SubElement(element, kind, {"type": case.value, "message": escape.message(text)})
        ElementTree.SubElement(element, "system-out").text = escape.message(text)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def markdown(outcomes: Sequence[GateResult], status: Status, message: str = "") -> str:
    """Summary of a gate as Markdown: its status, and a table of its rules or the message."""
    lines = [f"### vfbench gate: {status.value}", ""]
    if outcomes:
        lines += ["| metric | status | finding |", "| :-- | :-- | :-- |"]
        lines += [
            f"| {escape.markdown(each.metric)} | {each.status.value} | {escape.markdown(each.finding)} |"
            for each in outcomes
        ]
    else:
        lines += [escape.markdown(line) for line in message.splitlines()]
    return "\n".join(lines) + "\n"


def tell_github(outcomes: Sequence[GateResult], status: Status, message: str = "") -> None:
    """On GitHub Actions, print an `::error` line for each rule that fails, and append the job summary."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for text in [str(each) for each in outcomes if not each.passed] or ([message] if status.exit_code else []):
            print(f"::error title=vfbench gate::{_github(text)}", file=sys.stderr)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(markdown(outcomes, status, message))
        except OSError as error:  # the exit code stays that of the gate
            console.warn(f"GITHUB_STEP_SUMMARY {summary} cannot be written: {error.strerror}")


def write_benchmark(folder: Path, result: Result) -> None:
    """Write scores and costs for github-action-benchmark, which draws them over commits.

    Its tool `customSmallerIsBetter` reads `smaller-is-better.json`, and `customBiggerIsBetter` the other file.
    """
    entries: dict[str, list[dict[str, object]]] = {"smaller": [], "bigger": []}
    for score in (score for score in result.scores.values() if math.isfinite(score.value)):
        half = (score.high - score.low) / 2
        spread = {"range": f"± {half:.3g}"} if math.isfinite(half) else {}
        entry = {"name": f"{result.model}: {score.title}", "unit": "", "value": score.value, **spread}
        entries["smaller" if score.better == "lower" else "bigger"].append(entry)
    if result.cost:
        costs = {"seconds per clip": ("s", result.cost.seconds_per_clip)}
        costs["peak memory"] = ("MB", result.cost.peak_memory_bytes / 1e6)
        for name, (unit, value) in costs.items():
            if math.isfinite(value) and value > 0:
                entries["smaller"].append({"name": f"{result.model}: {name}", "unit": unit, "value": value})
    folder.mkdir(parents=True, exist_ok=True)
    for direction, content in entries.items():
        text = json.dumps(content, indent=1, ensure_ascii=True)
        files.write_text(folder / f"{direction}-is-better.json", f"{text}\n")


def _github(text: str) -> str:
    """Text of a workflow command: a line break would end it."""
    return escape.message(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def update(result: Result, baseline: Path, reason: str) -> Path:
    """Make a result the baseline, and append the reason to `<baseline>.history.jsonl`; returns that file.

    Raises `UserError` for a run folder, an edited result, no reason, and in the CI of a pull request, which would
    approve itself.
    """
    if (event := os.environ.get("GITHUB_EVENT_NAME", "")).startswith("pull_request"):
        raise UserError(f"--update in a {event}: it would approve itself; update the baseline on the main branch")
    if not reason.strip():
        raise UserError("--update needs --reason: say why the new result is right")
    if baseline.suffix != ".json":
        raise UserError(f"--baseline {baseline}: --update writes a file, end its name in .json")
    if result.integrity == "edited" or result.imported:
        raise UserError(result.imported_message or result.edited_message)
    history = baseline.with_suffix(".history.jsonl")
    line = {
        **{"date": datetime.now(UTC).isoformat(timespec="seconds"), "reason": reason.strip()},
        **{"model": result.model, "run_id": result.run_id, "protocol": result.protocol.id},
        "scores": {name: score.value for name, score in result.scores.items() if not score.part_of},
    }
    baseline.parent.mkdir(parents=True, exist_ok=True)
    earlier = files.read_text(history) if history.exists() else ""
    files.write_text(history, f"{earlier}{json.dumps(line)}\n")
    result.write(baseline)
    return history
