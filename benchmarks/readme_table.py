"""Put the measured runs of `results/records` into the README: python benchmarks/readme_table.py

The README's numbers come from here and from nowhere else; a test compares the two.
"""

from __future__ import annotations

import re
from pathlib import Path

from vfbench import render, table

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "results" / "records"
BLOCK = re.compile(r"(?<=<!-- results:begin -->\n).*?(?=<!-- results:end -->)", re.DOTALL)


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    if not BLOCK.search(text):
        raise SystemExit(f"{readme} has no lines <!-- results:begin --> and <!-- results:end -->")
    readme.write_text(BLOCK.sub(lambda _: made(), text))


def made() -> str:
    """The table of all records, as it stands between the two marks."""
    records = sorted(RECORDS.glob("*.json"))
    if not records:
        raise SystemExit(f"no records in {RECORDS}: copy the results.json of each run there, named after its model")
    return render.to_markdown(table.build(table.load(records)))


if __name__ == "__main__":
    main()
