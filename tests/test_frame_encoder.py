"""Tests of `vfbench.nets.frame_encoder`: normalised embeddings of frames from a learnt encoder or from CLIP."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from embedded import TINY_CLIP, save_clip_vision
from helpers import build_context, randn, tiny_dataset, tiny_videofusion
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from vfbench.diffusion.flops import training_flops
from vfbench.diffusion.model_config import embedding_options
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape
from vfbench.models import videofusion
from vfbench.nets.frame_encoder import CLIPEncoder, FrameEncoder, find_clip, normalise_vectors
from vfbench.utils import tensor_files
from vfbench.utils.files import file_sha256

SIZE = 12


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return save_clip_vision(tmp_path / "clip")


def norms(vectors: torch.Tensor) -> list[float]:
    lengths: list[float] = vectors.norm(dim=1).tolist()
    return lengths


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 4), (32, 20), (5, 7), (64, 64)])
def test_a_learnt_encoder_takes_frames_of_any_size(height: int, width: int) -> None:
    torch.manual_seed(0)
    encoder = FrameEncoder(ClipShape(1, height, width), SIZE)
    frames = randn(3, 3, height, width)
    embeddings = encoder(frames)
    assert embeddings.shape == (3, SIZE)
    assert norms(embeddings) == pytest.approx([SIZE**0.5] * 3)
    assert not torch.isclose(embeddings[0], embeddings[1]).all()
    shifted = encoder(frames.roll(2, dims=3))  # positions matter
    assert not torch.allclose(shifted, embeddings, atol=1e-3)


def test_half_precision_vectors_are_normalised_in_float32() -> None:
    embeddings = normalise_vectors(randn(4, 300).bfloat16())
    assert embeddings.dtype == torch.float32
    assert norms(embeddings) == pytest.approx([300**0.5] * 4)


# CLIP.


def test_clip_embeddings_match_transformers(clip: Path) -> None:
    encoder = CLIPEncoder(str(clip), find_clip(str(clip)).sha256)
    side = TINY_CLIP["image_size"]
    frames = randn(2, 3, side, side).clamp(-1, 1)
    mean, std = (
        torch.tensor(v)[:, None, None]
        for v in ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    )
    reference = CLIPVisionModelWithProjection.from_pretrained(clip)
    with torch.no_grad():
        expected = reference((frames / 2 + 0.5 - mean) / std).image_embeds
    embeddings = encoder(frames)
    assert torch.allclose(embeddings, normalise_vectors(expected), atol=1e-5)
    assert norms(embeddings) == pytest.approx([TINY_CLIP["projection_dim"] ** 0.5] * 2)
    assert not embeddings.requires_grad
    assert encoder(randn(2, 3, 8, 20)).shape == embeddings.shape  # resized to a square


def test_the_image_encoder_of_a_full_clip_checkpoint_is_loaded(tmp_path: Path) -> None:
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    text = {"vocab_size": 9, "hidden_size": 16, "num_attention_heads": 1, "num_hidden_layers": 1, **ends}
    config = CLIPConfig(text_config=text, vision_config=TINY_CLIP, projection_dim=TINY_CLIP["projection_dim"])
    CLIPModel(config).save_pretrained(tmp_path)
    encoder = CLIPEncoder(str(tmp_path), find_clip(str(tmp_path)).sha256)
    assert encoder(randn(1, 3, 8, 8)).shape == (1, TINY_CLIP["projection_dim"])


def test_a_checkpoint_records_the_clip_hash_and_samples_without_clip(clip: Path, tmp_path: Path) -> None:
    model = tiny_videofusion(embedding=embedding_options(str(clip)))
    recorded = model.config.options["embedding"]
    assert (recorded["encoder"], recorded["size"]) == (str(clip), TINY_CLIP["projection_dim"])
    assert recorded["sha256"] == file_sha256(clip / "model.safetensors")
    assert not any("encoder" in name for name in model.state_dict())
    model.save(tmp_path / "model")
    (clip / "model.safetensors").unlink()
    assert videofusion.build(build_context(tmp_path / "model"), steps=1).shape == model.config.shape


@pytest.mark.slow
def test_training_flops_include_clip(clip: Path, tmp_path: Path) -> None:
    deeper = save_clip_vision(tmp_path / "deeper", num_hidden_layers=3)
    small, large = (
        training_flops(tiny_videofusion(embedding=embedding_options(str(folder)))) for folder in (clip, deeper)
    )
    assert large > small


def test_clip_weights_of_another_hash_are_refused(clip: Path) -> None:
    encoder = CLIPEncoder(str(clip), "0" * 64)
    with pytest.raises(MissingData, match=r"model\.safetensors .*expected 0{64}"):
        encoder(randn(1, 3, 8, 8))


def remove_projection(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = tensor_files.read(path)
    del tensors["visual_projection.weight"]
    tensor_files.write(path, tensors, {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"config\.json is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json "),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 20), "no readable CLIP model"),
        (remove_projection, r"'visual_projection\.weight' is missing"),
    ],
    ids=["no config", "no weights", "damaged config", "damaged weights", "no projection"],
)
def test_a_damaged_clip_folder_is_refused(clip: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(clip)
    with pytest.raises(MissingData, match=message) as caught:
        CLIPEncoder(str(clip), find_clip(str(clip)).sha256)(randn(1, 3, 8, 8))
    assert str(clip) in str(caught.value)


def test_an_unavailable_clip_names_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(name: str, **_: Any) -> str:
        raise FileNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(MissingData, match=r"'some/clip' .*HF_HOME=.*offline"):
        videofusion.create(tiny_dataset(), embedding="some/clip")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("learned", "'learned'.*'learnt'"),
        ("clip", "OWNER/NAME"),
        ("a" * 5000, "learnt, none"),
    ],
    ids=["near", "far", "long"],
)
def test_an_unknown_embedding_is_refused_without_asking_the_hub(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        videofusion.create(tiny_dataset(), embedding=name)
    assert caught.value.exit_code == 2


def test_a_folder_in_the_working_directory_needs_no_slash(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clip.parent)
    assert embedding_options("clip")["encoder"] == "clip"


def test_a_hub_id_is_recorded_as_the_encoder(monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(clip))
    config = videofusion.create(tiny_dataset(), embedding="some/clip").config
    assert config.options["embedding"]["encoder"] == "some/clip"
    assert json.loads(json.dumps(config.options["embedding"])) == config.options["embedding"]
    assert CLIPVisionConfig.from_pretrained(clip).projection_dim == config.options["embedding"]["size"]
