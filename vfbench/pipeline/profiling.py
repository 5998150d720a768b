"""Traces by the profiler of torch, for `--profile`: operators, kernels and shapes of one batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from vfbench.errors import BadEnvironment
from vfbench.utils import console
from vfbench.utils.files import atomic_path


@contextmanager
def traced(path: Path, device: torch.device) -> Iterator[None]:
    """Context manager: write a trace of the block to `path`, a `.json.gz` that ui.perfetto.dev and Chrome open.

    The block takes longer than without. Prints a warning where the trace cannot be written: the work is not lost.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, record_shapes=True) as profiler:
        yield
    try:
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as temporary:
            named = temporary.with_name(f"{temporary.name}.json.gz")  # the profiler goes by the suffix
            profiler.export_chrome_trace(str(named))
            named.replace(temporary)
    except (BadEnvironment, OSError, RuntimeError) as error:
        console.warn(f"no trace in {path} ({error})")
        return
    console.info(f"profile: {path}, for ui.perfetto.dev")
