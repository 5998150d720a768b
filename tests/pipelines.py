"""Tiny diffusers pipelines of random weights, one of each family; no downloads, about 20 ms a clip."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

library: Any = importlib.import_module("diffusers")  # partly untyped
transformers: Any = importlib.import_module("transformers")

WORDS = ("a", "small", "large", "red", "green", "blue", "circle", "triangle", "moves", "left", "right", "over")
TEXT = 16  # dimensions of a prompt's embedding


class Family(NamedTuple):
    """Constructor of a family's pipeline, and options for a small clip."""

    make: Callable[[], Any]
    options: Mapping[str, int]


def save(family: str, folder: Path) -> Path:
    """Save the pipeline of a family, with equal weights on every call, and return the folder."""
    for name in ("diffusers", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        FAMILIES[family].make().save_pretrained(folder)
    return folder


def _tokenizer(length: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    tokens = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokens, model_max_length=length, **special)


def _clip() -> dict[str, Any]:
    sizes = {"hidden_size": TEXT, "intermediate_size": TEXT, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0, "max_position_embeddings": 12}
    text_encoder = transformers.CLIPTextModel(transformers.CLIPTextConfig(**sizes, **ids))
    return {"text_encoder": text_encoder, "tokenizer": _tokenizer(12)}


def _t5(length: int, kind: str = "T5") -> dict[str, Any]:
    sizes = {"vocab_size": 20, "d_model": TEXT, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    config = getattr(transformers, f"{kind}Config")(**sizes)
    return {"text_encoder": getattr(transformers, f"{kind}EncoderModel")(config), "tokenizer": _tokenizer(length)}


def _image_vae() -> Any:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return library.AutoencoderKL(block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, **blocks)


UNET = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4}


def modelscope() -> Any:
    """ModelScope with frames of 16x16: a sample size of 8, doubled by the decoder."""
    blocks = {
        "down_block_types": ("DownBlock3D", "CrossAttnDownBlock3D"),
        "up_block_types": ("CrossAttnUpBlock3D", "UpBlock3D"),
    }
    unet = library.UNet3DConditionModel(sample_size=8, cross_attention_dim=TEXT, **blocks, **UNET)
    scheduler = library.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False)
    return library.TextToVideoSDPipeline(vae=_image_vae(), unet=unet, scheduler=scheduler, **_clip())


def image_parts() -> dict[str, Any]:
    """Components of a text-to-image pipeline for AnimateDiff."""
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    unet = library.UNet2DConditionModel(sample_size=8, cross_attention_dim=TEXT, **blocks, **UNET)
    return {
        "vae": _image_vae(),
        "unet": unet,
        "scheduler": library.DDIMScheduler(steps_offset=1, clip_sample=False),
        **_clip(),
    }


def motion_adapter() -> Any:
    sizes = {"motion_layers_per_block": 1, "motion_norm_num_groups": 4, "motion_num_attention_heads": 2}
    return library.MotionAdapter(block_out_channels=(8, 8), **sizes)


def animatediff() -> Any:
    return library.AnimateDiffPipeline(motion_adapter=motion_adapter(), **image_parts())


def cogvideox(kind: str = "CogVideoXPipeline") -> Any:
    """CogVideoX with 9 frames of 32x32 from its transformer's config."""
    blocks = {"down_block_types": ("CogVideoXDownBlock3D",) * 4, "up_block_types": ("CogVideoXUpBlock3D",) * 4}
    sizes = {"block_out_channels": (8,) * 4, "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 2}
    vae = library.AutoencoderKLCogVideoX(**blocks, **sizes)
    heads = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1, "time_embed_dim": 4}
    inputs = 8 if "Image" in kind else 4  # image latents are concatenated to the noise
    clip = {"in_channels": inputs, "out_channels": 4, "sample_width": 4, "sample_height": 4, "sample_frames": 9}
    network = library.CogVideoXTransformer3DModel(text_embed_dim=TEXT, **heads, **clip)
    scheduler = library.CogVideoXDDIMScheduler()
    return getattr(library, kind)(vae=vae, transformer=network, scheduler=scheduler, **_t5(226))


def cogvideox_from_image() -> Any:
    return cogvideox("CogVideoXImageToVideoPipeline")


def ltx(kind: str = "LTXPipeline") -> Any:
    widths = {"block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    depths = {"layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 5, "patch_size": 1, "patch_size_t": 1}
    vae = library.AutoencoderKLLTXVideo(latent_channels=8, **widths, **depths)
    heads = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 3, "cross_attention_dim": 16}
    network = library.LTXVideoTransformer3DModel(in_channels=8, out_channels=8, caption_channels=TEXT, **heads)
    scheduler = library.FlowMatchEulerDiscreteScheduler()
    return getattr(library, kind)(vae=vae, transformer=network, scheduler=scheduler, **_t5(128))


def ltx_from_image() -> Any:
    return ltx("LTXImageToVideoPipeline")


def _clip_vision(kind: str, side: int) -> tuple[Any, Any]:
    """CLIP image encoder and its image processor, for images of `side` pixels."""
    sizes = {"hidden_size": TEXT, "intermediate_size": TEXT, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPVisionConfig(image_size=side, patch_size=side // 4, projection_dim=TEXT, **sizes)
    crop = {"crop_size": side, "size": {"shortest_edge": side}}
    return getattr(transformers, kind)(config), transformers.CLIPImageProcessor(**crop)


def wan() -> Any:
    return _wan("WanPipeline")


def wan_from_image() -> Any:
    encoder, processor = _clip_vision("CLIPVisionModel", 16)
    parts = {"image_encoder": encoder, "image_processor": processor}
    return _wan("WanImageToVideoPipeline", {"in_channels": 36, "image_dim": TEXT}, parts)


def _wan(kind: str, inputs: Mapping[str, int] = MappingProxyType({"in_channels": 16}), parts: Any = None) -> Any:
    vae = library.AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1] * 4, num_res_blocks=1)
    heads = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "ffn_dim": 16, "freq_dim": 32}
    clip = {"out_channels": 16, "text_dim": TEXT, "rope_max_seq_len": 32}
    network = library.WanTransformer3DModel(**heads, **clip, **inputs)
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    scheduler = library.UniPCMultistepScheduler(**flow)
    components = {"vae": vae, "transformer": network, "scheduler": scheduler, **_t5(12, "UMT5"), **(parts or {})}
    return getattr(library, kind)(**components)


def svd() -> Any:
    """Stable Video Diffusion with 6 frames from its U-Net's config; it takes no text."""
    blocks = {
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    }
    sizes = {"block_out_channels": (32, 32), "layers_per_block": 1, "num_attention_heads": 2, "sample_size": 8}
    embeddings = {"cross_attention_dim": TEXT, "addition_time_embed_dim": 8}
    embeddings |= {"projection_class_embeddings_input_dim": 24}
    unet = library.UNetSpatioTemporalConditionModel(num_frames=6, **blocks, **sizes, **embeddings)
    vae = library.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32), latent_channels=4, down_block_types=("DownEncoderBlock2D",) * 2
    )
    encoder, processor = _clip_vision("CLIPVisionModelWithProjection", 224)
    noise = {"prediction_type": "v_prediction", "timestep_type": "continuous", "sigma_min": 0.002, "sigma_max": 700.0}
    scheduler = library.EulerDiscreteScheduler(use_karras_sigmas=True, **noise)
    parts = {"vae": vae, "unet": unet, "scheduler": scheduler, "image_encoder": encoder, "feature_extractor": processor}
    return library.StableVideoDiffusionPipeline(**parts)


def unconditional() -> Any:
    """Unconditional DDPM of 16x16 images: clips of one frame."""
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = library.UNet2DModel(sample_size=16, **blocks, **UNET)
    return library.DDPMPipeline(unet=unet, scheduler=library.DDPMScheduler())


FAMILIES: Mapping[str, Family] = {
    "modelscope": Family(modelscope, {"frames": 4}),
    "animatediff": Family(animatediff, {"frames": 4}),
    "cogvideox": Family(cogvideox, {}),
    "cogvideox_from_image": Family(cogvideox_from_image, {"frames": 9}),
    "ltx": Family(ltx, {"frames": 9, "height": 32, "width": 32}),
    "ltx_from_image": Family(ltx_from_image, {"frames": 9, "height": 32, "width": 32}),
    "wan": Family(wan, {"frames": 5, "height": 16, "width": 16}),
    "wan_from_image": Family(wan_from_image, {"frames": 5, "height": 16, "width": 16}),
    "svd": Family(svd, {"height": 16, "width": 16}),
    "unconditional": Family(unconditional, {}),
}
