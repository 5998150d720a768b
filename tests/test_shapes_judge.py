"""Tests of `vfbench.metrics._shapes_judge`: accuracy on held-out clips, sensitivity to motion, shipped weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.diffusion.model import DiffusionModel
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import BuildContext, Clips, Extractor, Request
from vfbench.metrics import _shapes_judge
from vfbench.utils import checkpoint as checkpoint_
from vfbench.utils.files import file_sha256

CPU = torch.device("cpu")
ALL = ("features", "logits", "similarity", "attributes")


@pytest.fixture(scope="module")
def judge() -> Extractor:
    extractor: Extractor = plugins.load("extractor", "shapes_judge", CPU)
    return extractor


def held_out_clips(count: int) -> tuple[Clips, list[Request]]:
    data, indices = shapes.build(), range(5000, 5000 + count)
    rows = zip(data.labels("test", indices), data.captions("test", indices), strict=True)
    return data.clips("test", indices), [Request(i, 0, *row) for i, row in enumerate(rows)]


@pytest.mark.slow
def test_held_out_clips_are_classified_and_retrieved(judge: Extractor) -> None:
    clips, requests = held_out_clips(200)
    outputs = judge(clips, requests, ALL)
    labels = torch.tensor([request.label for request in requests])
    assert float((outputs["logits"].argmax(1) == labels).float().mean()) >= 0.97
    assert isinstance(judge, _shapes_judge.ShapesJudgeExtractor)
    for start in (0, 100):  # retrieval among 100 clips
        part = slice(start, start + 100)
        assert top_1(judge, clips[part], requests[part]) >= 0.9


def top_1(extractor: _shapes_judge.ShapesJudgeExtractor, clips: Clips, requests: Sequence[Request]) -> float:
    """Fraction of captions whose nearest clip is their own."""
    with torch.inference_mode():
        clip_embeddings = extractor.judge.clip_embedding(extractor(clips, requests, ["features"])["features"])
        caption_embeddings = extractor.judge.caption_embedding([request.prompt for request in requests])
    return float(((caption_embeddings @ clip_embeddings.T).argmax(1) == torch.arange(len(clips))).float().mean())


def test_freezing_changes_the_predicted_class(judge: Extractor) -> None:
    clips, requests = held_out_clips(30)
    frozen = clips[:, :1].expand_as(clips).contiguous()
    moving = [i for i, request in enumerate(requests) if "still" not in request.prompt]
    classes = [judge(c, requests, ["logits"])["logits"].argmax(1)[moving] for c in (clips, frozen)]
    assert float((classes[0] != classes[1]).float().mean()) > 0.9


def test_outputs_do_not_depend_on_the_batch(judge: Extractor) -> None:
    clips, requests = held_out_clips(5)
    batch, single = judge(clips, requests, ALL), judge(clips[3:4], requests[3:4], ALL)
    for name, width in judge.outputs.items():
        assert batch[name].shape == (5, width)
        np.testing.assert_allclose(batch[name][3], single[name][0], rtol=1e-4, atol=1e-5)


def test_other_resolutions_are_resized(judge: Extractor) -> None:
    data = shapes.build(height=64, width=64)
    clips, labels = data.clips("test", range(60)), torch.tensor(data.labels("test", range(60)))
    requests = [Request(i, 0, 0, "") for i in range(60)]
    assert float((judge(clips, requests, ["logits"])["logits"].argmax(1) == labels).float().mean()) > 0.8


def test_unknown_words_are_refused(judge: Extractor) -> None:
    clips, _ = held_out_clips(1)
    with pytest.raises(UserError, match="does not know 'apply'"):
        judge(clips, [Request(0, 0, 0, "apply eye makeup")], ["similarity"])


@pytest.mark.pitfall("floats as bytes")
def test_zeros_and_ones_are_refused(judge: Extractor) -> None:
    with pytest.raises(UserError, match="multiply floats"):
        judge(torch.ones(1, 16, 3, 32, 32, dtype=torch.uint8), [Request(0, 0, 0, "")], ["features"])


def test_the_fingerprint_is_the_hash_of_a_small_file(judge: Extractor) -> None:
    folder = checkpoint_.shipped("shapes", "judge")
    assert folder is not None
    assert (folder / "model.safetensors").stat().st_size < 4e6
    assert judge.fingerprint == file_sha256(folder / "model.safetensors")


def test_missing_weights_are_refused_with_the_training_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_, "shipped", lambda *_: None)
    with pytest.raises(MissingData, match=r"python benchmarks/train_judge\.py"):
        _shapes_judge.build(CPU)


@pytest.mark.parametrize("name", ["videofusion", "vdm"])
def test_shipped_models_load_and_are_small(name: str) -> None:
    sampler = plugins.load("model", name, BuildContext(shapes.build(), CPU))
    assert isinstance(sampler.model, DiffusionModel)
    assert 1e6 < sum(parameter.numel() for parameter in sampler.model.parameters()) < 4e6


def test_shipped_checkpoints_take_less_than_12_megabytes() -> None:
    folders = [checkpoint_.shipped("shapes", name) for name in ("videofusion", "vdm")]
    assert sum((folder / "model.safetensors").stat().st_size for folder in folders if folder) < 12e6
