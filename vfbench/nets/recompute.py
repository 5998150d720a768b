"""Activation checkpointing (Chen et al., arXiv 1604.06174): recompute activations in the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recomputing(nn.Module):
    """Base class of networks that call their blocks by `block`; `recompute` turns activation checkpointing on."""

    recompute = False

    def block(self, module: nn.Module, *inputs: Tensor) -> Tensor:
        """The module's output. The module must draw no random numbers, because recomputation would draw others."""
        if self.recompute and torch.is_grad_enabled():
            out: Tensor = checkpoint(module, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            out = module(*inputs)
        return out
