"""Tests of training steps on a device that only claims to be CUDA."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from claimed import CUDA, claimed_cuda
from embedded import embedding_model
from helpers import CPU, tiny_dataset, tiny_vdm, tiny_videofusion
from test_super_resolution import tiny_super_resolution
from torch import Tensor

from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.priors import normal_per_clip
from vfbench.errors import UserError
from vfbench.training.distributed import ProcessGroup
from vfbench.training.train import TrainOptions, train
from vfbench.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("quick_training")

OPTIONS = TrainOptions(steps=3, batch_size=2, lr=1e-2, warmup=2, ema=0.9, device="cpu", dtype="float32", workers=0)
MODELS: dict[str, Callable[[], DiffusionModel]] = {
    "videofusion": lambda: tiny_videofusion(images=2),
    "vdm": tiny_vdm,
    "vdit": lambda: embedding_model("vdit"),
    "super_resolution": tiny_super_resolution,
}


class ClaimedProcess(ProcessGroup):
    """A single process on the device that claims to be CUDA."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.device = CUDA

    def prepare(self, model: Any, optimizer: Any) -> tuple[Any, Any]:
        return model, optimizer

    def no_sync(self, model: Any) -> Any:
        return nullcontext()


def weights(trainer: Trainer) -> list[Tensor]:
    return [getattr(parameter, "numbers", parameter).detach() for parameter in trainer.ema.parameters()]


@pytest.mark.parametrize("name", MODELS)
def test_a_process_draws_the_noise_of_its_own_clips_alone(name: str) -> None:
    model, seeds = MODELS[name](), [5, 6, 7, 8]
    whole, share = (
        model.draw(4, torch.Generator().manual_seed(0), normal_per_clip(part, CPU, "philox"))
        for part in (seeds, seeds[2:])
    )
    for key, value in share.items():
        torch.testing.assert_close(value, whole[key][2:] if key.endswith("noise") else whole[key], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_never_waits_for_the_gpu(name: str, tmp_path: Path) -> None:
    data = tiny_dataset()
    with claimed_cuda() as events:
        trainer = Trainer(MODELS[name](), data, OPTIONS, tmp_path / "gpu", ClaimedProcess())
        trainer.start(resume=False)
        assert trainer.advance() == {}  # read one step late
        events.counts.clear()
        losses = [trainer.advance() for _ in range(2)]
        assert events.counts == {}
        on_gpu = weights(trainer)
    reference = Trainer(MODELS[name](), data, OPTIONS, tmp_path / "cpu", ProcessGroup("cpu"))
    reference.settings = replace(reference.settings, noise="philox")
    reference.start(resume=False)
    assert losses == [pytest.approx(reference.advance(), rel=1e-4) for _ in range(3)][:2]
    close = torch.cat([((a - b).abs() < 1e-4).flatten() for a, b in zip(on_gpu, weights(reference), strict=True)])
    assert close.float().mean() > 0.98  # a weight without effect moves by rounding alone


def infinite(model: DiffusionModel, step: int) -> DiffusionModel:
    """The model, with an infinite loss in one step."""
    original, calls = model.losses, iter(range(1, 100))

    def losses(*arguments: Any) -> dict[str, Tensor]:
        factor = float("inf") if next(calls) == step else 1.0
        return {name: loss * factor for name, loss in original(*arguments).items()}

    model.losses = losses  # type: ignore[method-assign,assignment]
    return model


@pytest.mark.slow
def test_a_step_that_is_not_finite_is_found_a_step_later_or_at_the_save(tmp_path: Path) -> None:
    with claimed_cuda():
        trainer = Trainer(infinite(tiny_vdm(), 2), tiny_dataset(), OPTIONS, tmp_path, ClaimedProcess())
        trainer.start(resume=False)
        trainer.advance()
        trainer.advance()
        with pytest.raises(UserError, match=r"^step 2 is not finite, training stopped"):
            trainer.save()
        assert list(tmp_path.glob("*.safetensors")) + list(tmp_path.glob("*.pt")) == []
        trainer = Trainer(infinite(tiny_vdm(), 2), tiny_dataset(), OPTIONS, tmp_path, ClaimedProcess())
        trainer.start(resume=False)
        trainer.advance()
        trainer.advance()
        with pytest.raises(UserError, match=r"^step 2 is not finite, training stopped"):
            trainer.advance()


@pytest.mark.slow
def test_a_resumed_training_keeps_its_generator_of_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(OPTIONS, steps=4, save_every=2, sample_every=100)
    data = tiny_dataset()
    monkeypatch.setattr("vfbench.training.trainer.noise_generator", lambda device: "philox")  # as on a GPU
    expected = train(tiny_vdm(), data, options, tmp_path / "whole")
    train(tiny_vdm(), data, options, tmp_path / "parts", stop=iter([False, True, True]).__next__)
    monkeypatch.undo()
    resumed = train(tiny_vdm(), data, options, tmp_path / "parts", resume=True)
    assert (resumed / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    other = train(tiny_vdm(), data, options, tmp_path / "cpu")
    assert (other / "model.safetensors").read_bytes() != (expected / "model.safetensors").read_bytes()
