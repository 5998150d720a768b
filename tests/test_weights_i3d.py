"""Tests of `vfbench.weights.i3d`: the shipped table of CRCs, verification by tensor, names of the ports."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor
from weight_files import GAMMA, arrays_of, hassony2, state_of, table, write_bundle

from vfbench.errors import MissingData
from vfbench.weights import i3d

FILE = Path("file.pt")
COUNT = len(table())


# The shipped table.


def test_the_table_has_every_tensor_once() -> None:
    rows = i3d.table()
    assert len(rows) == 230
    assert all(len({getattr(row, name) for row in rows}) == 230 for name in ("variable", "piergiaj", "hassony2"))
    assert len(i3d.shapes()) == 287  # and 57 gammas


def test_shapes_add_up_to_the_published_network() -> None:
    rows = i3d.table()
    assert 4 * sum(math.prod(row.shape) for row in rows) == 50_818_176  # bytes of the TensorFlow checkpoint
    trained = {name: shape for name, shape in i3d.shapes().items() if "running" not in name}
    assert sum(map(math.prod, trained.values())) == 12_697_264


@pytest.mark.pitfall("the I3D inflated from ImageNet")
def test_all_crcs_differ_from_the_inflated_imagenet_network() -> None:
    assert [row.variable for row in i3d.table() if row.scratch == row.imagenet] == []
    for crcs in ([row.scratch for row in i3d.table()], [row.imagenet for row in i3d.table()]):
        assert all(0 <= crc < 2**32 for crc in crcs)
        assert len(set(crcs)) == 230


def test_names_and_shapes_agree() -> None:
    kinds = Counter(row.variable.rpartition("/")[2] for row in i3d.table())
    assert kinds == {"w": 58, "b": 1, "beta": 57, "moving_mean": 57, "moving_variance": 57}
    ends = {"w": "conv3d.weight", "b": "conv3d.bias", "beta": "bias", "moving_mean": "mean", "moving_variance": "var"}
    for row in i3d.table():
        end = ends[row.variable.rpartition("/")[2]]
        assert row.piergiaj.endswith(end)
        assert row.hassony2.endswith(end)
        kernel = [int(side) for side in re.findall(r"(\d)x\d", row.variable)]
        assert row.shape[2:] == tuple(kernel * 3 if end == "conv3d.weight" else [])


# Verification.


def test_the_published_network_is_verified() -> None:
    check = i3d.check_tensors(state_of(), table())
    assert check.verified
    assert str(check) == f"{COUNT} of {COUNT} tensors are those of the published I3D (Kinetics-400 from scratch)"


@pytest.mark.parametrize("name", [row.piergiaj for row in table()])
def test_a_flipped_bit_is_found_in_its_tensor(name: str) -> None:
    state = state_of()
    state[name].view(-1).view(torch.int32)[-1] ^= 1
    check = i3d.check_tensors(state, table())
    assert not check.verified
    assert (check.num_published, check.num_imagenet) == (COUNT - 1, 0)
    (expected,) = (row.scratch for row in table() if row.piergiaj == name)
    assert re.fullmatch(rf"'{re.escape(name)}' has CRC \d+, expected {expected}", check.mismatches[0])
    assert str(check).startswith(f"{COUNT - 1} of {COUNT} tensors are those of the published I3D")


def test_a_gamma_unlike_one_is_found() -> None:
    """The published network has no gammas, so they have no CRC."""
    state = state_of()
    state[GAMMA][2] = 1.5
    check = i3d.check_tensors(state, table())
    assert (check.verified, check.num_published) == (False, COUNT)
    assert check.mismatches == (f"'{GAMMA}' is not all ones, as in the original",)


def test_transposed_kernels_are_another_network() -> None:
    state = state_of()
    state["logits.conv3d.weight"] = state["logits.conv3d.weight"].transpose(0, 1).reshape(4, 6, 1, 1, 1)
    assert not i3d.check_tensors(state, table()).verified


def test_half_precision_is_another_network() -> None:
    halved = {name: tensor.half() for name, tensor in state_of().items()}
    assert i3d.check_tensors(halved, table()).num_published == 0


def test_the_network_inflated_from_imagenet_is_recognised() -> None:
    check = i3d.check_tensors(state_of(seed=1), table(imagenet=1))
    assert (check.num_published, check.num_imagenet) == (0, COUNT)
    assert f"0 of {COUNT} tensors" in str(check)
    assert f"{COUNT} are those of rgb_imagenet, the I3D inflated from ImageNet" in str(check)


def test_an_unknown_network_matches_neither() -> None:
    check = i3d.check_tensors(state_of(seed=50), table())
    assert (check.num_published, check.num_imagenet) == (0, 0)
    assert "ImageNet" not in str(check)
    assert str(check).count("has CRC") == i3d.MAX_LISTED
    assert f"and {COUNT - i3d.MAX_LISTED} more" in str(check)


# Names.


def equal_states(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_names_of_both_ports_are_read() -> None:
    assert equal_states(i3d.from_state_dict(FILE, state_of(), table()), state_of())
    assert equal_states(i3d.from_state_dict(FILE, hassony2(state_of()), table()), state_of())


def test_a_tensorflow_checkpoint_gets_gammas_of_one(tmp_path: Path) -> None:
    state = i3d.from_bundle(write_bundle(tmp_path / "x", arrays_of()), table())
    assert equal_states(state, state_of())
    assert all(tensor.is_contiguous() for tensor in state.values())


def test_extra_tensors_other_than_counters_are_refused() -> None:
    counter = {"Conv3d_1a_7x7.bn.num_batches_tracked": torch.tensor(1)}
    assert equal_states(i3d.from_state_dict(FILE, state_of() | counter, table()), state_of())
    with pytest.raises(MissingData, match=r"'Conv3d_1a_7x7\.bn\.num_batches' is no part of I3D but is in file\.pt"):
        i3d.from_state_dict(FILE, state_of() | {"Conv3d_1a_7x7.bn.num_batches": torch.tensor(1)}, table())


@pytest.mark.parametrize("rename", [dict, hassony2], ids=["piergiaj", "hassony2"])
@pytest.mark.parametrize("missing", sorted(state_of()))
def test_a_missing_tensor_is_refused(missing: str, rename: type[dict[str, Tensor]]) -> None:
    complete, incomplete = rename(state_of()), rename({name: t for name, t in state_of().items() if name != missing})
    (name,) = complete.keys() - incomplete.keys()
    with pytest.raises(MissingData, match=rf"'{re.escape(name)}' is missing from file\.pt"):
        i3d.from_state_dict(FILE, incomplete, table())


def test_a_wrong_shape_is_refused() -> None:
    state = state_of() | {"logits.conv3d.bias": torch.zeros(5)}
    with pytest.raises(MissingData, match=r"'logits\.conv3d\.bias' in file\.pt has shape \(5,\), needed \(4,\)"):
        i3d.from_state_dict(FILE, state, table())


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    arrays = arrays_of()
    with_extra = write_bundle(tmp_path / "more", {**arrays, "Momentum": arrays[table()[-1].variable]})
    with pytest.raises(MissingData, match=r"'Momentum' is no part of I3D but is in .*more"):
        i3d.from_bundle(with_extra, table())
    missing, *remaining = sorted(arrays)
    without_one = write_bundle(tmp_path / "less", {name: arrays[name] for name in remaining})
    with pytest.raises(MissingData, match=f"'{missing}' is missing from .*less"):
        i3d.from_bundle(without_one, table())
    bias = table()[-1]
    other = write_bundle(tmp_path / "other", {**arrays, bias.variable: arrays[bias.variable][:3]})
    with pytest.raises(MissingData, match=rf"'{re.escape(bias.piergiaj)}' in .*other has shape \(3,\), needed \(4,\)"):
        i3d.from_bundle(other, table())
