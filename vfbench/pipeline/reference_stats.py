"""Reference statistics: the real features of a protocol as portable files, to score without the dataset.

    OUT/i3d.logits.safetensors     `features` (N, D) float32, `groups` (N): equal for clips of one video
    OUT/clips.csv                  the clips, as `--manifest` reads them

One file for each output of a network, and for each draw of clips where the protocol has several. The metadata of a file
record protocol, dataset, clips, network and versions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from vfbench.clips.inventory import require_outside_dataset
from vfbench.clips.manifest import Manifest
from vfbench.errors import UserError
from vfbench.pipeline import eval_setup
from vfbench.pipeline.eval_setup import EvalSetup
from vfbench.pipeline.features import FeatureCollector, RealFeatures, real_features
from vfbench.pipeline.options import StatsOptions
from vfbench.plugins import Spec
from vfbench.utils import device as devices
from vfbench.utils import tensor_files
from vfbench.utils.environment import code_version, environment
from vfbench.utils.files import locked_folder, require_writable
from vfbench.utils.store import require_local

CLIPS = "clips.csv"


@dataclass(frozen=True)
class WrittenStats:
    """The files that were written, and the lines that describe them."""

    folder: Path
    files: tuple[Path, ...]
    lines: tuple[tuple[str, str], ...]

    def text(self) -> str:
        """Dataset, protocol, notes and files, a line each."""
        rows = [*self.lines, *(("features", str(file)) for file in self.files), ("clips", str(self.folder / CLIPS))]
        return "\n".join(f"{name:<9} {line}" for name, line in rows)


def stats(spec: Spec, folder: Path | str, options: StatsOptions) -> WrittenStats:
    """Measure the real clips of a protocol on the dataset `spec`, and write their features to a folder.

    Cached features are not computed again. Raises the errors of `vfbench.pipeline.eval_setup.prepare`, `UserError`
    where the folder lies in the dataset's or holds other statistics, and `BadEnvironment` where it cannot be written.
    """
    require_local("--output", folder)
    output, device = Path(folder), devices.choose_device(options.device)
    if output.suffix == ".safetensors":
        raise UserError(
            f"--output {output}: give a folder, {output.with_suffix('')}: each network output is a file in it"
        )
    require_writable(output)
    setup = eval_setup.prepare(spec, device, options)
    require_outside_dataset(output, setup.dataset)
    real = Manifest(tuple(row for row in setup.manifest.rows if row.role == "real"))
    metadata = _metadata(spec, setup, real, device)
    collector = FeatureCollector(setup.extractors, setup.outputs)
    with locked_folder(output):
        _require_same(output, metadata, real)
        reals = real_features(setup.dataset, setup.protocol, collector, device, real)
        real.write(output / CLIPS)
        files = [file for draw, each in enumerate(reals) for file in _write(output, each, draw, len(reals), metadata)]
    protocol, draws = setup.protocol, f", {len(reals)} draws" if len(reals) > 1 else ""
    lines = {
        "dataset": f"{setup.dataset.name}, {protocol.n_real:,} real clips{draws}",
        "protocol": f"{protocol.id} ({protocol.name})" + ("" if protocol.comparable else ", not comparable"),
        "note": setup.note,
    }
    return WrittenStats(output, tuple(files), tuple((name, line) for name, line in lines.items() if line))


def _write(folder: Path, real: RealFeatures, draw: int, draws: int, metadata: Mapping[str, str]) -> list[Path]:
    """Write the features of one draw, a file for each output of a network."""
    files = []
    for source, features in real.clips.items():
        file = folder / (f"{source}.{draw}.safetensors" if draws > 1 else f"{source}.safetensors")
        tensors = {"features": features.float(), "groups": torch.from_numpy(real.groups)}
        tensor_files.write_tensors(file, tensors, **metadata, source=source, draw=str(draw))
        files.append(file)
    return files


def _metadata(spec: Spec, setup: EvalSetup, real: Manifest, device: torch.device) -> dict[str, str]:
    """Metadata of each file: protocol and environment as JSON, the rest as plain text."""
    portable = Spec(spec.name, {name: value for name, value in spec.options.items() if name != "root"})
    return {
        "made_by": f"vfbench data stats {portable} --protocol {setup.protocol.name}",
        "protocol_id": setup.protocol.id,
        "protocol": json.dumps(setup.protocol.to_json(), sort_keys=True),
        "dataset": setup.dataset.name,
        "dataset_fingerprint": setup.dataset.fingerprint,
        "clips_sha256": real.sha256,
        "note": setup.note,
        "code": code_version(),
        "environment": json.dumps(environment(device.type).model_dump(), sort_keys=True),
    }


def _require_same(folder: Path, metadata: Mapping[str, str], real: Manifest) -> None:
    """Raise `UserError` where a folder has the statistics of another protocol, or a list of other clips."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            _, existing = tensor_files.read_tensors(file)
        except ValueError:  # unfinished or damaged: written again
            continue
        for name in ("protocol_id", "dataset_fingerprint", "clips_sha256"):
            if existing.get(name) != metadata[name]:
                raise UserError(f"{file} has another {name}: choose another --output, or take that folder away")
    listed = folder / CLIPS
    if listed.exists() and listed.read_bytes() != real.encoded:
        raise UserError(f"{listed} lists other clips: choose another --output, or take that file away")
