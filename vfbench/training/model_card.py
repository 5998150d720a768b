"""Model card (README.md beside the weights, as the Hugging Face hub expects): model, training, files and licence.

Every line follows from the configuration, the training options, the dataset or the weights file. It has no scores,
since training measures none.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from vfbench import plugins
from vfbench.diffusion.hub import CARD_FILE
from vfbench.diffusion.model_config import ModelConfig
from vfbench.interfaces import Dataset
from vfbench.plugins import Spec
from vfbench.training.options import TrainOptions
from vfbench.training.resume import Extension
from vfbench.utils import escape, files
from vfbench.utils.checkpoint import CONFIG, TENSORS, require_checkpoint
from vfbench.utils.environment import VERSIONED_PACKAGES, environment

_TRAINING_ROWS = {  # training options by table row
    "optimiser": ("lr", "lr_schedule", "warmup", "weight_decay", "clip_norm"),
    "moving average": ("ema",),
    "clip sampling": ("crop", "flip"),
    "seed": ("seed",),
    "precision": ("dtype",),
    "initial weights": ("init_from",),
    "execution": ("device", "compile", "accumulate", "checkpoint_activations"),
}
_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}  # by their safetensors names
_SI_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def write(
    folder: Path,
    config: ModelConfig,
    *,
    dataset: Dataset,
    options: TrainOptions,
    step: int,
    flops: int | None,
    sha256: str,
    extensions: Sequence[Extension] = (),
) -> None:
    """Write the model card beside the weights in `folder`, atomically.

    `options` have the hash of the initial weights as `init_from`. `step` is the number of steps made, at least 1;
    `flops` their total (`vfbench.diffusion.flops.training_flops` times all clips),
    None if not counted. `sha256` is the hash of the weights. Raises `MissingData` where there are no weights, and
    `BadEnvironment` where the file cannot be written.
    """
    parts = {
        "": _summary(config),
        "Use": _usage(config),
        "The model": _table(_model_rows(folder, config)),
        "The training": _table(_training_rows(config, dataset, options, step, flops, extensions)),
        "The files": _table(_file_rows(sha256)),
        "Scores": ["Not scored yet: training measures no scores. The command above measures them."],
        "Limits": [f"- {line}" for line in _limits(config, options, step)],
        "Licence": _licence(config, options),
    }
    title = f"# {config.model}, trained on {config.dataset}"
    body = [line for name, lines in parts.items() for line in ([f"## {name}"] if name else [title]) + ["", *lines, ""]]
    files.write_text(folder / CARD_FILE, "\n".join(["---", _front_matter(config, options), "---", "", *body]))


def command(config: ModelConfig, checkpoint: object) -> list[str]:
    """Arguments of `python -m vfbench` that score a checkpoint with this configuration."""
    data = ["--data-root", "DATA"] if _third_party_files(config.dataset) else []
    return [*("run", "--model", config.model, "--dataset", _dataset(config)), *data, "--checkpoint", str(checkpoint)]


def _dataset(config: ModelConfig) -> str:
    """Dataset with the clip shape, as far as it differs from the dataset's default."""
    shape = {"frames": config.shape.frames, "height": config.shape.height, "width": config.shape.width}
    if config.dataset not in plugins.names("dataset"):  # never import a name read from a file
        return config.dataset
    default = plugins.options("dataset", config.dataset)
    return str(Spec(config.dataset, {n: size for n, size in shape.items() if n in default and size != default[n]}))


def _third_party_files(dataset: str) -> bool:
    """True where a dataset reads files made by others; assumed of a dataset that vfbench does not know."""
    if dataset not in plugins.names("dataset"):
        return True
    module = plugins.module("dataset", dataset)
    return plugins.defines("dataset", dataset, "find") or not module.__name__.startswith("vfbench.")


def _front_matter(config: ModelConfig, options: TrainOptions) -> str:
    """YAML metadata for the Hugging Face hub."""
    from huggingface_hub import ModelCardData

    free = not _third_party_sources(config, options)
    data = ModelCardData(
        license="apache-2.0" if free else "other",
        license_name=None if free else "see-model-card",
        library_name="vfbench",
        pipeline_tag=_task(config),
        tags=["video-generation", "diffusion", config.model, config.dataset],
    )
    return data.to_yaml()


def _task(config: ModelConfig) -> str | None:
    """Task name on the Hugging Face hub, which has none for unconditional video generation."""
    takes_text = len(config.classes) > 1 and bool(config.words) and "text" in config.trained_conditioning
    if config.shape.frames == 1:
        return "text-to-image" if takes_text else "unconditional-image-generation"
    return "text-to-video" if takes_text else None


def _summary(config: ModelConfig) -> list[str]:
    description = plugins.names("model").get(config.model)
    clip = f"{config.shape.frames} frames of {_resolution(config)} pixels"
    generates = f"It generates clips of {clip}, like those of `{config.dataset}`, and was trained with vfbench."
    return [*([description, ""] if description else []), generates]


def _resolution(config: ModelConfig) -> str:
    return f"{config.shape.height}x{config.shape.width}"


def _usage(config: ModelConfig) -> list[str]:
    line = shlex.join(["python", "-m", "vfbench", *command(config, "DIR")])
    folder = "`DIR` is the folder of this file, or `hub:OWNER/NAME` for a model on the hub"
    data_root = ", and `DATA` the folder of the dataset" if _third_party_files(config.dataset) else ""
    return ["```sh", line, "```", "", f"generates clips and scores them. {folder}{data_root}."]


def _model_rows(folder: Path, config: ModelConfig) -> Iterator[tuple[str, str]]:
    yield "model", f"`{config.model}`, preset {escape.markdown(config.preset)}"
    yield "a clip", f"{config.shape.frames} frames of {_resolution(config)} pixels, RGB"
    yield "parameters", _parameters(folder / TENSORS)
    yield "conditioning", _conditioning(config)
    for name, value in config.options.items():
        yield f"`{name}`", _option_value(value)


def _parameters(path: Path) -> str:
    """Number and data types of the parameters, from the file's header alone."""
    require_checkpoint(path.parent)
    with safe_open(path, "pt") as file:
        tensors = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118  # not a mapping
        dtypes = sorted({_DTYPES.get(tensor.get_dtype(), tensor.get_dtype()) for tensor in tensors})
        return f"{sum(math.prod(tensor.get_shape()) for tensor in tensors):,}, stored as {' and '.join(dtypes)}"


def _conditioning(config: ModelConfig) -> str:
    pretrained = config.options.get("text_encoder")
    reader = f", read by {pretrained['name']}" if pretrained else f" of {len(config.words)} known words"
    descriptions = {
        "class": f"one of {len(config.classes)} classes" if len(config.classes) > 1 else "",
        "text": f"a caption{reader}" if config.words else "",
        "none": "nothing",
    }
    return ", or ".join(text for kind, text in descriptions.items() if text and kind in config.trained_conditioning)


def _network_options(value: Mapping[str, Any]) -> str:
    """Options of a network in one line; nested mappings are left to config.json."""
    return ", ".join(f"{name} {'...' if isinstance(v, Mapping) else v}" for name, v in value.items())


def _training_rows(
    config: ModelConfig,
    dataset: Dataset,
    options: TrainOptions,
    step: int,
    flops: int | None,
    extensions: Sequence[Extension] = (),
) -> Iterator[tuple[str, str]]:
    clips = step * options.batch_size
    yield "data", f"`{dataset.name}`, split train: {dataset.size('train'):,} clips"
    yield "fingerprint", f"`{dataset.fingerprint}`"
    if config.conditions:
        probs = {str(kind): f"{prob:g}" for kind, prob in config.conditions.items() if prob}
        yield "conditioning probabilities", _settings(probs)
    made = f"{step:,}" + (f" of {options.steps:,}" if step < options.steps else "")
    yield "steps", "; ".join([made, *map(str, extensions)])
    yield "clips seen", f"{clips:,}, {options.batch_size} a step"
    counted = "not counted"
    if flops is not None:
        counted = f"{_si_format(flops)}FLOP, forward and backward: {_si_format(flops / clips)}FLOP a clip"
    recomputed = ", without recomputed activations" * options.checkpoint_activations
    yield "compute", counted + recomputed + _uncounted_training(config, options)
    for row, names in _TRAINING_ROWS.items():
        if values := {name: value for name in names if (value := getattr(options, name)) is not None}:
            yield row, _settings(values) if len(names) > 1 else _option_value(values[names[0]])


def _uncounted_training(config: ModelConfig, options: TrainOptions) -> str:
    """Remark on earlier training of the weights, whose compute is not known; may be empty."""
    parts = ["the initial weights"] if options.init_from else []
    parts += ["the pretrained base generator"] if "base_sha256" in config.options else []
    return f", without the training of {' and '.join(parts)}" if parts else ""


def _option_value(value: Any) -> str:
    return escape.markdown(_network_options(value) if isinstance(value, Mapping) else str(value))


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}` {value}" for name, value in values.items())


def _si_format(value: int | float) -> str:
    """Three significant digits and an SI prefix: `8.15 G`."""
    power = 0
    while value >= 999.5 and power < len(_SI_PREFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {_SI_PREFIXES[power]}"


def _file_rows(sha256: str) -> Iterator[tuple[str, str]]:
    versions = environment("cpu").model_dump()
    yield f"`{TENSORS}`", f"SHA-256 `{sha256}`"
    yield f"`{CONFIG}`", "options of the networks, classes, words and the same hash"
    yield "written by", ", ".join(f"{name} {versions[name]}" for name in (*VERSIONED_PACKAGES, "python"))


def _limits(config: ModelConfig, options: TrainOptions, step: int) -> Iterator[str]:
    yield f"It generates clips of {config.shape} and was trained on no other size or length."
    yield f"It was trained on the train split of `{config.dataset}` and shares the content and bias of that data."
    if config.words and "text" in config.trained_conditioning and "text_encoder" not in config.options:
        yield "Captions may use only the words listed in config.json; others are refused."
    if step < options.steps:
        yield f"Its training is not finished: {step:,} of {options.steps:,} steps."


def _third_party_sources(config: ModelConfig, options: TrainOptions) -> list[str]:
    """Descriptions of the data, weights and code with terms of their own that the weights were made from."""
    sources = [f"the videos of `{config.dataset}`"] if _third_party_files(config.dataset) else []
    if digest := config.options.get("base_sha256"):
        sources.append(f"a pretrained base generator (SHA-256 of its tensors `{digest}`)")
    if digest := (config.options.get("embedding") or {}).get("sha256"):
        sources.append(f"the embeddings of a CLIP (SHA-256 of its weights `{digest}`)")
    if encoder := config.options.get("text_encoder"):
        sources.append(f"the text encoder {encoder['name']} (SHA-256 of its weights `{encoder['sha256']}`)")
    if config.model not in plugins.names("model"):
        sources.append(f"the code of `{config.model}`")
    if digest := options.init_from:
        sources.append(f"the initial weights (`{digest}`)")
    return sources


def _licence(config: ModelConfig, options: TrainOptions) -> list[str]:
    if not (sources := _third_party_sources(config, options)):
        return ["Apache-2.0, as the code of vfbench, which also generates the training clips."]
    external = _third_party_files(config.dataset)
    terms = f" Terms of the dataset: `python -m vfbench data status {config.dataset}`." * external
    return [
        f"The code is Apache-2.0. The weights were made from {' and '.join(sources)}, whose own terms bind whoever "
        f"uses or passes on the weights: read them first.{terms}"
    ]


def _table(rows: Iterator[tuple[str, str]]) -> list[str]:
    return ["| | |", "|:--|:--|", *(f"| {name} | {value} |" for name, value in rows)]
