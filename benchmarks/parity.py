"""Compare vfbench with published packages, computed live: python benchmarks/parity.py [PACKAGE ...]

pytorch-fid comes with vfbench, torch-fidelity with its extra `dev`; for the others, `pip install cd-fvd prdc`. Both
sides get the same features, pixels and random weights, so nothing is downloaded. Prints one line per comparison, with
norms for arrays, and exits with 1 if one fails or a package is missing. The comparisons are in parity_checks.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from parity_checks import PACKAGES, Check

from vfbench.protocol.presets import align_columns


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "packages", nargs="*", metavar="PACKAGE", help=f"of {', '.join(PACKAGES)}; all if none is given"
    )
    packages = parser.parse_args(arguments).packages or list(PACKAGES)
    if unknown := set(packages) - set(PACKAGES):
        parser.error(f"no comparison with {', '.join(sorted(unknown))}: known are {', '.join(PACKAGES)}")
    rows: list[tuple[str, ...]] = [("package", "what", "ours", "theirs", "difference", "")]
    passed = True
    for package in packages:
        try:
            checks = list(PACKAGES[package]())
        except ImportError as error:
            print(f"{package} cannot be imported ({error}): pip install {package}", file=sys.stderr)
            passed = False
            continue
        rows += [_row(package, check) for check in checks]
        passed = passed and all(check.passed for check in checks)
    if len(rows) > 1:
        print("\n".join(align_columns(rows)))
    return 0 if passed else 1


def _row(package: str, check: Check) -> tuple[str, ...]:
    ours, theirs = (f"{_norm(value):.10g}" for value in (check.ours, check.theirs))
    return package, check.what, ours, theirs, f"{check.difference:.1e}", "pass" if check.passed else "FAIL"


def _norm(values: Any) -> float:
    return float(values) if np.ndim(values) == 0 else float(np.linalg.norm(np.asarray(values, dtype=np.float64)))


if __name__ == "__main__":
    sys.exit(main())
