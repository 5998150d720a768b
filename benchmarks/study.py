"""Train and score the variants of a study, then write its table: python benchmarks/study.py lambda [--seeds 3]

The studies are `noise-levels`, `base-frame`, `lambda` and `base-generator`, on Moving Shapes of 8x16x16. Each row of a
table is a short training and a run, made by the commands that the page shows, in the folder `--output`. A finished row
is a line of results/shapes/study.jsonl and is not done again, also where another study has it; the same command
continues one that was stopped. The shipped judge takes clips of this size for others, so one is trained for them first:
a study that goes on on another machine needs the folder `judge` of the first.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import _studies
import tables
from _measure import machine, make_parser
from _studies import DATASET, IMAGE, JUDGE, REAL, STUDIES

from vfbench.training.trainer import LOG_EVERY
from vfbench.utils.device import choose_device

METRICS = "fvd,clipsim,attributes,base_flicker"
EXTRACTOR = "--extractor \"shapes_judge=shapes_judge(weights_dir='judge')\""


def main() -> None:
    parser = make_parser(__doc__, seeds=1, steps=3000, clips=256, device="auto", dtype="bfloat16")
    parser.add_argument("study", choices=STUDIES, metavar="TABLE", help=", ".join(STUDIES))
    parser.add_argument("--output", type=Path, default=Path("runs/study"), help="default: runs/study")
    parser.add_argument("--compile", action="store_true", help="compile the networks: a slower start, faster steps")
    arguments = parser.parse_args()
    if arguments.steps < LOG_EVERY:
        parser.error(f"--steps {arguments.steps}: at least {LOG_EVERY}, where the log of a training begins")
    arguments.output.mkdir(parents=True, exist_ok=True)
    if not (arguments.output / "judge" / "config.json").exists():
        _call(JUDGE.replace("benchmarks", shlex.quote(str(Path(__file__).parent))), arguments.output)
    _make_row(REAL, 0, arguments)
    for seed in range(arguments.seeds):
        for flags in STUDIES[arguments.study].values():
            _make_row(flags, seed, arguments)
            tables.main()


def _make_row(flags: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train and score a row, unless it has a line, and append its line."""
    if any(_is_same(line, flags, seed, arguments) for line in _studies.read_lines()):
        return
    trainings = [] if flags == REAL else [_train_command(flags, seed, arguments)]
    if "--base-from" in flags:
        trainings.insert(0, _train_command(IMAGE, seed, arguments))
    commands = [*trainings, _run_command(flags, seed, arguments)]
    for command in commands:
        _call(command, arguments.output)
    result = json.loads((arguments.output / "runs" / _name(flags, seed) / "results.json").read_text())
    line = {
        "flags": flags,
        "seed": seed,
        "steps": arguments.steps,
        "clips": arguments.clips,
        "protocol": result["protocol"]["id"],
        "seconds": sum(_seconds(arguments.output, command) for command in trainings),
        **machine(choose_device(arguments.device)),
        "commands": commands,
        "result": result,
    }
    with _studies.LINES.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _is_same(line: dict[str, Any], flags: str, seed: int, arguments: argparse.Namespace) -> bool:
    wanted = {"flags": flags, "seed": seed, "clips": arguments.clips}
    steps = line["steps"] == arguments.steps or flags == REAL
    return steps and all(line[name] == value for name, value in wanted.items())


def _train_command(flags: str, seed: int, arguments: argparse.Namespace) -> str:
    """Command that trains a row; the image model sees as many frames as the video models."""
    dataset, batch = (DATASET.replace("frames=8", "frames=1"), 128) if flags == IMAGE else (DATASET, 16)
    options = f"--batch-size {batch} --lr 2e-3 --sample-every {arguments.steps} --dtype {arguments.dtype}"
    options += f" --device {arguments.device}{' --compile' if arguments.compile else ''}"
    flags, output = flags.replace("SEED", str(seed)), f"train/{_name(flags, seed)}"
    return (
        f"python -m vfbench train {flags} --dataset '{dataset}' --seed {seed} --steps {arguments.steps} {options} "
        f"--output {output}"
    )


def _run_command(flags: str, seed: int, arguments: argparse.Namespace) -> str:
    name, model = _name(flags, seed), re.split(r"\W+", flags)[2]
    checkpoint = "" if flags == REAL else f" --checkpoint train/{name}"
    return (
        f"python -m vfbench run --model {model} --dataset '{DATASET}'{checkpoint} --num-samples {arguments.clips} "
        f"--metrics {METRICS} {EXTRACTOR} --device {arguments.device} --output runs/{name}"
    )


def _name(flags: str, seed: int) -> str:
    """Name of a row's folders."""
    return re.sub(r"[^\w.]+", "-", flags.split(" --base-from")[0].removeprefix("--model ")).strip("-") + f"-seed-{seed}"


def _call(command: str, folder: Path) -> None:
    """Carry out a command in a folder; its words go to stderr."""
    _, *rest = shlex.split(command)
    if subprocess.run([sys.executable, *rest], cwd=folder, stdout=sys.stderr).returncode:  # noqa: S603  # built above
        raise SystemExit(f"stopped: {command}\nthe same study again goes on from here")


def _seconds(folder: Path, command: str) -> float:
    """Seconds of a training, over all its parts if it was stopped."""
    log = folder / shlex.split(command)[-1] / "log.jsonl"
    return float(json.loads(log.read_text().splitlines()[-1])["seconds"])


if __name__ == "__main__":
    main()
