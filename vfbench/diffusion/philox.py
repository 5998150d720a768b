"""Philox4x32-10, a counter-based random generator, in integer operations of torch that run on any device.

Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011). Word i of a stream is a function of key and i
alone. So each clip has the same numbers at any batch size and in any number of processes, and a GPU draws them itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vfbench.utils.device import to_device

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> list[Tensor]:
    """Four random words for each counter of four words and key of two; all are int64 tensors of 32-bit values."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _product(c0, _MULTIPLIERS[0])
        high1, low1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return [c0, c1, c2, c3]


def _product(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Upper and lower 32 bits of the product of a word and a factor of 32 bits."""
    product = word * factor  # beyond 2^63 it wraps around, which leaves all 64 bits right
    return (product >> 32) & _WORD, product & _WORD


class NormalStreams:
    """Streams of standard normals on a device, one for each seed of up to 64 bits."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        words = [[seed & _WORD, seed >> 32 & _WORD] for seed in seeds]
        self._key = to_device(torch.tensor(words, dtype=torch.int64).reshape(-1, 2), device)
        self._draws = 0

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """The next numbers of every stream, (seeds, *shape) in float32."""
        size = math.prod(shape)
        block = torch.arange(-(-size // 4), device=self._key.device)
        draw = torch.full_like(block, self._draws)
        self._draws += 1
        key = [words[:, None] for words in self._key.unbind(1)]
        zero = torch.zeros_like(block)
        words = philox([block, zero, draw, zero], key)
        normals = torch.stack([*_box_muller(words[0], words[1]), *_box_muller(words[2], words[3])], dim=-1)
        return normals.flatten(1)[:, :size].reshape(-1, *shape)


def _box_muller(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent normals of two random words, at most 6.7 from 0."""
    radius = ((first.float() + 1) * 2.0**-32).log().mul(-2).sqrt()  # of a number above 0 and up to 1
    angle = second.float() * (2 * math.pi * 2.0**-32)
    return radius * angle.cos(), radius * angle.sin()
