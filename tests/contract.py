"""Checks that a plug-in keeps the contract of `vfbench.interfaces`; a violation raises AssertionError."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vfbench.errors import UserError
from vfbench.interfaces import (
    Better,
    ClipShape,
    Conditioning,
    Dataset,
    Extractor,
    Metric,
    Request,
    Sampler,
    Score,
    Split,
    WeightStatus,
)

SPLITS: tuple[Split, ...] = get_args(Split)


def equal_bytes(a: Tensor, b: Tensor, *, tolerance: int = 0) -> bool:
    """Compare uint8 tensors: equal shapes, and no byte differs by more than `tolerance`."""
    return a.shape == b.shape and int((a.int() - b.int()).abs().max()) <= tolerance


def check_clips(clips: Tensor, count: int, shape: ClipShape) -> None:
    assert clips.dtype == torch.uint8, f"clips are {clips.dtype}, not uint8"
    assert clips.shape == (count, shape.frames, 3, shape.height, shape.width)
    assert clips.device.type == "cpu"
    assert int(clips.max()) > 1, "bytes in 0..1: floats cut to integers?"


def check_dataset(data: Dataset) -> None:
    assert isinstance(data, Dataset)
    assert data.classes
    assert len(set(data.classes)) == len(data.classes)
    assert len(set(data.words)) == len(data.words)
    assert data.fingerprint
    assert data.fingerprint == data.fingerprint
    assert sum(map(data.size, SPLITS)) > 0
    for split in SPLITS:
        size = data.size(split)
        if size:
            _check_split(data, split, sorted({0, size // 2, size - 1}))
        with pytest.raises(IndexError):
            data.clips(split, [size])


def _check_split(data: Dataset, split: Split, indices: Sequence[int]) -> None:
    clips, backwards = data.clips(split, indices), data.clips(split, indices[::-1])
    check_clips(clips, len(indices), data.shape)
    assert equal_bytes(clips, backwards.flip(0)), "a clip depends on its place in the batch, or on the call"
    labels, captions = data.labels(split, indices), data.captions(split, indices)
    assert len(labels) == len(captions) == len(indices)
    assert all(label in range(len(data.classes)) for label in labels)
    for caption in captions:
        assert caption, "an empty caption"
        assert set(caption.split()) <= set(data.words), "a caption has words outside `words`"


def check_fingerprint(build: Callable[[ClipShape], Dataset], shape: ClipShape) -> None:
    """Check that the fingerprint is reproducible and differs between clip shapes."""
    frames, height, width = shape.frames, shape.height, shape.width
    others = [ClipShape(frames + 1, height, width), ClipShape(frames, 2 * height, width)]
    shapes = [shape, *others, ClipShape(frames, height, 2 * width)]
    assert len({build(clip_shape).fingerprint for clip_shape in shapes}) == len(shapes)
    assert build(shape).fingerprint == build(shape).fingerprint


def check_sampler(sampler: Sampler, requests: Sequence[Request]) -> None:
    """Check a sampler with at least three different requests; a network may round differently in other batches."""
    assert isinstance(sampler, Sampler)
    assert sampler.conditioning in get_args(Conditioning)
    assert all(isinstance(network, nn.Module) for network in sampler.networks.values())
    assert re.fullmatch(r"none|[0-9a-f]{64}", sampler.weights), "weights: a SHA-256, or none"
    state = torch.get_rng_state()
    clips = sampler.sample(requests)
    assert torch.equal(state, torch.get_rng_state()), "sampling moved the global random numbers"
    check_clips(clips, len(requests), sampler.shape)
    assert all(not torch.equal(clips[0], clip) for clip in clips[1:]), "different requests, the same clip"
    torch.manual_seed(1)
    assert equal_bytes(clips, sampler.sample(requests)), "the same requests, other clips"
    tolerance = 1 if sampler.networks else 0
    assert equal_bytes(clips, sampler.sample(requests[::-1]).flip(0), tolerance=tolerance), (
        "a clip depends on its place"
    )
    alone = torch.cat([sampler.sample([request]) for request in requests])
    assert equal_bytes(clips, alone, tolerance=tolerance), "a clip depends on its batch"


def check_extractor(extractor: Extractor, clips: Tensor, requests: Sequence[Request]) -> None:
    assert isinstance(extractor, Extractor)
    assert re.fullmatch(r"[0-9a-f]{64}", extractor.fingerprint)
    assert extractor.weight_status in get_args(WeightStatus)
    outputs = list(extractor.outputs)
    together = extractor(clips, requests, outputs)
    assert list(together) == outputs
    for name, values in together.items():
        assert values.shape == (len(clips), extractor.outputs[name])
        assert values.dtype == torch.float32
        assert values.device.type == "cpu"
        assert torch.isfinite(values).all()
        alone = torch.cat([extractor(clips[i : i + 1], [request], [name])[name] for i, request in enumerate(requests)])
        tolerance = 1e-4 * max(1.0, float(values.abs().max()))  # sums of large terms round in large steps
        assert torch.allclose(values, alone, rtol=1e-4, atol=tolerance), f"{name} of a clip depends on its batch"
    with pytest.raises(TypeError):
        extractor(clips.float() / 255, requests, outputs)
    with pytest.raises(UserError, match="0 or 1"):
        extractor(clips.clamp(max=1), requests, outputs)


def samples(output: str, count: int, seed: int) -> Mapping[str, np.ndarray]:
    """Synthetic features (N, D) of `good` clips (distributed as real ones) and of `bad` ones (distant, similar)."""
    rng = np.random.default_rng(seed)
    if output in ("similarity", "consistency"):
        return {"good": rng.uniform(0.25, 0.4, (count, 1)), "bad": rng.uniform(-0.1, 0.05, (count, 1))}
    if output in ("attributes", "smoothness"):
        columns = {"attributes": 6, "smoothness": 1}[output]
        return {"good": np.ones((count, columns)), "bad": rng.integers(2, size=(count, columns)).astype(float)}
    if output == "base_change":
        return {"good": rng.uniform(0.1, 0.2, (count, 2)), "bad": rng.uniform([0.3, 0.1], [0.4, 0.2], (count, 2))}
    if output == "logits":
        confident = 8.0 * np.eye(6)[np.arange(count) % 6]
        return {"good": confident + rng.normal(size=confident.shape), "bad": 0.1 * rng.normal(size=confident.shape)}
    return {"good": rng.normal(size=(count, 6)), "bad": 2 + 0.3 * rng.normal(size=(count, 6))}


def check_metric(metric: Metric) -> None:
    assert isinstance(metric, Metric)
    assert metric.better in get_args(Better)
    assert metric.title
    assert metric.minimum >= 2
    count = metric.minimum
    real = samples(metric.output, 2 * count + 5, seed=0)["good"]
    fake = samples(metric.output, count, seed=1)
    good, bad = (_check_score(metric, fake[name], real) for name in ("good", "bad"))
    assert (good.value < bad.value) == (metric.better == "lower"), f"for {metric.name} {metric.better} is not better"
    for invalid in (float("nan"), float("inf")):
        broken = fake["good"].copy()
        broken[count // 2, 0] = invalid
        with pytest.raises(UserError):
            metric.score(broken, real)
        with pytest.raises(UserError):
            metric.score(fake["good"], np.concatenate([broken, real]))


def _check_score(metric: Metric, fake: np.ndarray, real: np.ndarray) -> Score:
    before = fake.copy(), real.copy()
    first, again = metric.score(fake, real, seed=3), metric.score(fake, real, seed=3)
    assert np.array_equal(before[0], fake), "the metric changes its generated features"
    assert np.array_equal(before[1], real), "the metric changes its real features"
    assert first == again, "the same arrays and seed, another score"
    assert all(np.isfinite([first.value, first.low, first.high, first.floor]))
    assert first.low <= first.value <= first.high
    assert (first.n_fake, first.n_real) == (len(fake), len(real))
    return first
