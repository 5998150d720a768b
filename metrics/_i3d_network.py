"""The network of I3D: as it was published, `I3D`, and the same function in half of the time, `Folded`.

Carreira and Zisserman, arXiv 1705.07750: Inception-v1 with a third axis. Its wide layers come early, where memory and
not arithmetic takes the time. So for use the norms go into the kernels, channels lie last, a 1x1x1 convolution is a
matrix product, and only padding that differs between the two sides of an axis is written out.
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

LAST = torch.channels_last_3d


def padding(size: Sequence[int], kernel: Triple, stride: Triple) -> list[tuple[int, int]]:
    """Zeros before and behind each axis, as TensorFlow's SAME has it: ceil(size / stride) cells come out.

    Where their number is odd, one more stands behind.
    """
    total = [max(k - (s % d or d), 0) for s, k, d in zip(size, kernel, stride, strict=True)]
    return [(zeros // 2, zeros - zeros // 2) for zeros in total]


def padded(x: Block, kernel: Triple, stride: Triple) -> Block:
    """`x` with its zeros around it."""
    return F.pad(x, [zeros for axis in reversed(padding(x.shape[2:], kernel, stride)) for zeros in axis])


class I3D(nn.Module):
    """The published network, under the names of piergiaj/pytorch-i3d: clips (B, 3, T, 224, 224) in -1..1, T >= 9.

    Batch norm has no scale in the original, which is a weight of ones here.
    """

    def __init__(self, bn_eps: float = 1e-3) -> None:
        super().__init__()
        for name, layer in _trunk(bn_eps):
            self.add_module(name, layer)
        self.logits = Classifier()

    def forward(self, x: Block) -> dict[str, Features]:
        """`logits` (B, 400) and `pool` (B, 1024)."""
        *trunk, logits = self.children()
        for layer in trunk:
            x = layer(x)
        x = F.avg_pool3d(x, (2, 7, 7), stride=1)
        return {"logits": logits(x).mean((2, 3, 4)), "pool": x.mean((2, 3, 4))}

    def folded(self) -> Folded:
        """The same function of clips with these weights and this epsilon, for inference only."""
        return Folded(self)


def _trunk(bn_eps: float) -> Iterator[tuple[str, nn.Module]]:
    """Every layer below the average pool, by name; SAME everywhere."""
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
        """(B, outputs, T / stride, H / stride, W / stride), rounded up."""
        return F.relu(self.bn(self.conv3d(padded(x, self.conv3d.kernel_size, self.conv3d.stride))))


class Pool(nn.Module):
    """The largest of each window; zeros around it do not matter, since what comes from a ReLU is not below them."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Block) -> Block:
        """(B, C, T / stride, H / stride, W / stride), rounded up."""
        return F.max_pool3d(padded(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Four branches side by side: 1x1x1; 1x1x1 and 3x3x3, twice; pool and 1x1x1. `widths` are b0, b1a, ... b3b."""

    def __init__(self, inputs: int, widths: Triple, bn_eps: float) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = Unit(inputs, b0, bn_eps)
        self.b1a, self.b1b = Unit(inputs, b1a, bn_eps), Unit(b1a, b1b, bn_eps, 3)
        self.b2a, self.b2b = Unit(inputs, b2a, bn_eps), Unit(b2a, b2b, bn_eps, 3)
        self.b3a, self.b3b = Pool((3, 3, 3), (1, 1, 1)), Unit(inputs, b3b, bn_eps)

    def forward(self, x: Block) -> Block:
        """(B, b0 + b1b + b2b + b3b, T, H, W)."""
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))]
        return torch.cat(branches, dim=1)


class Classifier(nn.Module):
    """The last convolution: the only one with a bias, and without norm and ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(1024, 400, 1)

    def forward(self, x: Block) -> Block:
        """Logits (B, 400, T, H, W)."""
        logits: Block = self.conv3d(x)
        return logits


class Folded(nn.Module):
    """What `I3D.folded` makes: `trunk` ends with the last block, `heads` begin there."""

    weight: Tensor
    bias: Tensor

    def __init__(self, network: I3D) -> None:
        super().__init__()
        *trunk, _ = network.children()
        self.trunk = nn.Sequential(*[_quick(layer) for layer in trunk])
        classifier = network.logits.conv3d
        assert classifier.bias is not None
        self.register_buffer("weight", classifier.weight.detach().flatten(1).clone())
        self.register_buffer("bias", classifier.bias.detach().clone())

    def forward(self, x: Block) -> dict[str, Features]:
        """`logits` (B, 400) and `pool` (B, 1024)."""
        return self.heads(self.trunk(x.contiguous(memory_format=LAST)))

    def heads(self, x: Block) -> dict[str, Features]:
        """The same from the last block: a mean of logits is the classifier's answer to a mean."""
        pool = F.avg_pool3d(x, (2, 7, 7), stride=1).mean((2, 3, 4))
        return {"logits": F.linear(pool, self.weight, self.bias), "pool": pool}


def _quick(layer: nn.Module) -> nn.Module:
    if isinstance(layer, Mixed):
        return _QuickMixed(layer)
    if isinstance(layer, Pool):
        return _QuickPool(layer.kernel, layer.stride)
    assert isinstance(layer, Unit)
    return _QuickUnit(layer) if max(layer.conv3d.kernel_size) > 1 else _Point(layer)


def _merged(unit: Unit) -> tuple[Tensor, Tensor]:
    """Kernel and bias that do what convolution and norm do, computed in float64."""
    norm, kernel = unit.bn, unit.conv3d.weight.detach().double()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = norm.bias.detach().double() - norm.running_mean.double() * gain
    return (kernel * gain[:, None, None, None, None]).float(), bias.float()


class _QuickUnit(nn.Module):
    kernel: Tensor
    bias: Tensor

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        kernel, bias = _merged(unit)
        self.register_buffer("kernel", kernel.contiguous(memory_format=LAST))
        self.register_buffer("bias", bias)
        self.size, self.stride = unit.conv3d.kernel_size, unit.conv3d.stride

    def forward(self, x: Block) -> Block:
        sides = padding(x.shape[2:], self.size, self.stride)
        around = [before for before, _ in sides]
        if any(before != behind for before, behind in sides):
            x, around = padded(x, self.size, self.stride), [0, 0, 0]
        return F.relu_(F.conv3d(x, self.kernel, self.bias, self.stride, around))


class _Point(nn.Module):
    """A unit of kernel 1x1x1; PyTorch's convolution would turn the channels to the front on a single thread."""

    kernel: Tensor
    bias: Tensor

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        kernel, bias = _merged(unit)
        self.register_buffer("kernel", kernel.flatten(1))
        self.register_buffer("bias", bias)

    def forward(self, x: Block) -> Block:
        return F.relu_(F.linear(x.movedim(1, -1), self.kernel, self.bias)).movedim(-1, 1)


class _QuickPool(Pool):
    def forward(self, x: Block) -> Block:
        around = [before for before, _ in padding(x.shape[2:], self.kernel, self.stride)]
        # Where one more zero stands behind, a window reaches over the edge: that is what `ceil_mode` keeps.
        return F.max_pool3d(x.contiguous(memory_format=LAST), self.kernel, self.stride, around, ceil_mode=True)


class _QuickMixed(nn.Module):
    def __init__(self, mixed: Mixed) -> None:
        super().__init__()
        names = (("b0",), ("b1a", "b1b"), ("b2a", "b2b"), ("b3a", "b3b"))
        chains = [[_quick(getattr(mixed, name)) for name in chain] for chain in names]
        self.branches = nn.ModuleList(nn.Sequential(*chain) for chain in chains)

    def forward(self, x: Block) -> Block:
        return torch.cat([branch(x) for branch in self.branches], dim=1)
