"""CLIP models: location and verification of their files, and an untrained model for plumbing checks."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from vfbench.errors import MissingData
from vfbench.interfaces import WeightStatus
from vfbench.utils import memory
from vfbench.utils.files import file_sha256
from vfbench.weights import catalogue

MODEL = catalogue.HUB_MODELS["clip"].repository
PUBLISHED = {  # commit on the hub with safetensors weights, and SHA-256 of that file
    MODEL: (
        catalogue.HUB_MODELS["clip"].revision,
        "99d28a652e6ec46629ab7047a0ac82c69b1fe11e0ce672c43af65d3a9a3fc05d",
    ),
    "openai/clip-vit-large-patch14": (
        "32bd64288804d66eefd0ccbe215aa642df71cc41",
        "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    ),
}
WEIGHTS = "model.safetensors"
HASHED_CONFIG = (  # settings of a tower that change the embeddings
    "hidden_act",
    "layer_norm_eps",
    "num_attention_heads",
    "num_hidden_layers",
    "hidden_size",
    "image_size",
    "patch_size",
    "max_position_embeddings",
    "eos_token_id",
)
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS)


@dataclass(frozen=True)
class LoadedCLIP:
    """CLIP model of transformers with its tokenizer and identification.

    `tokenize` returns the ids of a text, of any length, from begin to end token. `identity` names the model, `digest`
    is the SHA-256 of weights, configuration and vocabulary; for `weight_status` see `vfbench.interfaces.Extractor`.
    """

    model: Any
    tokenize: Callable[[str], list[int]]
    identity: str
    digest: str
    weight_status: WeightStatus


def load(model: str) -> LoadedCLIP:
    """Load `model` from a folder, the hub's cache or the hub itself, in float32.

    Raises `MissingData` with the command that fetches it, or with the tensor that does not fit.
    """
    from transformers import CLIPModel, CLIPTokenizer

    network: Any
    loading_info: Any
    folder = _locate(model)
    if missing_files := [name for name in FILES if not (folder / name).is_file()]:
        raise MissingData(
            f"{folder} holds no complete CLIP model: {', '.join(missing_files)} is missing; {_download_hint(model)}"
        )
    try:
        with _hide_progress_bar(), memory.require_memory(str(folder)):
            network, loading_info = CLIPModel.from_pretrained(  # type: ignore[misc]  # a pair, with `output_loading_info`
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise MissingData(f"{folder} holds no readable CLIP model ({error}); {_download_hint(model)}") from error
    if loading_info["missing_keys"]:
        raise MissingData(
            f"{folder / WEIGHTS} does not fit a CLIP model: '{min(loading_info['missing_keys'])}' is missing"
        )
    # `position_ids` are always 0, 1, 2, ...
    if unexpected := [key for key in loading_info["unexpected_keys"] if not key.endswith("position_ids")]:
        raise MissingData(
            f"{folder / 'config.json'} describes another CLIP model: it has no '{min(unexpected)}' of {WEIGHTS}"
        )

    def tokenize(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, verbose=False)["input_ids"]
        return ids

    sha256 = file_sha256(folder / WEIGHTS)
    published_name = next((name for name, (_, published) in PUBLISHED.items() if published == sha256), None)
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    digest = hashlib.sha256(f"{sha256} {_config_json(network.config)} {vocabulary}".encode()).hexdigest()
    # Not the name of a folder: a copy of the model must have the same fingerprint.
    identity = published_name or (model if folder != Path(model) else "folder")
    return LoadedCLIP(network, tokenize, identity, digest, _weight_status(model, published_name, network.config))


def _weight_status(model: str, published_name: str | None, config: Any) -> WeightStatus:
    """Status of weights loaded as `model` that have the hash of `published_name`, or of no published model."""
    if published_name:
        return "verified" if _is_published_config(config) else "nonstandard"
    return "nonstandard" if model in PUBLISHED else "unpublished"


def _is_published_config(config: Any) -> bool:
    """True where the settings that the tensor shapes do not determine are OpenAI's."""
    towers = config.text_config, config.vision_config
    end_tokens = 2, config.text_config.vocab_size - 1  # transformers reads 2 as the highest id, the last one
    return config.text_config.eos_token_id in end_tokens and all(
        (tower.hidden_act, tower.layer_norm_eps, 64 * tower.num_attention_heads)
        == ("quick_gelu", 1e-5, tower.hidden_size)
        for tower in towers
    )


def _config_json(config: Any) -> str:
    """Settings that change the embeddings, as canonical JSON."""
    towers = {"text": config.text_config, "vision": config.vision_config}
    settings = {name: {key: getattr(tower, key, None) for key in HASHED_CONFIG} for name, tower in towers.items()}
    return json.dumps({**settings, "projection_dim": config.projection_dim}, sort_keys=True)


def _locate(model: str) -> Path:
    """Folder of the model: `model` itself, or its snapshot in the hub's cache, downloaded if missing."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import hf_hub_download, is_offline_mode

    revision = PUBLISHED[model][0] if model in PUBLISHED else None
    try:
        return [Path(hf_hub_download(model, name, revision=revision)).parent for name in FILES][-1]
    except (OSError, ValueError) as error:  # no network, no such model or file, or no valid name
        reason = (
            "HF_HUB_OFFLINE forbids the download"
            if is_offline_mode()
            else f"it cannot be fetched from the hub ({error})"
        )
        raise MissingData(
            f"CLIP model '{model}' is not in the Hugging Face cache, and {reason}; {_download_hint(model)}"
        ) from error


def _download_hint(model: str) -> str:
    name = model if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not Path(model).exists() else MODEL
    revision = f" --revision {PUBLISHED[name][0]}" if name in PUBLISHED else ""
    return (
        f"run `hf download {name}{revision} {' '.join(FILES)}`, on a machine with a network if need be; "
        "then copy these files here and use clip(model='FOLDER')"
    )


@contextmanager
def _hide_progress_bar() -> Iterator[None]:
    """Context manager: hide the progress bar of transformers, which would overwrite ours."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def untrained(config: Any = None) -> LoadedCLIP:
    """Untrained CLIP, by default ViT-B/32, identical on every call; leaves the global random state unchanged."""
    from transformers import CLIPConfig, CLIPModel

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # only the CPU generator, which `fork_rng` restores
        network: Any = CLIPModel(config or CLIPConfig())
    vocabulary: int = network.config.text_config.vocab_size

    def tokenize(text: str) -> list[int]:
        """Token ids by hashing words; begin and end token are the last two of the vocabulary, as in CLIP."""
        hashes = (hashlib.sha256(word.encode()).digest() for word in text.lower().split())
        ids = [1 + int.from_bytes(word_hash[:8], "little") % (vocabulary - 3) for word_hash in hashes]
        return [vocabulary - 2, *ids, vocabulary - 1]

    digest = hashlib.sha256(_config_json(network.config).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return LoadedCLIP(network, tokenize, "untrained", digest.hexdigest(), "nonstandard")
