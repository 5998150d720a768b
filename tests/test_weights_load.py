"""`load_weights`: a module gets the right weights, or an error that names file, tensor and command."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import flip
from helpers import randn
from torch import Tensor, nn
from weight_files import GAMMA, module_of, state_of, table

from vfbench.errors import MissingData, UserError
from vfbench.utils import tensor_files
from vfbench.weights import WeightInfo, catalogue, i3d, load_weights, random_init, verify
from vfbench.weights.tensors import digest
from vfbench.weights.verify import Weights

I3D, INCEPTION = (catalogue.NETWORKS[name] for name in ("i3d", "inception"))
SHA256 = next(iter(INCEPTION.published_hashes))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights; the published I3D is the stand-in."""
    monkeypatch.setenv("VFBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(i3d, "table", table)
    return tmp_path


def stored_i3d(path: Path, state: dict[str, Tensor] | None = None) -> Path:
    verify.write_converted(Weights(I3D, state or state_of(), {"a.pt": "0" * 64}), path)
    return path


def stored_inception(path: Path, state: dict[str, Tensor], sha256: str = SHA256) -> Path:
    verify.write_converted(Weights(INCEPTION, state, {"a.pth": sha256}), path)
    return path


# Published weights.


def test_the_converted_file_fills_a_module(place: Path) -> None:
    stored_i3d(place / "i3d.safetensors")
    module = module_of(state_of())
    filled = load_weights(module, "i3d")
    assert filled == WeightInfo(digest(state_of()), weight_status="verified")
    found = module.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state_of().items())
    assert found["Conv3d_1a_7x7.bn.num_batches_tracked"] == 7  # what the file does not speak of is left alone


@pytest.mark.parametrize("name", catalogue.NETWORKS)
@pytest.mark.pitfall("dead links to weights")
def test_missing_weights_are_named_with_both_commands(name: str, place: Path) -> None:
    with pytest.raises(MissingData) as caught:
        load_weights(nn.Linear(2, 2), name)
    said = str(caught.value)
    assert f"no weights of {name} at {place}/{name}.safetensors" in said
    assert f"\n  python -m vfbench weights fetch {name}\n" in said
    assert f"\n  python -m vfbench weights import {name} FILE" in said


@pytest.mark.parametrize("where", [-1, -40, -400])
def test_a_damaged_tensor_is_found_and_named(where: int, place: Path) -> None:
    path = stored_i3d(place / "i3d.safetensors")
    flip(path, where, bits=1)
    module = module_of(state_of())
    with pytest.raises(MissingData, match=r"i3d\.safetensors is damaged") as caught:
        load_weights(module, "i3d")
    (wrong,) = (name for name, tensor in tensor_files.read(path).items() if not torch.equal(tensor, state_of()[name]))
    assert f"'{wrong}' has CRC" in str(caught.value) or wrong == GAMMA
    assert "weights fetch i3d" in str(caught.value)
    assert all(not tensor.any() for name, tensor in module.state_dict().items() if "tracked" not in name)


def test_a_damaged_file_of_another_network_is_found(place: Path) -> None:
    state = {"fc.weight": randn(3, 4)}
    flip(stored_inception(place / "inception.safetensors", state), -1)
    with pytest.raises(MissingData, match=r"inception\.safetensors is damaged: its tensors have the digest"):
        load_weights(module_of(state), "inception")


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_a_truncated_file_is_named(kept: int, place: Path) -> None:
    path = stored_i3d(place / "i3d.safetensors")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(MissingData, match=r"i3d\.safetensors is damaged"):
        load_weights(module_of(state_of()), "i3d")


def test_a_damaged_record_is_named(place: Path) -> None:
    path = place / "i3d.safetensors"
    tensor_files.write(path, state_of(), {"origins": "[1"})
    with pytest.raises(MissingData, match=r"i3d\.safetensors is damaged: its record of origins is '\[1'"):
        load_weights(module_of(state_of()), "i3d")


def test_a_file_of_ones_own_is_proven_only_if_it_is_the_published_one(tmp_path: Path) -> None:
    published, own = tmp_path / "published.safetensors", tmp_path / "own.safetensors"
    tensor_files.write(published, state_of())
    tensor_files.write(own, state_of(seed=50))
    module = module_of(state_of())
    assert load_weights(module, "i3d", str(published)).weight_status == "verified"
    filled = load_weights(module, "i3d", str(own))
    assert filled == WeightInfo(digest(state_of(seed=50)), weight_status="nonstandard")


@pytest.mark.parametrize(("sha256", "weight_status"), [(SHA256, "verified"), ("0" * 64, "nonstandard")])
def test_a_file_with_a_hash_is_proven_if_it_was_made_from_the_published_one(
    sha256: str, weight_status: str, tmp_path: Path
) -> None:
    state = {"fc.weight": randn(3, 4)}
    path = stored_inception(tmp_path / "x.safetensors", state, sha256)
    assert load_weights(module_of(state), "inception", str(path)).weight_status == weight_status
    tensor_files.write(path, state)  # without its record
    assert load_weights(module_of(state), "inception", str(path)).weight_status == "nonstandard"


def test_a_record_without_the_digest_of_the_tensors_proves_nothing(place: Path) -> None:
    state, path = {"fc.weight": randn(3, 4)}, place / "inception.safetensors"
    claims = {"network": "inception", "origins": json.dumps({"pt_inception.pth": SHA256})}
    tensor_files.write(path, state, claims)
    for source in ("default", str(path)):
        assert load_weights(module_of(state), "inception", source).weight_status == "nonstandard"
    assert "of unknown origin" in verify.verify_weights(verify.read_converted(INCEPTION)[0]).text
    tensor_files.write(path, state, claims | {"digest": digest(state)})
    assert load_weights(module_of(state), "inception").weight_status == "verified"


def test_a_file_for_another_network_is_refused(tmp_path: Path) -> None:
    path = stored_i3d(tmp_path / "x.safetensors")
    with pytest.raises(MissingData, match=r"x\.safetensors holds the weights of i3d, not those of inception"):
        load_weights(module_of(state_of()), "inception", str(path))


@pytest.mark.parametrize(
    ("change", "said"),
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
def test_a_module_that_does_not_fit_is_refused_naming_the_tensor(
    change: Callable[[dict[str, Tensor]], object], said: str, place: Path
) -> None:
    stored_i3d(place / "i3d.safetensors")
    state = state_of()
    change(state)
    module = module_of(state)
    with pytest.raises(MissingData, match=said):
        load_weights(module, "i3d")
    assert all(not tensor.any() for name, tensor in module.state_dict().items() if "tracked" not in name)


def test_half_precision_fills_a_module_in_its_own(place: Path) -> None:
    state = {"fc.weight": randn(3, 4).half()}
    stored_inception(place / "inception.safetensors", state)
    module = module_of(state)
    filled = load_weights(module, "inception")
    assert filled.digest == digest(state)
    assert module.state_dict()["fc.weight"].dtype == torch.float32
    assert torch.equal(module.state_dict()["fc.weight"], state["fc.weight"].float())


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no feature network called 'i3': did you mean 'i3d'"):
        load_weights(nn.Linear(2, 2), "i3")
    with pytest.raises(UserError, match="transformers caches openai/clip-vit-base-patch32"):
        load_weights(nn.Linear(2, 2), "clip")


# The digest.


def test_the_digest_is_of_names_shapes_and_bytes_alone() -> None:
    one = {"a": randn(2, 3), "b": randn(4)}
    its = digest(one)
    assert its == digest({"b": one["b"], "a": one["a"].T.contiguous().T})
    assert its == digest(one | {"bn.num_batches_tracked": torch.tensor(3)})
    for other in ({"a": one["a"]}, {"a": one["a"].view(3, 2), "b": one["b"]}, {"a": one["a"], "c": one["b"]}):
        assert its != digest(other)
    assert its != digest(one | {"b": one["b"].half()})
    scalar = {"a": torch.tensor(1.0), "b": torch.zeros(0)}
    assert digest(scalar) != digest(scalar | {"a": torch.tensor(2.0)})


# Random weights.


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 40, 3)
        self.bn = nn.BatchNorm3d(40)
        self.fc = nn.Linear(500, 300)


def test_random_weights_are_the_same_on_every_machine() -> None:
    filled = load_weights(Small(), "i3d", "random")
    assert filled == WeightInfo(
        "d72af01f9fd9c580ebd3e1b559b0e9f5fee45e3fb753fe2100184377fe6265d2", weight_status="nonstandard"
    )


def test_random_weights_do_not_depend_on_what_was_there_before_or_is_drawn_elsewhere() -> None:
    one, other = Small(), Small()
    torch.manual_seed(3)
    load_weights(one, "i3d", "random")
    state = torch.get_rng_state()
    load_weights(other, "c3d", "random")
    assert torch.equal(state, torch.get_rng_state())
    assert digest(one.state_dict()) == digest(other.state_dict())
    alone = random_init.random_tensors({"fc.weight": (300, 500)})["fc.weight"]
    assert torch.equal(alone, one.fc.weight)


def test_random_weights_keep_the_scale_of_what_goes_through() -> None:
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
