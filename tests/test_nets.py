"""Tests of `vfbench.nets`: shapes, receptive fields and initial outputs of networks, and the conditioning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import NO_TIME, UNET, perturb, randn
from torch import Tensor

from vfbench.errors import UserError
from vfbench.interfaces import Conditioning
from vfbench.nets.attention import MAX_ROWS
from vfbench.nets.embedding import MAX_WORDS, CaptionEncoder, ConditioningEmbedding, sinusoidal
from vfbench.nets.unet import Attention, FrameConvolution, Layer, ResidualBlock, UNet, UNetConfig

WORDS = ("a", "blue", "circle", "red")


def unet(frames: int = 4, inputs: int = 3, **options: Any) -> UNet:
    network = UNet(UNetConfig(**{**UNET, **options}), frames=frames, inputs=inputs)
    perturb(network)
    return network


def run(network: UNet, x: Tensor, *, condition: Tensor | None = None, t: int = 500) -> Tensor:
    condition = torch.zeros(len(x), network.config.embedding) if condition is None else condition
    with torch.no_grad():
        out: Tensor = network(x, torch.full((len(x),), t), condition)
    return out


@pytest.mark.parametrize(
    ("frames", "inputs", "side", "options"),
    [
        (1, 3, (8, 8), {"attention": []}),
        (4, 6, (8, 8), {}),
        (3, 3, (8, 16), {"channels": [8, 8, 16], "patch": 1, "attention": [0, 1, 2]}),
        (2, 3, (16, 8), {"blocks": 2, "patch": 4}),
        (2, 3, (8, 8), {"channels": [8], "attention": [0]}),
        (2, 3, (16, 16), {"channels": [8, 16, 24], "blocks": 3, "attention": [1, 2]}),
    ],
)
def test_the_output_has_three_channels_of_the_input_size(
    frames: int, inputs: int, side: tuple[int, int], options: dict[str, Any]
) -> None:
    network = unet(frames, inputs, **options)
    out = run(network, randn(2, frames, inputs, *side))
    assert out.shape == (2, frames, 3, *side)
    assert torch.isfinite(out).all()
    assert out.std() > 0


def test_every_weight_has_a_gradient() -> None:
    network = unet(4, channels=[8, 16, 24], blocks=2, attention=[1, 2], frame_condition=True)
    network(randn(2, 4, 3, 16, 16), torch.tensor([1, 900]), randn(2, 16)).square().sum().backward()
    unused = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


def test_an_untrained_network_returns_zero() -> None:
    network = UNet(UNetConfig(**UNET), frames=4)
    assert not run(network, randn(2, 4, 3, 8, 8)).any()


def test_a_frame_condition_changes_nothing_until_it_is_trained() -> None:
    plain, network = unet(), UNet(UNetConfig(**UNET, frame_condition=True), frames=4)
    assert network.frame_condition is not None
    new = network.frame_condition.state_dict(prefix="frame_condition.")
    network.load_state_dict({**plain.state_dict(), **new})
    x, condition = randn(2, 4, 3, 8, 8), randn(2, 16, seed=1)
    assert torch.equal(run(network, x, condition=condition), run(plain, x, condition=condition))
    perturb(network.frame_condition)
    assert not torch.allclose(run(network, x, condition=condition), run(plain, x, condition=condition), atol=1e-3)
    by_frame = network.frame_condition(condition)  # a product: no sum of a term of the clip and one of the frame
    mixed = by_frame - by_frame.mean(0, keepdim=True) - by_frame.mean(1, keepdim=True) + by_frame.mean()
    assert mixed.abs().max() > 1e-2


def test_clips_of_a_batch_are_independent() -> None:
    network, x = unet(), randn(3, 4, 3, 8, 8)
    condition = randn(3, 16, seed=1)
    together = run(network, x, condition=condition)
    for i in range(3):
        alone = run(network, x[i : i + 1], condition=condition[i : i + 1])
        assert torch.allclose(alone[0], together[i], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "reach"), [(UNET, 8), (NO_TIME, 1)], ids=["attention", "convolution alone, in one block"]
)
def test_attention_mixes_all_frames_and_convolution_neighbours(options: dict[str, Any], reach: int) -> None:
    network, x = unet(8, **options), randn(1, 8, 3, 8, 8)
    convolutions = [module for module in network.modules() if isinstance(module, FrameConvolution)]
    for module in convolutions[1:]:  # keep one mixing block
        module.conv.weight.data.zero_()
    before = run(network, x)
    x[:, 5] += 1.0
    change = (run(network, x) - before).abs().amax((0, 2, 3, 4))
    reached = [abs(frame - 5) <= reach for frame in range(8)]
    assert (change > 1e-6).tolist() == reached


@torch.no_grad()
def test_a_frame_convolution_convolves_each_pixel_over_time() -> None:
    layer, x = FrameConvolution(8, frames=5), randn(10, 8, 2, 4).contiguous(memory_format=torch.channels_last)
    assert torch.equal(layer(x), x)  # identity at initialisation
    perturb(layer)
    out, clips = (frames.reshape(2, 5, 8, 2, 4) for frames in (layer(x), x))
    for clip, row, column in np.ndindex(2, 2, 4):
        pixel = clips[clip, :, :, row, column].T[None]  # (1, C, T)
        expected = pixel + torch.conv1d(pixel, layer.conv.weight[..., 0], layer.conv.bias, padding=1)
        assert torch.allclose(out[clip, :, :, row, column].T, expected[0], atol=1e-5)


def test_attention_is_at_the_configured_levels() -> None:
    network = unet(4, channels=[8, 16, 24], attention=[0, 2])
    layers = [*network.down, network.middle, *network.up]
    levels = [0, 1, 2, 2, 2, 2, 1, 1, 0, 0]
    assert [layer.temporal is not None for layer in layers] == [level in (0, 2) for level in levels]
    assert [layer.spatial is not None for layer in layers] == [level == 2 for level in levels]
    single_frame = unet(1)
    assert all(layer.temporal is None for layer in single_frame.down)
    assert not any(isinstance(module, FrameConvolution) for module in single_frame.modules())


@torch.no_grad()
def test_temporal_attention_is_per_pixel_and_spatial_attention_per_frame() -> None:
    layer, x, embedding = Layer(8, 8, 4, frames=3, spatial=True, temporal=True), randn(6, 8, 2, 4), randn(6, 4)
    perturb(layer)
    assert layer.spatial is not None
    assert layer.temporal is not None
    pixels = layer.residual(x, embedding).unflatten(0, (2, 3))  # two clips of three frames, (2, 3, 8, 2, 4)
    for clip, frame in np.ndindex(2, 3):
        pixels[clip, frame] = layer.spatial(pixels[clip, frame].flatten(1).T[None])[0].T.view(8, 2, 4)
    for clip, row, column in np.ndindex(2, 2, 4):
        pixels[clip, :, :, row, column] = layer.temporal(pixels[clip, :, :, row, column][None])[0]
    assert torch.allclose(layer(x, embedding), pixels.flatten(0, 1), atol=1e-5)


def test_the_output_depends_on_time_condition_and_frame_index() -> None:
    network, x = unet(), randn(1, 1, 3, 8, 8).expand(2, 4, 3, 8, 8)
    out = run(network, x)
    assert torch.allclose(out[0], out[1], atol=1e-6)
    assert not torch.isclose(out[:, 0], out[:, 1]).all()  # equal inputs, different frame index
    assert not torch.isclose(run(network, x, t=10), out).all()
    assert not torch.isclose(run(network, x, condition=randn(2, 16)), out).all()


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [(MAX_ROWS, torch.float32), (2, torch.float32), (MAX_ROWS, torch.bfloat16)],
    ids=["in one", "in parts", "bfloat16"],
)
def test_attention_equals_the_formula(monkeypatch: pytest.MonkeyPatch, rows: int, dtype: torch.dtype) -> None:
    monkeypatch.setattr("vfbench.nets.attention.MAX_ROWS", rows)
    layer = Attention(64)
    perturb(layer)
    assert layer.heads == 2
    x = randn(3, 5, 64)
    q, k, v = (part.unflatten(-1, (2, 32)).transpose(1, 2) for part in layer.qkv(layer.norm(x)).chunk(3, dim=-1))
    weights = torch.softmax(q @ k.transpose(-1, -2) / 32**0.5, dim=-1)
    expected = x + layer.out((weights @ v).transpose(1, 2).flatten(2))
    out = layer.to(dtype)(x.to(dtype)).float()
    assert torch.allclose(out, expected, atol=1e-5 if dtype == torch.float32 else 0.05)


@pytest.mark.parametrize(("channels", "heads"), [(8, 1), (40, 1), (80, 2), (96, 3), (112, 2)])
def test_the_number_of_heads_divides_the_channels(channels: int, heads: int) -> None:
    assert Attention(channels).heads == heads


def test_an_initial_residual_block_is_its_skip_path() -> None:
    block, x = ResidualBlock(8, 8, 4, frames=2), randn(2, 8, 4, 4)
    with torch.no_grad():
        shift = block(x, randn(2, 4)) - x
    assert torch.allclose(shift, shift[:1, :, :1, :1].expand_as(shift), atol=1e-6)  # a bias at most


def test_sinusoidal_codes_are_bounded_and_different() -> None:
    codes = sinusoidal(torch.arange(1000), 128)
    assert codes.shape == (1000, 128)
    assert codes.abs().max() <= 1
    assert (torch.pdist(codes) > 0.05).all()


# Captions and conditioning.


def caption_encoder() -> CaptionEncoder:
    encoder = CaptionEncoder(WORDS, 16)
    perturb(encoder)
    return encoder


def test_tokens_are_word_indices_padded_with_zeros() -> None:
    tokens = caption_encoder().tokens(["a RED circle", "blue"])
    assert tokens.shape == (2, MAX_WORDS)
    assert tokens[:, :4].tolist() == [[1, 4, 3, 0], [2, 0, 0, 0]]
    assert not tokens[:, 4:].any()


@torch.no_grad()
def test_encoding_does_not_depend_on_the_batch() -> None:
    encoder = caption_encoder()
    together = encoder(encoder.tokens(["a red circle", "a circle a circle a circle"]))
    assert torch.allclose(encoder(encoder.tokens(["a red circle"]))[0], together[0], atol=1e-5)


@torch.no_grad()
def test_padding_positions_are_ignored() -> None:
    encoder = caption_encoder()
    tokens = encoder.tokens(["a red circle"])
    before = encoder(tokens)
    encoder.place[3:] += randn(MAX_WORDS - 3, 16)
    assert torch.allclose(encoder(tokens), before, atol=1e-5)
    encoder.place[2] += randn(16)
    assert not torch.isclose(encoder(tokens), before).all()


@torch.no_grad()
def test_the_order_of_words_matters() -> None:
    encoder = caption_encoder()
    first, second = encoder(encoder.tokens(["a red circle a blue", "a blue circle a red"]))
    assert not torch.isclose(first, second).all()


def test_training_and_inference_encode_equally() -> None:
    encoder = caption_encoder()
    tokens = encoder.tokens(["a red circle", "blue"])
    trained = encoder.train()(tokens).detach()
    with torch.inference_mode():
        assert torch.allclose(encoder.eval()(tokens), trained, atol=1e-5)


@torch.no_grad()
def test_conditioning_is_chosen_per_clip() -> None:
    condition = ConditioningEmbedding(5, WORDS, 16)
    perturb(condition)
    labels, captions = [1, 1, 1], ["a red circle"] * 3
    mixed = condition(labels, captions, ["none", "class", "text"])
    assert torch.equal(mixed[0], condition.null)
    assert torch.equal(mixed[1], condition.label.weight[1])
    assert torch.allclose(mixed[2], condition(labels, captions, ["text"] * 3)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("classes", "words", "label", "mode", "message"),
    [
        (5, WORDS, 5, "class", "class 5: .*0 to 4"),
        (5, WORDS, -1, "class", "class -1"),
        (0, WORDS, 0, "class", "without classes"),
        (5, (), 0, "text", "without captions"),
    ],
)
def test_unknown_classes_and_missing_conditioning_are_refused(
    classes: int, words: tuple[str, ...], label: int, mode: Conditioning, message: str
) -> None:
    condition = ConditioningEmbedding(classes, words, 16)
    with pytest.raises(UserError, match=message):
        condition([0, label], [" ".join(words[:1])] * 2, ["none", mode])


def test_unused_labels_are_ignored() -> None:
    condition = ConditioningEmbedding(0, WORDS, 16)
    vectors = condition([999, 999], [WORDS[0]] * 2, ["none", "text"])
    assert torch.equal(vectors[0], condition.null)
    assert not torch.equal(vectors[1], condition.null)
