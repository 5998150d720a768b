"""Tests of the decoder of an unCLIP pipeline as base generator: its output, training, and wrong folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import UNET, build_context, clips_of, embed, perturb, requests, tiny_dataset
from torch import nn

from vfbench.errors import MissingData, UserError
from vfbench.models import videofusion
from vfbench.models._unclip_base import UnclipDecoder
from vfbench.models.videofusion import VideoFusion
from vfbench.training.train import TrainOptions, train

diffusers = pytest.importorskip("diffusers", reason="needs the extra: diffusers")
pipelines = pytest.importorskip("pipelines", reason="needs the extra: diffusers")

CLIP, TIME, CONTEXT, TOKENS = pipelines.TEXT, 32, 24, 3
TIMES = torch.tensor([300, 800])
DECODER = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 6,
    "class_embed_type": "identity",
    "cross_attention_dim": CONTEXT,
    "only_cross_attention": False,
    "attention_head_dim": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "block_out_channels": (8, 8),
    "resnet_time_scale_shift": "scale_shift",
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
}


class TextProjection(nn.Module):
    """How the pipeline reads an image embedding and a caption, after section 2.1 of arXiv 2204.06125."""

    def __init__(self) -> None:
        super().__init__()
        self.learned_classifier_free_guidance_embeddings = nn.Parameter(torch.randn(CLIP))
        self.embedding_proj = nn.Linear(CLIP, TIME)
        self.clip_image_embeddings_project_to_time_embeddings = nn.Linear(CLIP, TIME)
        self.clip_extra_context_tokens_proj = nn.Linear(CLIP, TOKENS * CONTEXT)
        self.encoder_hidden_states_proj = nn.Linear(CLIP, CONTEXT)
        self.text_encoder_hidden_states_norm = nn.LayerNorm(CONTEXT)

    def forward(self, image: torch.Tensor, prompt: torch.Tensor, hidden: torch.Tensor) -> Any:
        time = self.clip_image_embeddings_project_to_time_embeddings(image) + self.embedding_proj(prompt)
        extra = self.clip_extra_context_tokens_proj(image).reshape(len(image), -1, TOKENS).permute(0, 2, 1)
        text = self.text_encoder_hidden_states_norm(self.encoder_hidden_states_proj(hidden))
        return time, torch.cat([extra, text], dim=1)


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """Parts of a tiny pipeline of random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        clip = pipelines._clip()
        text = pipelines.transformers.CLIPTextModelWithProjection(
            pipelines.transformers.CLIPTextConfig(**{**clip["text_encoder"].config.to_dict(), "projection_dim": CLIP})
        )
        decoder = diffusers.UNet2DConditionModel(**DECODER)
        perturb(decoder)
        found = {"text_encoder": text, "tokenizer": clip["tokenizer"], "decoder": decoder}
        scheduler = diffusers.UnCLIPScheduler(num_train_timesteps=1000, variance_type="learned_range")
        return {**found, "text_proj": TextProjection(), "decoder_scheduler": scheduler}


@pytest.fixture(scope="module")
def saved(parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the pipeline."""
    from safetensors.torch import save_file

    folder: Path = tmp_path_factory.mktemp("unclip")
    for name, part in parts.items():
        (folder / name).mkdir()
        if name == "text_proj":
            save_file(part.state_dict(), folder / name / "diffusion_pytorch_model.safetensors")
            (folder / name / "config.json").write_text(json.dumps({"_class_name": "UnCLIPTextProjModel"}))
        else:
            part.save_pretrained(folder / name)
    return folder


@pytest.fixture(autouse=True)
def small(quick_training: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the residual network of the preset `tiny`."""
    monkeypatch.setitem(videofusion.PRESETS, "tiny", {**videofusion.PRESETS["tiny"], "residual": UNET})


def create_model(folder: Path, init: str = "finetune") -> VideoFusion:
    model = videofusion.create(tiny_dataset(), base_init=init, base_from=folder)  # type: ignore[arg-type]  # a literal
    assert isinstance(model, VideoFusion)
    return model


@torch.no_grad()
def test_the_decoder_begins_as_the_pipeline_without_image_and_caption(parts: dict[str, Any], saved: Path) -> None:
    model = create_model(saved)
    assert isinstance(model.base, UnclipDecoder)
    frame, projection = clips_of(model)[:, :1], parts["text_proj"]
    empty = parts["tokenizer"]([""], padding="max_length", max_length=12, return_tensors="pt")
    read = parts["text_encoder"].eval()(empty["input_ids"])
    image = projection.learned_classifier_free_guidance_embeddings.expand(2, -1)
    hidden = read.last_hidden_state.expand(2, -1, -1)
    time, context = projection(image, read.text_embeds.expand(2, -1), hidden)
    mask = nn.functional.pad(empty["attention_mask"].expand(2, -1), (TOKENS, 0), value=1)
    inputs = {"encoder_hidden_states": context, "class_labels": time, "attention_mask": mask.bool()}
    expected = parts["decoder"].eval()(frame[:, 0], TIMES, **inputs).sample[:, :3]
    output = model.base(frame, TIMES, embed(model, "text"))
    assert torch.allclose(output[:, 0], expected, atol=1e-5)
    perturb(model.base.conditioning)
    assert not torch.isclose(model.base(frame, TIMES, embed(model, "text")), output).all()


@pytest.mark.parametrize("init", ["finetune", "frozen"])
def test_a_training_keeps_the_decoder_and_samples_without_its_folder(saved: Path, tmp_path: Path, init: str) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "pipeline"))
    model, options = create_model(folder, init), TrainOptions(steps=2, batch_size=2, lr=1e-2, warmup=1)
    before = {name: parameter.clone() for name, parameter in model.base.named_parameters()}
    trained = train(model, tiny_dataset(), options, tmp_path / "trained")
    shutil.rmtree(folder)
    changed = {name for name, p in model.base.named_parameters() if not torch.equal(p, before[name])}
    assert bool(changed) is (init == "finetune")
    assert ("conditioning.weight" in changed) is (init == "finetune")
    sampler = videofusion.build(build_context(trained), steps=2)
    assert sampler.sample(requests(4)).shape == (1, *clips_of(model).shape[1:])


@pytest.mark.parametrize(
    ("spoil", "error", "named"),
    [
        ({"decoder/config.json": {"sample_size": 64}}, UserError, "64x64"),
        ({"decoder/config.json": {"out_channels": 3}}, UserError, "out_channels 3"),
        ({"decoder/config.json": {"_class_name": "UNet3D"}}, UserError, "UNet3D"),
        ({"decoder/diffusion_pytorch_model.safetensors": None}, MissingData, "decoder"),
        ({"text_proj/diffusion_pytorch_model.safetensors": None}, MissingData, "text_proj"),
        ({"text_encoder/model.safetensors": None}, MissingData, "text_encoder"),
        ({"tokenizer/tokenizer.json": None}, MissingData, "tokenizer"),
        ({"decoder_scheduler/scheduler_config.json": None}, MissingData, "scheduler_config.json"),
    ],
)
def test_a_pipeline_that_does_not_fit_is_refused_with_the_file(
    spoil: dict[str, Any], error: type[Exception], named: str, saved: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "pipeline"))
    for name, fields in spoil.items():
        if fields is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **fields}))
    with pytest.raises(error) as caught:
        create_model(folder)
    assert named in str(caught.value)
    assert str(folder) in str(caught.value)
