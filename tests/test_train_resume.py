"""Tests of `vfbench.training.resume`: existing files, damaged states and completed trainings in an output folder."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from helpers import tiny_dataset, tiny_vdm

from vfbench.errors import MissingData, UserError
from vfbench.training.train import TrainOptions, train
from vfbench.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("quick_training")

OPTIONS = TrainOptions(steps=2, batch_size=2, lr=1e-2, warmup=2, save_every=100, sample_every=100)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md", "run.json"])
def test_files_of_no_training_are_not_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name}.*--output"):
        train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path, stop=lambda: True)
    data = bytearray((tmp_path / "training.pt").read_bytes())
    with ZipFile(tmp_path / "training.pt") as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        data[data.index(archive.read(largest))] ^= 16
    (tmp_path / "training.pt").write_bytes(bytes(data))
    with pytest.raises(MissingData, match=r"training\.pt is damaged \(.* has another checksum\)"):
        train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path, resume=True)


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_an_unreadable_state_is_reported_as_damaged(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "training.pt").write_bytes(content)
    with pytest.raises(MissingData, match=r"training\.pt is damaged"):
        train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path, resume=True)


@pytest.fixture(scope="module")
def saved_state(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Content of a `training.pt` that can be resumed."""
    folder = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "write_preview", lambda trainer: None)
        patch.setattr(Trainer, "_training_flops", 1)
        train(tiny_vdm(), tiny_dataset(), OPTIONS, folder, stop=lambda: True)
    state: dict[str, Any] = torch.load(folder / "training.pt", weights_only=True)
    return state


@pytest.mark.one_case
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *itertools.product(["spec"], [None, 5, "[]", "[" * 100_000, '{"config": {"options": {"embedding": 5}}}']),
        *itertools.product(["step"], [None, "x", -1, 1 << 63, float("inf"), []]),
        *itertools.product(["seconds"], [None, "x", -1.0, float("nan")]),
        *itertools.product(["model", "ema", "optimizer"], [None, 3, {}, {"state": 3}]),
    ],
)
def test_a_wrong_field_of_a_state_is_refused(
    saved_state: dict[str, Any], field: str, value: object, tmp_path: Path
) -> None:
    torch.save({**saved_state, field: value}, tmp_path / "training.pt")
    with pytest.raises(MissingData, match=r"training\.pt") as caught:
        train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path, resume=True)
    assert field in str(caught.value) or field in ("spec", "step", "seconds")


def test_resuming_a_completed_training_restores_missing_files(tmp_path: Path) -> None:
    train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in ("config.json", "model.safetensors", "README.md")}
    for name in before:
        (tmp_path / name).unlink()
    train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path, resume=True)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_resuming_a_completed_training_can_write_half_precision(tmp_path: Path) -> None:
    from vfbench.utils import tensor_files

    train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path)
    train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, half=True), tmp_path, resume=True)
    assert {tensor.dtype for tensor in tensor_files.read(tmp_path / "model.safetensors").values()} == {torch.float16}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1 << 63}, "--seed 9223372036854775808: must be at least 0"),
        ({"seed": -1}, "--seed -1: must be at least 0"),
        ({"lr": 1e300}, r"--lr 1e\+300: must be above 0 and at most 1e\+06"),
        ({"clip_norm": 0.0}, r"--clip-norm 0\.0: must be above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(OPTIONS, **options)
