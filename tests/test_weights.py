"""Files of weights: whole or not there, checked when read, and never unpickled."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vfbench import files, weights
from vfbench.errors import BadEnvironment, MissingData

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2], dtype=torch.int64)}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    transposed = torch.arange(6.0).view(2, 3).T  # not contiguous
    weights.write(path, {**TENSORS, "c": transposed, "d": nn.Parameter(torch.ones(2))}, {"made": "here"})
    read = weights.read(path)
    assert all(torch.equal(read[name], tensor) for name, tensor in {**TENSORS, "c": transposed}.items())
    assert read["b"].dtype == torch.int64
    assert not read["d"].requires_grad
    assert names(tmp_path) == ["w.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    weights.write(path, TENSORS)

    def interrupted(*_: Any) -> None:
        raise OSError("stopped before the rename")

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(BadEnvironment, match="before the rename"):
        weights.write(path, {"a": torch.zeros(9)})
    assert torch.equal(weights.read(path)["a"], TENSORS["a"])


def test_files_may_be_read_by_whom_the_user_allows(tmp_path: Path) -> None:
    weights.write(tmp_path / "w.safetensors", TENSORS)
    files.write_json(tmp_path / "x.json", {})
    (tmp_path / "plain").write_text("")
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    torch.save({"a": Bomb(tmp_path / "executed")}, path)
    with pytest.raises(MissingData, match=r"w\.safetensors is damaged or not a safetensors file"):
        weights.read(path)
    assert names(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_a_truncated_file_is_refused_naming_it(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "w.safetensors"
    weights.write(path, TENSORS)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(MissingData, match=r"w\.safetensors is damaged"):
        weights.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"no weights at .*none\.safetensors"):
        weights.read(tmp_path / "none.safetensors")


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"vfbench" * 1000)
    assert weights.sha256(path) == hashlib.sha256(b"vfbench" * 1000).hexdigest()


def test_json_is_written_whole_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"b": [1, 2], "a": "x"})
    assert files.read_json(path) == {"a": "x", "b": [1, 2]}
    assert path.read_text().index('"b"') < path.read_text().index('"a"')  # as given
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("nan")})  # no reader but Python's knows NaN
    assert files.read_json(path)["a"] == "x"
    assert names(tmp_path) == ["x.json"]


@pytest.mark.parametrize(
    ("content", "named"), [(b"{", "cannot be read"), (b"[1]", "holds list"), (b"\xff\xfe", "cannot be read")]
)
def test_damaged_json_is_refused_naming_the_file(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(MissingData, match=rf"x\.json {named}"):
        files.read_json(path)


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"none\.json cannot be read"):
        files.read_json(tmp_path / "none.json")


def test_loading_fills_a_module_in_its_own_dtype(tmp_path: Path) -> None:
    path, source, target = tmp_path / "w.safetensors", nn.Linear(3, 2), nn.Linear(3, 2)
    weights.write(path, weights.halved(source.state_dict()))
    weights.load_into(target, path)
    assert target.weight.dtype == torch.float32
    assert torch.equal(target.weight, source.weight.half().float())


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        ({"weight": torch.zeros(2, 3)}, "'bias' is missing"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "extra": torch.zeros(1)}, "'extra' is not part"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, r"'weight' has shape \(3, 2\), needed \(2, 3\)"),
    ],
)
def test_loading_refuses_what_does_not_fit_naming_it(tmp_path: Path, tensors: dict[str, Tensor], named: str) -> None:
    path, module = tmp_path / "w.safetensors", nn.Linear(3, 2)
    before = module.weight.clone()
    weights.write(path, tensors)
    with pytest.raises(MissingData, match=named) as caught:
        weights.load_into(module, path)
    assert str(path) in str(caught.value)
    assert torch.equal(module.weight, before)  # nothing is half loaded


def test_halving_keeps_integers_and_halves_the_file(tmp_path: Path) -> None:
    state = {"w": torch.randn(300, 100), "count": torch.tensor(70_000)}
    half = weights.halved(state)
    assert (half["w"].dtype, half["count"].item()) == (torch.float16, 70_000)
    for name, tensors in {"full": state, "half": half}.items():
        weights.write(tmp_path / name, tensors)
    ratio = (tmp_path / "half").stat().st_size / (tmp_path / "full").stat().st_size
    assert ratio == pytest.approx(0.5, abs=0.01)


def test_halving_refuses_what_does_not_fit_naming_it() -> None:
    with pytest.raises(ValueError, match="'large'"):
        weights.halved({"small": torch.ones(2), "large": torch.tensor([7e4])})


def test_shipped_finds_only_whole_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    folder = tmp_path / "shapes" / "vdm"
    folder.mkdir(parents=True)
    assert weights.shipped("shapes", "vdm") is None
    files.write_json(folder / "config.json", {})
    assert weights.shipped("shapes", "vdm") == folder
