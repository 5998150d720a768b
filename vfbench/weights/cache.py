"""Weights folder of the published feature networks: one safetensors file per network."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from vfbench.errors import BadEnvironment
from vfbench.utils.files import cache_folder, locked_folder


def folder() -> Path:
    """Path in VFBENCH_WEIGHTS, or `weights` in vfbench's cache folder."""
    return Path(os.environ.get("VFBENCH_WEIGHTS") or cache_folder() / "weights")


def weights_path(name: str) -> Path:
    """Path of the converted file of network `name`; the file need not exist."""
    return folder() / f"{name}.safetensors"


def make_folder(path: Path) -> Path:
    """Create folder `path` unless it exists, and return it; raises `BadEnvironment` if it cannot be created."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadEnvironment(
            f"cannot create {path} ({error.strerror}): set VFBENCH_WEIGHTS to a writable folder"
        ) from error
    return path


@contextlib.contextmanager
def locked_downloads() -> Iterator[Path]:
    """Lock the folder of unfinished downloads and yield it; raises `BadEnvironment` if another process holds it."""
    path = make_folder(folder() / "downloads")
    with locked_folder(path, holder="`weights fetch`", advice="set VFBENCH_WEIGHTS to another folder"):
        yield path
