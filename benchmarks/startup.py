"""Seconds until a command answers, here and in another checkout.

    python benchmarks/startup.py [--other CHECKOUT] [--repeat 3]

Each command runs once to fill the caches, then `--repeat` times; the fastest counts. The commands of both checkouts
alternate, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECORD = str(ROOT / "results" / "records" / "vdm.json")
COMMANDS: Sequence[Sequence[str]] = (
    ["--help"],
    ["run", "--help"],
    ["ls", "protocols"],
    ["ls", "models"],
    ["show", "model", "vdm"],
    ["show", "metric", "fvd"],
    ["show", "protocol", "strict"],
    ["diff-protocols", "strict", "digan"],
    ["data", "status"],
    ["weights", "status"],
    ["table", RECORD],
    ["gate", RECORD, "--baseline", RECORD, "--rule", "fvd:+5%"],
    ["run", "--modle", "vdm"],
    ["run", "--model", "vdmm"],
    ["run", "--num-samples", "1"],
    ["run", "--protocol", "stylegan"],
    ["run", "--checkpoint", "nowhere"],
    ["train", "--model", "noise"],
    ["compare", "nowhere", "nowhere"],
)


def seconds(checkout: Path, command: Sequence[str], cache: str) -> float:
    """Seconds that a command of a checkout takes, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "VFBENCH_CACHE": cache}
    started = time.perf_counter()
    process = subprocess.run(  # noqa: S603  # the commands of this file
        [sys.executable, "-m", "vfbench", *command], cwd=checkout, env=environment, capture_output=True, check=False
    )
    if process.returncode not in (0, 2, 4):
        raise SystemExit(f"{' '.join(command)} failed in {checkout}: {process.stderr.decode()}")
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--other", type=Path, help="another checkout to compare with")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    checkouts = [ROOT, *([given.other.resolve()] if given.other else [])]
    with tempfile.TemporaryDirectory() as folder:
        caches = [str(Path(folder) / str(i)) for i in range(len(checkouts))]
        print("  ".join(f"{name:>6}" for name in ("here", "other")[: len(checkouts)]) + "  command")
        for command in COMMANDS:
            rounds = [
                [seconds(checkout, command, cache) for checkout, cache in zip(checkouts, caches, strict=True)]
                for _ in range(given.repeat + 1)
            ]
            fastest = [min(times) for times in zip(*rounds[1:], strict=True)]
            print("  ".join(f"{value:6.2f}" for value in fastest) + f"  {' '.join(map(os.path.basename, command))}")


if __name__ == "__main__":
    main()
