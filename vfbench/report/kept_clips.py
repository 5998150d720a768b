"""Clips and features that a run keeps in its folder, read for a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from vfbench.errors import MissingData
from vfbench.report.results import SCORED_FILE, Result
from vfbench.utils import files
from vfbench.utils.tensor_files import read_shapes, read_tensors

CLIPS = "clips"  # name of the tensor in a chunk


@dataclass(frozen=True)
class KeptClips:
    """Clips of the first requests of a run, uint8 (T, 3, H, W), by request; `missing` names the file of each other."""

    clips: Mapping[int, Tensor] = field(default_factory=dict)
    missing: Mapping[int, str] = field(default_factory=dict)


def read_clips(record: Result, count: int) -> KeptClips:
    """The clips of the first `count` requests; none of either kind where the run was made without `--keep-clips`."""
    record.fetch("run.json")
    folder, (size, total) = record.folder, _layout(record.folder)
    if folder is None or not size:
        return KeptClips()
    record.fetch(*(f"chunks/{start // size:06d}.safetensors" for start in range(0, min(count, total), size)))
    clips, missing, without = dict[int, Tensor](), dict[int, str](), list[int]()
    for start in range(0, min(count, total), size):
        indices = range(start, min(start + size, count, total))
        path = folder / "chunks" / f"{start // size:06d}.safetensors"
        try:
            if CLIPS not in read_shapes(path, run=record.run_id):
                without += indices
                continue
            tensors = read_tensors(path, run=record.run_id)[0]
            clips |= dict(zip(indices, tensors[CLIPS], strict=False))
        except ValueError:
            missing |= dict.fromkeys(indices, f"{folder.name}/chunks/{path.name}")
    if not clips and without:  # a lost chunk had no clips either
        return KeptClips()
    return KeptClips(clips, missing | dict.fromkeys(without, f"{folder.name}/chunks"))


def _layout(folder: Path | None) -> tuple[int, int]:
    """Requests of a chunk, and of the run; zeros where the folder is not that of a run."""
    try:
        content = files.read_json(folder / "run.json").get("layout") if folder else None
    except MissingData:
        content = None
    layout = content if isinstance(content, dict) else {}
    size, total = layout.get("chunk_size"), layout.get("requests")
    return (size, total) if isinstance(size, int) and isinstance(total, int) and size > 0 else (0, 0)


def read_features(record: Result) -> dict[str, Tensor]:
    """Features and groups that the scores were computed from, by name; empty where they are missing or damaged."""
    if record.folder is None:
        return {}
    try:
        return read_tensors(record.folder / SCORED_FILE, run=record.run_id)[0]
    except ValueError:
        return {}
