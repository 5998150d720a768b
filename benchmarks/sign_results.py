"""Sign the results in `results` that have no signature yet: python benchmarks/sign_results.py

For records that an older vfbench wrote; a run signs its own. Refuses a record that was edited since it was signed.
"""

from __future__ import annotations

from pathlib import Path

from vfbench.report import results
from vfbench.utils import files

ROOT = Path(__file__).parent.parent


def main() -> None:
    for path in sorted((ROOT / "results").rglob("*.json")):
        (record,) = results.load([path])
        if record.integrity == "edited":
            raise SystemExit(record.edited_message)
        if record.integrity == "unsigned":
            files.write_json(path, {**files.read_json(path), "signature": record.signed().signature})


if __name__ == "__main__":
    main()
