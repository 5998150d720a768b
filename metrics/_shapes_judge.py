"""Feature extractor for Moving Shapes: a small 3D network from `benchmarks/train_judge.py`, shipped with vfbench.

It replaces I3D, C3D and CLIP: features (FVD, KVD), class logits (IS) and a joint embedding of clips and captions
(CLIPSIM). It also tells which attributes of its caption a clip shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfbench import video
from vfbench.clips.transform import resize
from vfbench.errors import MissingData
from vfbench.interfaces import Clips, Features, Request, WeightStatus
from vfbench.metrics._shapes_captions import CaptionVariants
from vfbench.nets.embedding import CaptionEncoder
from vfbench.utils import checkpoint, files, tensor_files
from vfbench.utils.device import exact_float32, to_device

DIM = 64
CAPTION_BATCH = 512  # embedded at once, so that the working set stays small
SIDE = 32  # pixels; clips are resized to it (bilinear, antialiased)


def build(device: torch.device, *, weights_dir: str | None = None) -> ShapesJudgeExtractor:
    """Extractor with the shipped weights, or those in a folder written by `benchmarks/train_judge.py`."""
    folder = Path(weights_dir) if weights_dir else checkpoint.shipped("shapes", "judge")
    if folder is None:
        raise MissingData("the weights of shapes_judge are not installed: run python benchmarks/train_judge.py")
    config = files.read_json(folder / "config.json")
    with checkpoint.config_errors(folder / "config.json", "shapes_judge"):
        judge, variants = Judge(len(config["classes"]), config["words"]), CaptionVariants(config["attributes"])
        sha256 = str(config["sha256"])
    digest = tensor_files.load_into(judge, folder / "model.safetensors", sha256)
    return ShapesJudgeExtractor(judge.to(device).eval(), digest, device, variants)


class Judge(nn.Module):
    """3D network from clips (B, T, 3, 32, 32) in -1..1 to a feature vector, with heads for logits and embedding."""

    def __init__(self, classes: int, words: Sequence[str]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _unit(3, 24, kernel=(3, 5, 5), stride=(1, 2, 2)),
            _unit(24, 48, stride=(2, 2, 2)),
            _unit(48, 64),
            _unit(64, 96, stride=(2, 2, 2)),
            _unit(96, 96),
            _unit(96, 128, stride=(2, 1, 1)),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
        )
        self.feature = nn.Linear(128, DIM)
        self.logits = nn.Linear(DIM, classes)
        self.embed_clip = nn.Linear(DIM, DIM)
        self.caption = CaptionEncoder(words, DIM)
        self.embed_caption = nn.Linear(DIM, DIM)
        self.temperature = nn.Parameter(torch.tensor(10.0).log())

    def forward(self, x: Tensor) -> Tensor:
        """Feature vectors (B, 64)."""
        features: Tensor = self.feature(self.trunk(x.transpose(1, 2)))
        return features

    def clip_embedding(self, features: Tensor) -> Tensor:
        """Unit vectors (B, 64) from feature vectors."""
        return F.normalize(self.embed_clip(F.relu(features)), dim=1)

    def class_logits(self, features: Tensor) -> Tensor:
        """Logits (B, classes) from feature vectors."""
        logits: Tensor = self.logits(F.relu(features))
        return logits

    def caption_embedding(self, captions: Sequence[str]) -> Tensor:
        """Unit vectors (B, 64); raises `UserError` for a word outside the vocabulary."""
        return F.normalize(self.embed_caption(self.caption(self.caption.tokens(captions))), dim=1)


def _unit(
    inputs: int, outputs: int, kernel: tuple[int, ...] = (3, 3, 3), stride: tuple[int, ...] = (1, 1, 1)
) -> nn.Module:
    padding = tuple(k // 2 for k in kernel)
    convolution = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)  # type: ignore[arg-type]  # 3-tuples
    return nn.Sequential(convolution, nn.BatchNorm3d(outputs), nn.ReLU())


class ShapesJudgeExtractor:
    """Judge as an `Extractor`; `similarity` is the cosine of a clip and the prompt of its request.

    `attributes` are 1 where the prompt fits the clip better than all prompts with another word for that attribute, else
    0, in the order of `vfbench.metrics.attributes`.
    """

    name = "shapes_judge"
    weight_status: WeightStatus = "unpublished"

    def __init__(self, judge: Judge, fingerprint: str, device: torch.device, variants: CaptionVariants) -> None:
        self.judge, self.fingerprint, self.device, self.variants = judge, fingerprint, device, variants
        self.outputs: Mapping[str, int] = {
            "features": DIM,
            "logits": judge.logits.out_features,
            "similarity": 1,
            "attributes": len(variants.words),
        }

    @torch.inference_mode()
    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """Requested outputs, float32 (B, D) on the CPU, always computed in float32."""
        resized = to_device(resize(video.require_byte_range(clips), SIDE, SIDE), self.device)
        with exact_float32(self.device):
            features = self.judge(resized.float().div(127.5).sub(1))
            return {output: self._compute(output, features, requests).cpu() for output in outputs}

    def _compute(self, output: str, features: Tensor, requests: Sequence[Request]) -> Tensor:
        if output == "features":
            return features
        if output == "logits":
            return self.judge.class_logits(features)
        clips, prompts = self.judge.clip_embedding(features), [request.prompt for request in requests]
        if output == "attributes":
            return self._attributes(clips, prompts)
        return (clips * self.judge.caption_embedding(prompts)).sum(1, keepdim=True)

    def _attributes(self, clips: Tensor, prompts: Sequence[str]) -> Tensor:
        """1 where the prompt fits better than those with another word, (B, attributes)."""
        others = [self.variants.others(prompt) for prompt in prompts]
        captions = {*prompts, *(text for each in others for texts in each.values() for text in texts)}
        distinct = sorted(captions)
        rows = {caption: row for row, caption in enumerate(distinct)}
        parts = [distinct[start : start + CAPTION_BATCH] for start in range(0, len(distinct), CAPTION_BATCH)]
        embedded = torch.cat([self.judge.caption_embedding(part) for part in parts])
        similarity = (clips @ embedded.T).cpu()  # one copy: the host would wait for each index
        best_others = [
            torch.stack([similarity[i, [rows[text] for text in texts]].max() for texts in each.values()])
            for i, each in enumerate(others)
        ]
        own = similarity[range(len(prompts)), [rows[prompt] for prompt in prompts]]
        return (own[:, None] > torch.stack(best_others)).float()
