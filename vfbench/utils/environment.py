"""What every result says of its making: what was asked for, the machine, the versions."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

VERSIONED = ("vfbench", "torch", "torchvision", "numpy", "scipy", "safetensors")

PACKAGE = Path(__file__).parent.parent
# Code that moves no number of a run: flags, tables, training, checks of datasets, words of errors.
APART = ("cli", "report", "training", "data", "__init__.py", "__main__.py", "errors.py", "torchmetrics.py")


@functools.cache
def code_version(package: Path = PACKAGE) -> str:
    """SHA-256 of the sources that move a number, and of torch's version; part of the id of a run and of every cache.

    A change in one of `APART` keeps chunks and features; a change anywhere else makes them again.
    """
    total = hashlib.sha256(torch.__version__.encode())
    for path in sorted((*package.glob("*.py"), *package.glob("*/*.py"))):  # through the links metrics and baselines
        place = path.relative_to(package)
        if place.parts[0] not in APART:
            total.update(f"{place}\n".encode() + path.read_bytes())
    return total.hexdigest()


def options(given: Any, origins: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Every field of a dataclass of options with its value, and where it came from: as the command line says, else
    whether a caller changed it."""
    found = {}
    for option in dataclasses.fields(given):
        value = getattr(given, option.name)
        default = "default" if value == option.default else "call"
        found[option.name] = {"value": str(value), "origin": origins.get(option.name) or default}
    return {name: told for name, told in found.items() if name != "origins"}


def environment(device: torch.device) -> dict[str, str]:
    """Machine and versions, as they stand in every result."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "system": platform.system(),
        **{name: _version(name) for name in VERSIONED},
    }


def processor() -> str:
    """The name of the CPU and how many of its cores there are, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
