"""GPU jobs in steps of under four minutes each: python benchmarks/gpu.py STEP... --out DIR

    tests      run the tests marked cuda
    matrix     measure matrix products in float32, TF32 and bfloat16
    sample     measure sampling of each model: eager, compiled and by CUDA graphs, in each precision
    steps      measure training steps of each model
    extract    measure every feature network
    layouts    measure either memory layout of U-Nets
    noise      measure the generators of noise
    judge      train the judge of Moving Shapes
    train      train the shipped checkpoints (16x32x32)
    study      train all models at equal compute, data order and steps: three seeds at 32 pixels, one at 64
    scores     score the models of the study, and the shipped ones with few sampling steps
    efficiency compare VideoFusion with VDM of its base generator's width: FLOPs, seconds, memory
    report     write what was measured to results/performance/gpu.json, and as a table to gpu.md

Each step writes small files to DIR and resumes when called again; it says what is left. `--smoke` runs it at a smaller
size on any machine, to test the script itself: then `report` writes to DIR.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from _gpu_speed import (
    Measurement,
    Scale,
    extractor_cases,
    layout_cases,
    matrix_cases,
    noise_cases,
    run_cases,
    sampling_cases,
    training_cases,
)
from _measure import machine, make_parser

from vfbench.training.train import TrainOptions, prepare_training, train
from vfbench.utils import files
from vfbench.utils.device import choose_device, choose_dtype

ROOT = Path(__file__).parent.parent
PERFORMANCE = ROOT / "results" / "performance"
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
STEPS = {"train": 40_000, "study": 20_000}
SMOKE_STEPS = {"train": 4, "study": 2}
FINISHED = "finished"  # marker file in the folder of a finished training
TIME_LIMIT = 200.0  # seconds per call; the next call continues


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("steps", nargs="+", choices=sorted(_STEPS), metavar="STEP", help=", ".join(_STEPS))
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--smoke", action="store_true", help="run at a smaller size, also without a GPU")
    arguments = parser.parse_args()
    if not (arguments.smoke or torch.cuda.is_available()):
        parser.error("torch sees no CUDA device: add --smoke to try the script")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for step in arguments.steps:
        print(f"== {step} on {machine(choose_device('auto'))['machine']}", flush=True)
        _STEPS[step](arguments.out, arguments.smoke)


def _measured(cases: Callable[[Scale], Mapping[str, Callable[[], Measurement]]], out: Path, smoke: bool) -> None:
    run_cases(out / "speed", cases(Scale.of(smoke)), time.monotonic() + TIME_LIMIT)


def _tests(out: Path, smoke: bool) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603  # our own tests
    (out / "cuda_tests.txt").write_text(done.stdout + done.stderr)
    print(done.stdout[-2000:])


def _judge(out: Path, smoke: bool) -> None:
    script = str(ROOT / "benchmarks" / "train_judge.py")
    count = "2" if smoke else "4000"
    subprocess.run([sys.executable, script, "--steps", count, "--output", str(out / "judge")], cwd=ROOT, check=True)  # noqa: S603


def _train(out: Path, smoke: bool) -> None:
    deadline = time.monotonic() + TIME_LIMIT
    for name in MODELS:
        _train_until(deadline, out / f"train-{name}", (name, "tiny"), 0, 32, _steps("train", smoke), smoke)


def _study(out: Path, smoke: bool) -> None:
    deadline = time.monotonic() + TIME_LIMIT
    for seed, side in SEED_SIDES:
        for name, model_preset in STUDY.items():
            folder = _study_folder(out, name, seed, side)
            _train_until(deadline, folder, model_preset, seed, side, _steps("study", smoke), smoke)


def _steps(training: str, smoke: bool) -> int:
    return (SMOKE_STEPS if smoke else STEPS)[training]


def _study_folder(out: Path, name: str, seed: int, side: int) -> Path:
    return out / f"study-{side}-{seed}-{name}"


def _dataset(side: int) -> str:
    return f"shapes(height={side}, width={side})"


def _train_until(
    deadline: float, folder: Path, model_preset: tuple[str, str], seed: int, side: int, steps: int, smoke: bool
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
        batch_size=2 if smoke else 64,
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


def _scores(out: Path, smoke: bool) -> None:
    """Score the finished models of the study, and the shipped ones with few sampling steps."""
    deadline = time.monotonic() + TIME_LIMIT
    for seed, side in SEED_SIDES:
        for name, (model, _) in STUDY.items():
            folder = _study_folder(out, name, seed, side)
            if (folder / FINISHED).exists():
                options = ("--checkpoint", str(folder))
                _run_until(deadline, out / f"scores-{folder.name}", model, _dataset(side), smoke, *options)
    for model in MODELS:
        for steps in FEW_STEPS:
            _run_until(deadline, out / f"few-{model}-{steps:03d}", model, "shapes", smoke, "--steps", str(steps))


def _run_until(deadline: float, folder: Path, model: str, dataset: str, smoke: bool, *options: str) -> None:
    if time.monotonic() > deadline:
        return
    command = [sys.executable, "-m", "vfbench", "run", "--model", model, "--dataset", dataset, *options]
    smaller = ["--smoke"] if smoke else []
    subprocess.run([*command, "--output", str(folder), *smaller], cwd=ROOT, check=True)  # noqa: S603  # our own


def _efficiency(out: Path, smoke: bool) -> None:
    script = str(ROOT / "benchmarks" / "efficiency.py")
    smaller = ["--side", "16", "--steps", "1", "--repeats", "1"] if smoke else []
    done = subprocess.run([sys.executable, script, *smaller], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603
    (out / "efficiency.jsonl").write_text(done.stdout)
    print(done.stdout)


def _report(out: Path, smoke: bool) -> None:
    """Gather the measurements of all cases in one file, and print them as a table."""
    cases = [json.loads(path.read_text()) for path in sorted((out / "speed").glob("*.json"))]
    rates = {case["case"]: case.get("flops_per_second") for case in cases}
    lines = ["| case | clips/s | TFLOP/s | of the matrix rate |", "|:--|--:|--:|--:|"]
    for case in cases:
        flops, rate = case.get("flops_per_second"), rates.get(f"matrix-{case.get('precision')}")
        share = f"{flops / rate:.1%}" if flops and rate else ""
        clips = f"{case['clips_per_second']:.1f}" if "clips_per_second" in case else case.get("error", "")[:60]
        lines.append(f"| {case['case']} | {clips} | {f'{flops / 1e12:.3g}' if flops else ''} | {share} |")
    folder = out / "performance" if smoke else PERFORMANCE
    folder.mkdir(parents=True, exist_ok=True)
    command = f"python benchmarks/gpu.py {' '.join(_MEASURING)} report --out DIR{' --smoke' if smoke else ''}"
    files.write_json(folder / "gpu.json", {"command": command, **machine(choose_device("auto")), "cases": cases})
    files.write_text(folder / "gpu.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


_MEASURING: dict[str, Callable[[Scale], Mapping[str, Callable[[], Measurement]]]] = {
    "matrix": matrix_cases,
    "sample": sampling_cases,
    "steps": training_cases,
    "extract": extractor_cases,
    "layouts": layout_cases,
    "noise": noise_cases,
}
_STEPS: dict[str, Callable[[Path, bool], None]] = {
    "tests": _tests,
    **{name: partial(_measured, cases) for name, cases in _MEASURING.items()},
    "judge": _judge,
    "train": _train,
    "study": _study,
    "scores": _scores,
    "efficiency": _efficiency,
    "report": _report,
}

if __name__ == "__main__":
    main()
