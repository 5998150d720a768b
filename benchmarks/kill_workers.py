"""Kill a worker of one run many times (SIGKILL) at random, and compare the result with that of an undisturbed run.

    python benchmarks/kill_workers.py --kills 100

Two workers are killed at a random moment, two others start, and so on. Exits with 1 where any byte of the chunks or any
digit of the scores differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUN = ["run", "--dataset", "shapes", "--device", "cpu", "--smoke", "--batch-size", "8"]
TIMINGS = ("seconds_per_clip", "peak_memory_bytes")


def start(arguments: list[str], rank: int, count: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(count)}
    command = [sys.executable, "-m", "vfbench", *arguments]
    return subprocess.Popen(  # noqa: S603  # this program
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def finish(arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "vfbench", *arguments], check=True)  # noqa: S603  # this program


def outcome(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Result without its timings and place, and the chunks of a run."""
    result = json.loads((folder / "results.json").read_text())
    result = {key: value for key, value in result.items() if key not in ("run_dir", "signature")}
    result["cost"] = {key: value for key, value in result["cost"].items() if key not in TIMINGS}
    return result, {file.name: file.read_bytes() for file in sorted((folder / "chunks").glob("*.safetensors"))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--model", default="vdm(steps=4)")
    parser.add_argument("--num-samples", default="96")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    common = [*RUN, "--model", options.model, "--num-samples", options.num_samples]
    draw = random.Random(options.seed)  # noqa: S311  # no secret
    with tempfile.TemporaryDirectory() as parent:
        alone, killed = Path(parent, "alone"), Path(parent, "killed")
        began = time.monotonic()
        finish([*common, "--output", str(alone)])
        seconds, kills, finished = time.monotonic() - began, 0, 0
        arguments = [*common, "--output", str(killed)]
        while kills < options.kills:
            workers = [start(arguments, rank, 2) for rank in draw.sample(range(2), 2)]
            time.sleep(draw.uniform(0, seconds))
            for worker in workers:
                kills += worker.poll() is None
                worker.kill()
                worker.wait()
            if (killed / "results.json").exists():  # so that there is something to kill
                if outcome(killed) != outcome(alone):
                    break
                shutil.rmtree(killed)
                finished += 1
            print(f"killed {kills} workers, finished {finished} runs before", flush=True)
        finish(arguments)
        same = outcome(killed) == outcome(alone)
    print("the result is that of the undisturbed run" if same else "the result DIFFERS")
    return int(not same)


if __name__ == "__main__":
    raise SystemExit(main())
