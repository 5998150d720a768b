"""Our numbers beside those of published packages, computed live: python benchmarks/parity.py [PACKAGE ...]

pytorch-fid comes with vfbench and torch-fidelity with its extra `dev`; for the third, `pip install cd-fvd`. Both sides
get the same features, pixels and random weights, so nothing is downloaded. Prints a line for each comparison (of arrays
the norms), and ends with 1 if one fails or a package is missing. The comparisons stand in parity_checks.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from parity_checks import PACKAGES, Check

from vfbench.protocol.presets import columns


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "packages", nargs="*", metavar="PACKAGE", help=f"of {', '.join(PACKAGES)}; all if none is given"
    )
    asked = parser.parse_args(arguments).packages or list(PACKAGES)
    if strange := set(asked) - set(PACKAGES):
        parser.error(f"no comparison with {', '.join(sorted(strange))}: known are {', '.join(PACKAGES)}")
    rows: list[tuple[str, ...]] = [("package", "what", "ours", "theirs", "difference", "")]
    passed = True
    for package in asked:
        try:
            checks = list(PACKAGES[package]())
        except ImportError as error:
            print(f"{package} cannot be imported ({error}): pip install {package}", file=sys.stderr)
            passed = False
            continue
        rows += [_row(package, check) for check in checks]
        passed = passed and all(check.passed for check in checks)
    if len(rows) > 1:
        print("\n".join(columns(rows)))
    return 0 if passed else 1


def _row(package: str, check: Check) -> tuple[str, ...]:
    ours, theirs = (f"{_size(side):.10g}" for side in (check.ours, check.theirs))
    return package, check.what, ours, theirs, f"{check.difference:.1e}", "pass" if check.passed else "FAIL"


def _size(values: Any) -> float:
    return float(values) if np.ndim(values) == 0 else float(np.linalg.norm(np.asarray(values, dtype=np.float64)))


if __name__ == "__main__":
    sys.exit(main())
