"""Converted weight files: safetensors with a record of their origin, verified on every read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from vfbench.errors import MissingData
from vfbench.interfaces import WeightStatus
from vfbench.utils import strict_json, tensor_files
from vfbench.weights import cache, catalogue, i3d
from vfbench.weights.catalogue import Network
from vfbench.weights.tensors import digest, require_fit

Origins = Mapping[str, str]  # name and SHA-256 of each file that the weights were imported from


@dataclass(frozen=True)
class Weights:
    """Tensors of a network under vfbench's names, and the files they were imported from."""

    network: Network
    tensors: Mapping[str, Tensor]
    origins: Origins


@dataclass(frozen=True)
class VerificationResult:
    """Outcome of comparing weights with the published ones; `text` gives the reason."""

    verified: bool
    text: str


def verify_weights(weights: Weights) -> VerificationResult:
    """Verify weights by the method of their network: CRC of each tensor, hash of the file, or none."""
    match weights.network.verification:
        case "tensors":
            check = i3d.check_tensors(weights.tensors)
            return VerificationResult(check.verified, str(check))
        case "file":
            return verify_origins(weights.network, weights.origins)
        case "none":
            text = f"not verified: no hash of it is published; {_describe_origins(weights.origins)}"
            return VerificationResult(False, text)


def weight_status(weights: Weights) -> WeightStatus:
    """Status of weights in a protocol, see `vfbench.interfaces.Extractor`."""
    if verify_weights(weights).verified:
        return "verified"
    return "unpublished" if weights.network.verification == "none" else "nonstandard"


def verify_origins(network: Network, origins: Origins) -> VerificationResult:
    """Verify by SHA-256 that weights were imported from a published file."""
    if origins and network.published_hashes.issuperset(origins.values()):
        return VerificationResult(True, f"the published file: {_describe_origins(origins)}")
    published = ", ".join(sorted(network.published_hashes))
    return VerificationResult(False, f"not the published file: {_describe_origins(origins)}, published {published}")


def _describe_origins(origins: Origins) -> str:
    return ", ".join(f"{name} has SHA-256 {sha256}" for name, sha256 in origins.items()) or "of unknown origin"


def write_converted(weights: Weights, path: Path) -> None:
    """Write the converted file atomically, with network, digest and origins as metadata."""
    metadata = {
        "network": weights.network.name,
        "digest": digest(weights.tensors),
        "origins": json.dumps(dict(weights.origins)),
    }
    tensor_files.write(path, weights.tensors, metadata)


def read_converted(network: Network, path: Path | None = None) -> tuple[Weights, str]:
    """Weights of a converted file, by default the one in the weights folder, and the digest of their tensors.

    Raises `MissingData` with the command that gets the file, or with the damaged part; a digest in the metadata must
    match the tensors. A file without a digest has unknown origin, whatever its metadata claims.
    """
    path = path or cache.weights_path(network.name)
    if not path.is_file():
        raise MissingData(f"no weights of {network.name} at {path}: {download_hint(network)}")
    try:
        tensors, metadata = tensor_files.read(path), _read_metadata(path)
    except MissingData as error:
        raise MissingData(f"{error}\nremove it, and {download_hint(network)}") from error
    if network.verification == "tensors":
        require_fit(path, tensors, i3d.shapes(), network.name)
    actual, recorded = digest(tensors), metadata.get("digest")
    if recorded not in (None, actual):
        damage = f"{path} is damaged: its tensors have the digest {actual}, its metadata has {recorded}"
        raise MissingData(f"{damage}{_describe_damage(network, tensors)}\nremove it, and {download_hint(network)}")
    if metadata.get("network", network.name) != network.name:
        raise MissingData(f"{path} holds the weights of {metadata['network']}, not those of {network.name}")
    origins = _parse_origins(path, metadata.get("origins", "{}"))
    return Weights(network, tensors, origins if recorded else {}), actual


def download_hint(network: Network) -> str:
    """Commands that get the weights: by download, or from a file on this machine."""
    commands = (catalogue.fetch_command(network.name), catalogue.import_command(network.name))
    return "get them with\n  {}\nor, from a file on this machine, with\n  {}".format(*commands)


def _read_metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _parse_origins(path: Path, text: str) -> dict[str, str]:
    try:
        origins = strict_json.parse(text)
    except ValueError:
        origins = {"": None}
    if not all(isinstance(sha256, str) for sha256 in origins.values()):
        raise MissingData(f"{path} is damaged: its record of origins is '{text[:200]}'; remove it and import it again")
    return origins


def _describe_damage(network: Network, tensors: Mapping[str, Tensor]) -> str:
    return f"; {i3d.check_tensors(tensors)}" if network.verification == "tensors" else ""
