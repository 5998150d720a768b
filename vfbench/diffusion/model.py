"""Base class of the built-in diffusion models: configuration, conditioning, losses, and checkpoint files."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from vfbench.diffusion.frame_embedding import LEARNT, EmbeddingConfig, FrameEmbedding, keep_embedding
from vfbench.diffusion.priors import Decomposed, Independent, NoisePrior, Normal, normal_per_batch
from vfbench.diffusion.schedule import AUTO, Prediction, Schedule, natural_time_shift
from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import ClipShape, Conditioning, Dataset
from vfbench.nets.embedding import CONDITIONINGS, ConditioningEmbedding
from vfbench.nets.text_encoder import WORDS, PretrainedCaptionEncoder, TextEncoderConfig
from vfbench.utils import checkpoint, files, records, tensor_files
from vfbench.utils.files import file_sha256
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
    def read(cls, path: Path, model: str) -> ModelConfig:
        """Read `config.json`; raises `MissingData` naming the file when it is another model's or damaged."""
        saved = records.validate(_SavedConfig, files.read_json(path), path, "restore this file, or train again")
        if saved.model != model:
            raise MissingData(f"{path} is a checkpoint of '{saved.model}', not of '{model}'")
        with checkpoint.config_errors(path, model):
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
        before = files.parse_json(saved) if saved else {}
    except ValueError as error:
        raise MissingData(f"{weights}: the configuration in its metadata is damaged ({error}): train again") from error
    if saved and (change := _first_difference(before, _without_hash(files.read_json(path)))):
        raise MissingData(f"{path} has changed since its weights were saved ({change}): restore it, or train again")


def _without_hash(config: Mapping[str, Any]) -> dict[str, Any]:
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


class DiffusionModel(nn.Module, ABC):
    """A noise prior, networks and a loss.

    A subclass creates its networks, calls `_build_conditioning`, and implements `networks`, `predict` and `losses`, and
    `make_noise_prior` where noise is not independent. The option `embedding` adds the embedding of a frame to the
    conditioning, and `time_shift` `auto` becomes the number that clips and noise prior call for.
    """

    noise_prior: NoisePrior
    condition: ConditioningEmbedding

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        with torch.device("cpu"):  # also where the weights are on `meta`
            self.noise_prior = self.make_noise_prior(config)
            automatic = config.options.get("time_shift") == AUTO
            time_shift = natural_time_shift(config.shape, self.noise_prior) if automatic else None
        if automatic:
            config = replace(config, options={**config.options, "time_shift": time_shift})
        self.config = config
        shift = {name: config.options[name] for name in ("time_shift", "shifted_share") if name in config.options}
        self.schedule = Schedule(config.options["schedule"], **shift)
        self.frame_embedding: FrameEmbedding | None = None

    @staticmethod
    def make_noise_prior(config: ModelConfig) -> NoisePrior:
        """The noise prior of a configuration, by default independent noise; `UserError` for options out of range."""
        return Independent()

    def _build_conditioning(self, width: int) -> None:
        """Create the modules that map conditioning to vectors of that width."""
        config = self.config
        text_encoder = config.options.get("text_encoder")
        text_encoder = None if text_encoder is None else TextEncoderConfig(**text_encoder)
        self.condition = ConditioningEmbedding(len(config.classes), config.words, width, text_encoder)
        if "embedding" in config.options:
            self.frame_embedding = FrameEmbedding(EmbeddingConfig(**config.options["embedding"]), config.shape, width)

    def _embedding_networks(self) -> dict[str, nn.Module]:
        """The networks of the frame embedding that sampling calls, for `networks`."""
        return self.frame_embedding.networks() if self.frame_embedding else {}

    def record_conditioning(self, weights: Mapping[Conditioning, float]) -> None:
        """Store in the configuration how often a training uses each conditioning; call before training.

        A subclass raises `UserError` for conditioning that a frozen part of it was not trained with.
        """
        self.config = replace(self.config, conditions=weights)

    def embedding_frames(self) -> list[int]:
        """Indices of the frames whose embeddings training uses: the base frame, or the middle one without a base."""
        noise_prior, frames = self.noise_prior, self.config.shape.frames
        return [noise_prior.base if isinstance(noise_prior, Decomposed) else Decomposed(frames).base]

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """The networks that a denoising step calls, by name; the cost ledger counts them."""

    @abstractmethod
    def predict(self, z: Tensor, t: Tensor, cond: Tensor) -> Prediction:
        """The prediction for z_t (B, T, 3, H, W) at times t (B,) with conditioning vectors (B, width)."""

    @abstractmethod
    def losses(self, x: Tensor, noise: Tensor, t: Tensor, cond: Tensor) -> dict[str, Tensor]:
        """Named loss terms, to be summed, for clean clips x in [-1, 1] and noise of the model's noise prior.

        A model with several `embedding_frames` takes a conditioning vector for each of them.
        """

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, each with its learning rate; a text encoder that learns has its own."""
        groups, encoder = self._network_groups(lr), self.condition.caption
        if not isinstance(encoder, PretrainedCaptionEncoder) or not (tuned := encoder.trained_parameters()):
            return groups
        others = [{**group, "params": [p for p in group["params"] if p not in set(tuned)]} for group in groups]
        return [*others, {"params": [p for p in tuned if p.requires_grad], "lr": lr * encoder.config.lr}]

    def _network_groups(self, lr: float) -> list[dict[str, Any]]:
        """The parameter groups before a text encoder gets its own."""
        return [{"params": list(self.parameters()), "lr": lr}]

    def conditioning_vectors(
        self, labels: Sequence[int], captions: Sequence[str], conditioning: Sequence[Conditioning], normal: Normal
    ) -> Tensor:
        """Conditioning vectors for sampling, (B, width); `normal` draws the noise of the frame embedding."""
        cond: Tensor = self.condition(labels, captions, conditioning)
        return cond if self.frame_embedding is None else cond + self.frame_embedding.sample_conditioning(cond, normal)

    def null_conditioning(self, count: int) -> Tensor:
        """Null conditioning for classifier-free guidance, (count, width): no class, caption or frame embedding."""
        cond: Tensor = self.condition([0] * count, [""] * count, ["none"] * count)
        return cond if self.frame_embedding is None else cond + self.frame_embedding.projection.unknown

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Random tensors of a training step for `count` clips, by name, each (count, ...).

        They depend on the generator alone, not on weights, so they can be drawn ahead, and once for a batch that
        several processes share.
        """
        t = self.schedule.training_times(count, generator)
        noise = self.noise_prior.noise(normal_per_batch(count, generator), self.config.shape)
        return {"t": t, "noise": noise, **(self.frame_embedding.draw(count, generator) if self.frame_embedding else {})}

    def training_losses(
        self,
        x: Tensor,
        labels: Sequence[int],
        captions: Sequence[str],
        conditioning: Sequence[Conditioning],
        draws: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Loss terms of clips x (B, T, 3, H, W) in [-1, 1], with the random tensors of `draw`."""
        draws = {name: value.to(x.device) for name, value in draws.items()}
        noise, t, cond = draws["noise"], draws["t"], self.condition(labels, captions, conditioning)
        if self.frame_embedding is None:
            return self.losses(x, noise, t, cond)
        known = keep_embedding(conditioning, draws["chance"])
        frame_cond, embeddings = self.frame_embedding.encode_frames(x[:, self.embedding_frames()], known)
        terms = self.losses(x, noise, t, *(cond[:, None] + frame_cond).unbind(1))
        return {**terms, "prior": self.frame_embedding.loss(embeddings[:, 0], cond, draws)}

    def save(self, folder: Path, *, half: bool = False) -> None:
        """Write `model.safetensors`, with the configuration in its metadata, and `config.json`, each atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        state, path, config = self.state_dict(), folder / checkpoint.TENSORS, asdict(self.config)
        saved_with = {SAVED_WITH: json.dumps(_without_hash(config), sort_keys=True)}
        tensor_files.write(path, tensor_files.to_half(state) if half else state, saved_with)
        files.write_json(folder / checkpoint.CONFIG, {**config, "sha256": file_sha256(path)})
