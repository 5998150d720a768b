"""Load verified weights into a feature network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from vfbench.interfaces import WeightStatus
from vfbench.weights import cache, catalogue, random_init, verify
from vfbench.weights.tensors import digest, is_counter, require_fit


@dataclass(frozen=True)
class WeightInfo:
    """Hash and verification status of the weights in a feature network."""

    digest: str  # SHA-256 of the tensors, 64 hexadecimal digits
    weight_status: WeightStatus


def load_weights(module: nn.Module, name: str, source: str = "default") -> WeightInfo:
    """Load the weights of network `name` into `module`.

    `source` is `default` (the converted file in the weights folder), `random` (seeded, identical on every machine, for
    plumbing checks) or the path of a safetensors file. The status depends on the tensors, not on the path. The module
    must have exactly the tensors of the published network; `num_batches_tracked` is ignored.
    Raises `MissingData` with the command that gets the weights, or with the file and the tensor that do not fit.
    """
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items() if not is_counter(key)}
    if source == "random":
        tensors = random_init.random_tensors(shapes)
        return _load(module, tensors, WeightInfo(digest(tensors), weight_status="nonstandard"))
    network = catalogue.network(name)
    path = cache.weights_path(name) if source == "default" else Path(source)
    weights, weights_digest = verify.read_converted(network, path)
    require_fit(path, weights.tensors, shapes, name)
    return _load(module, weights.tensors, WeightInfo(weights_digest, verify.weight_status(weights)))


def _load(module: nn.Module, tensors: Mapping[str, Tensor], weight_info: WeightInfo) -> WeightInfo:
    module.load_state_dict(dict(tensors), strict=False)  # only the counters may be missing
    return weight_info
