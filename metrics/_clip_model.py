"""CLIP models: where their files are, whether they are the published ones, and one that never learned anything."""

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

MODEL = catalogue.HUB["clip"].repository
PUBLISHED = {  # the commit on the hub that has the weights as safetensors, and the SHA-256 of that file
    MODEL: (
        catalogue.HUB["clip"].revision,
        "99d28a652e6ec46629ab7047a0ac82c69b1fe11e0ce672c43af65d3a9a3fc05d",
    ),
    "openai/clip-vit-large-patch14": (
        "32bd64288804d66eefd0ccbe215aa642df71cc41",
        "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    ),
}
WEIGHTS = "model.safetensors"
MOVING = (  # what of the configuration of a tower moves an embedding
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
class Loaded:
    """A transformers `CLIPModel`, its tokenizer, and what they are.

    `tokens` gives the ids of a text, of any length, from the begin to the end token. `identity` names the model,
    `digest` is the SHA-256 of weights, configuration and vocabulary, `weight_status` is that of its weights, see
    `vfbench.interfaces.Extractor`.
    """

    model: Any
    tokens: Callable[[str], list[int]]
    identity: str
    digest: str
    weight_status: WeightStatus


def load(model: str) -> Loaded:
    """`model` from a folder, the hub's cache or the hub itself, in float32.

    Raises `MissingData` naming the command that fetches it, or the tensor that its file lacks.
    """
    from transformers import CLIPModel, CLIPTokenizer

    network: Any
    told: Any
    folder = _folder(model)
    if lacking := [name for name in FILES if not (folder / name).is_file()]:
        raise MissingData(f"{folder} holds no complete CLIP model: {', '.join(lacking)} is not there; {_mend(model)}")
    try:
        with _quiet(), memory.needed(str(folder)):
            network, told = CLIPModel.from_pretrained(  # type: ignore[misc]  # a pair, with `output_loading_info`
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise MissingData(f"{folder} holds no CLIP model that can be read ({error}); {_mend(model)}") from error
    if told["missing_keys"]:
        raise MissingData(f"{folder / WEIGHTS} does not fit a CLIP model: '{min(told['missing_keys'])}' is missing")
    if more := [key for key in told["unexpected_keys"] if not key.endswith("position_ids")]:  # these are 0, 1, 2, ...
        raise MissingData(
            f"{folder / 'config.json'} describes another CLIP model: it has no '{min(more)}' of {WEIGHTS}"
        )

    def tokens(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, verbose=False)["input_ids"]
        return ids

    file = file_sha256(folder / WEIGHTS)
    known = next((name for name, (_, published) in PUBLISHED.items() if published == file), None)
    words = json.dumps(sorted(tokenizer.get_vocab().items()))
    digest = hashlib.sha256(f"{file} {_moving(network.config)} {words}".encode()).hexdigest()
    # A folder's own name says nothing: the same model elsewhere must have the same fingerprint.
    identity = known or (model if folder != Path(model) else "folder")
    return Loaded(network, tokens, identity, digest, _weight_status(model, known, network.config))


def _weight_status(model: str, known: str | None, config: Any) -> WeightStatus:
    """What weights are that came under the name `model` and have the hash of `known`, if of any published model."""
    if known:
        return "verified" if _as_published(config) else "nonstandard"
    return "nonstandard" if model in PUBLISHED else "unpublished"


def _as_published(config: Any) -> bool:
    """Whether a network computes as OpenAI's do, in what the shapes of its weights do not tell."""
    towers = config.text_config, config.vision_config
    ends = 2, config.text_config.vocab_size - 1  # 2 stands for the highest id, which is the last of the vocabulary
    return config.text_config.eos_token_id in ends and all(
        (tower.hidden_act, tower.layer_norm_eps, 64 * tower.num_attention_heads)
        == ("quick_gelu", 1e-5, tower.hidden_size)
        for tower in towers
    )


def _moving(config: Any) -> str:
    """What of a configuration moves an embedding, as canonical JSON."""
    towers = {"text": config.text_config, "vision": config.vision_config}
    found = {name: {key: getattr(tower, key, None) for key in MOVING} for name, tower in towers.items()}
    return json.dumps({**found, "projection_dim": config.projection_dim}, sort_keys=True)


def _folder(model: str) -> Path:
    """`model` where it is a folder, else its snapshot in the hub's cache, fetched first where that can be done."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import hf_hub_download, is_offline_mode

    revision = PUBLISHED[model][0] if model in PUBLISHED else None
    try:
        return [Path(hf_hub_download(model, name, revision=revision)).parent for name in FILES][-1]
    except (OSError, ValueError) as error:  # what the hub raises: no network, no such model or file, no valid name
        why = (
            "HF_HUB_OFFLINE forbids to fetch it"
            if is_offline_mode()
            else f"it cannot be fetched from the hub ({error})"
        )
        raise MissingData(
            f"CLIP model '{model}' is not in the Hugging Face cache, and {why}; {_mend(model)}"
        ) from error


def _mend(model: str) -> str:
    name = model if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not Path(model).exists() else MODEL
    revision = f" --revision {PUBLISHED[name][0]}" if name in PUBLISHED else ""
    return (
        f"run `hf download {name}{revision} {' '.join(FILES)}` where there is a network, "
        "and name a folder that holds these files by clip(model='FOLDER') where that is another machine"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, transformers draws no progress bar over ours."""
    from transformers.utils import logging

    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def untrained(config: Any = None) -> Loaded:
    """A CLIP that never learned, the same on every call; moves no global random numbers. ViT-B/32 by default."""
    from transformers import CLIPConfig, CLIPModel

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # and not those of a GPU, which the fork does not save
        network: Any = CLIPModel(config or CLIPConfig())
    vocabulary: int = network.config.text_config.vocab_size

    def tokens(text: str) -> list[int]:
        """Each word by its hash; begin and end are the last two of the vocabulary, as in CLIP's own."""
        hashes = (hashlib.sha256(word.encode()).digest() for word in text.lower().split())
        ids = [1 + int.from_bytes(found[:8], "little") % (vocabulary - 3) for found in hashes]
        return [vocabulary - 2, *ids, vocabulary - 1]

    digest = hashlib.sha256(_moving(network.config).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return Loaded(network, tokens, "untrained", digest.hexdigest(), "nonstandard")
