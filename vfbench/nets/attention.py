"""Scaled dot-product attention over batches of any size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ROWS = 65_535  # a batch of torch's fused kernels on CUDA (pytorch issue 146704)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention (N, heads, L, C) of query, key and value of this shape, in parts of at most `MAX_ROWS` rows.

    Attention over frames has a row for each pixel, so that a batch of large clips has more. Training in bfloat16 on a
    CPU takes the plain products: the fused kernel's gradient takes eight times as long there.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled():
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        return torch.softmax(scores, dim=-1) @ value
    if len(query) <= MAX_ROWS:
        return F.scaled_dot_product_attention(query, key, value)
    parts = [slice(start, start + MAX_ROWS) for start in range(0, len(query), MAX_ROWS)]
    return torch.cat([F.scaled_dot_product_attention(query[part], key[part], value[part]) for part in parts])
