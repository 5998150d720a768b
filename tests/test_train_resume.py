"""What a training finds in its folder: another training, something else, damage, or its own end."""

from __future__ import annotations

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

OPTIONS = TrainOptions(steps=2, batch_size=2, lr=1e-2, warmup=2, save_every=100, sample_every=100)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "write_preview", lambda run: None)
    monkeypatch.setattr(Trainer, "_training_flops", 1)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md", "run.json"])
def test_what_is_there_and_no_training_is_not_written_over(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"holds a {name}, which is not overwritten: choose another --output"):
        train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path, stop=lambda: True)
    data = bytearray((tmp_path / "training.pt").read_bytes())
    with ZipFile(tmp_path / "training.pt") as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        data[data.index(archive.read(largest))] ^= 16
    (tmp_path / "training.pt").write_bytes(bytes(data))
    with pytest.raises(MissingData, match=r"training\.pt is damaged \(.* has another checksum\)"):
        train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path, resume=True)


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_file_that_is_no_state_says_nothing_of_torch(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "training.pt").write_bytes(content)
    with pytest.raises(MissingData, match=r"training\.pt is damaged \(File is not a zip file\): train again"):
        train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path, resume=True)


def test_a_training_that_is_done_writes_again_what_is_gone(tmp_path: Path) -> None:
    train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in ("config.json", "model.safetensors", "README.md")}
    for name in before:
        (tmp_path / name).unlink()
    train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path, resume=True)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_training_that_is_done_can_be_written_in_half_precision(tmp_path: Path) -> None:
    from vfbench.utils import tensor_files

    train(tiny_vdm(), tiny_dataset(), OPTIONS, tmp_path)
    train(tiny_vdm(), tiny_dataset(), replace(OPTIONS, half=True), tmp_path, resume=True)
    assert {tensor.dtype for tensor in tensor_files.read(tmp_path / "model.safetensors").values()} == {torch.float16}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seed": 1 << 63}, "--seed 9223372036854775808: must be at least 0"),
        ({"seed": -1}, "--seed -1: must be at least 0"),
        ({"lr": 1e300}, r"--lr 1e\+300: must be above 0 and at most 1e\+06"),
        ({"clip_norm": 0.0}, r"--clip-norm 0\.0: must be above 0"),
    ],
)
def test_numbers_that_torch_cannot_hold_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(OPTIONS, **given)
