"""Activation checkpointing (Chen et al., arXiv 1604.06174): a block's inside is computed again instead of kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recomputing(nn.Module):
    """A network that runs its blocks by `block`; where `recompute` is set, the backward pass computes them again."""

    recompute = False

    def block(self, module: nn.Module, *inputs: Tensor) -> Tensor:
        """The module's output for its inputs. The module must draw nothing: its second run could not repeat it."""
        if self.recompute and torch.is_grad_enabled():
            out: Tensor = checkpoint(module, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            out = module(*inputs)
        return out
