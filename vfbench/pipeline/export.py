"""Clips of a model as files, to look at or to score elsewhere: what `vfbench generate` does.

    clips/           one file or folder of frames a clip, by the number of its request
    prompts.tsv      what each was asked for: its path below clips/, a tab, the prompt (classes.tsv: the class), as
                     `vfbench score --prompts` and the model `folder` read it
    seeds.tsv        the seed of each, where the clips answer the requests of a run: the model `folder` finds them by it
    generate.json    all of it: model, weights, dataset, and every request
    sheet.png        the first clips to look at, clips.webp the same moving

The folder appears when it is whole. Nothing that is there is written over.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from vfbench import plugins, video
from vfbench.clips.inventory import require_apart
from vfbench.diffusion import hub
from vfbench.diffusion.long_video import NOT_SHARED
from vfbench.diffusion.model import ways_of
from vfbench.diffusion.sampler import not_learnt
from vfbench.errors import Interrupted, UserError, unknown
from vfbench.interfaces import BuildContext, Conditioning, Dataset, Request, Sampler, derive_seed
from vfbench.pipeline import generate, sample
from vfbench.pipeline import requests as requests_
from vfbench.plugins import Spec
from vfbench.utils import device as devices
from vfbench.utils import environment, files, memory
from vfbench.utils.checkpoint import shipped
from vfbench.utils.files import require_writable
from vfbench.utils.progress import Progress
from vfbench.video.encode import FORMATS, Format

# A check that a checkpoint comes with vfbench: dataset, model, dataset as asked for, its folder; raises `MissingData`.
RequireTrainedOn: TypeAlias = Callable[[Dataset, Spec, Spec, str | None], None]


@dataclass(frozen=True)
class ExportOptions:
    """What a user may say. `prompt` or `label` (the name of a class) is what every clip shows; with neither, each
    shows what a real clip of the dataset's test split does. `fix='base'` gives all the base noise of the first.

    `sampling` are options of the model, such as `steps`; None means its default.
    """

    output: Path
    model: str = "videofusion"
    dataset: str = "shapes"
    prompt: str | None = None
    label: str | None = None
    num_samples: int = 8
    seed: int = 0
    fix: Literal["base"] | None = None
    format: str = "mp4"
    sampling: Mapping[str, Any] | None = None
    batch_size: int | Literal["auto"] = "auto"
    device: str = "auto"
    dtype: str = "auto"
    data_root: Path | str | None = None
    checkpoint: Path | str | None = None


@dataclass(frozen=True)
class ExportPlan:
    """All that is needed, loaded and checked."""

    options: ExportOptions
    model: Spec
    dataset: Dataset
    sampler: Sampler
    requests: Sequence[Request]
    device: torch.device
    dtype: torch.dtype
    batch_size: int

    @property
    def format(self) -> Format:
        """What writes the clips."""
        return FORMATS[self.options.format]

    @property
    def names(self) -> list[str]:
        """Each clip as a reader of the folder names it."""
        return [self.format.name.format(request.index) for request in self.requests]

    @property
    def of_a_run(self) -> bool:
        """Whether the requests are those that a run with this seed begins with."""
        return (self.options.prompt, self.options.label, self.options.fix) == (None, None, None)

    def tables(self) -> dict[str, list[str]]:
        """What is told of the clips, by the name of the file that tells it."""
        file = {"text": "prompts.tsv", "class": "classes.tsv"}.get(self.sampler.conditioning)
        found = {file: [self.asked(request) for request in self.requests]} if file else {}
        return {**found, "seeds.tsv": [str(request.seed) for request in self.requests]} if self.of_a_run else found

    def asked(self, request: Request) -> str:
        """What the clip of a request was asked to show."""
        return self.dataset.classes[request.label] if self.sampler.conditioning == "class" else request.prompt


def prepare(options: ExportOptions, require_trained: RequireTrainedOn | None = None) -> ExportPlan:
    """Load and check everything, the cheap first; raises a `UserError` for whatever would stop the work later."""
    with memory.needed(options.model):
        return _prepare(options, require_trained)


def _prepare(options: ExportOptions, require_trained: RequireTrainedOn | None) -> ExportPlan:
    _check(options)
    device = devices.choose(options.device)
    dtype = devices.precision(options.dtype, device)
    devices.batch_size(options.batch_size, device)  # refused before anything is loaded
    root = str(options.data_root) if options.data_root else None
    dataset: Dataset = plugins.load("dataset", plugins.parse(options.dataset).merged({"root": root}))
    require_apart(options.output, dataset)
    asked, model = requests(options, dataset), _spec(options)
    if options.checkpoint is None and require_trained is not None:
        require_trained(dataset, model, plugins.parse(options.dataset), root)
    checkpoint = hub.checkpoint(options.checkpoint) if options.checkpoint is not None else None
    _require_learnt(options, model, dataset, checkpoint)
    sampler: Sampler = plugins.load("model", model, BuildContext(dataset, device, dtype, checkpoint, requests=asked))
    sample.require_sampler(model.name, sampler)
    _require_able(options, model, sampler)
    batch_size = devices.batch_size(options.batch_size, device, sampler.shape.frames)
    return ExportPlan(options, model, dataset, sampler, asked, device, dtype, batch_size)


def _check(options: ExportOptions) -> None:
    """What can be told before anything is loaded."""
    if options.format not in FORMATS:
        raise unknown("format", options.format, FORMATS)
    if options.num_samples < 1:
        raise UserError(f"--num-samples {options.num_samples}: at least 1")
    if options.prompt is not None and options.label is not None:
        raise UserError("--prompt and --label: a clip is asked for by one of them; leave the other out")
    require_writable(options.output.parent)
    if options.output.exists() and not (options.output.is_dir() and not any(options.output.iterdir())):
        raise UserError(f"{options.output} is there already: choose another --output, or remove it")


def requests(options: ExportOptions, dataset: Dataset) -> list[Request]:
    """What each clip shall show; raises `UserError` with the nearest name for an unknown class."""
    if options.prompt is None and options.label is None:
        asked = requests_.make_requests(dataset, "test", options.num_samples, options.seed)
    else:
        label = _class(dataset, options.label) if options.label is not None else 0
        seeds = [derive_seed(options.seed, index) for index in range(options.num_samples)]
        asked = [Request(index, seed, label, options.prompt or "") for index, seed in enumerate(seeds)]
    if options.fix is None:
        return asked
    first = asked[0]  # what is fixed is the content: what is asked for, too
    return [replace(r, base=first.seed, label=first.label, prompt=first.prompt, source=first.source) for r in asked]


def _class(dataset: Dataset, name: str) -> int:
    if name not in dataset.classes:
        raise unknown(f"class of {dataset.name}", name, dataset.classes)
    return dataset.classes.index(name)


def _spec(options: ExportOptions) -> Spec:
    """The model with all its options: one that can be asked in several ways is asked as the user did."""
    spec = plugins.parse(options.model).merged(options.sampling or {})
    return spec.merged({"condition": _way(options)}) if _asked_freely(spec) else spec


def _way(options: ExportOptions) -> Conditioning | None:
    """How the user says what a clip shows."""
    return "text" if options.prompt is not None else "class" if options.label is not None else None


def _asked_freely(spec: Spec) -> bool:
    """Whether a model can be asked in several ways, and its options leave open in which."""
    return "condition" in plugins.options("model", spec.name) and "condition" not in spec.options


def _require_learnt(options: ExportOptions, model: Spec, dataset: Dataset, checkpoint: Path | None) -> None:
    """Raise `UserError` for a prompt or class of which the training clips have taught the model nothing.

    Where its option `condition` says how it is asked, `_require_able` and the model itself answer by that.
    """
    way, folder = _way(options), checkpoint or shipped(dataset.name, model.name)
    freely = _asked_freely(plugins.parse(options.model).merged(options.sampling or {}))
    if folder is not None and freely and way is not None and way not in (learnt := ways_of(folder, model.name)):
        asked = f"--prompt '{options.prompt}'" if way == "text" else f"--label '{options.label}'"
        raise UserError(f"{asked}: this model learnt {not_learnt(learnt, dataset.classes)}")


def _require_able(options: ExportOptions, model: Spec, sampler: Sampler) -> None:
    """Raise `UserError` where the model cannot do what it is asked for."""
    ways: dict[Conditioning, str] = {"text": "a prompt: --prompt TEXT", "class": "a class: --label NAME"}
    asked: dict[str, tuple[Conditioning, str | None]] = {
        "--prompt": ("text", options.prompt),
        "--label": ("class", options.label),
    }
    takes: Conditioning = "none" if getattr(sampler, "reference", False) else sampler.conditioning
    for flag, (way, value) in asked.items():
        if value is not None and takes != way:
            raise UserError(f"{flag} '{value}': {model.name} takes {ways.get(takes, 'neither prompt nor class')}")
    if options.fix and not getattr(sampler, "shares_base", False):
        raise UserError(f"--fix base: {model.name}: {NOT_SHARED}")
    if options.fix and (threshold := model.options.get("threshold")) is not None:
        why = "it scales each frame by all frames of its clip, so that clips would differ in the base frame, too"
        raise UserError(f"--fix base with threshold {threshold}: {why}; leave the threshold out")


def make(making: ExportPlan) -> Path:
    """Make all clips and write the folder; returns it. Raises `Interrupted` when stopped, leaving nothing."""
    options, requests = making.options, making.requests
    progress, shown = Progress("generate", len(requests), "clips"), list[Tensor]()
    with _appearing(options.output) as folder:
        (folder / "clips").mkdir()
        work, batches = partial(sample.sample, making.sampler), memory.AdaptiveBatches(making.batch_size)
        for batch, clips in batches.each(requests, work, lambda batch: f"{len(batch)} clips"):
            for request, clip in zip(batch, clips, strict=True):
                name = making.format.name.format(request.index).partition("[")[0]
                making.format.write(folder / "clips" / name, clip)
            shown += clips[: generate.NUM_PREVIEW - len(shown)]
            progress.advance(len(batch))
        captions = [making.asked(request) for request in requests[: len(shown)]]
        video.write_preview(folder, torch.stack(shown), captions)
        for file, values in making.tables().items():
            lines = zip(making.names, values, strict=True)
            files.write_text(folder / file, "".join(f"{name}\t{value}\n" for name, value in lines))
        files.write_json(folder / "generate.json", _record(making))
    return options.output


def _record(making: ExportPlan) -> dict[str, Any]:
    """What made the clips, and what each was asked for."""
    options, sampler = making.options, making.sampler
    clips = zip(making.names, making.requests, strict=True)
    return {
        "model": str(plugins.whole("model", making.model)),
        "weights": sampler.weights,
        "dataset": options.dataset,
        "dataset_fingerprint": making.dataset.fingerprint,
        "shape": str(sampler.shape),
        "conditioning": sampler.conditioning,
        "seed": options.seed,
        "fix": options.fix,
        "format": options.format,
        "dtype": str(making.dtype).removeprefix("torch."),
        "code": environment.code_version(),
        "environment": environment.environment(making.device),
        "clips": [
            {"name": name, "asked": making.asked(request), "seed": request.seed, "base": request.base}
            for name, request in clips
        ],
    }


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its name only when the block ends well."""
    folder = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.replace(target)
    except OSError as error:
        raise files.unwritable(target, error) from error
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; nothing was written to {target}, give the same command again") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
