"""Where the weights of the published feature networks are kept: one safetensors file a network."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from vfbench.errors import BadEnvironment
from vfbench.utils.files import cache, held


def folder() -> Path:
    """VFBENCH_WEIGHTS, or `weights` in vfbench's cache."""
    return Path(os.environ.get("VFBENCH_WEIGHTS") or cache() / "weights")


def place(name: str) -> Path:
    """The converted file of a network."""
    return folder() / f"{name}.safetensors"


def made(path: Path) -> Path:
    """The folder itself, made if need be; raises `BadEnvironment` where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadEnvironment(
            f"cannot make {path} ({error.strerror}): set VFBENCH_WEIGHTS to a folder that can be written"
        ) from error
    return path


@contextlib.contextmanager
def downloads() -> Iterator[Path]:
    """The folder of unfinished downloads, held by this process alone; raises `BadEnvironment` while another has it."""
    path = made(folder() / "downloads")
    with held(path, by="`weights fetch`", mend="set VFBENCH_WEIGHTS to another folder"):
        yield path
