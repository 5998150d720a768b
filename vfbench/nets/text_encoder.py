"""Pretrained text encoders of the Hugging Face hub (CLIP, T5, BERT and others), for models conditioned on captions.

Frozen, as in most text-to-video models, or trained with the model that reads them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from torch import Tensor, nn

from vfbench.errors import MissingData, UserError, unknown
from vfbench.utils import files, hf_hub, memory
from vfbench.utils.device import to_device
from vfbench.utils.records import STRICT, Hash, Size, Text

# Options of `create` in several models; None is the preset's.
TextEncoderOption: TypeAlias = Annotated[
    str | None, "Pretrained text encoder: words (a small one trained with the model), or a folder or hub id."
]
TextLROption: TypeAlias = Annotated[
    float | None, "Learning rate of the pretrained text encoder, relative to the model's; 0 freezes it."
]
WORDS = "words"  # the value of the option for `vfbench.nets.embedding.CaptionEncoder`
CACHED_CAPTIONS = 1 << 16
_FILES = ("*.json", "*.txt", "*.model", "model*.safetensors")
_CLIP_TYPES = ("clip", "clip_text_model")
_FROM_FILES: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}  # no code of the encoder runs


@dataclass(frozen=True, config=STRICT)
class TextEncoderConfig:
    """Folder or hub id of a text encoder, length of its vectors, SHA-256 of its weights, and its learning rate.

    `lr` is relative to the model's; 0 freezes the encoder.
    """

    name: Text
    size: Size
    sha256: Hash
    lr: Annotated[float, Field(ge=0, le=1)] = 0.0

    @classmethod
    def from_name(cls, name: str, lr: float | None) -> TextEncoderConfig:
        """The configuration of an encoder by its folder or hub id (cached or downloaded).

        Raises `UserError` for a name that is neither and for an `lr` out of range, `MissingData` for an encoder that
        cannot be read.
        """
        if "/" not in name and not os.path.isdir(name):  # noqa: PTH112  # Path.is_dir raises for impossible file names
            raise unknown("text encoder", name, (WORDS, "the folder or hub id OWNER/NAME of a text encoder"))
        if lr is not None and not 0 <= lr <= 1:
            raise UserError(f"text_lr {lr}: choose a number from 0 (frozen) to 1 (the learning rate of the model)")
        folder = _find(name)
        config = _read_config(folder)
        size = getattr(getattr(config, "text_config", config), "hidden_size", None)
        if not isinstance(size, int):
            raise MissingData(f"{folder / 'config.json'} describes a '{config.model_type}', which is no text encoder")
        return cls(name, size, _sha256(folder), lr or 0.0)


class PretrainedCaptionEncoder(nn.Module):
    """A pretrained text encoder and a linear layer, from captions to vectors (B, width).

    A caption's vector is CLIP's vector of the end token, or the mean over the tokens. A frozen encoder is not part of
    the checkpoint, which records its SHA-256. It is read when the first caption is encoded, and the vectors of
    `CACHED_CAPTIONS` captions are kept, so its FLOPs are not counted.
    """

    def __init__(self, config: TextEncoderConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.norm, self.projection = nn.LayerNorm(config.size), nn.Linear(config.size, width)
        self.network: _Encoder | None = None
        if config.lr:
            with torch.device("cpu"):  # also where the weights are on `meta`
                self.network = _Encoder(config.name, config.sha256)
            self.network.to(torch.get_default_device())
        self._vectors: dict[str, Tensor] = {}

    def trained_parameters(self) -> list[nn.Parameter]:
        """Parameters of an encoder that is not frozen, which learn at the rate `config.lr`."""
        return [] if self.network is None else list(self.network.parameters())

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Vectors (B, width).

        Raises `UserError` for a caption that is longer than the encoder can read, and `MissingData` where a frozen
        encoder cannot be read or is not the one of the training.
        """
        device = self.projection.weight.device
        vectors = self._frozen(captions, device) if self.network is None else self.network(captions, device)
        projected: Tensor = self.projection(self.norm(vectors))
        return projected

    def _frozen(self, captions: Sequence[str], device: torch.device) -> Tensor:
        if device.type == "meta":
            return torch.empty(len(captions), self.config.size, device=device)
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._vectors]
        found = {caption: self._vectors[caption] for caption in captions if caption in self._vectors}
        if new:
            # Kept vectors are read in training too, where inference tensors are refused.
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
                network = _read_frozen(self.config.name, self.config.sha256, device)
                found |= dict(zip(new, network(new, device).cpu(), strict=True))
        self._vectors |= {caption: found[caption] for caption in new[: CACHED_CAPTIONS - len(self._vectors)]}
        return to_device(torch.stack([found[caption] for caption in captions]), device)


class _Encoder(nn.Module):
    """Tokenizer and network of transformers, from captions to one vector (B, size) for each."""

    def __init__(self, name: str, sha256: str) -> None:
        super().__init__()
        folder = _find(name)
        if (found := _sha256(folder)) != sha256:
            raise MissingData(
                f"{folder} is not the text encoder that this training began with: the SHA-256 of its weights is "
                f"{found}, expected {sha256}"
            )
        self.folder = folder
        self.network = _load_network(folder)
        self.tokenizer = _load_tokenizer(folder)
        longest = getattr(self.network.config, "max_position_embeddings", None)
        self.longest: int = min(self.tokenizer.model_max_length, longest or self.tokenizer.model_max_length)

    def forward(self, captions: Sequence[str], device: torch.device) -> Tensor:
        with _quiet():  # a caption too long is refused below
            batch = self.tokenizer(list(captions), padding=True, return_tensors="pt")
        ids, mask = batch["input_ids"], batch["attention_mask"]
        if ids.shape[1] > self.longest:
            caption = captions[int(mask.sum(1).argmax())]
            raise UserError(
                f"caption '{caption}' has {ids.shape[1]} tokens, {self.folder.name} reads at most {self.longest}: "
                "shorten it"
            )
        ids, mask = to_device(ids, device), to_device(mask, device)
        known_mask = None if device.type == "meta" else mask  # transformers reads the values of a mask
        output = self.network(input_ids=ids, attention_mask=known_mask)
        if self.network.config.model_type in _CLIP_TYPES:
            end: Tensor = output.pooler_output
            return end
        weights = mask.to(output.last_hidden_state)[..., None]
        mean: Tensor = (output.last_hidden_state * weights).sum(1) / weights.sum(1).clamp(min=1)
        return mean


@lru_cache(maxsize=2)
def _read_frozen(name: str, sha256: str, device: torch.device) -> _Encoder:
    """An encoder that a model and its moving average share."""
    return _Encoder(name, sha256).eval().requires_grad_(False).to(device)


def _find(name: str) -> Path:
    folder = hf_hub.resolve_folder(name, _FILES)
    if missing := [file for file in ("config.json", "model*.safetensors") if not any(folder.glob(file))]:
        raise MissingData(f"{folder} holds no text encoder: {', '.join(missing)} is missing")
    return folder


def _sha256(folder: Path) -> str:
    """SHA-256 of the weights; of a list of hashes where they are in several files."""
    hashes = [files.file_sha256(path) for path in sorted(folder.glob("model*.safetensors"))]
    return hashes[0] if len(hashes) == 1 else files.json_digest(hashes)


def _read_config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, **_FROM_FILES)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MissingData(f"{folder / 'config.json'} does not describe a text encoder ({error})") from error


def _load_network(folder: Path) -> Any:
    import transformers

    clip = _read_config(folder).model_type in _CLIP_TYPES
    kind: Any = transformers.CLIPTextModel if clip else transformers.AutoModelForTextEncoding
    loading: Mapping[str, Any] = {"dtype": torch.float32, "use_safetensors": True, **_FROM_FILES}
    try:
        with memory.require_memory(str(folder)), _quiet():
            network, info = kind.from_pretrained(folder, output_loading_info=True, **loading)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise MissingData(f"{folder} holds no readable text encoder ({error})") from error
    if missing := [name for name in info["missing_keys"] if not name.startswith("pooler.")]:  # read by CLIP alone
        raise MissingData(f"the weights in {folder} do not fit: '{min(missing)}' is missing")
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # BERT's, which a mean over tokens does not read
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """Context manager: no warnings from transformers about weights that are not read."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **_FROM_FILES)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MissingData(f"{folder} holds no tokenizer that can be read ({error})") from error
    if tokenizer.pad_token is None:
        raise MissingData(f"the tokenizer of {folder} has no token for padding")
    return tokenizer
