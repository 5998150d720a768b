"""The published feature networks' weights: find them, prove them right, and fill a module with them.

Only safetensors is loaded here; every other format is converted once, by `vfbench weights import`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from vfbench.interfaces import WeightStatus
from vfbench.weights import cache, catalogue, random_init, verify
from vfbench.weights.tensors import counted, digest, fit


@dataclass(frozen=True)
class Filled:
    """What a feature network was filled with: the hash of the tensors, and what speaks for them."""

    digest: str  # SHA-256, 64 hexadecimal digits
    weight_status: WeightStatus


def fill(module: nn.Module, name: str, source: str = "default") -> Filled:
    """Fill `module` with the weights called `name`.

    `source` is `default` (the published file, fetched or imported before), `random` (seeded, the same on every machine,
    for plumbing checks), or the path of a safetensors file. What is proven depends on the tensors, not on the path.
    The module has the tensors of the published network under its names, and no others but `num_batches_tracked`.
    Raises `MissingData` naming the command that gets the weights, or the file and the tensor that are wrong.
    """
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items() if not counted(key)}
    if source == "random":
        drawn = random_init.tensors(wanted)
        return _load(module, drawn, Filled(digest(drawn), weight_status="nonstandard"))
    network = catalogue.network(name)
    path = cache.place(name) if source == "default" else Path(source)
    found, its_digest = verify.read(network, path)
    fit(path, found.tensors, wanted, name)
    return _load(module, found.tensors, Filled(its_digest, verify.weight_status(found)))


def _load(module: nn.Module, tensors: Mapping[str, Tensor], filled: Filled) -> Filled:
    module.load_state_dict(dict(tensors), strict=False)  # but for the counters it fits: this was checked
    return filled
