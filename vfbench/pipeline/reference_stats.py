"""The real features of a protocol as portable files: who does not have the dataset can score against them.

    OUT/i3d.logits.safetensors     `features` (N, D) float32, `groups` (N): equal for clips of one video
    OUT/clips.csv                  which clips they are, as `--manifest` takes them

One file for each output of a network, and for each draw of clips where the protocol has several. The metadata of a file
say how it was made: protocol, dataset, list of clips, network, versions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from vfbench.clips.inventory import require_apart
from vfbench.clips.manifest import Manifest
from vfbench.errors import UserError
from vfbench.pipeline import eval_setup
from vfbench.pipeline.eval_setup import EvalOptions, EvalSetup
from vfbench.pipeline.features import FeatureCollector, Real, real_features
from vfbench.plugins import Spec
from vfbench.utils import device as devices
from vfbench.utils import tensor_files
from vfbench.utils.environment import code_version, environment
from vfbench.utils.files import held, require_writable

CLIPS = "clips.csv"


@dataclass(frozen=True)
class WrittenStats:
    """The files that were written, and what a reader must know of them."""

    folder: Path
    files: tuple[Path, ...]
    lines: tuple[tuple[str, str], ...]

    def text(self) -> str:
        """What was measured, and the files."""
        rows = [*self.lines, *(("features", str(file)) for file in self.files), ("clips", str(self.folder / CLIPS))]
        return "\n".join(f"{name:<9} {line}" for name, line in rows)


def stats(spec: Spec, folder: Path | str, asked: EvalOptions, *, device: str = "auto") -> WrittenStats:
    """Measure the real clips of a protocol on the dataset `spec`, and write their features to a folder.

    Features that are in the cache are not made again. Raises what `vfbench.pipeline.eval_setup.prepare` raises,
    `UserError`
    where the folder lies in that of the dataset or holds the statistics of something else, and `BadEnvironment` where
    it cannot be written.
    """
    place, chosen = Path(folder), devices.choose(device)
    if place.suffix == ".safetensors":
        raise UserError(
            f"--output {place}: give a folder, {place.with_suffix('')}: each network output is a file in it"
        )
    require_writable(place)
    ready = eval_setup.prepare(spec, chosen, asked)
    require_apart(place, ready.dataset)
    real = Manifest(tuple(row for row in ready.manifest.rows if row.role == "real"))
    about = _about(spec, ready, real, chosen)
    wanted = FeatureCollector(ready.extractors, ready.outputs)
    with held(place):
        _same(place, about)
        drawn = real_features(ready.dataset, ready.protocol, wanted, chosen, real)
        real.write(place / CLIPS)
        files = [file for number, one in enumerate(drawn) for file in _written(place, one, number, len(drawn), about)]
    said = {
        "dataset": f"{ready.dataset.name}, {ready.protocol.n_real:,} real clips"
        + f", {len(drawn)} draws" * (len(drawn) > 1),
        "protocol": f"{ready.protocol.id} ({ready.protocol.name})"
        + ", not comparable" * (not ready.protocol.comparable),
        "note": ready.note,
    }
    return WrittenStats(place, tuple(files), tuple((name, line) for name, line in said.items() if line))


def _written(folder: Path, real: Real, number: int, draws: int, about: Mapping[str, str]) -> list[Path]:
    """A file for each output of a network, of one draw."""
    files = []
    for source, features in real.clips.items():
        file = folder / (f"{source}.{number}.safetensors" if draws > 1 else f"{source}.safetensors")
        tensors = {"features": features.float(), "groups": torch.from_numpy(real.groups)}
        tensor_files.write_tensors(file, tensors, **about, source=source, draw=str(number))
        files.append(file)
    return files


def _about(spec: Spec, ready: EvalSetup, real: Manifest, device: torch.device) -> dict[str, str]:
    """How the features are made, as the metadata of each file: texts, of which protocol and environment are JSON."""
    told = Spec(spec.name, {name: value for name, value in spec.options.items() if name != "root"})  # of this machine
    return {
        "made_by": f"vfbench data stats {told} --protocol {ready.protocol.name}",
        "protocol_id": ready.protocol.id,
        "protocol": json.dumps(ready.protocol.record(), sort_keys=True),
        "dataset": ready.dataset.name,
        "dataset_fingerprint": ready.dataset.fingerprint,
        "clips_sha256": real.sha256,
        "note": ready.note,
        "code": code_version(),
        "environment": json.dumps(environment(device), sort_keys=True),
    }


def _same(folder: Path, about: Mapping[str, str]) -> None:
    """Raise `UserError` where a folder has the statistics of another protocol or other clips."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            _, found = tensor_files.read_tensors(file)
        except ValueError:  # it was not finished, or is damaged: it is made again
            continue
        for name in ("protocol_id", "dataset_fingerprint", "clips_sha256"):
            if found.get(name) != about[name]:
                raise UserError(f"{file} has another {name}: choose another --output, or take that folder away")
