"""Tests that every plug-in, found by listing the folders, keeps the contract of `vfbench.interfaces`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import DATA
from contract import check_dataset, check_extractor, check_fingerprint, check_metric, check_sampler
from helpers import perturb
from torch import Tensor, nn

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.errors import MissingData
from vfbench.interfaces import (
    Better,
    BuildContext,
    ClipShape,
    Conditioning,
    Dataset,
    Extractor,
    Metric,
    Request,
    Sampler,
    Score,
    Split,
)
from vfbench.plugins import Spec

CPU = torch.device("cpu")
SMALL = ClipShape(4, 16, 16)


def small_dataset(name: str, shape: ClipShape = SMALL) -> Dataset:
    """Dataset at a small size; skips the test if its files are not in VFBENCH_TEST_DATA."""
    options: dict[str, Any] = {"frames": shape.frames, "height": shape.height, "width": shape.width}
    if "root" in plugins.options("dataset", name):
        options["root"] = str(DATA)
    try:
        data: Dataset = plugins.load("dataset", Spec(name, options))
    except MissingData:
        pytest.skip(f"no files of {name} in {DATA}: set VFBENCH_TEST_DATA to run this")
    return data


def some_requests(data: Dataset) -> list[Request]:
    """Requests of three test clips with different first frames."""
    indices = [0, 7, 19]
    rows = zip(data.labels("test", indices), data.captions("test", indices), indices, strict=True)
    return [Request(i, 100 + i, label, caption, source) for i, (label, caption, source) in enumerate(rows)]


def small_sampler(name: str, data: Dataset, folder: Path) -> Sampler:
    """Sampler of a model; a trainable one is loaded from a checkpoint that is saved to `folder`."""
    module, options = plugins.module("model", name), {}
    if hasattr(module, "create"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = module.create(data, next(iter(module.PRESETS)))
        perturb(model)
        model.save(folder)
        options = {"steps": 2}
    sampler: Sampler = plugins.load("model", Spec(name, options), BuildContext(data, CPU, checkpoint=folder))
    return sampler


@pytest.mark.one_case
@pytest.mark.parametrize("name", plugins.names("dataset"))
def test_dataset(name: str) -> None:
    check_dataset(small_dataset(name))
    check_fingerprint(lambda shape: small_dataset(name, shape), SMALL)


# Need files; test_diffusers_baseline.py, test_model_folder.py and test_cascade.py check them.
NEED_FILES = {"diffusers", "folder", "cascade"}


@pytest.mark.one_case
@pytest.mark.parametrize("name", sorted(plugins.names("model").keys() - NEED_FILES))
@pytest.mark.pitfall("one seed for a batch")
def test_model(name: str, tmp_path: Path) -> None:
    data = small_dataset("shapes")
    check_sampler(small_sampler(name, data, tmp_path), some_requests(data))


PUBLISHED = {"i3d", "c3d", "clip", "inception"}  # full size with random weights, slow
TOO_LARGE = {"videomae"}  # 10^9 parameters; test_videomae.py checks a small one


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in PUBLISHED))
        for name in plugins.names("extractor")
        if name not in TOO_LARGE
    ],
)
@pytest.mark.pitfall("floats as bytes")
def test_extractor(name: str) -> None:
    data = small_dataset("shapes", ClipShape(16, 32, 32))
    requests = some_requests(data)[: 2 if name in PUBLISHED else None]
    options = {"weights": "random"} if name in PUBLISHED else {}
    extractor: Extractor = plugins.load("extractor", Spec(name, options), CPU)
    check_extractor(extractor, data.clips("test", [request.source for request in requests]), requests)


@pytest.mark.parametrize("name", plugins.names("metric"))
@pytest.mark.pitfall("features changed by a metric")
def test_metric(name: str) -> None:
    metric: Metric = plugins.load("metric", name)
    assert metric.name == name
    check_metric(metric)


# The checks can fail.


class FaultySampler:
    """Sampler that breaks the contract by this fault."""

    conditioning: Conditioning = "none"
    weights = "none"

    def __init__(self, fault: str) -> None:
        self.shape, self.fault, self.calls = SMALL, fault, 0
        self.networks: Mapping[str, nn.Module] = {}

    def sample(self, requests: Sequence[Request]) -> Tensor:
        self.calls += 1
        seeds = [request.seed for request in requests]
        if self.fault == "global random numbers":
            return torch.randint(256, (len(seeds), 4, 3, 16, 16), dtype=torch.uint8)
        if self.fault == "the same clip":
            seeds = [0] * len(seeds)
        if self.fault == "other clips":
            seeds = [seed + 1000 * self.calls for seed in seeds]
        if self.fault == "its place":
            seeds = [seed + 1000 * position for position, seed in enumerate(seeds)]
        if self.fault == "its batch":
            seeds = [seed + 1000 * len(seeds) for seed in seeds]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        top = 2 if self.fault == "bytes in 0..1" else 256
        clips = [torch.randint(top, (4, 3, 16, 16), generator=g, dtype=torch.uint8) for g in generators]
        return torch.stack(clips).float() if self.fault == "uint8" else torch.stack(clips)


FAULTS = ["global random numbers", "the same clip", "other clips", "its place", "its batch", "bytes in 0..1", "uint8"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_sampler_is_caught(fault: str) -> None:
    requests = some_requests(shapes.build())
    check_sampler(FaultySampler("none"), requests)
    with pytest.raises(AssertionError, match=fault):
        check_sampler(FaultySampler(fault), requests)


class FaultyDataset(shapes.Shapes):
    """Dataset whose clips change from call to call, or whose captions have an unknown word."""

    def __init__(self, fault: str) -> None:
        super().__init__(SMALL)
        self.fault, self.calls = fault, 0

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Tensor:
        self.calls += 1
        return super().clips(split, indices, device) + (self.calls if self.fault == "the call" else 0)

    def captions(self, split: Split, indices: Sequence[int]) -> list[str]:
        return [f"{text} slowly" if self.fault == "words" else text for text in super().captions(split, indices)]


@pytest.mark.parametrize("fault", ["the call", "words"])
def test_a_faulty_dataset_is_caught(fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_dataset(FaultyDataset(fault))


class FaultyMetric:
    """Metric that breaks the contract by this fault."""

    name, title, output, minimum = "faulty", "Faulty", "features", 8

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.better: Better = "higher" if fault == "is not better" else "lower"

    def score(
        self, fake: np.ndarray, real: np.ndarray, *, holdout: Any = None, groups: Any = None, seed: int = 0
    ) -> Score:
        if self.fault == "changes":
            fake -= fake.mean()
        value = float(np.abs(fake.mean(0) - real.mean(0)).max())
        return Score(value, value - 1, value + 1, 0.0, len(real), len(fake))


@pytest.mark.parametrize("fault", ["changes", "is not better", "DID NOT RAISE"])
def test_a_faulty_metric_is_caught(fault: str) -> None:
    expected = pytest.fail.Exception if fault == "DID NOT RAISE" else AssertionError  # it accepts NaN
    with pytest.raises(expected, match=fault):
        check_metric(FaultyMetric(fault))


def test_a_fingerprint_that_ignores_the_shape_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_fingerprint(lambda _: SimpleNamespace(fingerprint="always"), SMALL)
