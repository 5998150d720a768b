"""Tests of `vfbench.nets.text_encoder`: captions read by CLIP, T5 or BERT, frozen or trained with the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers import build_context, perturb, tiny_dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from vfbench.baselines import pyoco, vdit, vdm
from vfbench.diffusion.flops import training_flops
from vfbench.diffusion.model import DiffusionModel
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Request
from vfbench.models import videofusion
from vfbench.nets.text_encoder import PretrainedCaptionEncoder
from vfbench.training.options import TrainOptions
from vfbench.training.train import train

SIZE, LONGEST = 16, 12
SIZES: dict[str, Any] = {
    **{"vocab_size": 99, "max_position_embeddings": LONGEST, "hidden_size": SIZE, "intermediate_size": SIZE},
    **{"num_hidden_layers": 1, "num_attention_heads": 2},
}
SPECIAL = {"pad": 0, "start": 1, "end": 2, "unknown": 3}
CAPTIONS = ["a small red circle moves left", "grows", "a word that no dataset has"]
OPTIONS = TrainOptions(steps=1, batch_size=2, device="cpu")


def _clip() -> transformers.PreTrainedModel:
    ends: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(**SIZES, **ends))


def _t5() -> transformers.PreTrainedModel:
    sizes: dict[str, Any] = {"d_model": SIZE, "d_kv": 8, "d_ff": SIZE, "num_layers": 1, "num_heads": 2}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=99, **sizes))


def _bert() -> transformers.PreTrainedModel:
    return transformers.BertForMaskedLM(transformers.BertConfig(**SIZES))


KINDS: dict[str, Callable[[], transformers.PreTrainedModel]] = {"clip": _clip, "t5": _t5, "bert": _bert}


def save_encoder(folder: Path, kind: str = "bert", *, seed: int = 0) -> str:
    """Save a text encoder of random weights and a tokenizer of whole words, as transformers does."""
    words = [*tiny_dataset().words, "no", "dataset", "has", "that", "word"]
    vocabulary = {**SPECIAL, **{word: i + 4 for i, word in enumerate(dict.fromkeys(words))}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="unknown"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="start $A end", special_tokens=[("start", 1), ("end", 2)]
    )
    names: dict[str, Any] = {"pad_token": "pad", "bos_token": "start", "eos_token": "end", "unk_token": "unknown"}
    saved: Any = PreTrainedTokenizerFast
    saved(tokenizer_object=tokenizer, model_max_length=LONGEST, **names).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        KINDS[kind]().save_pretrained(folder)
    return str(folder)


def caption_encoder(model: DiffusionModel) -> PretrainedCaptionEncoder:
    encoder = model.condition.caption
    assert isinstance(encoder, PretrainedCaptionEncoder)
    return encoder


def vdm_with(name: str, **options: Any) -> vdm.VDM:
    return vdm.create(tiny_dataset(), text_encoder=name, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lr", [0.0, 0.1])
def test_a_caption_has_one_vector_whatever_stands_beside_it(tmp_path: Path, kind: str, lr: float) -> None:
    encoder = caption_encoder(vdm_with(save_encoder(tmp_path / "text", kind), text_lr=lr))
    together = encoder.encode(CAPTIONS)
    alone = torch.cat([encoder.encode([caption]) for caption in CAPTIONS])
    assert torch.allclose(together, alone, atol=1e-5)  # padding counts for nothing
    assert torch.pdist(together).min() > 1e-3


@pytest.mark.one_case
@pytest.mark.parametrize("module", [vdm, pyoco, vdit, videofusion])
def test_every_model_trains_saves_and_samples_with_a_frozen_encoder(tmp_path: Path, module: Any) -> None:
    name, data = save_encoder(tmp_path / "text"), tiny_dataset()
    model = module.create(data, text_encoder=name)
    assert not any("network" in key for key in model.condition.state_dict())
    x = data.clips("train", [0, 1]).float() / 127.5 - 1
    draws = model.draw(2, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        encoder = caption_encoder(model)
        encoder.encode(CAPTIONS[:1])  # vectors that were kept while sampling are read in training
    losses = model.training_losses(x, [0, 1], CAPTIONS[:2], ["text", "text"], draws)
    sum(losses.values(), torch.zeros(())).backward()
    assert encoder.projection.weight.grad is not None
    model.save(tmp_path / "model")
    sampler = module.build(build_context(tmp_path / "model"), steps=1)
    requests = [Request(index=i, seed=0, label=0, prompt=caption) for i, caption in enumerate(CAPTIONS)]
    assert len(sampler.sample(requests)) == len(requests)


@pytest.mark.slow
def test_training_moves_the_encoder_at_its_own_rate_and_keeps_it_in_the_checkpoint(
    quick_training: None, tmp_path: Path
) -> None:
    name = save_encoder(tmp_path / "text")
    model = vdm_with(name, text_lr=0.5)
    perturb(model)  # its output starts at zero, and so do the gradients of what it reads
    before = {key: value.clone() for key, value in caption_encoder(model).state_dict().items()}
    assert [group["lr"] for group in model.parameter_groups(0.1)] == [0.1, 0.05]
    count = sum(len(group["params"]) for group in model.parameter_groups(0.1))
    assert count == len(list(model.parameters()))
    train(model, tiny_dataset(), OPTIONS, tmp_path / "model")
    moved = {key for key, value in caption_encoder(model).state_dict().items() if not torch.equal(value, before[key])}
    assert any(key.startswith("network.network.encoder") for key in moved)
    assert training_flops(model) > 0
    loaded = vdm.build(build_context(tmp_path / "model"), steps=1).model
    assert any(key.startswith("condition.caption.network") for key in loaded.state_dict())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"text_encoder": "bert"}, UserError, "text encoder.* 'bert'"),
        ({"text_encoder": "words", "text_lr": 0.1}, UserError, "text_lr 0.1"),
        ({"text_encoder": "{folder}", "text_lr": 2.0}, UserError, "text_lr 2.0"),
        ({"text_encoder": "{empty}"}, MissingData, "config.json"),
    ],
)
def test_wrong_options_are_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    folders = {"folder": save_encoder(tmp_path / "text"), "empty": str(tmp_path / "empty")}
    options["text_encoder"] = options["text_encoder"].format(**folders)
    with pytest.raises(error, match=message):
        vdm.create(tiny_dataset(), **options)


def test_another_encoder_and_a_caption_too_long_are_refused(tmp_path: Path) -> None:
    encoder = caption_encoder(vdm_with(save_encoder(tmp_path / "text")))
    with pytest.raises(UserError, match=f"13 tokens.* at most {LONGEST}"):
        encoder.encode(["a " * 11])
    other = PretrainedCaptionEncoder(replace(encoder.config, name=save_encoder(tmp_path / "other", seed=1)), 8)
    with pytest.raises(MissingData, match=encoder.config.sha256):
        other.encode(CAPTIONS)
