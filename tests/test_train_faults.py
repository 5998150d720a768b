"""What goes wrong in the midst of a training costs no more than it must: what was saved is good, and goes on."""

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

OPTIONS = TrainOptions(steps=4, batch_size=2, lr=1e-2, warmup=2, ema=0.9, save_every=2, sample_every=2)
FULL = "{} do not fit into the memory of the GPU: batches of {} from here on"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No counting of FLOPs: it takes longer than a tiny training."""
    monkeypatch.setattr(Trainer, "_training_flops", 1)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "write_preview", lambda run: None)


def run(folder: Path, model: VDM | None = None, *, resume: bool = False, **options: Any) -> bytes:
    """The file of weights of a training."""
    train(model or tiny_vdm(), tiny_dataset(), replace(OPTIONS, **options), folder, resume=resume)
    return (folder / checkpoint.TENSORS).read_bytes()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.*")}


# A step that is not finite.


def spoilt(model: VDM, step: int, added: Callable[[Tensor], Tensor]) -> VDM:
    """The model, from one step on with a term of its weights in its loss."""
    honest, steps = model.losses, count(1)

    def losses(x: Tensor, noise: Tensor, t: Tensor, cond: Tensor) -> dict[str, Tensor]:
        terms = honest(x, noise, t, cond)
        if next(steps) < step:
            return terms
        return {name: loss + added(model.network.head.weight) for name, loss in terms.items()}

    model.losses = losses  # type: ignore[method-assign]
    return model


def steep(weight: Tensor) -> Tensor:
    """Nothing, with an infinite gradient."""
    return (weight - weight.detach()).sum().sqrt()


def endless(weight: Tensor) -> Tensor:
    return weight.exp().sum() * float("inf")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_infinite_gradient_is_not_stepped_on_and_the_save_goes_on(quiet: None, tmp_path: Path, dtype: str) -> None:
    folder, model = tmp_path / "run", spoilt(tiny_vdm(), 4, steep)
    with pytest.raises(UserError, match=r"^step 4 is not finite, .*'network': 0\.\d+\}, gradient norm inf\): "):
        run(folder, model, dtype=dtype)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert torch.load(folder / "training.pt", weights_only=True)["step"] == 2
    assert run(folder, dtype=dtype, resume=True) == run(tmp_path / "whole", dtype=dtype)


def test_a_step_that_is_not_made_leaves_the_weights_of_the_last_one(quiet: None, tmp_path: Path) -> None:
    model = spoilt(tiny_vdm(), 3, steep)
    with pytest.raises(UserError, match="step 3 is not finite"):
        run(tmp_path, model)
    saved = torch.load(tmp_path / "training.pt", weights_only=True)["model"]  # of step 2
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("dtype", "mend"),
    [
        ("float32", "repeat the command with a lower --lr$"),
        ("bfloat16", "repeat the command with a lower --lr or --dtype float32$"),
    ],
)
def test_a_loss_that_is_not_finite_is_refused_and_not_saved(quiet: None, tmp_path: Path, dtype: str, mend: str) -> None:
    with pytest.raises(UserError, match=rf"^step 1 is not finite, training stopped \(loss .*'network': inf.*{mend}"):
        run(tmp_path, spoilt(tiny_vdm(), 1, endless), dtype=dtype, save_every=1)
    assert contents(tmp_path) == {}
    run(tmp_path, lr=1e-3)  # as it says


def test_what_diverges_can_begin_anew_from_its_save(quiet: None, tmp_path: Path) -> None:
    said = rf"from the weights of step 2 with --init-from {tmp_path}/run, another --output and a lower --lr;"
    with pytest.raises(UserError, match=f"step 3 .*{said} .* continue from that step with --resume$"):
        run(tmp_path / "run", spoilt(tiny_vdm(), 3, endless))
    with pytest.raises(UserError, match="continue from that step"):  # taken up, and not saved again
        run(tmp_path / "run", spoilt(tiny_vdm(), 1, endless), resume=True)
    run(tmp_path / "other", lr=1e-3, init_from=tmp_path / "run")


def test_a_model_that_makes_no_numbers_leaves_its_training_without_a_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> Clips:
        raise ValueError("to_uint8 got NaN or infinity")

    monkeypatch.setattr(DiffusionSampler, "sample", broken)
    run(tmp_path)
    assert "no samples of step_000004: to_uint8 got NaN or infinity; use a lower --lr" in capsys.readouterr().err


# A disk that is full.


def test_a_disk_that_is_full_is_told_and_its_weights_can_be_begun_with(
    quiet: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 20420352 vs 20420240")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", cut_off)
        with pytest.raises(BadEnvironment, match=r"cannot write .*training\.pt \(.*unexpected pos"):
            run(tmp_path / "full")
    with pytest.raises(
        MissingData, match=r"nothing to resume .*: start from the weights in it with --init-from .*/full and "
    ):
        run(tmp_path / "full", resume=True)
    run(tmp_path / "other", init_from=tmp_path / "full")


# A sheet of samples that does not fit.


class Memory:
    """That of a GPU, in which no more than `room` clips are made at once. Notes how many there were to be."""

    def __init__(self, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[int] = []
        whole = DiffusionSampler.sample

        def sample(sampler: DiffusionSampler, asked: Sequence[Request]) -> Clips:
            self.seen.append(len(asked))
            if len(asked) > room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return whole(sampler, asked)

        monkeypatch.setattr(DiffusionSampler, "sample", sample)


def test_a_sheet_is_made_of_fewer_clips_at_once_where_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run(tmp_path / "whole")
    memory = Memory(3, monkeypatch)
    capsys.readouterr()
    assert run(tmp_path / "halved") == expected
    assert memory.seen == [6, 3, 3, 3, 3]  # two sheets
    for sheet in sorted((tmp_path / "whole" / "samples").glob("*.png")):
        whole, halved = (Image.open(tmp_path / name / "samples" / sheet.name) for name in ("whole", "halved"))
        assert np.abs(np.asarray(whole, int) - np.asarray(halved, int)).max() <= 1  # but for rounding
    assert capsys.readouterr().err.count(FULL.format("6 samples", 3)) == 1


def test_a_training_goes_on_without_a_sheet_where_no_clip_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run(tmp_path / "whole")
    Memory(0, monkeypatch)
    assert run(tmp_path / "without") == expected
    assert not (tmp_path / "without" / "samples").exists()
    told = capsys.readouterr().err
    for step in (2, 4):
        assert f"no samples of step_00000{step}: out of memory for a single clip; training continues" in told


# A model that cannot be written.


def large() -> VDM:
    """A model with a weight beyond half precision, of a word that no caption says."""
    model = tiny_vdm()
    with torch.no_grad():
        model.condition.caption.word.weight[-1] = 7e4
    return model


@pytest.mark.parametrize("save_every", [1, 100])
def test_what_does_not_fit_half_precision_is_named_and_nothing_is_lost(
    quiet: None, tmp_path: Path, save_every: int
) -> None:
    said = r"'condition\.caption\.word\.weight' holds 70000, .*: continue with --resume and without --half"
    with pytest.raises(UserError, match=said):
        run(tmp_path / "half", large(), half=True, save_every=save_every)
    found = torch.load(tmp_path / "half" / "training.pt", weights_only=True)
    assert found["step"] == min(save_every, OPTIONS.steps)
    assert run(tmp_path / "half", resume=True) == run(tmp_path / "whole", large())


@pytest.mark.parametrize("step", [2, 4])
def test_what_is_stopped_between_model_and_state_goes_on(
    quiet: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    honest = state.save_state

    def killed(folder: Path, parts: Any, at: int, *rest: Any) -> None:
        if at == step:
            raise KeyboardInterrupt
        honest(folder, parts, at, *rest)

    with monkeypatch.context() as patched:
        patched.setattr("vfbench.training.trainer.save_state", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", save_every=1)
    assert torch.load(tmp_path / "run" / "training.pt", weights_only=True)["step"] == step - 1
    assert run(tmp_path / "run", resume=True) == run(tmp_path / "whole")
