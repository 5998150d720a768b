"""Tests of extractors and of the renderer on a device that only claims to be CUDA."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from claimed import CUDA, WAIT, ClaimedTensor, claimed_cuda
from torch import nn
from transformers import CLIPConfig

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.interfaces import Extractor, Request
from vfbench.metrics import _c3d, _clip, _clip_model, _frame_change, _i3d, _i3d_network, _inception, _videomae
from vfbench.weights.load import WeightInfo

Network = TypeVar("Network", bound=nn.Module)

INFO = WeightInfo("0" * 64, weight_status="nonstandard")
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
CLIP = CLIPConfig(
    text_config={**SIZES, "vocab_size": 100, "bos_token_id": 98, "eos_token_id": 99},
    vision_config={**SIZES, "image_size": 16, "patch_size": 8},
    projection_dim=6,
)


def blank(create: Callable[[], Network]) -> Network:
    """A network of zeros, which takes no time to make."""
    with torch.device("meta"):
        network = create()
    return nn.Module.to_empty(network, device="cpu")


def i3d(resize: str) -> Extractor:
    return _i3d.I3DExtractor(blank(lambda: _i3d_network.I3D(1e-3)).fold(), INFO, CUDA, resize=resize)


def videomae() -> Extractor:
    network = _videomae.VideoMAE(side=8, patch=4, dim=16, depth=1, heads=2, hidden=16)
    return _videomae.VideoMAEExtractor(network, INFO, CUDA)


EXTRACTORS: dict[str, Callable[[], Extractor]] = {
    "shapes_judge": lambda: plugins.load("extractor", "shapes_judge", CUDA),
    "c3d": lambda: _c3d.C3DExtractor(blank(_c3d.C3D), INFO, CUDA),
    "i3d": lambda: i3d("squash"),
    "i3d tf1": lambda: i3d("tf1"),
    "inception": lambda: _inception.InceptionExtractor(_inception.create(), INFO, CUDA),
    "videomae": videomae,
    "clip": lambda: _clip.CLIPExtractor(_clip_model.untrained(CLIP), CUDA),
    "frame_change": lambda: _frame_change.build(CUDA),
}


def test_every_extractor_is_listed() -> None:
    assert {name.split()[0] for name in EXTRACTORS} == set(plugins.names("extractor"))


@pytest.mark.one_case
@pytest.mark.parametrize("name", EXTRACTORS)
def test_an_extractor_waits_for_its_outputs_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, size in ((_i3d, "FRAMES_PER_PASS"), (_c3d, "BATCH_SIZE")):
        monkeypatch.setitem(getattr(module, size), "cuda", 1)  # several passes
    data = shapes.build(frames=16, height=16, width=16)
    requests = [Request(i, i, 0, caption) for i, caption in enumerate(data.captions("test", range(2)))]
    with claimed_cuda(shapes_only=name != "shapes_judge") as events:
        extractor = EXTRACTORS[name]()
        events.counts.clear()
        features = extractor(data.clips("test", range(2)), requests, list(extractor.outputs))
    assert {output: tuple(value.shape) for output, value in features.items()} == {
        output: (2, dim) for output, dim in extractor.outputs.items()
    }
    assert not any(isinstance(value, ClaimedTensor) for value in features.values())
    assert all(event.startswith(WAIT) for event in events.counts)
    assert sum(events.counts.values()) <= len(extractor.outputs)


def test_the_renderer_never_waits_and_gives_the_same_bytes() -> None:
    data = shapes.build(frames=5, height=12, width=16)
    with claimed_cuda() as events:
        clips = data.clips("train", range(40), CUDA)
        assert isinstance(clips, ClaimedTensor)
        assert events.counts == {}
    assert torch.equal(clips.numbers, data.clips("train", range(40)))
