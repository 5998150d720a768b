"""Tests of `vfbench.nets.transformer`: attention over patches and frames, initial output, the formula of a block."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import perturb, randn
from torch import Tensor

from vfbench.interfaces import ClipShape
from vfbench.nets.transformer import Block, Transformer, TransformerConfig, _to_patches, _to_pixels

SIZES: dict[str, Any] = {"width": 16, "hidden": 24, "heads": 2, "depth": 2, "patch": 4, "embedding": 16}
SHAPE = ClipShape(4, 8, 12)  # 2x3 patches a frame


def transformer(shape: ClipShape = SHAPE, inputs: int = 3, **options: Any) -> Transformer:
    network = Transformer(TransformerConfig(**{**SIZES, **options}), shape=shape, inputs=inputs)
    perturb(network)
    return network


def run(network: Transformer, x: Tensor, *, condition: Tensor | None = None, t: int = 500) -> Tensor:
    condition = torch.zeros(len(x), network.config.embedding) if condition is None else condition
    with torch.no_grad():
        out: Tensor = network(x, torch.full((len(x),), t), condition)
    return out


@pytest.mark.parametrize(
    ("shape", "inputs", "options"),
    [
        (SHAPE, 3, {}),
        (ClipShape(1, 8, 8), 6, {"depth": 4}),
        (ClipShape(3, 4, 16), 3, {"patch": 2, "width": 24, "heads": 3}),
    ],
)
def test_output_has_the_shape_of_clips(shape: ClipShape, inputs: int, options: dict[str, Any]) -> None:
    x = randn(2, shape.frames, inputs, shape.height, shape.width)
    out = run(transformer(shape, inputs, **options), x)
    assert out.shape == (2, shape.frames, 3, shape.height, shape.width)
    assert out.is_contiguous()


def test_an_untrained_network_predicts_zero() -> None:
    network = Transformer(TransformerConfig(**SIZES), shape=SHAPE)
    assert not run(network, randn(2, 4, 3, 8, 12)).any()


def test_an_untrained_block_is_the_identity() -> None:
    x = randn(2, 4, 6, 16)
    assert torch.equal(Block(16, 24, 2, 8)(x, randn(2, 8)), x)


def test_clips_of_a_batch_are_independent() -> None:
    network, x, condition = transformer(), randn(3, 4, 3, 8, 12), randn(3, 16, seed=1)
    batch = run(network, x, condition=condition)
    for i in range(3):
        single = run(network, x[i : i + 1], condition=condition[i : i + 1])
        assert torch.allclose(single[0], batch[i], atol=1e-5)


def test_patches_are_squares_of_pixels_and_invertible() -> None:
    x = randn(2, 4, 3, 8, 12)
    patches = _to_patches(x, 4)
    assert patches.shape == (2, 4, 6, 48)
    assert torch.equal(patches[1, 2, 4], x[1, 2, :, 4:8, 4:8].flatten())  # second row, second column
    assert torch.equal(_to_pixels(patches, 4, 8), x)


def test_blocks_alternate_attention_over_patches_and_frames() -> None:
    network, x, captured = transformer(), randn(2, 4, 3, 8, 12), {}
    spatial, temporal = network.blocks
    for name, module in {"embedding": spatial, "tokens": network.norm}.items():
        module.register_forward_pre_hook(lambda _, inputs, name=name: captured.update({name: inputs[-1]}))
    run(network, x)
    embedding, actual = captured["embedding"], captured["tokens"]
    with torch.no_grad():
        tokens = network.stem(_to_patches(x, 4)) + network.places
        for clip, frame in np.ndindex(2, 4):
            tokens[clip, frame] = spatial(tokens[clip, frame][None, None], embedding[clip, None])
        for clip, patch in np.ndindex(2, 6):
            tokens[clip, :, patch] = temporal(tokens[clip, :, patch][None, None], embedding[clip, None])
    assert torch.allclose(actual, tokens, atol=1e-5)


@torch.no_grad()
def test_a_block_is_the_textbook_formula() -> None:
    block, x, embedding = Block(16, 24, 2, 8), randn(3, 2, 5, 16), randn(3, 8)
    perturb(block)
    shift1, scale1, gate1, shift2, scale2, gate2 = block.modulate(embedding).view(3, 6, 1, 1, 16).unbind(1)
    h = F.layer_norm(x, (16,)) * (1 + scale1) + shift1
    q, k, v = (part.unflatten(-1, (2, 8)).transpose(2, 3) for part in block.qkv(h).chunk(3, dim=-1))
    weights = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, dim=-1)
    x1 = x + gate1 * block.out((weights @ v).transpose(2, 3).flatten(3))
    h = F.layer_norm(x1, (16,)) * (1 + scale2) + shift2
    first, _, second = block.perceptron
    expected = x1 + gate2 * second(F.gelu(first(h), approximate="tanh"))
    assert torch.allclose(block(x, embedding), expected, atol=1e-5)


def test_two_blocks_connect_all_pixels() -> None:
    network, x = transformer(), randn(1, 4, 3, 8, 12)
    before = run(network, x)
    x[0, 1, :, 5, 9] += 5.0
    change = (run(network, x) - before).abs().amax((0, 2))
    assert (change > 1e-7).all()


def test_time_and_conditioning_change_the_output() -> None:
    network, x = transformer(), randn(2, 4, 3, 8, 12)
    out = run(network, x)
    assert ((run(network, x, t=10) - out).abs().amax((1, 2, 3, 4)) > 1e-3).all()
    assert ((run(network, x, condition=randn(2, 16)) - out).abs().amax((1, 2, 3, 4)) > 1e-3).all()


def test_position_embeddings_are_distinct() -> None:
    places = transformer(ClipShape(16, 32, 64)).places
    assert places.shape == (16, 8 * 16, 16)
    assert (torch.pdist(places.flatten(0, 1)[::7]) > 1e-2).all()
    flat = torch.full((1, 4, 3, 8, 12), 0.5)  # one colour everywhere
    tokens = _to_patches(run(transformer(), flat), 4).flatten(0, 2)
    assert (torch.pdist(tokens) > 1e-3).all()


def test_position_embeddings_are_not_saved() -> None:
    network = transformer()
    assert "places" not in network.state_dict()
    assert torch.equal(network.places, transformer().places)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 20, "heads": 3}, "width 20 must be a multiple of 4 and of its 3 heads"),
        ({"width": 18, "heads": 2}, "width 18 must be a multiple of 4"),
        ({"depth": 3}, "depth 3 must be even"),
        ({"depth": 0}, "depth"),
        ({"patch": 8}, "clips of 4x8x12 cannot be cut into patches of 8x8 pixels"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transformer(**options)
