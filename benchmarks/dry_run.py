"""Seconds that `run --dry-run` foretells, and those of the run: python benchmarks/dry_run.py [--repeats 3]

A repeat plans the run, then makes it, on an otherwise idle machine. Counted are the seconds of its chunks: the real
clips' features, which a second run reads from the cache, and the start are in no estimate. Prints a JSON line for each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _measure import make_parser


def main() -> None:
    parser = make_parser(__doc__, model="vdm(steps=5)", dataset="shapes", num_samples=256, repeats=3)
    arguments = parser.parse_args()
    command = ["run", "--model", arguments.model, "--dataset", arguments.dataset, "--device", "cpu", "--json"]
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as parent:
            here = [*command, "--num-samples", str(arguments.num_samples), "--output", f"{parent}/run"]
            foretold = _vfbench(*here, "--dry-run")["estimate"]["seconds"]
            _vfbench(*here)
            events = [
                line for file in Path(parent, "run", "events").iterdir() for line in file.read_text().splitlines()
            ]
        made = [event for event in map(json.loads, events) if event["event"] == "made" and event["item"].isdecimal()]
        taken = sum(event["seconds"] for event in made)
        ratio = round(foretold / taken, 2)
        print(json.dumps({"foretold": round(foretold, 1), "taken": round(taken, 1), "ratio": ratio}), flush=True)


def _vfbench(*arguments: str) -> dict[str, Any]:
    out = subprocess.run(  # noqa: S603  # this program
        [sys.executable, "-m", "vfbench", *arguments], check=True, capture_output=True, text=True
    ).stdout
    content: dict[str, Any] = json.loads(out)
    return content


if __name__ == "__main__":
    main()
