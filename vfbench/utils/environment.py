"""Provenance in every result: options, machine, versions, and a hash of the code."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import os
import platform
import tokenize
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from vfbench.utils.records import Text

VERSIONED_PACKAGES = ("vfbench", "torch", "torchvision", "numpy", "scipy", "safetensors")

PACKAGE = Path(__file__).parent.parent
# Code that does not change the numbers of a run: flags, tables, training, dataset checks, error messages.
UNHASHED_CODE = ("cli", "report", "training", "data", "__init__.py", "__main__.py", "errors.py", "torchmetrics.py")
HASHED_REPORTS = ("report/similarity.py", "report/feature_tests.py")  # compute numbers that are cached


@functools.cache
def code_version(package: Path = PACKAGE) -> str:
    """SHA-256 of torch's version and of the code that can change a number; part of run ids and cache keys.

    Changes of comments and docstrings, and changes below `UNHASHED_CODE` except in `HASHED_REPORTS`, keep chunks and
    features valid; other changes compute them again.
    """
    import torch

    sha256 = hashlib.sha256(torch.__version__.encode())
    for path in sorted((*package.glob("*.py"), *package.glob("*/*.py"))):  # includes the symlinks metrics and baselines
        name = path.relative_to(package)
        if name.parts[0] not in UNHASHED_CODE or name.as_posix() in HASHED_REPORTS:
            sha256.update(f"{name}\n{_without_comments(path.read_text(encoding='utf-8'))}".encode())
    return sha256.hexdigest()


def _without_comments(source: str) -> str:
    """Python source without comments, docstrings and blank lines."""
    lines = source.split("\n")
    try:
        tokens = [
            token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type != tokenize.NL
        ]
    except (tokenize.TokenError, SyntaxError):  # a file that is being written: it cannot be imported either
        return source
    code = [token for token in tokens if token.type != tokenize.COMMENT]
    removed = [token for token in tokens if token.type == tokenize.COMMENT]
    for before, token, after in zip([None, *code], code, code[1:], strict=False):
        starts_statement = before is None or before.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        if token.type == tokenize.STRING and starts_statement and after.type == tokenize.NEWLINE:
            removed.append(token)  # a docstring
    for token in sorted(removed, key=lambda token: token.start, reverse=True):
        (row, column), (end_row, end_column) = token.start, token.end
        lines[row - 1 : end_row] = [lines[row - 1][:column] + lines[end_row - 1][end_column:]]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def options_record(options: Any, origins: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """`value` and `origin` of every field of an options dataclass.

    The origin comes from `origins` (the command line), else it is `default`, or `call` for a value that differs.
    """
    record = {}
    for option in dataclasses.fields(options):
        value = getattr(options, option.name)
        default = "default" if value == option.default else "call"
        record[option.name] = {"value": str(value), "origin": origins.get(option.name) or default}
    record.pop("origins", None)
    return record


class Environment(BaseModel):
    """Machine and package versions of a result."""

    model_config = ConfigDict(frozen=True, extra="allow")

    device: Text = ""
    threads: Text = ""
    python: Text = ""
    system: Text = ""
    vfbench: Text = ""
    torch: Text = ""
    torchvision: Text = ""
    numpy: Text = ""
    scipy: Text = ""
    safetensors: Text = ""


def environment(device_type: str) -> Environment:
    """Environment of this process, which computes on `cpu` or `cuda`."""
    import torch

    return Environment(
        device=torch.cuda.get_device_name() if device_type == "cuda" else cpu_name(),
        threads=str(torch.get_num_threads()),
        python=platform.python_version(),
        system=platform.system(),
        **{name: _version(name) for name in VERSIONED_PACKAGES},
    )


def cpu_name() -> str:
    """CPU model and number of cores, such as `AMD EPYC 7763, 16 cores`."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


@functools.cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
