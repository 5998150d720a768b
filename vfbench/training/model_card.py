"""The model card that is written with each checkpoint: what it is, what made it, and what may be done with it.

It stands as README.md beside the weights, where the Hugging Face hub looks for it. Each line follows from the
configuration, the training's options, the dataset or the file of weights itself; a score is no part of it, since a
training measures none.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from vfbench import plugins
from vfbench.diffusion.hub import CARD
from vfbench.diffusion.model import ModelConfig
from vfbench.interfaces import Dataset
from vfbench.plugins import Spec
from vfbench.utils import files
from vfbench.utils.checkpoint import CONFIG, TENSORS, require_checkpoint
from vfbench.utils.environment import VERSIONED, environment

_ROWS = {  # options of a training that belong together; others follow in a row of their own
    "optimiser": ("lr", "warmup", "weight_decay", "clip_norm"),
    "moving average": ("ema",),
    "clips drawn": ("crop", "flip"),
    "seed": ("seed",),
    "precision": ("dtype",),
    "first weights": ("init_from",),
    "computed": ("device", "compile", "accumulate", "checkpoint_activations"),
}
_UNTOLD = (
    *("steps", "batch_size", "conditions"),  # told elsewhere
    *("save_every", "sample_every", "workers", "half"),  # which the weights do not depend on
)
_TYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}  # of numbers in safetensors
_UNITS = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def write(
    folder: Path,
    config: ModelConfig,
    *,
    dataset: Dataset,
    options: Mapping[str, Any],
    step: int,
    flops: int | None,
    sha256: str,
) -> None:
    """Write README.md beside the weights in `folder`, whole or not at all.

    `options` are those of the training, with `steps` and `batch_size` (clips of a step, over all processes); `step` is
    how many steps were made, at least 1, `flops` what they took all together (`vfbench.diffusion.flops.training_flops`
    of each
    clip; None where it could not be counted), and `sha256` that of the weights. Raises `MissingData` where there are no
    weights, and `BadEnvironment` for a disk that does not take the file.
    """
    parts = {
        "": _summary(config),
        "Use": _use(config),
        "The model": _table(_model(folder, config)),
        "The training": _table(_training(config, dataset, options, step, flops)),
        "The files": _table(_files(sha256)),
        "Scores": ["Not scored yet: no score is part of a training. The command above measures them."],
        "Limits": [f"- {line}" for line in _limits(config, options, step)],
        "Licence": _licence(config, options),
    }
    title = f"# {config.model}, trained on {config.dataset}"
    body = [line for name, lines in parts.items() for line in ([f"## {name}"] if name else [title]) + ["", *lines, ""]]
    files.write_text(folder / CARD, "\n".join(["---", _front(config, options), "---", "", *body]))


def command(config: ModelConfig, checkpoint: object) -> list[str]:
    """The words after `python -m vfbench` that score a checkpoint of this configuration."""
    data = ["--data-root", "DATA"] if _on_disk(config.dataset) else []
    return [*("run", "--model", config.model, "--dataset", _dataset(config)), *data, "--checkpoint", str(checkpoint)]


def _dataset(config: ModelConfig) -> str:
    """The dataset, with the size of the clips where it is not the one that they have by default."""
    shape = {"frames": config.shape.frames, "height": config.shape.height, "width": config.shape.width}
    if config.dataset not in plugins.names("dataset"):  # a name from a file is not imported
        return config.dataset
    default = plugins.options("dataset", config.dataset)
    return str(Spec(config.dataset, {n: size for n, size in shape.items() if n in default and size != default[n]}))


def _on_disk(dataset: str) -> bool:
    """Whether a dataset is files that somebody else made; of one that is not known here, it must be assumed."""
    if dataset not in plugins.names("dataset"):
        return True
    module = plugins.module("dataset", dataset)
    return hasattr(module, "find") or not module.__name__.startswith("vfbench.")


def _front(config: ModelConfig, options: Mapping[str, Any]) -> str:
    """What the hub reads: YAML."""
    from huggingface_hub import ModelCardData

    free = not _bound(config, options)
    data = ModelCardData(
        license="apache-2.0" if free else "other",
        license_name=None if free else "terms-of-what-it-was-made-from",
        library_name="vfbench",
        pipeline_tag=_task(config),
        tags=["video-generation", "diffusion", config.model, config.dataset],
    )
    return data.to_yaml()


def _task(config: ModelConfig) -> str | None:
    """The task by its name on the hub, which has none for videos that are made of nothing."""
    told = len(config.classes) > 1 and bool(config.words) and "text" in config.ways
    if config.shape.frames == 1:
        return "text-to-image" if told else "unconditional-image-generation"
    return "text-to-video" if told else None


def _summary(config: ModelConfig) -> list[str]:
    what, clip = plugins.names("model").get(config.model), f"{config.shape.frames} frames of {_pixels(config)} pixels"
    made = f"It makes clips of {clip}, like those of `{config.dataset}`, and was trained with vfbench."
    return [*([what, ""] if what else []), made]


def _pixels(config: ModelConfig) -> str:
    return f"{config.shape.height}x{config.shape.width}"


def _use(config: ModelConfig) -> list[str]:
    line = shlex.join(["python", "-m", "vfbench", *command(config, "DIR")])
    where = "`DIR` is the folder of this file, or `hub:OWNER/NAME` where you read it on the hub"
    data = ", and `DATA` that of the dataset" if _on_disk(config.dataset) else ""
    return ["```sh", line, "```", "", f"makes clips and scores them. {where}{data}."]


def _model(folder: Path, config: ModelConfig) -> Iterator[tuple[str, str]]:
    yield "model", f"`{config.model}`, preset {config.preset}"
    yield "a clip", f"{config.shape.frames} frames of {_pixels(config)} pixels, RGB"
    yield "parameters", _parameters(folder / TENSORS)
    yield "is told", _conditions(config)
    for name, value in config.options.items():
        yield f"`{name}`", _value(value)


def _parameters(path: Path) -> str:
    """How many there are in a file and of which type, from its header alone."""
    require_checkpoint(path.parent)
    with safe_open(path, "pt") as file:
        parts = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118  # not a mapping
        types = sorted({_TYPES.get(part.get_dtype(), part.get_dtype()) for part in parts})
        return f"{sum(math.prod(part.get_shape()) for part in parts):,}, stored as {' and '.join(types)}"


def _conditions(config: ModelConfig) -> str:
    things = {
        "class": f"one of {len(config.classes)} classes" if len(config.classes) > 1 else "",
        "text": f"a caption of {len(config.words)} known words" if config.words else "",
        "none": "nothing",
    }
    return ", or ".join(thing for way, thing in things.items() if thing and way in config.ways)


def _inside(value: Mapping[str, Any]) -> str:
    """A network's own options in a line; a table in it is left to config.json."""
    return ", ".join(f"{name} {'...' if isinstance(v, Mapping) else v}" for name, v in value.items())


def _training(
    config: ModelConfig, dataset: Dataset, options: Mapping[str, Any], step: int, flops: int | None
) -> Iterator[tuple[str, str]]:
    seen = step * options["batch_size"]
    yield "data", f"`{dataset.name}`, split train: {dataset.size('train'):,} clips"
    yield "fingerprint", f"`{dataset.fingerprint}`"
    if config.conditions:
        yield "shown with", _settings({way: f"{weight:g}" for way, weight in config.conditions.items() if weight})
    yield "steps", f"{step:,}" + (f" of {options['steps']:,}" if step < options["steps"] else "")
    yield "clips seen", f"{seen:,}, {options['batch_size']} a step"
    counted = "" if flops is None else f"{_metric(flops)}FLOP, forward and backward: {_metric(flops / seen)}FLOP a clip"
    again = ", without what was computed again for the backward pass" * bool(options.get("checkpoint_activations"))
    yield "compute", (counted or "not counted") + again + _before(config, options)
    given = {name: value for name, value in options.items() if value is not None and name not in _UNTOLD}
    for row, names in _ROWS.items():
        if found := {name: given.pop(name) for name in names if name in given}:
            yield row, _settings(found) if len(names) > 1 else _value(found[names[0]])
    if given:
        yield "also", _settings(given)


def _before(config: ModelConfig, options: Mapping[str, Any]) -> str:
    """A word on what was spent on the weights before this training, which is not known."""
    parts = ["the first weights"] if options.get("init_from") else []
    parts += ["the pretrained base generator"] if "base_sha256" in config.options else []
    return f", without the training of {' and '.join(parts)}" if parts else ""


def _value(value: Any) -> str:
    return _inside(value) if isinstance(value, Mapping) else str(value)


def _settings(found: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}` {value}" for name, value in found.items())


def _metric(value: int | float) -> str:
    """Three digits and the prefix of a unit: `8.15 G`."""
    power = 0
    while value >= 999.5 and power < len(_UNITS) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {_UNITS[power]}"


def _files(sha256: str) -> Iterator[tuple[str, str]]:
    import torch

    machine = environment(torch.device("cpu"))
    yield f"`{TENSORS}`", f"SHA-256 `{sha256}`"
    yield f"`{CONFIG}`", "what the networks are built from, classes, words and the same hash"
    yield "written by", ", ".join(f"{name} {machine[name]}" for name in (*VERSIONED, "python"))


def _limits(config: ModelConfig, options: Mapping[str, Any], step: int) -> Iterator[str]:
    yield f"It makes clips of {config.shape}: another size or length was not learnt."
    yield f"It learnt from the train split of `{config.dataset}`: expect nothing that is not in there, and its bias."
    if config.words and "text" in config.ways:
        yield "A caption may use the known words alone, others are refused: they stand in config.json."
    if step < options["steps"]:
        yield f"Its training is not done: {step:,} of {options['steps']:,} steps."


def _bound(config: ModelConfig, options: Mapping[str, Any]) -> list[str]:
    """What was used to make the weights that has terms of its own."""
    found = [f"the videos of `{config.dataset}`"] if _on_disk(config.dataset) else []
    if digest := config.options.get("base_sha256"):
        found.append(f"a pretrained base generator (SHA-256 of its tensors `{digest}`)")
    if digest := (config.options.get("embedding") or {}).get("sha256"):
        found.append(f"the embeddings of a CLIP (SHA-256 of its weights `{digest}`)")
    if config.model not in plugins.names("model"):
        found.append(f"the code of `{config.model}`")
    if digest := options.get("init_from"):
        found.append(f"the weights that the training began with (`{digest}`)")
    return found


def _licence(config: ModelConfig, options: Mapping[str, Any]) -> list[str]:
    if not (bound := _bound(config, options)):
        return ["Apache-2.0, as the code of vfbench, which also makes the clips that it learnt from."]
    terms = f" Those of the dataset: `python -m vfbench data where {config.dataset}`." * _on_disk(config.dataset)
    return [
        f"The code is Apache-2.0. The weights were made from {' and '.join(bound)}, whose own terms bind whoever uses "
        f"or passes on the weights: read them first.{terms}"
    ]


def _table(rows: Iterator[tuple[str, str]]) -> list[str]:
    return ["| | |", "|:--|:--|", *(f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in rows)]
