"""Tests on a device that only claims to be CUDA: no device mix, no wait inside a loop, no float64."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from claimed import CUDA, FLOAT64, TO_DEVICE, WAIT, ClaimedTensor, DeviceMix, Events, claimed_cuda
from embedded import embedding_model
from helpers import CPU, UNET, perturb, requests, tiny_dataset, tiny_one_network, tiny_vdm, tiny_videofusion
from torch import Tensor

from vfbench.baselines import pyoco
from vfbench.baselines.vdm import VDM
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.sampler import DiffusionSampler, SamplerOptions
from vfbench.diffusion.schedule import Prediction
from vfbench.nets.unet import place

Create = Callable[[], DiffusionModel]


def progressive() -> DiffusionModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = pyoco.create(tiny_dataset(), "tiny-progressive").config
        model = pyoco.PYoCo(replace(config, options={**config.options, "network": UNET}))
    perturb(model)
    return model


def hub_base() -> DiffusionModel:
    """VideoFusion with a base generator of diffusers."""
    pytest.importorskip("diffusers", reason="needs the extra: diffusers")
    sizes = {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4}
    blocks = {
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    }
    network = {"sample_size": 8, **sizes, **blocks}
    return tiny_videofusion(base={"hub": network, "scheduler": {"prediction_type": "epsilon"}})


MODELS: dict[str, Create] = {
    "videofusion": tiny_videofusion,
    "joint": lambda: tiny_videofusion(base_update="joint"),
    "one network": tiny_one_network,
    "vdm": tiny_vdm,
    "pyoco": progressive,
    "vdit": lambda: embedding_model("vdit"),
    "embedding": lambda: embedding_model("videofusion"),
    "hub base": hub_base,
}
OPTIONS: list[dict[str, Any]] = [
    {"solver": "ddpm"},
    {"solver": "ddim", "eta": 0.5, "threshold": 0.9},
    {"frames": 7, "overlap": 1},
]
# Each model, and every option with a model that takes them all.
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {"guidance": 3.0}) for name in MODELS),
    *(("joint", each) for each in OPTIONS),
]


def on_cuda(model: DiffusionModel) -> DiffusionModel:
    model = copy.deepcopy(model).eval()
    place(model, CUDA)
    return model


def sample(model: DiffusionModel, events: Events, steps: int, **options: Any) -> tuple[Tensor, Counter[str]]:
    """Clips, and what was noted while they were made."""
    dtype = options.pop("dtype", torch.float32)
    sampler = DiffusionSampler(model, "none", CUDA, dtype, SamplerOptions(steps=steps, **options))
    events.counts.clear()
    return sampler.sample(requests(4, 5)), Counter(events.counts)


def noted_per_step(model: DiffusionModel, **options: Any) -> list[str]:
    """Waits, copies and float64 tensors that more steps have more of."""
    with claimed_cuda() as events:
        model = on_cuda(model)
        (_, few), (_, more) = (sample(model, events, steps, **options) for steps in (1, 2))
    return list(more - few)


@pytest.mark.one_case
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_sampling_waits_for_the_gpu_at_its_end_alone(name: str, options: dict[str, Any]) -> None:
    model = MODELS[name]().eval()
    with claimed_cuda() as events:
        on_gpu = on_cuda(model)
        clips, first = sample(on_gpu, events, 2, **options)
        _, more = sample(on_gpu, events, 3, **options)
    assert type(clips) is Tensor
    assert sorted(first) == sorted(more)
    assert sum(more.values()) == 2  # the check of the clips, and the clips themselves
    assert not [event for event in first if event.startswith((FLOAT64, TO_DEVICE))]
    on_cpu = DiffusionSampler(model, "none", CPU, sampling=SamplerOptions(steps=2, **options), noise="philox")
    # Equal noise; the layout in memory differs, and with it the rounding.
    assert (clips.int() - on_cpu.sample(requests(4, 5)).int()).abs().max() <= 1


@pytest.mark.slow
def test_sampling_in_bfloat16_mixes_no_devices() -> None:
    assert noted_per_step(tiny_videofusion(), dtype=torch.bfloat16, guidance=2.0) == []


# Planted faults.


def plant(monkeypatch: pytest.MonkeyPatch, fault: Callable[[Tensor], Tensor]) -> None:
    """Let VDM's denoising step read `fault(z)` instead of z."""
    original = VDM.predict

    def faulty(model: VDM, z: Tensor, t: Tensor, cond: Tensor) -> Prediction:
        prediction: Prediction = original(model, fault(z), t, cond)
        return prediction

    monkeypatch.setattr(VDM, "predict", faulty)


FAULTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "item": (lambda z: z * float(z.mean() * 0 + 1), WAIT),
    "condition": (lambda z: z if z.sum() > 0 else z * 1, WAIT),
    "cpu": (lambda z: z * z.cpu().mean(), WAIT),
    "tolist": (lambda z: z * len(z[0, 0, 0, 0].tolist()), WAIT),
    "mask": (lambda z: z * z[z > 0].numel(), WAIT),
    "nonzero": (lambda z: z * len(z.nonzero()), WAIT),
    "list": (lambda z: z[:, [0, 1, 2, 3]], TO_DEVICE),
    "tensor": (lambda z: z * torch.tensor([1.0], device=z.device), TO_DEVICE),
    "like": (lambda z: z * torch.ones(1).to(z), TO_DEVICE),
    "new_tensor": (lambda z: z * z.new_tensor([1.0]), TO_DEVICE),
    "float64": (lambda z: z.double().float(), FLOAT64),
    "arange": (lambda z: z * torch.arange(1.0, 2.0, dtype=torch.float64, device=z.device).float(), FLOAT64),
}


@pytest.mark.one_case
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_wait_is_noted_with_its_place(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    function, kind = FAULTS[fault]
    plant(monkeypatch, function)
    noted = noted_per_step(tiny_vdm())
    assert any(event.startswith(kind) and "test_claimed_cuda.py" in event for event in noted), noted


@pytest.mark.parametrize(
    "fault",
    [
        lambda z: z + torch.zeros(z.shape),
        lambda z: torch.cat([z[:, :1], torch.zeros(z[:, 1:].shape)], dim=1),
        lambda z: torch.lerp(z, z, torch.zeros(1)),
    ],
    ids=["add", "cat", "lerp"],
)
def test_a_planted_device_mix_is_refused(monkeypatch: pytest.MonkeyPatch, fault: Callable[[Tensor], Tensor]) -> None:
    plant(monkeypatch, fault)
    with pytest.raises(DeviceMix, match="of the CPU meets one of cuda:0"):
        noted_per_step(tiny_vdm())


def test_a_number_of_the_cpu_may_meet_the_gpu_and_factories_obey_the_device() -> None:
    with claimed_cuda() as events:
        made = [torch.randn(2, device=CUDA), torch.arange(2, device=CUDA), torch.full((2,), 3, device=CUDA)]
        assert all(isinstance(tensor, ClaimedTensor) for tensor in made)
        assert torch.randn(2).device == CPU
        assert (made[0] * torch.tensor(2.0)).device == CUDA
        assert events.counts == {}
