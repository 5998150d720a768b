"""CLIP on frames: how well a clip shows its caption (CLIPSIM), how steady its frames are, and what they look like.

Radford et al., arXiv 2103.00020; similarity as in GODIVA, arXiv 2104.14806, with ViT-B/32 as in most tables. Scores of
another CLIP model, or of another preprocessing, do not compare: both are in the fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import sys
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
from vfbench.metrics._clip_model import MODEL, Loaded, load, untrained
from vfbench.utils.device import exact_float32

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BATCH = 64  # frames, or captions, in one pass of the network
OPTIONS = {"frames": ("all", "middle"), "preprocess": ("openai", "squash"), "weights": ("default", "random")}


def build(
    device: torch.device,
    *,
    model: str = MODEL,
    frames: str = "all",
    preprocess: str = "openai",
    weights: str = "default",
) -> CLIPExtractor:
    """CLIP in float32: `model` is its name on the Hugging Face hub, or a folder that holds such a model.

    `frames`: `all`, or `middle`, which is frame T // 2 alone and has no `consistency`.
    `preprocess`: `openai` (short side to 224, the centre square of it) or `squash` (to 224 x 224), both by PIL's
    bicubic filter; another number where the network has another input. `weights`: `random` is an untrained network
    with a tokenizer of hashes, to try the path without a download.
    Raises `UserError` for any other option, and `MissingData` with the command that fetches the model.
    """
    for option, value in {"frames": frames, "preprocess": preprocess, "weights": weights}.items():
        if value not in OPTIONS[option]:
            raise unknown(f"option {option} of extractor clip", value, OPTIONS[option])
    loaded = untrained() if weights == "random" else load(model)
    return CLIPExtractor(loaded, device, frames=frames, preprocess=preprocess)


class CLIPExtractor:
    """CLIP behind the common interface.

    `similarity` (1): the mean over frames of the cosine of frame and prompt, in -1..1, not scaled, not clipped.
    `consistency` (1): the mean cosine of consecutive frames, in -1..1.
    `embedding` (projection dim): the mean over frames of their unit vectors.

    Of captions longer than the 77 tokens that the network reads the rest is cut; `note` counts them.
    """

    name = "clip"

    def __init__(
        self, loaded: Loaded, device: torch.device, *, frames: str = "all", preprocess: str = "openai"
    ) -> None:
        self.model, self.tokens, self.device = loaded.model.to(device).eval(), loaded.tokens, device
        self.frames, self.preprocess, self.weight_status = frames, preprocess, loaded.weight_status
        config = loaded.model.config
        self.side: int = config.vision_config.image_size
        self.length: int = config.text_config.max_position_embeddings
        self._warned = False
        steady = {"consistency": 1} if frames == "all" else {}
        self.outputs: Mapping[str, int] = {"similarity": 1, **steady, "embedding": config.projection_dim}
        settings = ["clip", loaded.identity, loaded.digest, "float32", frames, preprocess]
        self.fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    @torch.inference_mode()
    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """The asked outputs, float32 (B, D) on the CPU; raises `UserError` for the consistency of a single frame."""
        count = video.checked(clips).shape[1]
        if "consistency" in outputs and count < 2:
            raise UserError(f"clips of {count} frame have no frame consistency: use longer ones, or leave it out")
        chosen = clips if self.frames == "all" else clips[:, count // 2, None]
        with exact_float32(self.device):
            images = self._images(chosen)
            return {output: self._tell(output, images, requests).cpu() for output in outputs}

    def note(self, requests: Sequence[Request]) -> str:
        """How many of the prompts are longer than the network reads; empty where none is."""
        long = sum(len(self.tokens(request.prompt)) > self.length for request in requests)
        return f"CLIP reads {self.length} tokens: {long} of {len(requests)} captions were cut" if long else ""

    def _tell(self, output: str, images: Float[Tensor, "b t d"], requests: Sequence[Request]) -> Float[Tensor, "b _"]:
        if output not in self.outputs:
            raise unknown(f"output of extractor clip with frames='{self.frames}'", output, self.outputs)
        if output == "embedding":
            return images.mean(1)
        if output == "consistency":
            return (images[:, 1:] * images[:, :-1]).sum(2).mean(1, keepdim=True)
        texts = self._texts([request.prompt for request in requests])
        return (images * texts[:, None]).sum(2).mean(1, keepdim=True)

    def _images(self, clips: Clips) -> Float[Tensor, "b t d"]:
        """Unit vectors of frames."""
        parts = torch.split(clips.flatten(0, 1), BATCH)
        vectors = [self.model.get_image_features(self.prepared(part)).pooler_output for part in parts]
        return F.normalize(torch.cat(vectors), dim=1).reshape(*clips.shape[:2], -1)

    def prepared(self, frames: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 side side"]:
        """What the network sees of frames: cut to its size, and with the mean and deviation of its training."""
        fitted = [fit(image, self.side, squash=self.preprocess == "squash") for image in frames.permute(0, 2, 3, 1)]
        pixels = torch.stack(fitted).permute(0, 3, 1, 2).to(self.device)
        mean, std = (torch.tensor(values, device=self.device)[:, None, None] for values in (MEAN, STD))
        return (pixels.float() / 255 - mean) / std

    def _texts(self, captions: Sequence[str]) -> Float[Tensor, "b d"]:
        """Unit vectors of captions."""
        parts = torch.split(torch.tensor(self._ids(captions), device=self.device), BATCH)
        vectors = [self.model.get_text_features(part).pooler_output for part in parts]
        return F.normalize(torch.cat(vectors), dim=1)

    def _ids(self, captions: Sequence[str]) -> list[list[int]]:
        """Ids to the end token, then zeros: attention is causal, so what stands behind the end is not seen."""
        ids = [self.tokens(caption) for caption in captions]
        long = sum(len(one) > self.length for one in ids)
        if long and not self._warned:
            print(
                f"warning: {long} of {len(ids)} captions have more than the {self.length} tokens that CLIP reads; "
                "their rest is cut, and that of later ones without another warning",
                file=sys.stderr,
            )
            self._warned = True
        cut = [one if len(one) <= self.length else [*one[: self.length - 1], one[-1]] for one in ids]
        return [one + [0] * (self.length - len(one)) for one in cut]


def fit(image: UInt8[Tensor, "h w 3"], side: int, *, squash: bool) -> UInt8[Tensor, "side side 3"]:
    """A frame as OpenAI's loader cuts it: its short side to `side`, and the centre square of that; or squashed.

    By PIL itself, which takes milliseconds: torch's antialiased bicubic filter is off by a grey level or two in up to
    1 % of the bytes, and by another amount on another processor. As in torchvision, the long side is rounded down, and
    half a pixel at the corner of the square to the even one.
    """
    picture = Image.fromarray(image.numpy())
    if squash:
        return torch.from_numpy(np.array(picture.resize((side, side), Image.Resampling.BICUBIC)))
    short = min(picture.size)
    width, height = (side * length // short for length in picture.size)
    left, top = (round((length - side) / 2) for length in (width, height))
    large = picture.resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(large.crop((left, top, left + side, top + side))))
