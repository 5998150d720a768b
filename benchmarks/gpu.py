"""All that wants a GPU, in steps of under eight minutes each: python benchmarks/gpu.py STEP... --out DIR

    tests      the tests marked cuda
    judge      train the judge of Moving Shapes
    train      train the checkpoints that are shipped (16x32x32)
    study      all models at equal compute, data order and steps, three seeds at 32 pixels, then one at 64
    scores     what the study trained is scored; few sampling steps of what is shipped, too
    efficiency VideoFusion against VDM of its base generator's width: FLOPs, seconds, memory
    speed      sampling and extraction against the eager float32 baseline and the measured matrix-multiply rate

Each step writes small files to DIR and takes up where it stopped when called again. Without a GPU everything runs
smaller, so that the script itself can be tried anywhere; such results say so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vfbench import plugins
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.sampler import DiffusionSampler
from vfbench.interfaces import Dataset, Extractor, Request, derive_seed
from vfbench.training.train import TrainOptions, prepare, train
from vfbench.utils import files
from vfbench.utils.device import choose, precision
from vfbench.utils.environment import processor

ROOT = Path(__file__).parent.parent
GPU = torch.cuda.is_available()
MODELS = ("videofusion", "vdm")
STUDY = {  # name -> model and preset; at 32 pixels parameters and FLOPs are within 3 %, at 64 FLOPs are made to be
    "vdm": ("vdm", "tiny"),
    "pyoco-mixed": ("pyoco", "tiny"),
    "pyoco-progressive": ("pyoco", "tiny-progressive"),
    "videofusion": ("videofusion", "tiny-equal"),
    "vdit": ("vdit", "tiny"),
}
ROUNDS = ((0, 32), (1, 32), (2, 32), (0, 64))  # seed and pixels
FEW_STEPS = (5, 10, 25, 50, 100)
STEPS = {"train": 40_000, "study": 20_000} if GPU else {"train": 4, "study": 2}
BATCH = 64 if GPU else 2
FINISHED = "finished"  # a file in the folder of a training that came to its end
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
    device = torch.cuda.get_device_name() if GPU else processor()
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
        _train_until(deadline, out / f"train-{name}", (name, "tiny"), 0, 32, STEPS["train"])


def _study(out: Path) -> None:
    deadline = time.monotonic() + LIMIT
    for seed, side in ROUNDS:
        for name, made_of in STUDY.items():
            _train_until(deadline, _studied(out, name, seed, side), made_of, seed, side, STEPS["study"])


def _studied(out: Path, name: str, seed: int, side: int) -> Path:
    return out / f"study-{side}-{seed}-{name}"


def _data(side: int) -> str:
    return f"shapes(height={side}, width={side})"


def _train_until(deadline: float, folder: Path, made_of: tuple[str, str], seed: int, side: int, steps: int) -> None:
    """Train, or go on, until the deadline; what is left is for the next call."""
    if time.monotonic() > deadline or (folder / FINISHED).exists():
        return
    device = choose("auto")
    model, preset = made_of
    matched = None if side == 32 else "vdm:tiny"
    network, data = prepare(model, _data(side), preset, seed=seed, match_flops=matched)
    dtype = str(precision("auto", device)).removeprefix("torch.")
    options = TrainOptions(
        steps=steps,
        batch_size=BATCH,
        seed=seed,
        device=device.type,
        dtype=dtype,
        half=True,
        save_every=max(steps // 20, 1),
    )
    train(
        network,
        data,
        options,
        folder,
        resume=(folder / "training.pt").exists(),
        stop=lambda: time.monotonic() > deadline,
    )
    if time.monotonic() < deadline:
        (folder / FINISHED).touch()


def _scores(out: Path) -> None:
    """What the study finished, and the shipped models with few steps; a run that is done answers at once."""
    deadline = time.monotonic() + LIMIT
    for seed, side in ROUNDS:
        for name, (model, _) in STUDY.items():
            folder = _studied(out, name, seed, side)
            if (folder / FINISHED).exists():
                _run_until(deadline, out / f"scores-{folder.name}", model, _data(side), "--checkpoint", str(folder))
    for model in MODELS:
        for steps in FEW_STEPS:
            _run_until(deadline, out / f"few-{model}-{steps:03d}", model, "shapes", "--steps", str(steps))


def _run_until(deadline: float, folder: Path, model: str, dataset: str, *flags: str) -> None:
    if time.monotonic() > deadline:
        return
    command = [sys.executable, "-m", "vfbench", "run", "--model", model, "--dataset", dataset, *flags]
    smaller = [] if GPU else ["--smoke"]
    subprocess.run([*command, "--output", str(folder), *smaller], cwd=ROOT, check=True)  # noqa: S603  # our own


def _efficiency(out: Path) -> None:
    script = str(ROOT / "benchmarks" / "efficiency.py")
    smaller = [] if GPU else ["--side", "16", "--steps", "1", "--repeats", "1"]
    done = subprocess.run([sys.executable, script, *smaller], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603
    (out / "efficiency.jsonl").write_text(done.stdout)
    print(done.stdout)


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
    "scores": _scores,
    "efficiency": _efficiency,
    "speed": _speed,
}

if __name__ == "__main__":
    main()
