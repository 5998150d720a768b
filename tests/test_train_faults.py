"""Tests of faults during a training: nonfinite steps, a full disk, out of memory; the last save stays resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_dataset, tiny_vdm
from PIL import Image
from torch import Tensor

from vfbench.baselines.vdm import VDM
from vfbench.diffusion.sampler import DiffusionSampler
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.interfaces import Clips, Request
from vfbench.training import resume as state
from vfbench.training.train import TrainOptions, train
from vfbench.training.trainer import Trainer
from vfbench.utils import checkpoint

pytestmark = pytest.mark.usefixtures("quick_training")

OPTIONS = TrainOptions(steps=4, batch_size=2, lr=1e-2, warmup=2, ema=0.9, save_every=2, sample_every=2)
FULL = "{} do not fit into the memory of the GPU: batches of {} from here on"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not count FLOPs, which takes longer than a tiny training."""
    monkeypatch.setattr(Trainer, "_training_flops", 1)


def run(folder: Path, model: VDM | None = None, *, resume: bool = False, **options: Any) -> bytes:
    """Train a tiny VDM; return the bytes of its weights file."""
    train(model or tiny_vdm(), tiny_dataset(), replace(OPTIONS, **options), folder, resume=resume)
    return (folder / checkpoint.TENSORS).read_bytes()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.*")}


# Nonfinite losses and gradients.


def with_added_loss(model: VDM, step: int, term: Callable[[Tensor], Tensor]) -> VDM:
    """The model, with a term of its weights added to its loss from `step` on."""
    original, calls = model.losses, count(1)

    def losses(x: Tensor, noise: Tensor, t: Tensor, cond: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        terms = original(x, noise, t, cond, *inputs)
        if next(calls) < step:
            return terms
        return {name: loss + term(model.network.head.weight) for name, loss in terms.items()}

    model.losses = losses  # type: ignore[method-assign]
    return model


def infinite_gradient(weight: Tensor) -> Tensor:
    """Zero, with an infinite gradient."""
    return (weight - weight.detach()).sum().sqrt()


def infinite_loss(weight: Tensor) -> Tensor:
    return weight.exp().sum() * float("inf")


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_infinite_gradient_stops_the_training_which_resumes(
    quick_training: None, tmp_path: Path, dtype: str
) -> None:
    folder, model = tmp_path / "run", with_added_loss(tiny_vdm(), 4, infinite_gradient)
    with pytest.raises(UserError, match=r"^step 4 is not finite, .*'network': 0\.\d+\}, gradient norm inf\): "):
        run(folder, model, dtype=dtype)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert torch.load(folder / "training.pt", weights_only=True)["step"] == 2
    assert run(folder, dtype=dtype, resume=True) == run(tmp_path / "whole", dtype=dtype)


def test_a_nonfinite_step_leaves_the_weights_unchanged(quick_training: None, tmp_path: Path) -> None:
    model = with_added_loss(tiny_vdm(), 3, infinite_gradient)
    with pytest.raises(UserError, match="step 3 is not finite"):
        run(tmp_path, model)
    previous = torch.load(tmp_path / "training.pt", weights_only=True)["model"]  # of step 2
    assert all(torch.equal(tensor, previous[name]) for name, tensor in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [
        ("float32", "repeat the command with a lower --lr$"),
        ("bfloat16", "repeat the command with a lower --lr or --dtype float32$"),
    ],
)
def test_an_infinite_loss_stops_the_training_and_is_not_saved(
    quick_training: None, tmp_path: Path, dtype: str, remedy: str
) -> None:
    with pytest.raises(UserError, match=rf"^step 1 is not finite, .*'network': inf.*{remedy}"):
        run(tmp_path, with_added_loss(tiny_vdm(), 1, infinite_loss), dtype=dtype, save_every=1)
    assert contents(tmp_path) == {}
    run(tmp_path, lr=1e-3)  # the remedy that the message names


@pytest.mark.slow
def test_a_diverged_training_restarts_from_its_last_save(quick_training: None, tmp_path: Path) -> None:
    remedy = rf"step 2 with --init-from {tmp_path}/run, another --output and a lower --lr;"
    with pytest.raises(UserError, match=f"step 3 .*{remedy} .* continue from that step with --resume$"):
        run(tmp_path / "run", with_added_loss(tiny_vdm(), 3, infinite_loss))
    with pytest.raises(UserError, match="continue from that step"):  # fails before its next save
        run(tmp_path / "run", with_added_loss(tiny_vdm(), 1, infinite_loss), resume=True)
    run(tmp_path / "other", lr=1e-3, init_from=tmp_path / "run")


@pytest.mark.whole
def test_nan_samples_are_reported_and_the_training_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> Clips:
        raise ValueError("to_uint8 got NaN or infinity")

    monkeypatch.setattr(DiffusionSampler, "sample", broken)
    run(tmp_path)
    message = capsys.readouterr().err
    assert "no samples of step_000004: to_uint8 got NaN or infinity" in message
    assert "--lr" in message


# A full disk.


def test_a_full_disk_is_reported_and_its_weights_can_start_a_training(
    quick_training: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 20420352 vs 20420240")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", cut_off)
        with pytest.raises(BadEnvironment, match=r"cannot write .*training\.pt \(.*unexpected pos"):
            run(tmp_path / "full")
    with pytest.raises(MissingData, match=r"nothing to resume .*--init-from .*/full"):
        run(tmp_path / "full", resume=True)
    run(tmp_path / "other", init_from=tmp_path / "full")


# Sample sheets out of memory.


class LimitedMemory:
    """GPU memory for `room` clips at once; records the sizes of the batches in `batch_sizes`."""

    def __init__(self, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batch_sizes: list[int] = []
        original = DiffusionSampler.sample

        def sample(sampler: DiffusionSampler, requests: Sequence[Request]) -> Clips:
            self.batch_sizes.append(len(requests))
            if len(requests) > room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return original(sampler, requests)

        monkeypatch.setattr(DiffusionSampler, "sample", sample)


@pytest.mark.slow
@pytest.mark.whole
def test_sample_sheets_use_smaller_batches_when_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run(tmp_path / "whole")
    memory = LimitedMemory(3, monkeypatch)
    capsys.readouterr()
    assert run(tmp_path / "halved") == expected
    assert memory.batch_sizes == [6, 3, 3, 3, 3]  # two sheets
    for sheet in sorted((tmp_path / "whole" / "samples").glob("*.png")):
        full, split = (Image.open(tmp_path / name / "samples" / sheet.name) for name in ("whole", "halved"))
        assert np.abs(np.asarray(full, int) - np.asarray(split, int)).max() <= 1  # but for rounding
    assert capsys.readouterr().err.count(FULL.format("6 samples", 3)) == 1


@pytest.mark.slow
@pytest.mark.whole
def test_training_continues_without_a_sheet_when_no_clip_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run(tmp_path / "whole")
    LimitedMemory(0, monkeypatch)
    assert run(tmp_path / "without") == expected
    assert not (tmp_path / "without" / "samples").exists()
    messages = capsys.readouterr().err
    for step in (2, 4):
        assert f"no samples of step_00000{step}: out of memory for a single clip; training continues" in messages


# Models that cannot be written, and interrupted saves.


def model_beyond_half() -> VDM:
    """A model with a weight above the range of float16, for a word that is in no caption."""
    model = tiny_vdm()
    with torch.no_grad():
        dict(model.named_parameters())["condition.caption.word.weight"][-1] = 7e4
    return model


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("save_every", [1, 100])
def test_a_weight_beyond_half_precision_is_refused_and_the_state_kept(
    quick_training: None, tmp_path: Path, save_every: int
) -> None:
    message = r"'condition\.caption\.word\.weight' holds 70000, .* --resume and without --half"
    with pytest.raises(UserError, match=message):
        run(tmp_path / "half", model_beyond_half(), half=True, save_every=save_every)
    training_state = torch.load(tmp_path / "half" / "training.pt", weights_only=True)
    assert training_state["step"] == min(save_every, OPTIONS.steps)
    assert run(tmp_path / "half", resume=True) == run(tmp_path / "whole", model_beyond_half())


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("step", [2, 4])
def test_an_interruption_between_weights_and_state_resumes(
    quick_training: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    original = state.save_state

    def interrupted(folder: Path, parts: Any, current_step: int, *rest: Any) -> None:
        if current_step == step:
            raise KeyboardInterrupt
        original(folder, parts, current_step, *rest)

    with monkeypatch.context() as patched:
        patched.setattr("vfbench.training.trainer.save_state", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", save_every=1)
    assert torch.load(tmp_path / "run" / "training.pt", weights_only=True)["step"] == step - 1
    assert run(tmp_path / "run", resume=True) == run(tmp_path / "whole")
