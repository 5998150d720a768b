"""What every built-in diffusion model shares: configuration, conditioning, losses, and files on disk."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfbench.diffusion.frame_embedding import LEARNT, EmbeddingConfig, FrameEmbedding, kept
from vfbench.diffusion.priors import Decomposed, Normal, Prior, batched
from vfbench.diffusion.schedule import Prediction, Schedule
from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import ClipShape, Conditioning, Dataset
from vfbench.nets.embedding import MODES, Condition
from vfbench.utils import checkpoint, files, tensor_files
from vfbench.utils.files import file_sha256

SAVED_WITH = "vfbench"  # in the metadata of weights: the configuration that they were saved with, as JSON


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build a model's networks again; saved as `config.json` beside the weights."""

    model: str
    preset: str
    dataset: str
    shape: ClipShape
    classes: tuple[str, ...]
    words: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[Conditioning, float] = field(default_factory=dict)  # of training clips, if recorded
    sha256: str = ""  # of the weights beside it

    def __post_init__(self) -> None:
        parts = self.conditions
        if parts and not (set(parts) <= set(MODES) and min(parts.values()) >= 0 and 0 < sum(parts.values()) < math.inf):
            raise ValueError(f"conditions {dict(parts)}: {', '.join(MODES)} have weights of at least 0, and one more")

    @property
    def ways(self) -> tuple[Conditioning, ...]:
        """How the model was told what a clip shows: any way, where that is not recorded."""
        return _ways(self.conditions)

    @classmethod
    def of(cls, model: str, preset: str, presets: Mapping[str, Mapping[str, Any]], dataset: Dataset) -> ModelConfig:
        """The configuration of a model's preset for a dataset.

        A preset that was made for clips of one shape says so in its option `clips`; the others take any. Raises
        `UserError` for an unknown preset, and for one of another shape than the dataset's, naming those that fit.
        """
        if preset not in presets:
            raise unknown(f"{model} preset", preset, presets)
        if not _fits(presets[preset], dataset.shape):
            made = ClipShape(*presets[preset]["clips"])
            fitting = [name for name, options in presets.items() if _fits(options, dataset.shape)]
            raise UserError(
                f"{model} preset '{preset}' is made for clips of {made}, {dataset.name} has {dataset.shape}: "
                f"choose one of {', '.join(fitting)}, or a dataset of that shape"
            )
        return cls(model, preset, dataset.name, dataset.shape, dataset.classes, dataset.words, presets[preset])

    def with_embedding(self, name: str | None) -> ModelConfig:
        """With the embedding of a frame as a condition (`vfbench.diffusion.frame_embedding`).

        `name` is `none`, `learnt` or a CLIP by its folder or its id on the hub; None leaves what the preset says.
        Raises `MissingData` where CLIP cannot be read, and `UserError` for a word that is none of these.
        """
        if name is None:
            return self
        options = {key: value for key, value in self.options.items() if key != "embedding"}
        return replace(self, options=options if name == "none" else {**options, "embedding": embedding_options(name)})

    @classmethod
    def read(cls, path: Path, model: str) -> ModelConfig:
        """Read `config.json`; raises `MissingData` naming the file when it is another model's or damaged."""
        content = files.read_json(path)
        if content.get("model") != model:
            raise MissingData(f"{path} is a checkpoint of '{content.get('model')}', not of '{model}'")
        with checkpoint.describing(path, model):
            shape = ClipShape(**content.pop("shape"))
            classes, words = tuple(content.pop("classes")), tuple(content.pop("words"))
            return cls(shape=shape, classes=classes, words=words, **content)


def ways_of(folder: Path, model: str) -> tuple[Conditioning, ...]:
    """How the model of a checkpoint was told what a clip shows: any way, where that is not recorded.

    It is looked at before the model is built, which checks the rest: a folder that is no checkpoint of `model` is let
    pass. Raises `MissingData` where the configuration cannot be read.
    """
    path = folder / checkpoint.CONFIG
    content = files.read_json(path) if path.is_file() else {}
    shown = content.get("conditions") if content.get("model") == model else None
    return _ways(shown if isinstance(shown, dict) else {})


def _ways(conditions: Mapping[Conditioning, float]) -> tuple[Conditioning, ...]:
    every: tuple[Conditioning, ...] = ("text", "class", "none")
    return tuple(way for way in every if not conditions or conditions.get(way))


def require_unchanged(folder: Path) -> None:
    """Raise `MissingData` where the configuration of a checkpoint is not what its weights were saved with.

    For what no shape of a tensor tells: another lambda, noise schedule or prediction. Weights that do not say are let
    pass, as those that come with vfbench.
    """
    path = folder / checkpoint.CONFIG
    saved = tensor_files.metadata(folder / checkpoint.TENSORS).get(SAVED_WITH)
    if saved and (change := _change(json.loads(saved), _without_hash(files.read_json(path)))):
        raise MissingData(f"{path} is not what its weights were saved with ({change}): put it back, or train again")


def _without_hash(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "sha256"}


def _change(before: Any, after: Any, at: str = "") -> str:
    """The first difference of two JSON values, such as `options.lam was 0.5, and is 0.4`; empty for none."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return f"{at} was {before}, and is {after}" if before != after else ""
    names = sorted(before.keys() | after.keys())
    changes = (_change(before.get(name), after.get(name), f"{at}.{name}".lstrip(".")) for name in names)
    return next(filter(None, changes), "")


def flag_of(conditions: Mapping[Conditioning, float]) -> str:
    """Conditions as `--conditions` takes them: `class=0.9,none=0.1`."""
    return ",".join(f"{way}={weight:g}" for way, weight in conditions.items() if weight)


def embedding_options(name: str = LEARNT) -> dict[str, Any]:
    """The option `embedding` of a model whose encoder is `learnt`, or the CLIP of that folder or id."""
    return asdict(EmbeddingConfig.of(name))


def _fits(options: Mapping[str, Any], shape: ClipShape) -> bool:
    return "clips" not in options or ClipShape(*options["clips"]) == shape


class DiffusionModel(nn.Module, ABC):
    """A prior, networks and a loss. A subclass sets `prior`, its conditions and networks, and the three methods.

    Its conditions are `condition` alone, or by `_conditions` also the embedding of a frame, where the option
    `embedding` asks for it.
    """

    prior: Prior
    condition: Condition

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = Schedule(config.options["schedule"])
        self.frame_embedding: FrameEmbedding | None = None

    def _conditions(self, width: int) -> None:
        """Make what clips are conditioned on, vectors of that width."""
        config = self.config
        self.condition = Condition(len(config.classes), config.words, width)
        if "embedding" in config.options:
            self.frame_embedding = FrameEmbedding(EmbeddingConfig(**config.options["embedding"]), config.shape, width)

    def _embedding_networks(self) -> dict[str, nn.Module]:
        """What of the embedding making a clip calls, for `networks`."""
        return self.frame_embedding.networks() if self.frame_embedding else {}

    def record_conditions(self, conditions: Mapping[Conditioning, float]) -> None:
        """Record how often a training shows a clip with what: weights by way, before anything is learnt.

        A subclass raises `UserError` for what a part of it that does not learn was never told.
        """
        self.config = replace(self.config, conditions=conditions)

    def pictures(self) -> list[int]:
        """The frames whose embeddings training shows: the base frame, which is the middle one in most models."""
        prior, frames = self.prior, self.config.shape.frames
        return [prior.base if isinstance(prior, Decomposed) else Decomposed(frames).base]

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """The networks that a denoising step calls, for the cost ledger."""

    @abstractmethod
    def predict(self, z: Tensor, t: Tensor, condition: Tensor) -> Prediction:
        """What the model says of z_t (B, T, 3, H, W) at times t (B,)."""

    @abstractmethod
    def losses(self, x: Tensor, noise: Tensor, t: Tensor, condition: Tensor) -> dict[str, Tensor]:
        """Named terms whose sum is minimised, for clean clips x in [-1, 1] and noise of the model's prior.

        A model that has more than one of `pictures` takes a condition for each of them.
        """

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, each with its learning rate."""
        return [{"params": list(self.parameters()), "lr": lr}]

    def conditioned(
        self, labels: Sequence[int], captions: Sequence[str], modes: Sequence[Conditioning], normal: Normal
    ) -> Tensor:
        """The condition of each clip to be made, (B, width); `normal` draws whatever of it is left to chance."""
        said: Tensor = self.condition(labels, captions, modes)
        return said if self.frame_embedding is None else said + self.frame_embedding.drawn(said, normal)

    def unconditioned(self, count: int) -> Tensor:
        """What guidance leads away from, (count, width): nothing is said of a clip, and no frame of it is known."""
        said: Tensor = self.condition([0] * count, [""] * count, ["none"] * count)
        return said if self.frame_embedding is None else said + self.frame_embedding.projection.unknown

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Whatever of a training step is left to chance, by name, each (count, ...): a row a clip.

        It follows from the generator alone, not from weights: it is drawn ahead, and for a batch that processes share.
        """
        t = torch.randint(self.schedule.steps, (count,), generator=generator)
        noise = self.prior.noise(batched(count, generator), self.config.shape)
        return {"t": t, "noise": noise, **(self.frame_embedding.draw(count, generator) if self.frame_embedding else {})}

    def training_losses(
        self,
        x: Tensor,
        labels: Sequence[int],
        captions: Sequence[str],
        modes: Sequence[Conditioning],
        drawn: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """The loss terms of clips x (B, T, 3, H, W) in [-1, 1], with what `draw` has drawn for them."""
        drawn = {name: value.to(x.device) for name, value in drawn.items()}
        noise, t, said = drawn["noise"], drawn["t"], self.condition(labels, captions, modes)
        if self.frame_embedding is None:
            return self.losses(x, noise, t, said)
        added, embeddings = self.frame_embedding.shown(x[:, self.pictures()], kept(modes, drawn["chance"]))
        terms = self.losses(x, noise, t, *(said[:, None] + added).unbind(1))
        return {**terms, "prior": self.frame_embedding.loss(embeddings[:, 0], said, drawn)}

    def save(self, folder: Path, *, half: bool = False) -> None:
        """Write `config.json` and `model.safetensors`, which holds the same configuration, each atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        state, path, config = self.state_dict(), folder / checkpoint.TENSORS, asdict(self.config)
        saved_with = {SAVED_WITH: json.dumps(_without_hash(config), sort_keys=True)}
        tensor_files.write(path, tensor_files.halved(state) if half else state, saved_with)
        files.write_json(folder / checkpoint.CONFIG, {**config, "sha256": file_sha256(path)})
