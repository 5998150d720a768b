"""Requests of a finished run and the real clips that belong to it, from its folder and the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vfbench import plugins
from vfbench.clips.manifest import Manifest, read_manifest
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Clips, Dataset, Request
from vfbench.pipeline.real_clips import preview_clips
from vfbench.pipeline.requests import make_requests
from vfbench.protocol.resolve import dataset_spec, resolve_rules
from vfbench.utils import files


@dataclass(frozen=True)
class Recalled:
    """Requests of a run, and its real clips, read when they are needed."""

    dataset: Dataset
    requests: Sequence[Request]
    manifest: Manifest

    @property
    def captions(self) -> list[str]:
        """Caption of each request."""
        return [request.prompt for request in self.requests]

    @property
    def classes(self) -> list[str]:
        """Class of each request by name; empty texts where the dataset has no classes."""
        names = self.dataset.classes
        return [names[request.label] if request.label < len(names) else "" for request in self.requests]

    def asked(self, indices: Sequence[int]) -> Clips:
        """Real clips that the requests `indices` take label and caption from, uint8 (B, T, 3, H, W)."""
        requests = [self.requests[index] for index in indices]
        clips = [self.dataset.clips(request.split, [request.source])[0] for request in requests]
        return torch.stack(clips).cpu()

    def scored(self, rows: Sequence[int]) -> Clips:
        """Real clips that the scores are against, of the first draw, by their rows: uint8 (B, T, 3, H, W)."""
        places = self.manifest.places(0, "real")
        return preview_clips(self.dataset, [places[row] for row in rows])[0]


def recall(folder: Path) -> Recalled:
    """Load the dataset of a run again, and draw the same requests.

    Raises `UserError` for a folder that `run` did not make, for a dataset that is not known here, and `MissingData`
    where its clips are missing or have changed since.
    """
    content = files.read_json(folder / "run.json")
    try:
        determines, layout = content["determines"], content["layout"]
        protocol, seed, options = determines["protocol"], determines["seed"], content["options"]
        given = {name: options[name]["value"] for name in ("dataset", "data_root", "protocol", "smoke")}
        dataset = _dataset(given)
        if dataset.fingerprint != protocol["data_fingerprint"]:
            raise MissingData(f"{folder}: the clips of {dataset.name} have changed since; repeat the run")
        requests = make_requests(dataset, protocol["prompts"], layout["requests"], seed)
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder}/run.json is not that of a run ({error}): repeat the run") from error
    return Recalled(dataset, requests, read_manifest(folder / "manifest.csv"))


def _dataset(given: dict[str, Any]) -> Dataset:
    """The dataset with the options that the protocol gave it; no module is imported that only the file names."""
    root = None if given["data_root"] == "None" else given["data_root"]
    spec = plugins.parse(given["dataset"]).merged({"root": root})
    if not plugins.is_known("dataset", spec.name):
        raise UserError(f"the dataset {spec.name} is not known here")
    name = None if given["protocol"] == "None" else given["protocol"]
    rules = resolve_rules(spec, name, smoke=given["smoke"] == "True")
    loaded: Dataset = plugins.load("dataset", dataset_spec(spec, rules))
    return loaded
