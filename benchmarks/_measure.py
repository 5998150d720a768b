"""Helpers of the benchmark scripts: flags, timing, interleaved repeats, and a report with the machine."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import torch

from vfbench.utils.environment import cpu_name

Result = TypeVar("Result")
CPU = torch.device("cpu")


def make_parser(description: str | None, **defaults: float | str) -> argparse.ArgumentParser:
    """Argument parser with one flag per default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(default), default=default, help=f"default: {default}")
    return parser


@dataclass(frozen=True)
class Runs(Generic[Result]):
    """Seconds and result of each repeat."""

    seconds: list[float]
    results: list[Result]

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return statistics.median(self.seconds)


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds of one call, synchronised with the GPU, and its result."""
    started = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def time_interleaved(variants: Mapping[str, Callable[[], Result]], repeats: int) -> dict[str, Runs[Result]]:
    """Time all variants in turn, `repeats` times over, so that other load on the machine slows all of them."""
    runs: dict[str, Runs[Result]] = {name: Runs([], []) for name in variants}
    for _ in range(repeats):
        for name, variant in variants.items():
            seconds, result = timed(variant)
            runs[name].seconds.append(seconds)
            runs[name].results.append(result)
    return runs


def time_repeats(work: Callable[[], Result], repeats: int) -> Runs[Result]:
    """Time repeated calls after one untimed call, which fills caches."""
    work()
    return time_interleaved({"": work}, repeats)[""]


def matmul_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations per second of a large matrix product, median of five."""
    size = 8192 if device.type == "cuda" else 1024
    a, b, product = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(3))
    return float(2 * size**3 / time_repeats(partial(torch.matmul, a, b, out=product), 5).median)


def machine(device: torch.device = CPU) -> dict[str, object]:
    """Machine, threads, load average and torch version."""
    return {
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
    }


def print_report(measurements: Mapping[str, object], device: torch.device = CPU) -> None:
    """Print one JSON line: the machine, then the measurements."""
    print(json.dumps({**machine(device), **measurements}))
