"""Tests of `vfbench.pipeline.cost` and `vfbench.diffusion.flops`: parameters, FLOPs and network calls by hand count."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from embedded import EMBEDDING, MODELS, save_clip_vision
from helpers import clips_of, tiny_dataset, tiny_vdm, tiny_videofusion
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vfbench import plugins, video
from vfbench.datasets import shapes
from vfbench.diffusion.flops import count_flops, training_flops
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.model_config import ModelConfig
from vfbench.diffusion.priors import Independent
from vfbench.diffusion.single_network import OneNetwork
from vfbench.interfaces import BuildContext, Clips, ClipShape, Conditioning, Request
from vfbench.models import videofusion
from vfbench.nets.embedding import ConditioningEmbedding
from vfbench.nets.transformer import Block
from vfbench.pipeline.cost import measure, peak_memory
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan
from vfbench.pipeline.requests import make_requests
from vfbench.utils import checkpoint as checkpoint_
from vfbench.utils import tensor_files as tensor_files_
from vfbench.utils.files import file_sha256

TRAINABLE = plugins.trainable()


class ConvolutionSampler:
    """Sampler that applies one convolution three times to each of two 4x4 frames."""

    shape = ClipShape(2, 4, 4)
    conditioning: Conditioning = "none"
    weights = "none"

    def __init__(self) -> None:
        self.network = nn.Conv2d(3, 3, 3, padding=1)
        self.networks: Mapping[str, nn.Module] = {"network": self.network, "shared": nn.Sequential(self.network)}

    def sample(self, requests: Sequence[Request]) -> Clips:
        x = torch.rand(len(requests), 3, 4, 4)
        for _ in range(3):
            frames = torch.stack([self.network(x), self.network(x)], dim=1)
        return video.to_uint8(frames.detach().abs().clamp(0, 1))


def test_flops_equal_a_count_by_hand() -> None:
    cost = measure(ConvolutionSampler(), Request(0, 0, 0, ""))
    # 3 applications, 2 frames, 2 FLOPs for each of 3x3x3 weights at each of 3x4x4 outputs
    assert cost.flops_per_clip == 3 * 2 * 2 * (3 * 3 * 3) * (3 * 4 * 4)
    assert cost.parameters == 3 * 3 * 3 * 3 + 3  # shared by two networks, counted once
    assert (cost.evaluations, cost.calls) == (6, {"network": 6, "shared": 0})


@pytest.mark.one_case
@pytest.mark.parametrize(("guidance", "times"), [(1.0, 1), (2.0, 2)])
def test_guidance_doubles_the_evaluations(guidance: float, times: int, checkpoints: Path) -> None:
    folder = checkpoints / "videofusion"
    context = BuildContext(shapes.build(), torch.device("cpu"), checkpoint=folder)
    sampler = videofusion.build(context, steps=3, guidance=guidance)
    cost = measure(sampler, make_requests(context.dataset, "test", 1, 0)[0])
    assert cost.evaluations == cost.calls["base"] == cost.calls["residual"] == 3 * times
    tensors = tensor_files_.read(folder / "model.safetensors")
    assert cost.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.slow
def test_flops_grow_with_steps_not_with_the_batch_size(checkpoints: Path) -> None:
    options: dict[str, Any] = {"model": "vdm", "checkpoint": checkpoints / "vdm", "smoke": True, "device": "cpu"}
    costs = [plan(RunOptions(steps=steps, batch_size=size, **options)).cost for steps, size in [(1, 1), (3, 1), (3, 9)]]
    single_step, three_steps, batched = (cost.flops_per_clip for cost in costs)
    assert three_steps == batched
    assert 2.9 * single_step < three_steps < 3 * single_step  # conditioning is computed once


@pytest.mark.parametrize("control", ["real", "noise", "frozen"])
def test_controls_have_no_cost(control: str) -> None:
    cost = plan(RunOptions(model=control, smoke=True, device="cpu")).cost
    assert (cost.parameters, cost.flops_per_clip, cost.evaluations, cost.calls) == (0, 0, 0, {})


def test_peak_memory_is_in_bytes() -> None:
    assert 1e8 < peak_memory(torch.device("cpu")) < 1e12


# Attention.

BATCH, HEADS, QUERIES, KEYS, WIDTH = 2, 3, 17, 11, 8
ONE_PRODUCT = 2 * BATCH * HEADS * QUERIES * KEYS * WIDTH  # FLOPs of a matrix product; attention has two
KERNELS = sorted(
    name.removeprefix("aten::")
    for name in torch._C._dispatch_get_all_op_names()
    if re.fullmatch(r"aten::_scaled_dot_product_\w*attention\w*(?<!_backward)(?<!_for_mps)", name)
)


@pytest.mark.parametrize("kernel", KERNELS)
def test_attention_costs_the_same_in_every_kernel_of_every_device(kernel: str) -> None:
    query = torch.empty(BATCH, HEADS, QUERIES, WIDTH, device="meta", requires_grad=True)
    key, value = (torch.empty(BATCH, HEADS, KEYS, WIDTH, device="meta", requires_grad=True) for _ in range(2))
    bias_and_statistics = (None, True) if re.search("efficient|cudnn", kernel) else ()
    with count_flops() as counter:
        output = getattr(torch.ops.aten, kernel)(query, key, value, *bias_and_statistics)[0]
        assert counter.get_total_flops() == 2 * ONE_PRODUCT
        output.sum().backward()
    assert counter.get_total_flops() == (2 + 4) * ONE_PRODUCT


@pytest.mark.parametrize("backend", [None, SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_transformer_block_costs_the_same_with_every_backend(backend: SDPBackend | None, device: str) -> None:
    width, hidden, groups, tokens, embedding = 16, 24, 3, 10, 8
    block = Block(width, hidden, heads=2, embedding=embedding).to(device)
    x = torch.zeros(2, groups, tokens, width, device=device, requires_grad=True)
    condition = torch.zeros(2, embedding, device=device, requires_grad=True)
    rows = 2 * groups * tokens
    layers = 2 * rows * width * (3 * width + width + 2 * hidden) + 2 * 2 * embedding * 6 * width
    attention = 2 * 2 * rows * tokens * width
    with nullcontext() if backend is None else sdpa_kernel(backend), count_flops() as counter:
        output = block(x, condition)
        assert counter.get_total_flops() == layers + attention
        output.sum().backward()
    assert counter.get_total_flops() == 3 * (layers + attention)


# Training.


class FrameConvolution(nn.Module):
    """Convolution over each frame, without conditioning."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, z: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        output: Tensor = self.layer(z.flatten(0, 1)).view_as(z)
        return output


class OneConvolution(OneNetwork):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.network = FrameConvolution()
        self.condition = ConditioningEmbedding(len(config.classes), (), 8)

    @staticmethod
    def make_noise_prior(config: ModelConfig) -> Independent:
        return Independent()


def counted_flops(model: DiffusionModel) -> int:
    """FLOPs of one executed step on two clips."""
    with count_flops() as counter:
        captions = ["a small red circle moves left over blue stripes"] * 2
        draws = model.draw(2, torch.Generator())
        losses = model.training_losses(clips_of(model), [3, 4], captions, ["text", "text"], draws)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]  # torch has no type
    return int(counter.get_total_flops())


def test_training_flops_equal_a_count_by_hand() -> None:
    config = ModelConfig("x", "x", "x", ClipShape(2, 4, 4), ("a",), (), {"schedule": "cosine", "parametrisation": "v"})
    # Forward, and backward for the weights only, as the clip needs no gradient.
    assert training_flops(OneConvolution(config)) == 2 * 2 * 2 * (3 * 3 * 3) * (3 * 4 * 4)


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("name", TRAINABLE)
def test_training_flops_equal_those_of_an_executed_step(name: str) -> None:
    model = plugins.module("model", name).create(tiny_dataset(side=16), "tiny")
    assert 2 * training_flops(model) == counted_flops(model)


@pytest.mark.slow
def test_a_frozen_base_generator_is_not_counted_backward() -> None:
    frozen, trained = tiny_videofusion(base_init="frozen", images=0), tiny_videofusion(images=0)
    assert 2 * training_flops(frozen) == counted_flops(frozen)
    assert training_flops(frozen) < 0.9 * training_flops(trained)


@pytest.mark.slow
def test_a_hub_base_generator_is_counted() -> None:
    pytest.importorskip("diffusers", reason="needs the extra: diffusers")
    sizes = {"sample_size": 8, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4}
    blocks = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "in_channels": 3}
    hub = {**sizes, **blocks, "out_channels": 3, "class_embed_type": None, "num_class_embeds": None}
    model = tiny_videofusion(base={"hub": hub, "scheduler": {"prediction_type": "epsilon"}})
    assert 2 * training_flops(model) == counted_flops(model)
    assert training_flops(model) != training_flops(tiny_videofusion())


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("clip", [False, True])
def test_the_frame_embedding_and_its_prior_are_counted(clip: bool, tmp_path: Path) -> None:
    weights = save_clip_vision(tmp_path) / checkpoint_.TENSORS if clip else None
    clip_options = {"encoder": str(tmp_path), "size": 6, "sha256": file_sha256(weights)} if weights else {}
    model = MODELS["vdm"]({**EMBEDDING, **clip_options})
    assert 2 * training_flops(model) == counted_flops(model)
    assert training_flops(model) > training_flops(tiny_vdm())


def test_counting_training_flops_changes_neither_model_nor_random_state() -> None:
    model = tiny_vdm()
    before, state = {name: p.clone() for name, p in model.named_parameters()}, torch.get_rng_state()
    training_flops(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], p) and p.grad is None for name, p in model.named_parameters())
