"""Configuration of a model, saved beside its weights: sizes, noise, conditioning, and what it was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from vfbench.diffusion.frame_embedding import LEARNT, EmbeddingConfig
from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import ClipShape, Conditioning, Dataset
from vfbench.nets.embedding import CONDITIONINGS
from vfbench.nets.text_encoder import WORDS, TextEncoderConfig
from vfbench.utils import checkpoint, files, records, strict_json, tensor_files
from vfbench.utils.records import Hash, Id, Name, Size, Text

SAVED_WITH = "vfbench"  # metadata key of the weights file, for the configuration at saving as JSON


@dataclass(frozen=True)
class ModelConfig:
    """Configuration that a model's networks are built from; saved as `config.json` beside the weights.

    `conditions` are the relative frequencies of each conditioning among training clips; empty where not recorded.
    `sha256` is the hash of the weights.
    """

    model: str
    preset: str
    dataset: str
    shape: ClipShape
    classes: tuple[str, ...]
    words: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[Conditioning, float] = field(default_factory=dict)
    sha256: str = ""

    def __post_init__(self) -> None:
        weights, kinds = self.conditions, ", ".join(CONDITIONINGS)
        if weights and not (
            set(weights) <= set(CONDITIONINGS) and min(weights.values()) >= 0 and 0 < sum(weights.values()) < math.inf
        ):
            raise ValueError(f"conditions {dict(weights)}: give {kinds} weights of at least 0, one of them more than 0")

    @property
    def trained_conditioning(self) -> tuple[Conditioning, ...]:
        """Conditioning that the model was trained with, preferred first; all kinds where not recorded."""
        return _with_positive_weight(self.conditions)

    @classmethod
    def from_preset(
        cls, model: str, preset: str, presets: Mapping[str, Mapping[str, Any]], dataset: Dataset
    ) -> ModelConfig:
        """The configuration of a model's preset for a dataset.

        A preset's option `clips` is the only clip shape that it takes; a preset without it takes any. Raises
        `UserError` for an unknown preset, and for one that does not take the dataset's shape, naming those that do.
        """
        if preset not in presets:
            raise unknown(f"{model} preset", preset, presets)
        if not _fits(presets[preset], dataset.shape):
            shape = ClipShape(*presets[preset]["clips"])
            fitting = [name for name, options in presets.items() if _fits(options, dataset.shape)]
            raise UserError(
                f"{model} preset '{preset}' is made for clips of {shape}, {dataset.name} has {dataset.shape}: "
                f"choose one of {', '.join(fitting)}, or a dataset of that shape"
            )
        return cls(model, preset, dataset.name, dataset.shape, dataset.classes, dataset.words, presets[preset])

    def with_embedding(self, name: str | None) -> ModelConfig:
        """A copy conditioned on the embedding of a frame (`vfbench.diffusion.frame_embedding`).

        `name` is `none`, `learnt`, or the folder or hub id of a CLIP; None keeps the preset's choice. Raises
        `MissingData` where CLIP cannot be read, and `UserError` for any other name.
        """
        if name is None:
            return self
        options = {key: value for key, value in self.options.items() if key != "embedding"}
        return replace(self, options=options if name == "none" else {**options, "embedding": embedding_options(name)})

    def with_text_encoder(self, name: str | None, lr: float | None) -> ModelConfig:
        """A copy whose captions are read by a pretrained text encoder (`vfbench.nets.text_encoder`).

        `name` is `words`, or the folder or hub id of the encoder; None keeps the preset's choice. `lr` is the learning
        rate of the encoder relative to the model's, by default 0, frozen. Raises as `TextEncoderConfig.from_name`.
        """
        if name in (None, WORDS):
            if lr is not None:
                raise UserError(f"text_lr {lr} without a pretrained text encoder: give text_encoder too")
            options = {key: value for key, value in self.options.items() if key != "text_encoder" or name is None}
            return replace(self, options=options)
        encoder = TextEncoderConfig.from_name(str(name), lr)
        return replace(self, options={**self.options, "text_encoder": asdict(encoder)})

    @classmethod
    def read(cls, path: Path, model: str | None = None) -> ModelConfig:
        """Read `config.json`; raises `MissingData` naming the file when it is damaged or not one of `model`."""
        saved = records.validate(_SavedConfig, files.read_json(path), path, "restore this file, or train again")
        if model is not None and saved.model != model:
            raise MissingData(f"{path} is a checkpoint of '{saved.model}', not of '{model}'")
        with checkpoint.config_errors(path, saved.model):
            if "embedding" in saved.options:
                EmbeddingConfig(**saved.options["embedding"])
            if "text_encoder" in saved.options:
                TextEncoderConfig(**saved.options["text_encoder"])
            return cls(**{**dict(saved), "shape": ClipShape(**dict(saved.shape))})


class _SavedShape(BaseModel):
    """Clip shape in `config.json`."""

    model_config = ConfigDict(extra="forbid")

    frames: Size
    height: Size
    width: Size


class _SavedConfig(BaseModel):
    """Content of `config.json`: the fields of `ModelConfig`."""

    model_config = ConfigDict(extra="forbid")

    model: Name
    preset: Id
    dataset: Name
    shape: _SavedShape
    classes: tuple[Text, ...]
    words: tuple[Text, ...]
    options: Mapping[str, Any] = {}
    conditions: Mapping[Conditioning, Annotated[float, Field(strict=True, ge=0)]] = {}
    sha256: Hash = ""


def checkpoint_conditioning(folder: Path, model: str) -> tuple[Conditioning, ...]:
    """Conditioning that the model of a checkpoint was trained with; all kinds where not recorded.

    Does not check the checkpoint, which happens when the model is built: a folder that is no checkpoint of `model`
    counts as not recorded. Raises `MissingData` where the configuration cannot be read.
    """
    path = folder / checkpoint.CONFIG
    config = files.read_json(path) if path.is_file() else {}
    weights = config.get("conditions") if config.get("model") == model else None
    return _with_positive_weight(weights if isinstance(weights, dict) else {})


def _with_positive_weight(weights: Mapping[Conditioning, float]) -> tuple[Conditioning, ...]:
    preferred: tuple[Conditioning, ...] = ("text", "class", "none")
    return tuple(kind for kind in preferred if not weights or weights.get(kind))


def require_unchanged(folder: Path) -> None:
    """Raise `MissingData` where the configuration of a checkpoint differs from the one saved in its weights file.

    Catches changes that leave all tensor shapes alone: lambda, noise schedule, parametrisation. Weights without a saved
    configuration, such as those shipped with vfbench, pass.
    """
    path = folder / checkpoint.CONFIG
    weights = folder / checkpoint.TENSORS
    saved = tensor_files.read_metadata(weights).get(SAVED_WITH)
    try:
        before = strict_json.parse(saved) if saved else {}
    except ValueError as error:
        raise MissingData(f"{weights}: the configuration in its metadata is damaged ({error}): train again") from error
    if saved and (change := _first_difference(before, without_hash(files.read_json(path)))):
        raise MissingData(f"{path} has changed since its weights were saved ({change}): restore it, or train again")


def without_hash(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without the hash of its weights, which is known once they are written."""
    return {name: value for name, value in config.items() if name != "sha256"}


def _first_difference(before: Any, after: Any, key: str = "") -> str:
    """The first difference of two JSON values, such as `options.lam was 0.5, is 0.4`; empty where they are equal."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return f"{key} was {before}, is {after}" if before != after else ""
    names = sorted(before.keys() | after.keys())
    differences = (_first_difference(before.get(name), after.get(name), f"{key}.{name}".lstrip(".")) for name in names)
    return next(filter(None, differences), "")


def conditions_flag(weights: Mapping[Conditioning, float]) -> str:
    """The value of `--conditions` for these weights, such as `class=0.9,none=0.1`."""
    return ",".join(f"{kind}={weight:g}" for kind, weight in weights.items() if weight)


def embedding_options(name: str = LEARNT) -> dict[str, Any]:
    """Value of the model option `embedding`: `name` is `learnt`, or the folder or hub id of a CLIP model."""
    return asdict(EmbeddingConfig.from_name(name))


def _fits(options: Mapping[str, Any], shape: ClipShape) -> bool:
    return "clips" not in options or ClipShape(*options["clips"]) == shape
