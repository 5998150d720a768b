"""A run before it starts: everything is loaded and checked, and what is missing is named, before the first hour is
spent."""

from __future__ import annotations

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
from vfbench.errors import UserError, unknown
from vfbench.evaluate import require_enough
from vfbench.generate import Wanted, requests
from vfbench.interfaces import Dataset, Extractor, Metric, Request, Sampler, Setting
from vfbench.plugins import Spec
from vfbench.progress import clock
from vfbench.protocol import SMOKE_CLIPS, Protocol, preset

CLIPS = {"cpu": 256, "cuda": 2048}  # generated clips unless told otherwise
CHUNK = {"cpu": 32, "cuda": 256}
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
    data_root: Path | None = None
    checkpoint: Path | None = None
    output: Path | None = None
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
    specification: Mapping[str, Any]
    cost: Cost

    @property
    def disk(self) -> int:
        """Bytes the run will write, about."""
        values = sum(e.outputs[o] for name, e in self.wanted.extractors.items() for o in self.wanted.outputs[name])
        shape = self.sampler.shape
        pixels = 3 * shape.frames * shape.height * shape.width
        return len(self.requests) * (4 * values + pixels * self.wanted.clips) + 20_000_000  # samples, tables, slack

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
    """Load and check everything a run needs; raises a `UserError` for whatever would stop it later."""
    device = devices.choose(options.device)
    dtype = devices.precision(options.dtype, device)
    dataset_spec = plugins.parse(options.dataset).merged(
        {"root": str(options.data_root) if options.data_root else None}
    )
    fields = preset(options.protocol, dataset_spec.name, smoke=options.smoke)
    dataset: Dataset = plugins.load("dataset", dataset_spec)
    names = _metrics(options.metrics, fields["measures"])
    metrics: dict[str, Metric] = {name: plugins.load("metric", fields["measures"][name]["metric"]) for name in names}
    count = _count(options, device)
    if not options.smoke:
        require_enough(metrics, count)
    sources = [fields["measures"][name]["source"].split(".") for name in names]
    outputs = {extractor: sorted({o for e, o in sources if e == extractor}) for extractor in {e for e, _ in sources}}
    extractors: dict[str, Extractor] = {name: plugins.load("extractor", name, device) for name in sorted(outputs)}
    protocol = _protocol(fields, dataset, extractors, count, smoke=options.smoke)
    asked = requests(dataset, protocol.prompts, count, options.seed)
    given = {"steps": options.steps, "solver": options.solver, "guidance": options.guidance}
    model = plugins.parse(options.model).merged(given)
    sampler: Sampler = plugins.load("model", model, Setting(dataset, device, dtype, options.checkpoint))
    specification = _specification(options, model, sampler, protocol, device, dtype)
    name = f"{model.name}-{dataset.name}-{specification['id'][:8]}"
    return Plan(
        options=options,
        model=model,
        dataset=dataset,
        protocol=protocol,
        metrics=metrics,
        sampler=sampler,
        wanted=Wanted(extractors, outputs, options.keep_clips),
        requests=asked,
        device=device,
        dtype=dtype,
        batch_size=_batch_size(options.batch_size, device),
        folder=options.output or Path("runs") / name,
        specification=specification,
        cost=measure(sampler, asked[0]),
    )


def _metrics(asked: Sequence[str], measures: Mapping[str, Any]) -> list[str]:
    for name in asked:
        if name not in plugins.names("metric"):
            raise unknown("metric", name, plugins.names("metric"))
        if name not in measures:
            raise UserError(f"--metrics {name}: this protocol measures {', '.join(measures)}")
    return list(dict.fromkeys(asked)) or list(measures)


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
    shape = dataset.shape
    split = fields.get("split", "train")
    n_real = min(SMOKE_CLIPS["n_real"] if smoke else fields["n_real"], dataset.size(split))
    if n_real < fields["n_real"] and not smoke:
        raise UserError(f"{dataset.name} has {n_real} {split} clips, the protocol asks for {fields['n_real']}")
    return Protocol(
        **{
            **fields,
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
    options: RunOptions, model: Spec, sampler: Sampler, protocol: Protocol, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    determines = {
        "model": str(model),
        "weights": sampler.weights,
        "protocol": protocol.record(),
        "seed": options.seed,
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
    }
    return {
        "id": store.digest(determines),
        "determines": determines,
        "chunk_size": CHUNK[device.type],
        "options": {
            name: {"value": str(getattr(options, name)), "origin": origin} for name, origin in options.origins.items()
        },
        "environment": environment(device),
    }


def environment(device: torch.device) -> dict[str, str]:
    """Machine and versions, as they stand in every result."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": where,
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "system": platform.system(),
        **{name: _version(name) for name in VERSIONED},
    }


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
