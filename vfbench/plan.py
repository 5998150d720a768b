"""A run before it starts: everything is loaded and checked, and what is missing is named, before the first hour is
spent."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from vfbench import device as devices
from vfbench import plugins, store
from vfbench.cost import Cost, measure
from vfbench.errors import MissingData, UserError
from vfbench.evaluate import available, require_enough
from vfbench.generate import Wanted, requests
from vfbench.interfaces import ClipShape, Dataset, Extractor, Metric, Request, Sampler, Setting
from vfbench.plugins import Spec
from vfbench.progress import clock
from vfbench.protocol import JUDGED, SMOKE_CLIPS, Protocol, choose

CLIPS = {"cpu": 256, "cuda": 2048}  # generated clips unless told otherwise
CHUNK = {"cpu": 32, "cuda": 256}
RUNS = Path("runs")  # where a run goes that is not told where
SLACK = 20_000_000  # bytes for samples, tables and what a file system takes for itself
LEAST_REAL = 4  # two halves of two clips: fewer have no floor
VERSIONED = ("vfbench", "torch", "torchvision", "numpy", "scipy", "safetensors")


@dataclass(frozen=True)
class RunOptions:
    """What a user may say of a run; None means the default of the model, dataset or device."""

    model: str = "videofusion"
    dataset: str = "shapes"
    protocol: str | None = None
    metrics: Sequence[str] = ()
    num_samples: int | None = None
    seed: int = 0
    steps: int | None = None
    solver: str | None = None
    guidance: float | None = None
    batch_size: int | Literal["auto"] = "auto"
    device: str = "auto"
    dtype: str = "auto"
    data_root: Path | str | None = None
    checkpoint: Path | str | None = None
    output: Path | str | None = None
    keep_clips: bool = False
    smoke: bool = False
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A run, ready to start."""

    options: RunOptions
    model: Spec
    dataset: Dataset
    protocol: Protocol
    metrics: Mapping[str, Metric]
    sampler: Sampler
    wanted: Wanted
    requests: Sequence[Request]
    device: torch.device
    dtype: torch.dtype
    batch_size: int
    folder: Path
    disk: int
    specification: Mapping[str, Any]
    cost: Cost

    def describe(self) -> str:
        """The plan as lines to read."""
        count, size = len(self.requests), int(self.specification["chunk_size"])
        note = getattr(self.dataset, "note", "")
        lines = {
            "run": str(self.folder),
            "model": f"{self.model}, {self.cost.parameters:,} parameters, weights {self.sampler.weights[:12]}",
            "dataset": f"{self.dataset.name} at {self.dataset.shape}{f' ({note})' if note else ''}",
            "protocol": f"{self.protocol.id} ({self.protocol.name})"
            + ("" if self.protocol.comparable else ", not comparable"),
            "metrics": ", ".join(self.metrics),
            "clips": f"{count} in {-(-count // size)} chunks, against {self.protocol.n_real} real ones",
            "cost": f"{self.cost.flops_per_clip / 1e9:,.1f} GFLOP and {self.cost.evaluations} evaluations a clip",
            "time": f"at most {clock(self.cost.seconds * count)} on {self.device}, batches of {self.batch_size}",
            "disk": f"about {self.disk / 1e6:,.0f} MB",
        }
        return "\n".join(f"{name:<9} {line}" for name, line in lines.items())


def plan(options: RunOptions) -> Plan:
    """Load and check everything a run needs, the cheap first; raises a `UserError` for whatever would stop it later."""
    device = devices.choose(options.device)
    dtype = devices.precision(options.dtype, device)
    batch_size = _batch_size(options.batch_size, device)
    given = {"steps": options.steps, "solver": options.solver, "guidance": options.guidance}
    model = plugins.parse(options.model).merged(given)
    root = str(options.data_root) if options.data_root else None
    dataset_spec = plugins.parse(options.dataset).merged({"root": root})
    for kind, spec in {"model": model, "dataset": dataset_spec}.items():
        plugins.module(kind, spec.name)  # type: ignore[arg-type]  # two of its kinds
    fields = choose(options.protocol, dataset_spec.name, protocols(dataset_spec.name), smoke=options.smoke)
    metrics, fields["measures"] = _metrics(options.metrics, fields["measures"])
    count = _count(options, device)
    if not options.smoke:
        require_enough(metrics, count)
    store.require_writable(Path(options.output or RUNS))
    dataset: Dataset = plugins.load("dataset", dataset_spec)
    sources = [fields["measures"][name]["source"].split(".") for name in metrics]
    outputs = {extractor: sorted({o for e, o in sources if e == extractor}) for extractor in {e for e, _ in sources}}
    extractors: dict[str, Extractor] = {name: plugins.load("extractor", name, device) for name in sorted(outputs)}
    wanted = Wanted(extractors, outputs, options.keep_clips)
    protocol = _protocol(fields, dataset, extractors, count, smoke=options.smoke)
    asked = requests(dataset, protocol.prompts, count, options.seed)
    checkpoint = Path(options.checkpoint) if options.checkpoint else None
    sampler: Sampler = plugins.load("model", model, Setting(dataset, device, dtype, checkpoint))
    specification = _specification(options, model, sampler, protocol, device, dtype, batch_size)
    folder = Path(options.output or RUNS / f"{model.name}-{dataset.name}-{specification['id'][:8]}")
    disk = _disk(wanted, sampler.shape, count)
    store.require_space(folder, disk)
    return Plan(
        options=options,
        model=model,
        dataset=dataset,
        protocol=protocol,
        metrics=metrics,
        sampler=sampler,
        wanted=wanted,
        requests=asked,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        folder=folder,
        disk=disk,
        specification=specification,
        cost=measure(sampler, asked[0]),
    )


def _disk(wanted: Wanted, shape: ClipShape, count: int) -> int:
    """Bytes that `count` clips will take, about."""
    values = sum(wanted.extractors[name].outputs[o] for name, outputs in wanted.outputs.items() for o in outputs)
    pixels = 3 * shape.frames * shape.height * shape.width
    return count * (4 * values + pixels * wanted.clips) + SLACK


def protocols(dataset: str) -> Mapping[str, Mapping[str, Any]]:
    """The protocols that a dataset's file names, the first being its default."""
    offered: Mapping[str, Mapping[str, Any]] = getattr(plugins.module("dataset", dataset), "PROTOCOLS", {})
    return offered


def _metrics(
    asked: Sequence[str], measures: Mapping[str, Any]
) -> tuple[dict[str, Metric], dict[str, Mapping[str, str]]]:
    """The metrics to compute, and the protocol's measures with those that it does not name added.

    Such a metric reads the same network; it makes the protocol another one, with another id.
    """
    measures = dict(measures)
    names = list(dict.fromkeys(map(plugins.public, asked))) or list(measures)
    network = next(iter(measures.values()))["source"].split(".")[0]
    metrics: dict[str, Metric] = {}
    for name in names:
        if name in JUDGED and name not in measures:
            raise UserError(f"--metrics {name}: this protocol measures {', '.join(measures)}")
        metrics[name] = plugins.load("metric", measures[name]["metric"] if name in measures else name)
        measures.setdefault(name, {"metric": name, "source": f"{network}.{metrics[name].output}"})
    return metrics, measures


def _count(options: RunOptions, device: torch.device) -> int:
    count = options.num_samples
    if count is None:
        count = SMOKE_CLIPS["n_fake"] if options.smoke else CLIPS[device.type]
    if count < 2:
        raise UserError(f"--num-samples {count}: a score needs at least 2 clips")
    return count


def _protocol(
    fields: Mapping[str, Any], dataset: Dataset, extractors: Mapping[str, Extractor], count: int, *, smoke: bool
) -> Protocol:
    shape, split = dataset.shape, fields.get("split", "train")
    there = available(dataset, split)
    n_real = min(SMOKE_CLIPS["n_real"], there) if smoke else fields["n_real"]
    if there < (least := max(n_real, LEAST_REAL)):
        raise MissingData(f"{dataset.name} has {there} real clips here ({split}), and {least} are needed")
    return Protocol(
        **{
            **fields,
            "dataset": dataset.name,
            "data_fingerprint": dataset.fingerprint,
            "frames": shape.frames,
            "height": shape.height,
            "width": shape.width,
            "stride": getattr(dataset, "stride", 1),
            "n_real": n_real,
            "n_fake": count,
            "comparable": fields.get("comparable", True) and not smoke,
            "extractors": {name: extractor.fingerprint for name, extractor in extractors.items()},
        }
    )


def _specification(
    options: RunOptions,
    model: Spec,
    sampler: Sampler,
    protocol: Protocol,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
) -> dict[str, Any]:
    whole = Spec(model.name, {**plugins.options("model", model.name), **model.options})  # what was not given, too
    determines = {
        "model": str(whole),
        "weights": sampler.weights,
        "protocol": protocol.record(),
        "seed": options.seed,
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "code": store.code_version(),
    }
    return {
        "id": store.digest(determines),
        "determines": determines,
        "chunk_size": max(CHUNK[device.type], batch_size),
        "options": {
            f.name: {"value": str(getattr(options, f.name)), "origin": _origin(options, f)}
            for f in dataclasses.fields(options)
            if f.name != "origins"
        },
        "environment": environment(device),
    }


def _origin(options: RunOptions, option: dataclasses.Field[Any]) -> str:
    """Where a value came from, for the record: as the command line says, else whether a caller changed it."""
    default = getattr(options, option.name) == option.default
    return options.origins.get(option.name) or ("default" if default else "call")


def environment(device: torch.device) -> dict[str, str]:
    """Machine and versions, as they stand in every result."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "system": platform.system(),
        **{name: _version(name) for name in VERSIONED},
    }


def _processor() -> str:
    """The name of the CPU and how many of its cores there are, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def _batch_size(asked: int | Literal["auto"], device: torch.device) -> int:
    if asked == "auto":
        return CHUNK[device.type]
    if asked < 1:
        raise UserError(f"--batch-size {asked}: at least 1, or auto")
    return asked
