"""Embeddings of time, class and caption that every network shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vfbench.errors import UserError
from vfbench.interfaces import Conditioning

MODES: tuple[Conditioning, ...] = ("none", "class", "text")
LENGTH = 24  # words of a caption; a longer one is refused


def sinusoidal(t: Tensor, width: int) -> Tensor:
    """Transformer position code of t (B,) as (B, width)."""
    rate = torch.exp(-math.log(10000) * torch.arange(width // 2, device=t.device) / (width // 2))
    angle = t.float()[:, None] * rate
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class Caption(nn.Module):
    """A small text encoder trained with its model: word and place embeddings, a transformer layer, mean over words."""

    def __init__(self, words: Sequence[str], width: int) -> None:
        super().__init__()
        self.ids = {word: i + 1 for i, word in enumerate(words)}
        self.word = nn.Embedding(len(words) + 1, width, padding_idx=0)
        self.place = nn.Parameter(torch.randn(LENGTH, width) * 0.02)
        self.layer = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(width)

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Word numbers (B, LENGTH), 0 where there is none; raises `UserError` for a word outside the vocabulary."""
        if not self.ids:
            raise UserError(
                "the model was trained without captions: ask it by class or for nothing (condition='class')"
            )
        rows = []
        for caption in captions:
            words = caption.lower().split()
            if strange := [w for w in words if w not in self.ids]:
                raise UserError(
                    f"caption '{caption}': the model does not know '{strange[0]}'; it knows {', '.join(self.ids)}"
                )
            if not 1 <= len(words) <= LENGTH:
                raise UserError(f"caption '{caption}' has {len(words)} words: 1 to {LENGTH} are taken")
            rows.append([self.ids[w] for w in words] + [0] * (LENGTH - len(words)))
        return torch.tensor(rows, device=self.place.device)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, LENGTH) to (B, width)."""
        empty = tokens == 0
        x = self.layer(self.word(tokens) + self.place, src_key_padding_mask=empty)
        kept = (~empty)[..., None].to(x)
        mean: Tensor = self.norm((x * kept).sum(1) / kept.sum(1))
        return mean


class Condition(nn.Module):
    """Class, caption or nothing, clip by clip, to one vector (B, width); what is not given has a learnt null vector."""

    def __init__(self, classes: int, words: Sequence[str], width: int) -> None:
        super().__init__()
        self.classes = classes
        self.label = nn.Embedding(max(classes, 1), width)
        self.caption = Caption(words, width)
        self.null = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, labels: Sequence[int], captions: Sequence[str], modes: Sequence[Conditioning]) -> Tensor:
        """One vector a clip from what `modes` says of it; raises `UserError` for a class or word it does not know."""
        device = self.null.device
        given = torch.tensor([MODES.index(mode) for mode in modes], device=device)[:, None]
        numbers = torch.tensor(self._numbers(labels, modes), device=device)
        vectors = torch.where(given == 1, self.label(numbers), self.null)
        if "text" not in modes:  # then a caption may hold any words: nobody reads it
            return vectors
        return torch.where(given == 2, self.caption(self.caption.tokens(captions)), vectors)

    def _numbers(self, labels: Sequence[int], modes: Sequence[Conditioning]) -> list[int]:
        """The labels of the clips that are asked for by class; 0 for the others, whose label nobody reads."""
        numbers = [label if mode == "class" else 0 for label, mode in zip(labels, modes, strict=True)]
        if strange := [
            n for n, mode in zip(numbers, modes, strict=True) if mode == "class" and not 0 <= n < self.classes
        ]:
            known = f"has classes 0 to {self.classes - 1}" if self.classes else "was trained without classes"
            raise UserError(
                f"class {strange[0]}: the model {known}; ask it by caption or for nothing (condition='text')"
            )
        return numbers
