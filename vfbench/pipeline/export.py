"""Clips of a model as files, to look at or to score elsewhere: what `vfbench generate` does.

    clips/           one lossless file or folder of frames a clip, named by the index of its request
    videos/          the same clips as MP4 for any player or browser: not lossless, never scored with the others
    prompts.tsv      the prompt of each: path below clips/, tab, prompt (classes.tsv: the class), as
                     `vfbench score --prompts` and the model `folder` read it
    seeds.tsv        the seed of each, where the requests are those of a run: the model `folder` finds clips by it
    generate.json    model, weights, dataset, and every request
    sheet.png        the first clips to look at, clips.webp the same moving

The folder appears when it is whole. Until then, chunks of clips lie in the hidden folder `.<name>.partial` beside it,
and the same command resumes. No existing file is overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from vfbench import plugins
from vfbench.clips.inventory import require_outside_dataset
from vfbench.clips.scan import GENERATED
from vfbench.diffusion import hub
from vfbench.diffusion.long_video import NO_SHARED_NOISE
from vfbench.diffusion.model_config import checkpoint_conditioning
from vfbench.diffusion.sampler import describe_conditioning
from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import (
    BuildContext,
    Conditioning,
    Configured,
    Dataset,
    Request,
    Sampler,
    SharesBase,
    derive_seed,
)
from vfbench.pipeline import compiling
from vfbench.pipeline.batch_size import choose_batch_size
from vfbench.pipeline.chunk_layout import ChunkLayout
from vfbench.pipeline.folder import Specification
from vfbench.pipeline.options import ExportOptions
from vfbench.pipeline.requests import make_requests
from vfbench.pipeline.sample import is_control, require_sampler
from vfbench.plugins import Spec
from vfbench.utils import device as devices
from vfbench.utils import environment, files, memory
from vfbench.utils.checkpoint import shipped
from vfbench.utils.files import require_writable
from vfbench.video.encode import FORMATS, Format


@dataclass(frozen=True)
class ExportPlan:
    """Everything that writing clips needs, loaded and checked."""

    options: ExportOptions
    model: Spec
    dataset: Dataset
    sampler: Sampler
    requests: Sequence[Request]
    device: torch.device
    dtype: torch.dtype
    specification: Specification

    @property
    def partial_folder(self) -> Path:
        """Hidden folder of the finished chunks, until all clips are written."""
        return partial_folder(self.options.output)

    @property
    def format(self) -> Format:
        """The format of the clips, with its writer."""
        return FORMATS[self.options.format]

    @property
    def names(self) -> list[str]:
        """Name of each clip, as a reader of the folder has it."""
        return [self.format.name_template.format(request.index) for request in self.requests]

    @property
    def of_a_run(self) -> bool:
        """True if a run with this seed begins with the same requests: no prompt, class or shared noise is given."""
        options = self.options
        return options.prompt is None and options.label is None and not options.share_base_noise

    def tables(self) -> dict[str, list[str]]:
        """Content of the tables beside the clips, by file name: a value for each clip."""
        file = {"text": "prompts.tsv", "class": "classes.tsv"}.get(self.sampler.conditioning)
        tables = {file: [self.caption(request) for request in self.requests]} if file else {}
        return {**tables, "seeds.tsv": [str(request.seed) for request in self.requests]} if self.of_a_run else tables

    def caption(self, request: Request) -> str:
        """The prompt of a request, or the name of its class for a model conditioned on classes."""
        return self.dataset.classes[request.label] if self.sampler.conditioning == "class" else request.prompt


def plan(options: ExportOptions) -> ExportPlan:
    """Load and check everything, the cheap first; raises a `UserError` for whatever would stop the work later."""
    with memory.require_memory(options.model):
        return _plan(options)


def _plan(options: ExportOptions) -> ExportPlan:
    _check(options)
    device = devices.choose_device(options.device)
    devices.choose_local_gpu(device)
    dtype = devices.choose_dtype(options.dtype, device)
    root = str(options.data_root) if options.data_root else None
    dataset: Dataset = plugins.load("dataset", plugins.parse(options.dataset).merged({"root": root}))
    require_outside_dataset(options.output, dataset)
    requests, model = _requests(options, dataset), _model_spec(options)
    checkpoint = hub.resolve_checkpoint(options.checkpoint) if options.checkpoint is not None else None
    _require_trained_conditioning(options, model, dataset, checkpoint)
    context = BuildContext(dataset, device, dtype, checkpoint, requests=requests)
    sampler: Sampler = plugins.load("model", model, context)
    require_sampler(model.name, sampler)
    _require_abilities(options, model, sampler)
    configuration = sampler.configuration if isinstance(sampler, Configured) else None
    determines = {
        "model": str(plugins.with_defaults("model", model)),
        "weights": sampler.weights,
        "configuration": configuration,
        "dataset": options.dataset,
        "dataset_fingerprint": dataset.fingerprint,
        "requests": files.json_digest([asdict(request) for request in requests]),
        "format": options.format,
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        **({"compile": True} if options.compile else {}),
        "code": environment.code_version(),
    }
    specification = Specification(
        determines=determines,
        options=environment.options_record(options, {}),
        environment=environment.environment(device.type),
    )
    written = is_written(options.output, specification.id)
    if not _is_free(options.output) and not written:
        raise UserError(f"{options.output} is there already: choose another --output, or remove it")
    begun = written or partial_folder(options.output).joinpath("run.json").exists()
    size = choose_batch_size(options.batch_size, model, sampler, requests, device, dtype, begun=begun)
    layout = ChunkLayout(requests=len(requests), chunk_size=size, batch_size=size, threads=torch.get_num_threads())
    specification = replace(specification, layout=layout)
    if options.compile:
        compiling.compile_blocks(model.name, sampler, device)
    return ExportPlan(options, model, dataset, sampler, requests, device, dtype, specification)


def partial_folder(output: Path) -> Path:
    """Hidden folder beside `output` that holds the finished chunks until all clips are written."""
    return files.beside(output, "partial")


def is_written(output: Path, identity: str) -> bool:
    """True where the clips of this id are there, all of them."""
    try:
        return bool(files.read_json(output / GENERATED).get("id") == identity)
    except MissingData:
        return False


def _is_free(output: Path) -> bool:
    return not output.exists() or (output.is_dir() and not any(output.iterdir()))


def _check(options: ExportOptions) -> None:
    """Raise `UserError` for what is wrong before anything is loaded."""
    if options.format not in FORMATS:
        raise unknown("format", options.format, FORMATS)
    require_writable(options.output.parent)
    if not _is_free(options.output) and not (options.output / GENERATED).exists():
        raise UserError(f"{options.output} is there already: choose another --output, or remove it")


def _requests(options: ExportOptions, dataset: Dataset) -> Sequence[Request]:
    """One request per clip; raises `UserError` with the nearest name for an unknown class."""
    if options.prompt is None and options.label is None:
        requests: Sequence[Request] = make_requests(dataset, "test", options.num_samples, options.seed)
    else:
        label = _label(dataset, options.label) if options.label is not None else 0
        seeds = [derive_seed(options.seed, index) for index in range(options.num_samples)]
        requests = [Request(index, seed, label, options.prompt or "") for index, seed in enumerate(seeds)]
    if not options.share_base_noise:
        return requests
    first = requests[0]  # one content: the same label and prompt as well
    return [
        replace(each, base=first.seed, label=first.label, prompt=first.prompt, source=first.source) for each in requests
    ]


def _label(dataset: Dataset, name: str) -> int:
    if name not in dataset.classes:
        raise unknown(f"class of {dataset.name}", name, dataset.classes)
    return dataset.classes.index(name)


def _model_spec(options: ExportOptions) -> Spec:
    """The model with its sampling options, conditioned on the prompt or class that the user gave."""
    spec = plugins.parse(options.model).merged(options.sampling)
    return spec.merged({"condition": _conditioning(options)}) if _open_conditioning(spec) else spec


def _conditioning(options: ExportOptions) -> Conditioning | None:
    """The conditioning that the user chose by giving a prompt or a class, None without either."""
    return "text" if options.prompt is not None else "class" if options.label is not None else None


def _open_conditioning(spec: Spec) -> bool:
    """True where a model has an option `condition` that the user has not set."""
    return "condition" in plugins.options("model", spec.name) and "condition" not in spec.options


def _require_trained_conditioning(
    options: ExportOptions, model: Spec, dataset: Dataset, checkpoint: Path | None
) -> None:
    """Raise `UserError` for a prompt or class where the model was trained without any.

    With the model's option `condition` set, `_require_abilities` and the model check it.
    """
    conditioning = _conditioning(options)
    folder = checkpoint or shipped(dataset.name, model.name, model.options.get("preset"))
    if folder is None or conditioning is None or not _open_conditioning(plugins.parse(options.model)):
        return
    trained = checkpoint_conditioning(folder, model.name)
    if conditioning not in trained:
        flag = f"--prompt '{options.prompt}'" if conditioning == "text" else f"--label '{options.label}'"
        raise UserError(f"{flag}: this model learnt {describe_conditioning(trained, dataset.classes)}")


def _require_abilities(options: ExportOptions, model: Spec, sampler: Sampler) -> None:
    """Raise `UserError` for a prompt, a class or shared base noise that the model cannot take."""
    takes: Conditioning = "none" if is_control(sampler) else sampler.conditioning
    hints = {"text": "a prompt: --prompt TEXT", "class": "a class: --label NAME"}
    for flag, conditioning, value in (("--prompt", "text", options.prompt), ("--label", "class", options.label)):
        if value is not None and takes != conditioning:
            raise UserError(f"{flag} '{value}': {model.name} takes {hints.get(takes, 'neither prompt nor class')}")
    if not options.share_base_noise:
        return
    if not (isinstance(sampler, SharesBase) and sampler.shares_base):
        raise UserError(f"--share-base-noise: {model.name}: {NO_SHARED_NOISE}")
    if (threshold := model.options.get("threshold")) is not None:
        reason = "it scales each frame by all frames of its clip, so that clips would differ in the base frame, too"
        raise UserError(f"--share-base-noise with threshold {threshold}: {reason}; leave the threshold out")
