"""Frames become vectors of one length, by a network of ours or by CLIP, which no checkpoint holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from embedded import TINY_CLIP, saved_clip
from helpers import randn, setting, tiny_dataset, tiny_videofusion
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from vfbench.diffusion.flops import training_flops
from vfbench.diffusion.model import embedding_options
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import ClipShape
from vfbench.models import videofusion
from vfbench.nets.frame_encoder import CLIPEncoder, FrameEncoder, find_clip, normalise_vectors
from vfbench.utils import tensor_files
from vfbench.utils.files import file_sha256

SIZE = 12


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return saved_clip(tmp_path / "clip")


def lengths_of(vectors: torch.Tensor) -> list[float]:
    found: list[float] = vectors.norm(dim=1).tolist()
    return found


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 4), (32, 20), (5, 7), (64, 64)])
def test_a_learnt_encoder_takes_frames_of_any_size(height: int, width: int) -> None:
    torch.manual_seed(0)
    encoder = FrameEncoder(ClipShape(1, height, width), SIZE)
    frames = randn(3, 3, height, width)
    found = encoder(frames)
    assert found.shape == (3, SIZE)
    assert lengths_of(found) == pytest.approx([SIZE**0.5] * 3)
    assert not torch.isclose(found[0], found[1]).all()
    shifted = encoder(frames.roll(2, dims=3))  # it tells where things are
    assert not torch.allclose(shifted, found, atol=1e-3)


def test_vectors_of_half_precision_are_scaled_in_full() -> None:
    found = normalise_vectors(randn(4, 300).bfloat16())
    assert found.dtype == torch.float32
    assert lengths_of(found) == pytest.approx([300**0.5] * 4)


# CLIP.


def test_clip_says_what_transformers_says(clip: Path) -> None:
    encoder = CLIPEncoder(str(clip), find_clip(str(clip)).sha256)
    side = TINY_CLIP["image_size"]
    frames = randn(2, 3, side, side).clamp(-1, 1)
    mean, std = (
        torch.tensor(v)[:, None, None]
        for v in ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    )
    theirs = CLIPVisionModelWithProjection.from_pretrained(clip)
    with torch.no_grad():
        wanted = theirs((frames / 2 + 0.5 - mean) / std).image_embeds
    found = encoder(frames)
    assert torch.allclose(found, normalise_vectors(wanted), atol=1e-5)
    assert lengths_of(found) == pytest.approx([TINY_CLIP["projection_dim"] ** 0.5] * 2)
    assert not found.requires_grad
    assert encoder(randn(2, 3, 8, 20)).shape == found.shape  # squashed to its square


def test_the_image_half_of_a_whole_clip_is_taken(tmp_path: Path) -> None:
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    text = {"vocab_size": 9, "hidden_size": 16, "num_attention_heads": 1, "num_hidden_layers": 1, **ends}
    config = CLIPConfig(text_config=text, vision_config=TINY_CLIP, projection_dim=TINY_CLIP["projection_dim"])
    CLIPModel(config).save_pretrained(tmp_path)
    encoder = CLIPEncoder(str(tmp_path), find_clip(str(tmp_path)).sha256)
    assert encoder(randn(1, 3, 8, 8)).shape == (1, TINY_CLIP["projection_dim"])


def test_a_checkpoint_remembers_clip_by_its_hash_and_samples_without_it(clip: Path, tmp_path: Path) -> None:
    model = tiny_videofusion(embedding=embedding_options(str(clip)))
    told = model.config.options["embedding"]
    assert (told["encoder"], told["size"]) == (str(clip), TINY_CLIP["projection_dim"])
    assert told["sha256"] == file_sha256(clip / "model.safetensors")
    assert not any("encoder" in name for name in model.state_dict())
    model.save(tmp_path / "model")
    (clip / "model.safetensors").unlink()
    assert videofusion.build(setting(tmp_path / "model"), steps=1).shape == model.config.shape


def test_its_work_in_a_training_step_is_counted(clip: Path, tmp_path: Path) -> None:
    deeper = saved_clip(tmp_path / "deeper", num_hidden_layers=3)
    small, large = (training_flops(tiny_videofusion(embedding=embedding_options(str(one)))) for one in (clip, deeper))
    assert large > small


def test_another_clip_than_at_the_beginning_is_refused(clip: Path) -> None:
    encoder = CLIPEncoder(str(clip), "0" * 64)
    with pytest.raises(MissingData, match=r"model\.safetensors is not the CLIP that .* expected 0{64}"):
        encoder(randn(1, 3, 8, 8))


def _without_a_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = tensor_files.read(path)
    del tensors["visual_projection.weight"]
    tensor_files.write(path, tensors, {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"holds no CLIP model: config\.json is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json does not describe a CLIP model"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 20), "no readable CLIP model"),
        (_without_a_tensor, r"does not fit CLIP: 'visual_projection\.weight' is missing"),
    ],
    ids=["no config", "no weights", "damaged config", "damaged weights", "no projection"],
)
def test_a_damaged_clip_is_named(clip: Path, damage: Callable[[Path], object], named: str) -> None:
    damage(clip)
    with pytest.raises(MissingData, match=named) as caught:
        CLIPEncoder(str(clip), find_clip(str(clip)).sha256)(randn(1, 3, 8, 8))
    assert str(clip) in str(caught.value)


def test_a_clip_that_cannot_be_had_names_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fails(name: str, **_: Any) -> str:
        raise FileNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(MissingData, match=r"'some/clip' is no folder here, and neither .*HF_HOME=.*offline"):
        videofusion.create(tiny_dataset(), embedding="some/clip")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("learned", "no embedding called 'learned': did you mean 'learnt'"),
        ("clip", "OWNER/NAME of a CLIP"),
        ("a" * 5000, "known: learnt, none, the folder or hub id"),
    ],
    ids=["near", "far", "long"],
)
def test_a_word_that_is_neither_folder_nor_id_is_not_looked_for_on_the_hub(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        videofusion.create(tiny_dataset(), embedding=name)
    assert caught.value.exit_code == 2


def test_a_folder_beside_the_user_needs_no_slash(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clip.parent)
    assert embedding_options("clip")["encoder"] == "clip"


def test_a_clip_of_the_hub_is_read_like_a_folder(monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(clip))
    config = videofusion.create(tiny_dataset(), embedding="some/clip").config
    assert config.options["embedding"]["encoder"] == "some/clip"
    assert json.loads(json.dumps(config.options["embedding"])) == config.options["embedding"]
    assert CLIPVisionConfig.from_pretrained(clip).projection_dim == config.options["embedding"]["size"]
