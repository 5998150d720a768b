"""CPU seconds and memory that planning a run of many clips takes: python benchmarks/plan_speed.py [--clips 1000000]

Plans a run of 1,000 clips first, which also loads the judge, and prints a JSON line for each plan. `memory_mb` is the
peak of the process, above that of the imports.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from pathlib import Path

from _measure import make_parser

from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan


def main() -> None:
    clips, start = make_parser(__doc__, clips=1_000_000).parse_args().clips, _peak()
    with tempfile.TemporaryDirectory() as parent:
        for count in (1000, clips):
            began = time.process_time()
            output = Path(parent, str(count))
            plan(RunOptions(model="noise", dataset="shapes", device="cpu", num_samples=count, output=output)).describe()
            seconds = round(time.process_time() - began, 1)
            print(json.dumps({"clips": count, "cpu_seconds": seconds, "memory_mb": round(_peak() - start)}), flush=True)


def _peak() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
