"""The converted files: safetensors with a record of where they came from, checked whenever they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from vfbench.errors import MissingData
from vfbench.interfaces import WeightStatus
from vfbench.utils import tensor_files
from vfbench.weights import cache, catalogue, i3d
from vfbench.weights.catalogue import Network
from vfbench.weights.tensors import digest, fit

Origins = Mapping[str, str]  # the name of each file that the weights came from, and its SHA-256


@dataclass(frozen=True)
class Weights:
    """The tensors of a network, under our names, and the files they came from."""

    network: Network
    tensors: Mapping[str, Tensor]
    origins: Origins


@dataclass(frozen=True)
class Judgement:
    """Whether weights are the published ones, and what speaks for or against it."""

    standard: bool
    text: str


def judge(found: Weights) -> Judgement:
    """Put weights to the proof of their network."""
    match found.network.proof:
        case "tensors":
            verdict = i3d.prove(found.tensors)
            return Judgement(verdict.proven, str(verdict))
        case "file":
            return judge_origins(found.network, found.origins)
        case "none":
            return Judgement(False, f"not proven, as no hash of it is published; {_said(found.origins)}")


def weight_status(found: Weights) -> WeightStatus:
    """What weights are to a protocol, see `vfbench.interfaces.Extractor`."""
    if judge(found).standard:
        return "verified"
    return "unpublished" if found.network.proof == "none" else "nonstandard"


def judge_origins(network: Network, origins: Origins) -> Judgement:
    """Whether weights came from a published file, by its SHA-256."""
    if origins and network.known.issuperset(origins.values()):
        return Judgement(True, f"the published file: {_said(origins)}")
    return Judgement(False, f"not the published file: {_said(origins)}, published {', '.join(sorted(network.known))}")


def _said(origins: Origins) -> str:
    return ", ".join(f"{name} has SHA-256 {sha256}" for name, sha256 in origins.items()) or "of unknown origin"


def write(found: Weights, path: Path) -> None:
    """Write the converted file, whole or not at all, with its record."""
    record = {
        "network": found.network.name,
        "digest": digest(found.tensors),
        "origins": json.dumps(dict(found.origins)),
    }
    tensor_files.write(path, found.tensors, record)


def read(network: Network, path: Path | None = None) -> tuple[Weights, str]:
    """A converted file, by default the one in the folder, and the digest of its tensors.

    Raises `MissingData` naming the command that gets it, or what is damaged; the digest in its record must be right.
    A file whose record has no digest is taken as it is: its origin is unknown, whatever the record claims.
    """
    place = path or cache.place(network.name)
    if not place.is_file():
        raise MissingData(f"no weights of {network.name} at {place}: {advice(network)}")
    try:
        tensors, record = tensor_files.read(place), _record(place)
    except MissingData as error:
        raise MissingData(f"{error}\nremove it, and {advice(network)}") from error
    if network.proof == "tensors":
        fit(place, tensors, i3d.shapes(), network.name)
    found, recorded = digest(tensors), record.get("digest")
    if recorded not in (None, found):
        what = f"{place} is damaged: its tensors have the digest {found}, its record says {recorded}"
        raise MissingData(f"{what}{_where(network, tensors)}\nremove it, and {advice(network)}")
    if record.get("network", network.name) != network.name:
        raise MissingData(f"{place} holds the weights of {record['network']}, asked for were those of {network.name}")
    origins = _origins(place, record.get("origins", "{}"))
    return Weights(network, tensors, origins if recorded else {}), found


def advice(network: Network) -> str:
    """How to get the weights, with and without a network."""
    commands = (catalogue.fetching(network.name), catalogue.importing(network.name))
    return "get them with\n  {}\nor, if you have a file of them, with\n  {}".format(*commands)


def _record(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _origins(path: Path, text: str) -> dict[str, str]:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise MissingData(
            f"{path} is damaged: its record of origins is '{text}'; remove it, and import it anew"
        ) from error


def _where(network: Network, tensors: Mapping[str, Tensor]) -> str:
    """Which tensors are damaged, where a table can tell."""
    return f"; {i3d.prove(tensors)}" if network.proof == "tensors" else ""
