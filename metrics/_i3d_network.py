"""I3D network: `I3D` as published, and `FoldedI3D`, the same function at twice the speed, for inference.

Carreira and Zisserman, arXiv 1705.07750: Inception-v1 with a time axis. Its wide layers come early and are bound by
memory. So `FoldedI3D` folds batch norm into the kernels, uses channels-last layout, computes 1x1x1 convolutions as
matrix products, and pads explicitly only where the two sides of an axis differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vfbench.interfaces import Features

Triple: TypeAlias = tuple[int, ...]
Block: TypeAlias = Float[Tensor, "_ _ _ _ _"]  # (batch, channels, frames, height, width)

CHANNELS_LAST = torch.channels_last_3d


def same_padding(size: Sequence[int], kernel: Triple, stride: Triple) -> list[tuple[int, int]]:
    """Zeros before and after each axis for TensorFlow's SAME padding; an odd total puts one more after.

    The output has ceil(size / stride) cells.
    """
    total = [max(k - (s % d or d), 0) for s, k, d in zip(size, kernel, stride, strict=True)]
    return [(zeros // 2, zeros - zeros // 2) for zeros in total]


def pad_same(x: Block, kernel: Triple, stride: Triple) -> Block:
    """Pad `x` by `same_padding`."""
    return F.pad(x, [zeros for axis in reversed(same_padding(x.shape[2:], kernel, stride)) for zeros in axis])


class I3D(nn.Module):
    """Published network with the names of piergiaj/pytorch-i3d, on clips (B, 3, T, 224, 224) in -1..1, T >= 9.

    Batch norm has no scale in the original; here its weight is ones.
    """

    def __init__(self, bn_eps: float = 1e-3) -> None:
        super().__init__()
        for name, layer in _trunk(bn_eps):
            self.add_module(name, layer)
        self.logits = Classifier()

    def forward(self, x: Block) -> dict[str, Features]:
        """Outputs `logits` (B, 400) and `pool` (B, 1024)."""
        *trunk, logits = self.children()
        for layer in trunk:
            x = layer(x)
        x = F.avg_pool3d(x, (2, 7, 7), stride=1)
        return {"logits": logits(x).mean((2, 3, 4)), "pool": x.mean((2, 3, 4))}

    def fold(self) -> FoldedI3D:
        """Equivalent network for inference, with the current weights and epsilon."""
        return FoldedI3D(self)


def _trunk(bn_eps: float) -> Iterator[tuple[str, nn.Module]]:
    """Names and layers up to the average pool; all use SAME padding."""
    yield "Conv3d_1a_7x7", Unit(3, 64, bn_eps, 7, 2)
    yield "MaxPool3d_2a_3x3", Pool((1, 3, 3), (1, 2, 2))
    yield "Conv3d_2b_1x1", Unit(64, 64, bn_eps)
    yield "Conv3d_2c_3x3", Unit(64, 192, bn_eps, 3)
    yield "MaxPool3d_3a_3x3", Pool((1, 3, 3), (1, 2, 2))
    yield "Mixed_3b", Mixed(192, (64, 96, 128, 16, 32, 32), bn_eps)
    yield "Mixed_3c", Mixed(256, (128, 128, 192, 32, 96, 64), bn_eps)
    yield "MaxPool3d_4a_3x3", Pool((3, 3, 3), (2, 2, 2))
    yield "Mixed_4b", Mixed(480, (192, 96, 208, 16, 48, 64), bn_eps)
    yield "Mixed_4c", Mixed(512, (160, 112, 224, 24, 64, 64), bn_eps)
    yield "Mixed_4d", Mixed(512, (128, 128, 256, 24, 64, 64), bn_eps)
    yield "Mixed_4e", Mixed(512, (112, 144, 288, 32, 64, 64), bn_eps)
    yield "Mixed_4f", Mixed(528, (256, 160, 320, 32, 128, 128), bn_eps)
    yield "MaxPool3d_5a_2x2", Pool((2, 2, 2), (2, 2, 2))
    yield "Mixed_5b", Mixed(832, (256, 160, 320, 32, 128, 128), bn_eps)
    yield "Mixed_5c", Mixed(832, (384, 192, 384, 48, 128, 128), bn_eps)


class Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, bn_eps: float, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, bn_eps)

    def forward(self, x: Block) -> Block:
        """Output (B, outputs, T / stride, H / stride, W / stride), rounded up."""
        return F.relu(self.bn(self.conv3d(pad_same(x, self.conv3d.kernel_size, self.conv3d.stride))))


class Pool(nn.Module):
    """Max pool with zero padding, which has no effect since its inputs come from a ReLU."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Block) -> Block:
        """Output (B, C, T / stride, H / stride, W / stride), rounded up."""
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Inception block of four branches: 1x1x1; 1x1x1 and 3x3x3, twice; pool and 1x1x1. `widths`: b0, b1a, ... b3b."""

    def __init__(self, inputs: int, widths: Triple, bn_eps: float) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = Unit(inputs, b0, bn_eps)
        self.b1a, self.b1b = Unit(inputs, b1a, bn_eps), Unit(b1a, b1b, bn_eps, 3)
        self.b2a, self.b2b = Unit(inputs, b2a, bn_eps), Unit(b2a, b2b, bn_eps, 3)
        self.b3a, self.b3b = Pool((3, 3, 3), (1, 1, 1)), Unit(inputs, b3b, bn_eps)

    def forward(self, x: Block) -> Block:
        """Output (B, b0 + b1b + b2b + b3b, T, H, W)."""
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))]
        return torch.cat(branches, dim=1)


class Classifier(nn.Module):
    """Last convolution: with a bias, without norm and ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(1024, 400, 1)

    def forward(self, x: Block) -> Block:
        """Logits (B, 400, T, H, W)."""
        logits: Block = self.conv3d(x)
        return logits


class FoldedI3D(nn.Module):
    """I3D for inference, made by `I3D.fold`: `trunk` ends with the last block, `heads` computes the outputs."""

    weight: Tensor
    bias: Tensor

    def __init__(self, network: I3D) -> None:
        super().__init__()
        *trunk, _ = network.children()
        self.trunk = nn.Sequential(*[_fold(layer) for layer in trunk])
        classifier = network.logits.conv3d
        assert classifier.bias is not None
        self.register_buffer("weight", classifier.weight.detach().flatten(1).clone())
        self.register_buffer("bias", classifier.bias.detach().clone())

    def forward(self, x: Block) -> dict[str, Features]:
        """Outputs `logits` (B, 400) and `pool` (B, 1024)."""
        return self.heads(self.trunk(x.contiguous(memory_format=CHANNELS_LAST)))

    def heads(self, x: Block) -> dict[str, Features]:
        """Outputs from the last block; the classifier is linear, so it applies after the mean."""
        pool = F.avg_pool3d(x, (2, 7, 7), stride=1).mean((2, 3, 4))
        return {"logits": F.linear(pool, self.weight, self.bias), "pool": pool}


def _fold(layer: nn.Module) -> nn.Module:
    if isinstance(layer, Mixed):
        return _FoldedMixed(layer)
    if isinstance(layer, Pool):
        return _FoldedPool(layer.kernel, layer.stride)
    assert isinstance(layer, Unit)
    return _FoldedUnit(layer) if max(layer.conv3d.kernel_size) > 1 else _FoldedPointwise(layer)


def _fold_batch_norm(unit: Unit) -> tuple[Tensor, Tensor]:
    """Kernel and bias of convolution and batch norm combined, computed in float64."""
    norm, kernel = unit.bn, unit.conv3d.weight.detach().double()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = norm.bias.detach().double() - norm.running_mean.double() * gain
    return (kernel * gain[:, None, None, None, None]).float(), bias.float()


class _FoldedUnit(nn.Module):
    kernel: Tensor
    bias: Tensor

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        kernel, bias = _fold_batch_norm(unit)
        self.register_buffer("kernel", kernel.contiguous(memory_format=CHANNELS_LAST))
        self.register_buffer("bias", bias)
        self.size, self.stride = unit.conv3d.kernel_size, unit.conv3d.stride

    def forward(self, x: Block) -> Block:
        sides = same_padding(x.shape[2:], self.size, self.stride)
        padding = [before for before, _ in sides]
        if any(before != after for before, after in sides):
            x, padding = pad_same(x, self.size, self.stride), [0, 0, 0]
        return F.relu_(F.conv3d(x, self.kernel, self.bias, self.stride, padding))


class _FoldedPointwise(nn.Module):
    """Unit with kernel 1x1x1 as a matrix product; PyTorch's convolution would permute channels on a single thread."""

    kernel: Tensor
    bias: Tensor

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        kernel, bias = _fold_batch_norm(unit)
        self.register_buffer("kernel", kernel.flatten(1))
        self.register_buffer("bias", bias)

    def forward(self, x: Block) -> Block:
        return F.relu_(F.linear(x.movedim(1, -1), self.kernel, self.bias)).movedim(-1, 1)


class _FoldedPool(Pool):
    def forward(self, x: Block) -> Block:
        padding = [before for before, _ in same_padding(x.shape[2:], self.kernel, self.stride)]
        # `ceil_mode` keeps the partial window where SAME padding has one more zero after.
        x = x.contiguous(memory_format=CHANNELS_LAST)
        return F.max_pool3d(x, self.kernel, self.stride, padding, ceil_mode=True)


class _FoldedMixed(nn.Module):
    def __init__(self, mixed: Mixed) -> None:
        super().__init__()
        branch_names = (("b0",), ("b1a", "b1b"), ("b2a", "b2b"), ("b3a", "b3b"))
        branches = [[_fold(getattr(mixed, name)) for name in names] for names in branch_names]
        self.branches = nn.ModuleList(nn.Sequential(*layers) for layers in branches)

    def forward(self, x: Block) -> Block:
        return torch.cat([branch(x) for branch in self.branches], dim=1)
