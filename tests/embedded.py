"""Tiny models conditioned on the embedding of a frame, and a tiny CLIP image encoder of random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from helpers import UNET, perturb, tiny_dataset, tiny_vdm, tiny_videofusion
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from vfbench.baselines import pyoco, vdit
from vfbench.diffusion.frame_embedding import FrameEmbedding
from vfbench.diffusion.model import DiffusionModel

EMBEDDING: dict[str, Any] = {"encoder": "learnt", "size": 8, "inner": 16, "depth": 1, "steps": 4, "sha256": ""}
TRANSFORMER = {"width": 32, "hidden": 64, "heads": 2, "depth": 2, "patch": 4, "embedding": 16}
TINY_CLIP: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 6,
}


def save_clip_vision(folder: Path, **sizes: Any) -> Path:
    """Save a CLIP image encoder of random weights as transformers does."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPVisionModelWithProjection(CLIPVisionConfig(**{**TINY_CLIP, **sizes})).save_pretrained(folder)
    return folder


def _build(create: Callable[..., DiffusionModel], network: dict[str, Any], embedding: dict[str, Any]) -> DiffusionModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = create(tiny_dataset()).config
        kind = type(create(tiny_dataset()))
        return kind(replace(config, options={**config.options, "network": network, "embedding": embedding}))


MODELS: dict[str, Callable[[dict[str, Any]], DiffusionModel]] = {
    "vdm": lambda embedding: tiny_vdm(perturbed=False, embedding=embedding),
    "pyoco": lambda embedding: _build(pyoco.create, UNET, embedding),
    "vdit": lambda embedding: _build(vdit.create, TRANSFORMER, embedding),
    "videofusion": lambda embedding: tiny_videofusion(perturbed=False, embedding=embedding),
}


def embedding_model(name: str = "videofusion", *, perturbed: bool = True, **options: Any) -> DiffusionModel:
    """Tiny model with the embedding of a frame; `options` override `EMBEDDING`."""
    model = MODELS[name]({**EMBEDDING, **options})
    if perturbed:
        perturb(model)
    return model


def frame_embedding_of(model: DiffusionModel) -> FrameEmbedding:
    assert model.frame_embedding is not None
    return model.frame_embedding
