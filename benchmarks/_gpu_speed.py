"""Measurements of speed for gpu.py: sampling, training steps, extractors, layouts of U-Nets, noise, matrix products.

A case is measured once and written to a file of its own: a step that ran out of time continues with the next case.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from _measure import machine, matmul_rate, time_repeats

from vfbench import plugins
from vfbench.diffusion import sampler as samplers
from vfbench.diffusion.priors import normal_per_clip
from vfbench.diffusion.sampler import DiffusionSampler, SamplerOptions
from vfbench.interfaces import Dataset, Extractor, Request, derive_seed
from vfbench.nets import unet
from vfbench.pipeline.cost import measure
from vfbench.training.train import TrainOptions, prepare_training, train
from vfbench.utils import files
from vfbench.utils.device import choose_device, exact_float32

MODELS = ("videofusion", "vdm", "pyoco", "vdit")
PRECISIONS = ("float32", "tf32", "bfloat16")
COMPILED: Mapping[str, Mapping[str, Any] | None] = {
    "eager": None,
    "compiled": {"dynamic": False},
    "graphs": {"dynamic": False, "mode": "reduce-overhead"},  # CUDA graphs
}
WARMUP_STEPS = 3  # of a training, not timed
Measurement = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """Sizes of a measurement: preset -> side of a clip in pixels and clips of a batch."""

    presets: Mapping[str, tuple[int, int]]
    steps: int
    repeats: int
    smoke: bool

    @classmethod
    def of(cls, smoke: bool) -> Scale:
        """The scale of a GPU, or of a trial."""
        if smoke:
            return cls({"tiny": (16, 2)}, steps=2, repeats=1, smoke=True)
        return cls({"tiny": (32, 256), "base": (64, 64)}, steps=25, repeats=3, smoke=False)


def run_cases(out: Path, cases: Mapping[str, Callable[[], Measurement]], deadline: float) -> None:
    """Measure the cases that have no file yet, until the deadline; print how many are left.

    A case that fails is a measurement too: its error.
    """
    out.mkdir(parents=True, exist_ok=True)
    left = {name: case for name, case in cases.items() if not (out / f"{name}.json").exists()}
    for number, (name, case) in enumerate(left.items()):
        if time.monotonic() > deadline:
            print(f"{len(left) - number} of {len(cases)} cases are left: give the same command again")
            return
        torch._dynamo.reset()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        try:
            measured = case()
        except (RuntimeError, AssertionError) as error:
            measured = {"error": f"{type(error).__name__}: {error}"[:500]}
        files.write_json(out / f"{name}.json", {**machine(choose_device("auto")), "case": name, **measured})
        print(name, measured, flush=True)


def matrix_cases(scale: Scale) -> dict[str, Callable[[], Measurement]]:
    """Rate of a large matrix product in each precision, the speed that the others are compared with."""

    def rate(name: str) -> Measurement:
        with _tf32() if name == "tf32" else exact_float32(choose_device("auto")):
            return {"flops_per_second": matmul_rate(choose_device("auto"), _dtype(name))}

    return {f"matrix-{name}": partial(rate, name) for name in PRECISIONS}


def sampling_cases(scale: Scale) -> dict[str, Callable[[], Measurement]]:
    """Sampling of each model: eager, compiled and by CUDA graphs, in each precision."""
    return {
        f"sample-{model}-{preset}-{mode}-{precision}": partial(_sample, scale, model, preset, mode, precision)
        for preset in scale.presets
        for precision in PRECISIONS
        for mode in COMPILED
        for model in MODELS
    }


def layout_cases(scale: Scale) -> dict[str, Callable[[], Measurement]]:
    """Sampling with either memory layout of a U-Net."""

    def sample(layout: torch.memory_format, model: str, preset: str, precision: str) -> Measurement:
        with mock.patch.object(unet, "layout", return_value=layout):
            return _sample(scale, model, preset, "eager", precision)

    layouts = {"channels-last": torch.channels_last, "channels-first": torch.contiguous_format}
    return {
        f"layout-{model}-{preset}-{name}-{precision}": partial(sample, layout, model, preset, precision)
        for preset in scale.presets
        for precision in PRECISIONS
        for model in ("videofusion", "vdm")
        for name, layout in layouts.items()
    }


def _sample(scale: Scale, model: str, preset: str, mode: str, precision: str) -> Measurement:
    device, (side, batch) = choose_device("auto"), scale.presets[preset]
    network, data = prepare_training(model, _dataset(side), preset)
    unet.place(network.eval(), device)
    sampling = SamplerOptions(steps=scale.steps)
    sampler = DiffusionSampler(network, "none", device, _dtype(precision), sampling)
    requests = _requests(data, batch)
    flops = measure(sampler, requests[0]).flops_per_clip
    if (options := COMPILED[mode]) is not None:
        for each in network.networks().values():
            each.compile(**({"backend": "eager"} if scale.smoke else options))
    with (
        mock.patch.object(samplers, "precision", side_effect=lambda *_: _tf32())
        if precision == "tf32"
        else nullcontext()
    ):
        seconds = time_repeats(partial(sampler.sample, requests), scale.repeats).median
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    speed = {"clips_per_second": batch / seconds, "flops_per_clip": flops, "flops_per_second": flops * batch / seconds}
    return {"batch": batch, "steps": scale.steps, "precision": precision, **speed, "peak_memory_bytes": memory}


def training_cases(scale: Scale) -> dict[str, Callable[[], Measurement]]:
    """Training steps of each model, eager and compiled, in float32 and bfloat16."""
    return {
        f"train-{model}-{preset}-{mode}-{precision}": partial(_train, scale, model, preset, mode, precision)
        for preset in scale.presets
        for precision in ("float32", "bfloat16")
        for mode in (("eager",) if scale.smoke else ("eager", "compiled"))
        for model in MODELS
    }


def _train(scale: Scale, model: str, preset: str, mode: str, precision: str) -> Measurement:
    side, batch = scale.presets[preset]
    timed_steps = 2 if scale.smoke else 20
    steps = WARMUP_STEPS + timed_steps + 1  # the last one also saves and samples
    network, data = prepare_training(model, _dataset(side), preset)
    options = TrainOptions(
        steps=steps,
        batch_size=batch,
        dtype=precision,
        compile=mode == "compiled",
        sample_every=10**6,
        save_every=10**6,
    )
    times: list[float] = []

    def stop() -> bool:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        return len(times) == steps - 1

    with tempfile.TemporaryDirectory() as folder:
        train(network, data, options, Path(folder), stop=stop)
    seconds = (times[-1] - times[WARMUP_STEPS - 1]) / (len(times) - WARMUP_STEPS)
    return {"batch": batch, "precision": precision, "seconds_per_step": seconds, "clips_per_second": batch / seconds}


def extractor_cases(scale: Scale) -> dict[str, Callable[[], Measurement]]:
    """Every feature network, of random weights where it can have such."""
    names = ("shapes_judge", "frame_change") if scale.smoke else plugins.names("extractor")
    return {f"extract-{name}": partial(_extract, scale, name) for name in names}


def _extract(scale: Scale, name: str) -> Measurement:
    device, batch = choose_device("auto"), 2 if scale.smoke else 64
    random = {"weights": "random"} if "weights" in plugins.options("extractor", name) else {}
    extractor: Extractor = plugins.load("extractor", plugins.Spec(name, random), device)
    data: Dataset = plugins.load("dataset", _dataset(32))
    clips, requests = data.clips("test", range(batch)), _requests(data, batch)
    extract = partial(extractor, clips, requests, list(extractor.outputs))
    return {"batch": batch, "clips_per_second": batch / time_repeats(extract, scale.repeats).median}


def noise_cases(scale: Scale) -> dict[str, Callable[[], Measurement]]:
    """Noise of a batch by either generator, on the device."""
    side, batch = next(iter(scale.presets.values()))

    def draw(generator: Any) -> Measurement:
        def normals() -> torch.Tensor:
            return normal_per_clip(range(batch), choose_device("auto"), generator)((16, 3, side, side))

        return {"batch": batch, "clips_per_second": batch / time_repeats(normals, scale.repeats).median}

    return {f"noise-{generator}": partial(draw, generator) for generator in ("mt19937", "philox")}


def _dtype(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@contextmanager
def _tf32() -> Iterator[None]:
    """Context manager: float32 with TF32 in convolutions and matrix products."""
    convolution, product = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolution, product


def _dataset(side: int) -> str:
    return f"shapes(height={side}, width={side})"


def _requests(data: Dataset, count: int) -> list[Request]:
    captions = data.captions("test", range(count))
    return [Request(i, derive_seed(0, i), i % 30, caption) for i, caption in enumerate(captions)]
