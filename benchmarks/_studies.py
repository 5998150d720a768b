"""Variants of the studies on Moving Shapes of 8x16x16, and their tables, from the lines of `study.jsonl`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vfbench.report import seeds
from vfbench.report.format import Column, column
from vfbench.report.results import ARROWS, Result

SHAPES = Path(__file__).parent.parent / "results" / "shapes"
LINES = SHAPES / "study.jsonl"
DATASET = "shapes(frames=8, height=16, width=16)"
JUDGE = "python benchmarks/train_judge.py --frames 8 --side 16 --steps 600 --output judge"  # for clips of this size
# Flags of `vfbench train` by row of a table; SEED stands for the seed of the training.
REAL, IMAGE = "--model real", "--model vdm --preset tiny-image"
_JOINT, _FROM = "--model videofusion", "--base-from train/vdm-preset-tiny-image-seed-SEED"
STUDIES: Mapping[str, Mapping[str, str]] = {
    "noise-levels": {
        "VDM, times not shifted": "--model 'vdm(time_shift=1)'",
        "VDM, times shifted": "--model vdm",
        "VDM, half of each batch shifted": "--model 'vdm(shifted_share=0.5)'",
        "VideoFusion, times not shifted": "--model 'videofusion(time_shift=1)'",
        "VideoFusion, times shifted": _JOINT,
    },
    "base-frame": {
        "R moves the base frame": _JOINT,
        "B moves the base frame": "--model \"videofusion(base_update='paper')\"",
        "R moves it; both read its embedding": "--model videofusion --preset tiny-prior",
    },
    "lambda": {
        **{f"lambda {lam}": f"--model 'videofusion(lam={lam})'" for lam in (0.0, 0.1, 0.3)},
        "lambda 0.5": _JOINT,
        **{f"lambda {lam}": f"--model 'videofusion(lam={lam})'" for lam in (0.7, 0.9)},
        "lambda 0.5, linear": "--model \"videofusion(lam_schedule='linear')\"",
        "lambda 0.5, cosine": "--model \"videofusion(lam_schedule='cosine')\"",
    },
    "base-generator": {
        "from scratch": _JOINT,
        "from scratch, error of R trains B": "--model 'videofusion(stop_gradient=False)'",
        "pretrained, frozen": f"{_JOINT} --base-init frozen {_FROM}",
        "pretrained, fine-tuned": f"{_JOINT} --base-init finetune {_FROM}",
        "pretrained, fine-tuned, error of R trains B": (
            f"--model 'videofusion(stop_gradient=False)' --base-init finetune {_FROM}"
        ),
    },
}
PAGES = {
    SHAPES / "ablations.md": ("noise-levels", "base-frame"),
    SHAPES / "paper.md": ("lambda", "base-generator"),
}
GRIDS = (
    ("motion", "shape", "attributes", "fvd", "clipsim", "base_flicker"),
    ("size", "colour", "ground", "texture"),
)


def read_lines() -> list[dict[str, Any]]:
    """Lines of the finished trainings and runs, in the order of their end."""
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def study_table(study: str) -> str:
    """Table of a study: the mean over the training seeds of each row, and below the commands of one row."""
    rows = {**STUDIES[study], "*real*": REAL}
    lines = [line for line in read_lines() if line["flags"] in rows.values() and "result" in line]
    trained = [line for line in lines if line["flags"] != REAL]
    if not trained:
        return "No row of this study is trained yet.\n"
    (steps, clips), _ = Counter((line["steps"], line["clips"]) for line in trained).most_common(1)[0]
    lines = [line for line in lines if line["clips"] == clips and (line["flags"] == REAL or line["steps"] == steps)]
    if len(protocols := sorted({line["protocol"] for line in lines})) > 1:
        raise SystemExit(f"{LINES}: {study} has protocols {', '.join(protocols)}; remove the lines of the other judge")
    records = {label: _records(lines, flags) for label, flags in rows.items()}
    shown = {label: seeds.averaged(each)[0] for label, each in records.items() if each}
    missing = [label for label, each in records.items() if not each]
    counts = {label: len(records[label]) for label in shown}
    tables = "\n".join(_grid(shown, counts, metrics) for metrics in GRIDS)
    return f"{tables}\n{_notes(lines, rows, missing)}"


def _records(lines: Sequence[Mapping[str, Any]], flags: str) -> list[Result]:
    return [Result.model_validate(line["result"]) for line in lines if line["flags"] == flags]


def _grid(shown: Mapping[str, Result], counts: Mapping[str, int], metrics: Sequence[str]) -> str:
    records = list(shown.values())
    columns: list[Column] = [column(records, metric, [False] * len(records)) for metric in metrics]
    scores = [records[0].scores[metric] for metric in metrics]
    head = ["row", "seeds", *(f"{score.title} {ARROWS[score.better]}" for score in scores)]
    body = [
        [label, "" if label == "*real*" else str(counts[label]), *(each.cells[i].text for each in columns)]
        for i, label in enumerate(shown)
    ]
    return markdown([head, [":--", *["--:"] * (len(head) - 1)], *body])


def _notes(lines: Sequence[Mapping[str, Any]], rows: Mapping[str, str], missing: Sequence[str]) -> str:
    """N, intervals, machines and commands; commands of one row, and the flags of the others."""
    trained = [line for line in lines if line["flags"] != REAL]
    score = next(iter(trained[0]["result"]["scores"].values()))
    machines = sorted({f"{line['machine']}, {line['threads']} thread(s), torch {line['torch']}" for line in trained})
    seconds = sum(line["seconds"] for line in trained)
    done = {label: flags for label, flags in rows.items() if label not in (*missing, "*real*")}
    text = [
        f"{score['n_real']:,} real against {score['n_fake']} generated clips, {trained[0]['steps']:,} training steps. "
        "Value ± half the width of its 95 % interval: over the clips of the run for a row of one seed, Student's over "
        f"the trainings for more. Machine: {'; '.join(machines)}; {seconds / 3600:.1f} hours of training in all.",
        f"Not trained yet: {'; '.join(missing)}." if missing else "",
        "Commands of the judge and of a row, where `SEED` is the seed of the training:",
        f"```sh\n{JUDGE}\n{_commands(trained)}\n```",
        "Each row has flags of its own between `train` and `--dataset`, and its own folders:",
        markdown([["row", "flags"], [":--", ":--"], *([label, f"`{flags}`"] for label, flags in done.items())]),
    ]
    return "\n\n".join(filter(None, text))


def _commands(lines: Sequence[Mapping[str, Any]]) -> str:
    """Commands of the row that takes most of them, with SEED for the seed of its training."""
    line = max(lines, key=lambda line: len(line["commands"]))
    return re.sub(r"(?<=seed[ -])\d+", "SEED", "\n".join(line["commands"]))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Lines of a Markdown table."""
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
