"""Seconds of `table` over many results, after imports: python benchmarks/table_speed.py [--results 1000]

The results are copies of a record under other names and seeds. Prints one JSON line. Target: under 2 s for 1,000.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from _measure import make_parser, print_report, time_repeats

import vfbench

RECORD = Path(__file__).parent.parent / "results" / "records" / "vdm.json"


def main() -> None:
    arguments = make_parser(__doc__, results=1000, repeats=3).parse_args()
    (record,) = vfbench.load_results(RECORD)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.json" for number in range(arguments.results)]
        for number, path in enumerate(paths):
            changes = {"run_id": f"{number:064x}", "run_dir": f"runs/{number}", "model": f"vdm{number}", "seed": number}
            record.model_copy(update=changes).write(path)
        markdown = time_repeats(lambda: vfbench.table(paths).to_markdown(), arguments.repeats)
        csv = time_repeats(lambda: vfbench.table(paths).to_csv(), arguments.repeats)
    seconds = {"markdown": round(markdown.median, 2), "csv": round(csv.median, 2)}
    print_report({"results": arguments.results, "seconds": seconds})


if __name__ == "__main__":
    main()
