"""The I3D of FVD: the shipped table, and a proof that finds one wrong bit and knows the network it must not be."""

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

HERE = Path("here.pt")
NAMES = len(table())


# The shipped table.


def test_the_table_has_every_tensor_once() -> None:
    rows = i3d.table()
    assert len(rows) == 230
    assert all(len({getattr(row, name) for row in rows}) == 230 for name in ("variable", "piergiaj", "hassony2"))
    assert len(i3d.shapes()) == 287  # and 57 gammas


def test_the_shapes_add_up_to_the_published_network() -> None:
    rows = i3d.table()
    assert 4 * sum(math.prod(row.shape) for row in rows) == 50_818_176  # bytes of the TensorFlow checkpoint
    learnt = {name: shape for name, shape in i3d.shapes().items() if "running" not in name}
    assert sum(map(math.prod, learnt.values())) == 12_697_264


@pytest.mark.pitfall("the I3D inflated from ImageNet")
def test_no_tensor_is_the_same_in_the_network_inflated_from_imagenet() -> None:
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


# The proof.


def test_the_published_network_is_proven() -> None:
    verdict = i3d.check_tensors(state_of(), table())
    assert verdict.verified
    assert str(verdict) == f"{NAMES} of {NAMES} tensors are those of the published I3D (Kinetics-400 from scratch)"


@pytest.mark.parametrize("name", [row.piergiaj for row in table()])
def test_one_flipped_bit_is_found_and_named(name: str) -> None:
    state = state_of()
    state[name].view(-1).view(torch.int32)[-1] ^= 1
    verdict = i3d.check_tensors(state, table())
    assert not verdict.verified
    assert (verdict.num_published, verdict.num_imagenet) == (NAMES - 1, 0)
    (expected,) = (row.scratch for row in table() if row.piergiaj == name)
    assert re.fullmatch(rf"'{re.escape(name)}' has CRC \d+, expected {expected}", verdict.mismatches[0])
    assert str(verdict).startswith(f"{NAMES - 1} of {NAMES} tensors are those of the published I3D")


def test_a_gamma_that_is_not_one_is_found() -> None:
    """The published network has none, so no CRC would tell."""
    state = state_of()
    state[GAMMA][2] = 1.5
    verdict = i3d.check_tensors(state, table())
    assert (verdict.verified, verdict.num_published) == (False, NAMES)
    assert verdict.mismatches == (f"'{GAMMA}' is not all ones, as in the original",)


def test_transposed_kernels_are_another_network() -> None:
    state = state_of()
    state["logits.conv3d.weight"] = state["logits.conv3d.weight"].transpose(0, 1).reshape(4, 6, 1, 1, 1)
    assert not i3d.check_tensors(state, table()).verified


def test_half_precision_is_another_network() -> None:
    halved = {name: tensor.half() for name, tensor in state_of().items()}
    assert i3d.check_tensors(halved, table()).num_published == 0


def test_the_network_inflated_from_imagenet_is_recognised() -> None:
    verdict = i3d.check_tensors(state_of(seed=1), table(imagenet=1))
    assert (verdict.num_published, verdict.num_imagenet) == (0, NAMES)
    assert f"0 of {NAMES} tensors" in str(verdict)
    assert f"{NAMES} are those of rgb_imagenet, the I3D inflated from ImageNet" in str(verdict)


def test_an_unknown_network_is_not_taken_for_either() -> None:
    verdict = i3d.check_tensors(state_of(seed=50), table())
    assert (verdict.num_published, verdict.num_imagenet) == (0, 0)
    assert "ImageNet" not in str(verdict)
    assert str(verdict).count("has CRC") == i3d.MAX_LISTED
    assert f"and {NAMES - i3d.MAX_LISTED} more" in str(verdict)


# The names.


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_both_ports_names_are_understood() -> None:
    assert same(i3d.from_state_dict(HERE, state_of(), table()), state_of())
    assert same(i3d.from_state_dict(HERE, hassony2(state_of()), table()), state_of())


def test_a_checkpoint_of_tensorflow_gets_ones_for_gammas(tmp_path: Path) -> None:
    found = i3d.from_bundle(write_bundle(tmp_path / "x", arrays_of()), table())
    assert same(found, state_of())
    assert all(tensor.is_contiguous() for tensor in found.values())


def test_only_counters_may_be_too_many() -> None:
    counter = {"Conv3d_1a_7x7.bn.num_batches_tracked": torch.tensor(1)}
    assert same(i3d.from_state_dict(HERE, state_of() | counter, table()), state_of())
    with pytest.raises(MissingData, match=r"'Conv3d_1a_7x7\.bn\.num_batches' is no part of I3D but is in here\.pt"):
        i3d.from_state_dict(HERE, state_of() | {"Conv3d_1a_7x7.bn.num_batches": torch.tensor(1)}, table())


@pytest.mark.parametrize("rename", [dict, hassony2], ids=["piergiaj", "hassony2"])
@pytest.mark.parametrize("lost", sorted(state_of()))
def test_every_tensor_must_be_there(lost: str, rename: type[dict[str, Tensor]]) -> None:
    whole, lacking = rename(state_of()), rename({name: t for name, t in state_of().items() if name != lost})
    (name,) = whole.keys() - lacking.keys()
    with pytest.raises(MissingData, match=rf"'{re.escape(name)}' is missing from here\.pt"):
        i3d.from_state_dict(HERE, lacking, table())


def test_a_wrong_shape_is_named() -> None:
    state = state_of() | {"logits.conv3d.bias": torch.zeros(5)}
    with pytest.raises(MissingData, match=r"'logits\.conv3d\.bias' in here\.pt has shape \(5,\), needed \(4,\)"):
        i3d.from_state_dict(HERE, state, table())


def test_a_checkpoint_of_another_network_is_named(tmp_path: Path) -> None:
    arrays = arrays_of()
    more = write_bundle(tmp_path / "more", {**arrays, "Momentum": arrays[table()[-1].variable]})
    with pytest.raises(MissingData, match=r"'Momentum' is no part of I3D but is in .*more"):
        i3d.from_bundle(more, table())
    lost, *kept = sorted(arrays)
    less = write_bundle(tmp_path / "less", {name: arrays[name] for name in kept})
    with pytest.raises(MissingData, match=f"'{lost}' is missing from .*less"):
        i3d.from_bundle(less, table())
    bias = table()[-1]
    other = write_bundle(tmp_path / "other", {**arrays, bias.variable: arrays[bias.variable][:3]})
    with pytest.raises(MissingData, match=rf"'{re.escape(bias.piergiaj)}' in .*other has shape \(3,\), needed \(4,\)"):
        i3d.from_bundle(other, table())
