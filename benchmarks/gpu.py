"""GPU jobs in steps of under eight minutes each: python benchmarks/gpu.py STEP... --out DIR

    tests      run the tests marked cuda
    judge      train the judge of Moving Shapes
    train      train the shipped checkpoints (16x32x32)
    study      train all models at equal compute, data order and steps: three seeds at 32 pixels, one at 64
    scores     score the models of the study, and the shipped ones with few sampling steps
    efficiency compare VideoFusion with VDM of its base generator's width: FLOPs, seconds, memory
    speed      measure sampling and feature extraction, and the matrix-multiply rate

Each step writes small files to DIR and resumes when called again. Without a GPU every step runs at a smaller size, to
test the script itself; the results record that.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _measure import machine, make_parser, matmul_rate, time_repeats

from vfbench import plugins
from vfbench.diffusion.sampler import DiffusionSampler
from vfbench.interfaces import Dataset, Extractor, Request, derive_seed
from vfbench.training.train import TrainOptions, prepare_training, train
from vfbench.utils import files
from vfbench.utils.device import choose_device, choose_dtype
from vfbench.utils.options import DTYPES

ROOT = Path(__file__).parent.parent
GPU = torch.cuda.is_available()
MODELS = ("videofusion", "vdm")
STUDY = {  # name -> model and preset; parameters and FLOPs within 3 % at 32 pixels, FLOPs matched at 64
    "vdm": ("vdm", "tiny"),
    "pyoco-mixed": ("pyoco", "tiny"),
    "pyoco-progressive": ("pyoco", "tiny-progressive"),
    "videofusion": ("videofusion", "tiny-equal"),
    "vdit": ("vdit", "tiny"),
}
SEED_SIDES = ((0, 32), (1, 32), (2, 32), (0, 64))  # seed and pixels
FEW_STEPS = (5, 10, 25, 50, 100)
STEPS = {"train": 40_000, "study": 20_000} if GPU else {"train": 4, "study": 2}
BATCH = 64 if GPU else 2
FINISHED = "finished"  # marker file in the folder of a finished training
TIME_LIMIT = 450.0  # seconds per call; the next call continues


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("steps", nargs="+", choices=sorted(_STEPS), metavar="STEP", help=", ".join(_STEPS))
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for step in arguments.steps:
        print(f"== {step} on {machine(choose_device('auto'))['machine']}", flush=True)
        _STEPS[step](arguments.out)


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
    deadline = time.monotonic() + TIME_LIMIT
    for name in MODELS:
        _train_until(deadline, out / f"train-{name}", (name, "tiny"), 0, 32, STEPS["train"])


def _study(out: Path) -> None:
    deadline = time.monotonic() + TIME_LIMIT
    for seed, side in SEED_SIDES:
        for name, model_preset in STUDY.items():
            _train_until(deadline, _study_folder(out, name, seed, side), model_preset, seed, side, STEPS["study"])


def _study_folder(out: Path, name: str, seed: int, side: int) -> Path:
    return out / f"study-{side}-{seed}-{name}"


def _dataset(side: int) -> str:
    return f"shapes(height={side}, width={side})"


def _train_until(
    deadline: float, folder: Path, model_preset: tuple[str, str], seed: int, side: int, steps: int
) -> None:
    """Start or resume a training, and stop at the deadline."""
    if time.monotonic() > deadline or (folder / FINISHED).exists():
        return
    device = choose_device("auto")
    model, preset = model_preset
    reference = None if side == 32 else "vdm:tiny"
    network, data = prepare_training(model, _dataset(side), preset, seed=seed, match_flops=reference)
    dtype = str(choose_dtype("auto", device)).removeprefix("torch.")
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
    """Score the finished models of the study, and the shipped ones with few sampling steps."""
    deadline = time.monotonic() + TIME_LIMIT
    for seed, side in SEED_SIDES:
        for name, (model, _) in STUDY.items():
            folder = _study_folder(out, name, seed, side)
            if (folder / FINISHED).exists():
                _run_until(deadline, out / f"scores-{folder.name}", model, _dataset(side), "--checkpoint", str(folder))
    for model in MODELS:
        for steps in FEW_STEPS:
            _run_until(deadline, out / f"few-{model}-{steps:03d}", model, "shapes", "--steps", str(steps))


def _run_until(deadline: float, folder: Path, model: str, dataset: str, *options: str) -> None:
    if time.monotonic() > deadline:
        return
    command = [sys.executable, "-m", "vfbench", "run", "--model", model, "--dataset", dataset, *options]
    smoke = [] if GPU else ["--smoke"]
    subprocess.run([*command, "--output", str(folder), *smoke], cwd=ROOT, check=True)  # noqa: S603  # our own


def _efficiency(out: Path) -> None:
    script = str(ROOT / "benchmarks" / "efficiency.py")
    smaller = [] if GPU else ["--side", "16", "--steps", "1", "--repeats", "1"]
    done = subprocess.run([sys.executable, script, *smaller], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603
    (out / "efficiency.jsonl").write_text(done.stdout)
    print(done.stdout)


def _speed(out: Path) -> None:
    device = choose_device("auto")
    data: Dataset = plugins.load("dataset", "shapes")
    batch = 256 if GPU else 4
    captions = data.captions("test", range(batch))
    requests = [Request(i, derive_seed(0, i), i % 30, caption) for i, caption in enumerate(captions)]
    rates = {name: matmul_rate(device, choose_dtype(name, device)) / 1e12 for name in DTYPES}
    measurements: dict[str, Any] = {**machine(device), "gpu": GPU, "batch": batch, "matmul_tflops": rates}
    for name in MODELS:
        network, _ = prepare_training(name, "shapes", "tiny")
        for dtype in ("float32", "bfloat16") if GPU else ("float32",):
            sampler = DiffusionSampler(network.to(device).eval(), "none", device, choose_dtype(dtype, device))
            seconds = time_repeats(partial(sampler.sample, requests), 5).median
            measurements[f"{name}_{dtype}_clips_per_second"] = batch / seconds
    extractor: Extractor = plugins.load("extractor", "shapes_judge", device)
    clips = data.clips("test", range(batch))
    extract = partial(extractor, clips, requests, ["features", "logits", "similarity"])
    measurements["judge_clips_per_second"] = batch / time_repeats(extract, 5).median
    files.write_json(out / "speed.json", measurements)
    print(json.dumps(measurements, indent=2))


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
