"""The image decoder of an unCLIP pipeline (Ramesh et al., arXiv 2204.06125) as VideoFusion's base generator.

The decoder makes an image of the CLIP embedding of an image, as the base generator of the paper does. Its inputs are
those of diffusers' `UnCLIPTextProjModel`: the image embedding is added to the embedding of the time and becomes a few
tokens that the decoder attends to, beside the tokens of a caption. Here the conditioning vector takes the place of the
image embedding, through a linear layer whose weight starts at zero and whose bias starts at the pipeline's embedding
for no image. The caption is always the empty one, whose tokens are computed once and stored with the model. So the
decoder begins as the pipeline without image and caption, and learns to read the conditioning vector in training. Of its
outputs only the noise is read, not the variance.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfbench.diffusion.schedule import Schedule
from vfbench.errors import MissingData
from vfbench.interfaces import ClipShape
from vfbench.models import _hub_base
from vfbench.models._hub_base import HubBase, HubBaseCheckpoint
from vfbench.utils import tensor_files

FILES = [
    *("decoder/*.json", "decoder/*model.safetensors", "text_proj/*.json", "text_proj/*model.safetensors"),
    *("text_encoder/*.json", "text_encoder/model.safetensors", "tokenizer/*", "decoder_scheduler/*.json"),
]
_CHANNELS = 3  # the decoder puts out the noise, and the variance
_LAYERS = {
    "image_to_time": "clip_image_embeddings_project_to_time_embeddings",
    "image_to_tokens": "clip_extra_context_tokens_proj",
}
_WEIGHTS = {  # names here and in the pipeline
    "conditioning.bias": "learned_classifier_free_guidance_embeddings",
    **{f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in _LAYERS.items() for part in ("weight", "bias")},
}
_OF_CAPTIONS = ("embedding_proj", "encoder_hidden_states_proj", "text_encoder_hidden_states_norm")
_PROJECTION = {*_WEIGHTS.values(), *(f"{name}.{part}" for name in _OF_CAPTIONS for part in ("weight", "bias"))}


class UnclipDecoder(HubBase):
    """A decoder, and the layers by which it reads an image embedding and the empty caption.

    `options` are those of `load`: the decoder's configuration `unclip`, its `scheduler`, and `sizes`.
    """

    text_mask: Tensor

    def __init__(self, options: Mapping[str, Any], width: int, schedule: Schedule) -> None:
        network, sizes = _hub_base.diffusers().UNet2DConditionModel.from_config(options["unclip"]), options["sizes"]
        super().__init__(network, options["scheduler"], schedule, width, sizes["embedding"])
        self.image_to_time = nn.Linear(sizes["embedding"], sizes["time"])
        self.image_to_tokens = nn.Linear(sizes["embedding"], sizes["image_tokens"] * sizes["context"][1])
        self.text_time = nn.Parameter(torch.zeros(sizes["time"]))
        self.text_tokens = nn.Parameter(torch.zeros(sizes["context"]))
        self.register_buffer("text_mask", torch.ones(sizes["context"][0]))

    def denoise(self, image: Tensor, timestep: Tensor, cond: Tensor) -> Tensor:
        """The predicted noise; `cond` is an image embedding (B, size)."""
        batch, (_, width) = len(cond), self.text_tokens.shape
        image_tokens = self.image_to_tokens(cond).reshape(batch, width, -1).transpose(1, 2)
        tokens = torch.cat([image_tokens, self.text_tokens.expand(batch, -1, -1).to(image_tokens)], dim=1)
        mask = torch.cat([torch.ones_like(image_tokens[:, :, 0]), self.text_mask.expand(batch, -1).to(tokens)], dim=1)
        output: Tensor = self.network(
            image,
            timestep,
            encoder_hidden_states=tokens,
            class_labels=self.image_to_time(cond) + self.text_time,
            attention_mask=mask,
            return_dict=False,
        )[0]
        return output[:, :_CHANNELS]


def is_pipeline(folder: Path) -> bool:
    """True where a folder holds an unCLIP pipeline."""
    return (folder / "decoder" / "config.json").is_file() and (folder / "text_proj" / "config.json").is_file()


def load(folder: Path, shape: ClipShape) -> HubBaseCheckpoint:
    """Read the decoder of a pipeline, for frames of the shape's size.

    Raises `MissingData` where a file is missing or unreadable, and `UserError` where the decoder does not fit.
    """
    path = folder / "decoder" / "config.json"
    model = _hub_base.read_model_config(path, shape, "UNet2DConditionModel", outputs=2 * _CHANNELS)
    scheduler = _hub_base.read_scheduler_config(folder, "decoder_scheduler")
    network = _hub_base.read_part(_hub_base.diffusers().UNet2DConditionModel, folder / "decoder")
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    projection = _read_projection(folder / "text_proj")
    state |= {ours: projection[theirs] for ours, theirs in _WEIGHTS.items()}
    state |= _empty_caption(folder, projection)
    sizes = {
        "embedding": state["conditioning.bias"].shape[0],
        "time": state["text_time"].shape[0],
        "context": list(state["text_tokens"].shape),
        "image_tokens": state["image_to_tokens.bias"].shape[0] // state["text_tokens"].shape[1],
    }
    return HubBaseCheckpoint({"unclip": {**model, "dropout": 0.0}, "sizes": sizes, "scheduler": scheduler}, state)


def _read_projection(folder: Path) -> Mapping[str, Tensor]:
    """Weights by name of the layers that read an image embedding and a caption."""
    path = folder / "diffusion_pytorch_model.safetensors"
    weights = tensor_files.read(path)
    if missing := _PROJECTION - weights.keys():
        raise MissingData(f"{path} lacks {min(missing)}: it is not the text_proj of an unCLIP pipeline")
    return weights


def _empty_caption(folder: Path, projection: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inputs of the decoder for the empty caption: a vector for the time, tokens, and the mask of those not padding."""
    import transformers

    encoder = _hub_base.read_part(transformers.CLIPTextModelWithProjection, folder / "text_encoder")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as error:
        raise MissingData(f"{folder / 'tokenizer'} holds no readable tokenizer ({error})") from error
    words = tokenizer([""], padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    with torch.no_grad():
        read = encoder.eval()(words["input_ids"])
    tokens = _linear(read.last_hidden_state[0], projection, "encoder_hidden_states_proj")
    scale, shift = (projection[f"text_encoder_hidden_states_norm.{part}"] for part in ("weight", "bias"))
    return {
        "text_time": _linear(read.text_embeds[0], projection, "embedding_proj"),
        "text_tokens": nn.functional.layer_norm(tokens, scale.shape, scale, shift),
        "text_mask": words["attention_mask"][0].float(),
    }


def _linear(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    return nn.functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
