"""Tests of `load_weights`: verified, damaged and other weights, the digest, random weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import flip_byte
from helpers import randn
from torch import Tensor, nn
from weight_files import GAMMA, module_of, state_of, table

from vfbench.errors import MissingData, UserError
from vfbench.utils import tensor_files
from vfbench.weights import catalogue, i3d, random_init, verify
from vfbench.weights.load import WeightInfo, load_weights
from vfbench.weights.tensors import digest
from vfbench.weights.verify import Weights

I3D, INCEPTION = (catalogue.NETWORKS[name] for name in ("i3d", "inception"))
SHA256 = next(iter(INCEPTION.published_hashes))


@pytest.fixture(autouse=True)
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights; the stand-in is the published I3D."""
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(i3d, "table", table)
    return tmp_path


def write_i3d(path: Path, state: dict[str, Tensor] | None = None) -> Path:
    verify.write_converted(Weights(I3D, state or state_of(), {"a.pt": "0" * 64}), path)
    return path


def write_inception(path: Path, state: dict[str, Tensor], sha256: str = SHA256) -> Path:
    verify.write_converted(Weights(INCEPTION, state, {"a.pth": sha256}), path)
    return path


# Published weights.


def test_a_converted_file_is_loaded_into_a_module(weights_folder: Path) -> None:
    write_i3d(weights_folder / "i3d.safetensors")
    module = module_of(state_of())
    info = load_weights(module, "i3d")
    assert info == WeightInfo(digest(state_of()), weight_status="verified")
    loaded = module.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state_of().items())
    assert loaded["Conv3d_1a_7x7.bn.num_batches_tracked"] == 7  # not in the file


@pytest.mark.parametrize("name", catalogue.NETWORKS)
@pytest.mark.pitfall("dead links to weights")
def test_missing_weights_are_refused_with_both_commands(name: str, weights_folder: Path) -> None:
    with pytest.raises(MissingData) as caught:
        load_weights(nn.Linear(2, 2), name)
    message = str(caught.value)
    assert f"no weights of {name} at {weights_folder}/{name}.safetensors" in message
    assert f"\n  python -m vfbench weights fetch {name}\n" in message
    assert f"\n  python -m vfbench weights import {name} FILE" in message


@pytest.mark.parametrize("position", [-1, -40, -400])
def test_a_damaged_tensor_is_refused_by_name(position: int, weights_folder: Path) -> None:
    path = write_i3d(weights_folder / "i3d.safetensors")
    flip_byte(path, position, bits=1)
    module = module_of(state_of())
    with pytest.raises(MissingData, match=r"i3d\.safetensors is damaged") as caught:
        load_weights(module, "i3d")
    (damaged,) = (name for name, tensor in tensor_files.read(path).items() if not torch.equal(tensor, state_of()[name]))
    assert f"'{damaged}' has CRC" in str(caught.value) or damaged == GAMMA
    assert "weights fetch i3d" in str(caught.value)
    assert all(not tensor.any() for name, tensor in module.state_dict().items() if "tracked" not in name)


def test_a_damaged_file_of_another_network_is_refused(weights_folder: Path) -> None:
    state = {"fc.weight": randn(3, 4)}
    flip_byte(write_inception(weights_folder / "inception.safetensors", state), -1)
    with pytest.raises(MissingData, match=r"inception\.safetensors is damaged.*digest"):
        load_weights(module_of(state), "inception")


@pytest.mark.parametrize("length", [0, 5, 200, -1])
def test_a_truncated_file_is_refused(length: int, weights_folder: Path) -> None:
    path = write_i3d(weights_folder / "i3d.safetensors")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(MissingData, match=r"i3d\.safetensors is damaged"):
        load_weights(module_of(state_of()), "i3d")


def test_a_damaged_record_is_refused(weights_folder: Path) -> None:
    path = weights_folder / "i3d.safetensors"
    tensor_files.write(path, state_of(), {"origins": "[1"})
    with pytest.raises(MissingData, match=r"i3d\.safetensors is damaged: its record of origins is '\[1'"):
        load_weights(module_of(state_of()), "i3d")


def test_a_users_file_is_verified_only_with_the_published_tensors(tmp_path: Path) -> None:
    published, other = tmp_path / "published.safetensors", tmp_path / "other.safetensors"
    tensor_files.write(published, state_of())
    tensor_files.write(other, state_of(seed=50))
    module = module_of(state_of())
    assert load_weights(module, "i3d", str(published)).weight_status == "verified"
    info = load_weights(module, "i3d", str(other))
    assert info == WeightInfo(digest(state_of(seed=50)), weight_status="nonstandard")


@pytest.mark.parametrize(("sha256", "weight_status"), [(SHA256, "verified"), ("0" * 64, "nonstandard")])
def test_a_file_converted_from_the_published_one_is_verified(sha256: str, weight_status: str, tmp_path: Path) -> None:
    state = {"fc.weight": randn(3, 4)}
    path = write_inception(tmp_path / "x.safetensors", state, sha256)
    assert load_weights(module_of(state), "inception", str(path)).weight_status == weight_status
    tensor_files.write(path, state)  # without its record
    assert load_weights(module_of(state), "inception", str(path)).weight_status == "nonstandard"


def test_a_record_without_a_digest_is_not_verified(weights_folder: Path) -> None:
    state, path = {"fc.weight": randn(3, 4)}, weights_folder / "inception.safetensors"
    metadata = {"network": "inception", "origins": json.dumps({"pt_inception.pth": SHA256})}
    tensor_files.write(path, state, metadata)
    for source in ("default", str(path)):
        assert load_weights(module_of(state), "inception", source).weight_status == "nonstandard"
    assert "of unknown origin" in verify.verify_weights(verify.read_converted(INCEPTION)[0]).text
    tensor_files.write(path, state, metadata | {"digest": digest(state)})
    assert load_weights(module_of(state), "inception").weight_status == "verified"


def test_a_file_for_another_network_is_refused(tmp_path: Path) -> None:
    path = write_i3d(tmp_path / "x.safetensors")
    with pytest.raises(MissingData, match=r"x\.safetensors .*of i3d, .*of inception"):
        load_weights(module_of(state_of()), "inception", str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("logits.conv3d.bias"),
            r"'logits\.conv3d\.bias' is no part of i3d but is in .*i3d",
        ),
        (lambda state: state.update(more=torch.ones(1)), r"'more' is missing from .*i3d\.safetensors"),
        (
            lambda state: state.update({"logits.conv3d.bias": torch.ones(9)}),
            r"'logits\.conv3d\.bias' in .* has shape \(4,\), needed \(9,\)",
        ),
    ],
)
def test_a_module_with_other_tensors_is_refused(
    change: Callable[[dict[str, Tensor]], object], message: str, weights_folder: Path
) -> None:
    write_i3d(weights_folder / "i3d.safetensors")
    state = state_of()
    change(state)
    module = module_of(state)
    with pytest.raises(MissingData, match=message):
        load_weights(module, "i3d")
    assert all(not tensor.any() for name, tensor in module.state_dict().items() if "tracked" not in name)


def test_half_precision_weights_are_loaded_as_float32(weights_folder: Path) -> None:
    state = {"fc.weight": randn(3, 4).half()}
    write_inception(weights_folder / "inception.safetensors", state)
    module = module_of(state)
    info = load_weights(module, "inception")
    assert info.digest == digest(state)
    assert module.state_dict()["fc.weight"].dtype == torch.float32
    assert torch.equal(module.state_dict()["fc.weight"], state["fc.weight"].float())


def test_an_unknown_name_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="no feature network called 'i3': did you mean 'i3d'"):
        load_weights(nn.Linear(2, 2), "i3")
    with pytest.raises(UserError, match="transformers caches openai/clip-vit-base-patch32"):
        load_weights(nn.Linear(2, 2), "clip")


# Digest.


def test_the_digest_depends_on_names_shapes_and_bytes_alone() -> None:
    state = {"a": randn(2, 3), "b": randn(4)}
    reference = digest(state)
    assert reference == digest({"b": state["b"], "a": state["a"].T.contiguous().T})
    assert reference == digest(state | {"bn.num_batches_tracked": torch.tensor(3)})
    for other in ({"a": state["a"]}, {"a": state["a"].view(3, 2), "b": state["b"]}, {"a": state["a"], "c": state["b"]}):
        assert reference != digest(other)
    assert reference != digest(state | {"b": state["b"].half()})
    scalar = {"a": torch.tensor(1.0), "b": torch.zeros(0)}
    assert digest(scalar) != digest(scalar | {"a": torch.tensor(2.0)})


# Random weights.


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 40, 3)
        self.bn = nn.BatchNorm3d(40)
        self.fc = nn.Linear(500, 300)


def test_random_weights_are_pinned() -> None:
    info = load_weights(Small(), "i3d", "random")
    assert info == WeightInfo(
        "d72af01f9fd9c580ebd3e1b559b0e9f5fee45e3fb753fe2100184377fe6265d2", weight_status="nonstandard"
    )


def test_random_weights_do_not_depend_on_other_state() -> None:
    first, second = Small(), Small()
    torch.manual_seed(3)
    load_weights(first, "i3d", "random")
    rng_state = torch.get_rng_state()
    load_weights(second, "c3d", "random")
    assert torch.equal(rng_state, torch.get_rng_state())
    assert digest(first.state_dict()) == digest(second.state_dict())
    single = random_init.random_tensors({"fc.weight": (300, 500)})["fc.weight"]
    assert torch.equal(single, first.fc.weight)


def test_random_weights_are_he_normal() -> None:
    module = Small()
    load_weights(module, "i3d", "random")
    for weight in (module.conv.weight.detach(), module.fc.weight.detach()):
        scale = math.sqrt(2 / weight[0].numel())
        assert float(weight.std()) == pytest.approx(scale, rel=0.05)
        assert float(weight.mean()) == pytest.approx(0, abs=0.1 * scale)
        kurtosis = float((weight / weight.std()).pow(4).mean())
        assert kurtosis == pytest.approx(3, rel=0.1)  # normal, not uniform
    assert len(set(module.fc.weight.flatten().tolist())) > 50_000
    rest = [module.bn.weight, module.bn.running_var, module.bn.bias, module.bn.running_mean, module.fc.bias]
    assert [None if tensor is None else set(tensor.tolist()) for tensor in rest] == [{1}, {1}, {0}, {0}, {0}]


def test_random_weights_of_one_shape_differ_by_name() -> None:
    tensors = random_init.random_tensors({"a.weight": (30, 30), "b.weight": (30, 30)})
    assert abs(float(torch.corrcoef(torch.stack([t.flatten() for t in tensors.values()]))[0, 1])) < 0.15
