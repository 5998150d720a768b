"""All that wants a GPU, in steps of under eight minutes each: python benchmarks/gpu.py STEP... --out DIR

    tests      the tests marked cuda
    judge      train the judge of Moving Shapes
    train      train the checkpoints that are shipped (16x32x32)
    study      VideoFusion against VDM at equal compute and steps, 32 and then 64 pixels
    speed      sampling and extraction against the eager float32 baseline and the measured matrix-multiply rate

Each step writes small files to DIR and takes up where it stopped when called again. Without a GPU everything runs
smaller, so that the script itself can be tried anywhere; such results say so.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vfbench import files, plugins
from vfbench.device import choose, precision
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.sampler import DiffusionSampler
from vfbench.interfaces import Dataset, Extractor, Request, derive_seed
from vfbench.train import TrainOptions, prepare, train

ROOT = Path(__file__).parent.parent
GPU = torch.cuda.is_available()
MODELS = ("videofusion", "vdm")
STEPS = {"train": 40_000, "study": 20_000} if GPU else {"train": 4, "study": 2}
BATCH = 64 if GPU else 2
LIMIT = 450.0  # seconds a step may train; the rest is for the next call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", choices=sorted(_STEPS), metavar="STEP", help=", ".join(_STEPS))
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for step in arguments.steps:
        print(f"== {step} on {_machine()['device']}", flush=True)
        _STEPS[step](arguments.out)


def _machine() -> dict[str, Any]:
    device = torch.cuda.get_device_name() if GPU else platform.processor() or platform.machine()
    return {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__, "gpu": GPU}


def _tests(out: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603  # our own tests
    (out / "cuda_tests.txt").write_text(done.stdout + done.stderr)
    print(done.stdout[-2000:])


def _judge(out: Path) -> None:
    script = str(ROOT / "benchmarks" / "train_judge.py")
    count = "4000" if GPU else "2"
    subprocess.run([sys.executable, script, "--steps", count, "--output", str(out / "judge")], cwd=ROOT, check=True)  # noqa: S603


def _train(out: Path) -> None:
    deadline = time.monotonic() + LIMIT
    for name in MODELS:
        _train_until(deadline, out / f"train-{name}", name, "shapes", STEPS["train"])


def _study(out: Path) -> None:
    deadline = time.monotonic() + LIMIT
    for side in (32, 64):
        for name in MODELS:
            dataset = f"shapes(height={side}, width={side})"
            _train_until(deadline, out / f"study-{side}-{name}", name, dataset, STEPS["study"])


def _train_until(deadline: float, folder: Path, model: str, dataset: str, steps: int) -> None:
    """Train, or go on, until the deadline; what is left is for the next call."""
    if time.monotonic() > deadline:
        return
    device = choose("auto")
    network, data = prepare(model, dataset, "tiny")
    dtype = str(precision("auto", device)).removeprefix("torch.")
    options = TrainOptions(
        steps=steps, batch_size=BATCH, device=device.type, dtype=dtype, half=True, save_every=max(steps // 20, 1)
    )
    train(
        network,
        data,
        options,
        folder,
        resume=(folder / "training.pt").exists(),
        stop=lambda: time.monotonic() > deadline,
    )


def _speed(out: Path) -> None:
    device = choose("auto")
    data: Dataset = plugins.load("dataset", "shapes")
    batch = 256 if GPU else 4
    requests = [Request(i, derive_seed(0, i), i % 30, caption) for i, caption in _captions(data, batch)]
    found: dict[str, Any] = {**_machine(), "batch": batch, "matmul_tflops": _matmul(device)}
    for name in MODELS:
        network, _ = prepare(name, "shapes", "tiny")
        for dtype in (torch.float32, torch.bfloat16) if GPU else (torch.float32,):
            seconds = _median(partial(_sampler(network, device, dtype).sample, requests), device)
            found[f"{name}_{str(dtype).removeprefix('torch.')}_clips_per_second"] = batch / seconds
    extractor: Extractor = plugins.load("extractor", "shapes_judge", device)
    clips = data.clips("test", range(batch))
    seconds = _median(partial(extractor, clips, requests, ["features", "logits", "similarity"]), device)
    found["judge_clips_per_second"] = batch / seconds
    files.write_json(out / "speed.json", found)
    print(json.dumps(found, indent=2))


def _captions(data: Dataset, count: int) -> list[tuple[int, str]]:
    return list(enumerate(data.captions("test", range(count))))


def _sampler(network: DiffusionModel, device: torch.device, dtype: torch.dtype) -> DiffusionSampler:
    return DiffusionSampler(network.to(device).eval(), "none", device, dtype)


def _matmul(device: torch.device) -> dict[str, float]:
    """The rate of a large matrix product of random numbers, in TFLOP/s: the ceiling to read the others against."""
    size = 8192 if GPU else 1024
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        rates[str(dtype).removeprefix("torch.")] = 2 * size**3 / _median(partial(torch.matmul, a, b), device) / 1e12
    return rates


def _median(work: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Median seconds of `work` after one warm-up."""
    times: list[float] = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


_STEPS: dict[str, Callable[[Path], None]] = {
    "tests": _tests,
    "judge": _judge,
    "train": _train,
    "study": _study,
    "speed": _speed,
}

if __name__ == "__main__":
    main()
