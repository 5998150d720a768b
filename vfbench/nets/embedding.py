"""Embeddings of time, class and caption, shared by all networks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vfbench.errors import UserError
from vfbench.interfaces import Conditioning
from vfbench.nets.text_encoder import PretrainedCaptionEncoder, TextEncoderConfig
from vfbench.utils.device import to_device

CONDITIONINGS: tuple[Conditioning, ...] = ("none", "class", "text")
MAX_WORDS = 24  # of a caption


def sinusoidal(t: Tensor, width: int) -> Tensor:
    """Transformer position code of t (B,) as (B, width)."""
    rate = torch.exp(-math.log(10000) * torch.arange(width // 2, device=t.device) / (width // 2))
    angle = t.float()[:, None] * rate
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class CaptionEncoder(nn.Module):
    """Small text encoder trained with its model: word and position embeddings, one transformer layer, mean over words.

    Captions have 1 to `MAX_WORDS` words of the vocabulary `words`.
    """

    def __init__(self, words: Sequence[str], width: int) -> None:
        super().__init__()
        self.ids = {word: i + 1 for i, word in enumerate(words)}
        self.word = nn.Embedding(len(words) + 1, width, padding_idx=0)
        self.place = nn.Parameter(torch.randn(MAX_WORDS, width) * 0.02)
        self.layer = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(width)

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Word ids (B, MAX_WORDS), padded with 0; raises `UserError` for an unknown word or a caption too long."""
        if not self.ids:
            raise UserError("the model was trained without captions: choose condition='class' or condition='none'")
        rows = []
        for caption in captions:
            words = caption.lower().split()
            if unknown_words := [w for w in words if w not in self.ids]:
                raise UserError(
                    f"caption '{caption}': the model does not know '{unknown_words[0]}'; it knows {', '.join(self.ids)}"
                )
            if not 1 <= len(words) <= MAX_WORDS:
                raise UserError(f"caption '{caption}' has {len(words)} words: give 1 to {MAX_WORDS}")
            rows.append([self.ids[w] for w in words] + [0] * (MAX_WORDS - len(words)))
        return to_device(torch.tensor(rows), self.place.device)

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Vectors (B, width); raises `UserError` as `tokens`."""
        vectors: Tensor = self(self.tokens(captions))
        return vectors

    def forward(self, tokens: Tensor) -> Tensor:
        """Map word ids (B, MAX_WORDS) to vectors (B, width)."""
        padding = tokens == 0
        x = self.layer(self.word(tokens) + self.place, src_key_padding_mask=padding)
        mask = (~padding)[..., None].to(x)
        mean: Tensor = self.norm((x * mask).sum(1) / mask.sum(1))
        return mean


class ConditioningEmbedding(nn.Module):
    """Embedding of class, caption or nothing, per clip, as a vector (B, width); nothing is a learnt null vector.

    Captions are read by a `CaptionEncoder` of `words`, or by the pretrained `text_encoder`.
    """

    def __init__(
        self, classes: int, words: Sequence[str], width: int, text_encoder: TextEncoderConfig | None = None
    ) -> None:
        super().__init__()
        self.classes = classes
        self.label = nn.Embedding(max(classes, 1), width)
        self.caption: CaptionEncoder | PretrainedCaptionEncoder = (
            PretrainedCaptionEncoder(text_encoder, width) if text_encoder else CaptionEncoder(words, width)
        )
        self.null = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, labels: Sequence[int], captions: Sequence[str], conditioning: Sequence[Conditioning]) -> Tensor:
        """Vectors (B, width) of the label or caption that `conditioning` selects for each clip.

        Raises `UserError` for an unknown class, and as the caption encoder.
        """
        device = self.null.device
        kinds = to_device(torch.tensor([CONDITIONINGS.index(kind) for kind in conditioning]), device)[:, None]
        label_ids = to_device(torch.tensor(self._label_ids(labels, conditioning)), device)
        vectors = torch.where(kinds == 1, self.label(label_ids), self.null)
        if "text" not in conditioning:  # unused captions may hold unknown words
            return vectors
        return torch.where(kinds == 2, self.caption.encode(captions), vectors)

    def _label_ids(self, labels: Sequence[int], conditioning: Sequence[Conditioning]) -> list[int]:
        """The labels of clips conditioned on class; 0 for the others, whose label is unused and may be invalid."""
        ids = [label if kind == "class" else 0 for label, kind in zip(labels, conditioning, strict=True)]
        used = [label for label, kind in zip(ids, conditioning, strict=True) if kind == "class"]
        if unknown_labels := [label for label in used if not 0 <= label < self.classes]:
            known = f"has classes 0 to {self.classes - 1}" if self.classes else "was trained without classes"
            raise UserError(
                f"class {unknown_labels[0]}: the model {known}; choose condition='text' or condition='none'"
            )
        return ids
