"""CLIP feature extractor on frames: caption similarity (CLIPSIM), frame consistency and embedding of a clip.

Radford et al., arXiv 2103.00020; similarity as in GODIVA, arXiv 2104.14806; ViT-B/32 by default, as in most tables.
Scores of different CLIP models or preprocessing are not comparable: both are in the fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from vfbench import video
from vfbench.errors import UserError, unknown
from vfbench.interfaces import Clips, Features, Request
from vfbench.metrics._clip_model import MODEL, LoadedCLIP, load, untrained
from vfbench.utils import console
from vfbench.utils.device import exact_float32, to_device

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BATCH_SIZE = 64  # frames or captions per forward pass
OPTIONS = {"frames": ("all", "middle"), "preprocess": ("openai", "squash"), "weights": ("default", "random")}


def build(
    device: torch.device,
    *,
    model: str = MODEL,
    frames: str = "all",
    preprocess: str = "openai",
    weights: str = "default",
) -> CLIPExtractor:
    """Extractor with CLIP in float32; `model` is a name on the Hugging Face hub, or a folder with such a model.

    `frames`: `all`, or `middle`, frame T // 2 alone, without `consistency`.
    `preprocess`: `openai` (short side to 224, then the centre square) or `squash` (to 224 x 224), both with PIL's
    bicubic filter; 224 is replaced by the input size of the network. `weights`: `random` is an untrained network with
    a hashing tokenizer, for plumbing checks without a download.
    Raises `UserError` for any other value, and `MissingData` with the command that fetches the model.
    """
    for option, value in {"frames": frames, "preprocess": preprocess, "weights": weights}.items():
        if value not in OPTIONS[option]:
            raise unknown(f"option {option} of extractor clip", value, OPTIONS[option])
    loaded = untrained() if weights == "random" else load(model)
    return CLIPExtractor(loaded, device, frames=frames, preprocess=preprocess)


class CLIPExtractor:
    """CLIP as an `Extractor`.

    `similarity` (1): cosine of frame and prompt, averaged over frames, in -1..1, not scaled, not clipped.
    `consistency` (1): cosine of consecutive frames, averaged, in -1..1.
    `embedding` (projection dim): unit vectors of the frames, averaged.

    Captions longer than the 77 tokens of the network are truncated; `note` counts them.
    """

    name = "clip"

    def __init__(
        self, loaded: LoadedCLIP, device: torch.device, *, frames: str = "all", preprocess: str = "openai"
    ) -> None:
        self.model, self.tokenize, self.device = loaded.model.to(device).eval(), loaded.tokenize, device
        self.frames, self.preprocess, self.weight_status = frames, preprocess, loaded.weight_status
        config = loaded.model.config
        self.side: int = config.vision_config.image_size
        self.max_tokens: int = config.text_config.max_position_embeddings
        self._warned = False
        consistency = {"consistency": 1} if frames == "all" else {}
        self.outputs: Mapping[str, int] = {"similarity": 1, **consistency, "embedding": config.projection_dim}
        settings = ["clip", loaded.identity, loaded.digest, "float32", frames, preprocess]
        self.fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    @torch.inference_mode()
    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """Requested outputs, float32 (B, D) on the CPU; raises `UserError` for the consistency of a single frame."""
        count = video.require_byte_range(clips).shape[1]
        self.require_frames(count, outputs)
        selected = clips if self.frames == "all" else clips[:, count // 2, None]
        with exact_float32(self.device):
            images = self._embed_frames(selected)
            return {output: self._compute(output, images, requests).cpu() for output in outputs}

    def require_frames(self, frames: int, outputs: Sequence[str]) -> None:
        """Raise `UserError` for the consistency of a single frame; see `vfbench.interfaces.FrameLimits`."""
        if "consistency" in outputs and frames < 2:
            raise UserError(f"clips of {frames} frame have no frame consistency: use longer ones, or leave it out")

    def note(self, requests: Sequence[Request]) -> str:
        """Note with the number of prompts that are truncated; empty if there is none."""
        long = sum(len(self.tokenize(request.prompt)) > self.max_tokens for request in requests)
        return f"CLIP reads {self.max_tokens} tokens: {long} of {len(requests)} captions were cut" if long else ""

    def _compute(
        self, output: str, images: Float[Tensor, "b t d"], requests: Sequence[Request]
    ) -> Float[Tensor, "b _"]:
        if output not in self.outputs:
            raise unknown(f"output of extractor clip with frames='{self.frames}'", output, self.outputs)
        if output == "embedding":
            return images.mean(1)
        if output == "consistency":
            return (images[:, 1:] * images[:, :-1]).sum(2).mean(1, keepdim=True)
        texts = self._embed_captions([request.prompt for request in requests])
        return (images * texts[:, None]).sum(2).mean(1, keepdim=True)

    def _embed_frames(self, clips: Clips) -> Float[Tensor, "b t d"]:
        """Embeddings of all frames, unit vectors."""
        parts = torch.split(clips.flatten(0, 1), BATCH_SIZE)
        vectors = [self.model.get_image_features(self.network_input(part)).pooler_output for part in parts]
        return F.normalize(torch.cat(vectors), dim=1).reshape(*clips.shape[:2], -1)

    def network_input(self, frames: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 side side"]:
        """Preprocessed frames: resized, and normalised by CLIP's mean and standard deviation."""
        squash = self.preprocess == "squash"
        resized = [resize_frame(image, self.side, squash=squash) for image in frames.permute(0, 2, 3, 1)]
        pixels = to_device(torch.stack(resized).permute(0, 3, 1, 2), self.device)
        mean, std = (to_device(torch.tensor(values), self.device)[:, None, None] for values in (MEAN, STD))
        return (pixels.float() / 255 - mean) / std

    def _embed_captions(self, captions: Sequence[str]) -> Float[Tensor, "b d"]:
        """Embeddings of captions, unit vectors."""
        parts = torch.split(to_device(torch.tensor(self._token_ids(captions)), self.device), BATCH_SIZE)
        vectors = [self.model.get_text_features(part).pooler_output for part in parts]
        return F.normalize(torch.cat(vectors), dim=1)

    def _token_ids(self, captions: Sequence[str]) -> list[list[int]]:
        """Token ids up to the end token, then zeros; attention is causal, so tokens after the end have no effect."""
        ids = [self.tokenize(caption) for caption in captions]
        long = sum(len(each) > self.max_tokens for each in ids)
        if long and not self._warned:
            console.warn(
                f"{long} of {len(ids)} captions have more than {self.max_tokens} tokens and are truncated; "
                "further ones are truncated without a warning"
            )
            self._warned = True
        truncated = [each if len(each) <= self.max_tokens else [*each[: self.max_tokens - 1], each[-1]] for each in ids]
        return [each + [0] * (self.max_tokens - len(each)) for each in truncated]


def resize_frame(image: UInt8[Tensor, "h w 3"], side: int, *, squash: bool) -> UInt8[Tensor, "side side 3"]:
    """Resize a frame as OpenAI's CLIP does: short side to `side`, then the centre square; or squash to a square.

    Uses PIL: torch's antialiased bicubic filter differs by one or two levels in up to 1 % of the bytes, depending on
    the processor. As in torchvision, the long side is rounded down, and crop offsets of half a pixel are rounded to
    the even pixel.
    """
    frame = Image.fromarray(image.numpy())
    if squash:
        return torch.from_numpy(np.array(frame.resize((side, side), Image.Resampling.BICUBIC)))
    short = min(frame.size)
    width, height = (side * length // short for length in frame.size)
    left, top = (round((length - side) / 2) for length in (width, height))
    resized = frame.resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized.crop((left, top, left + side, top + side))))
