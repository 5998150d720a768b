"""Inventory of a dataset on disk: its videos by split, from file names alone, and the official lists of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from vfbench import clips
from vfbench.clips.layout import DEEP_HASH, ClipFolder, HashDepth
from vfbench.errors import UserError
from vfbench.interfaces import Dataset, Split
from vfbench.utils.escape import printable


@dataclass(frozen=True)
class Inventory:
    """Videos of a dataset by split, each with its class, and what is known about this copy.

    `layout` describes the folders, `copy` names the known copy of the dataset. `listed` holds the names in the
    official list of each split, in order; `extra` the names on disk that no list has; `leaked` the names in the
    folders of two splits, of which the lists name one. `official` is the number of videos of each official split, where
    known. `origin` maps a video's name to the recording it was cut from; splits must not share one. `hash_depth` is the
    depth of the content hash in `identity`.

    Only for a prepared dataset: `source_identities` holds the identity of each split of the source files, `fitted` the
    frame size and resize rule (`vfbench.clips.transform.ClipTransform.fitting`), `decoder` the decoder that read them.
    """

    dataset: str
    layout: str
    copy: str
    splits: Mapping[Split, ClipFolder]
    classes: tuple[str, ...]
    listed: Mapping[Split, tuple[str, ...]] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    origin: Callable[[str], str] = str
    notes: tuple[str, ...] = ()
    hash_depth: HashDepth = DEEP_HASH
    source_identities: Mapping[Split, str] = field(default_factory=dict)
    fitted: str = ""
    decoder: str = "auto"
    leaked: tuple[str, ...] = ()
    official: Mapping[Split, int] = field(default_factory=dict)

    def identity(self, split: Split, decoder: str = "auto") -> str:
        """Decoder versions and content hash of a split: equal identities mean equal pixels."""
        if source := self.source_identities.get(split):
            return source
        folder = self.splits[split]
        return f"{clips.decoder_versions(folder, decoder)} {clips.content_hash(folder, self.hash_depth)}"

    def missing(self, split: Split) -> list[str]:
        """Listed names of a split that are not on disk."""
        present = {entry.name for entry in self.splits[split].entries} if split in self.splits else set()
        return [name for name in self.listed.get(split, ()) if name not in present]

    @property
    def note(self) -> str:
        """Remarks on this copy for every report, such as `5 of 9,537 listed train clips present`."""
        partial = [
            f"{len(names) - len(absent):,} of {len(names):,} listed {split} clips present"
            for split, names in self.listed.items()
            if (absent := self.missing(split))
        ]
        return "; ".join([*partial, *map(printable, self.notes)])


@runtime_checkable
class OnDisk(Protocol):
    """Optional ability of a dataset: its clips are read from files on disk, which the inventory lists."""

    inventory: Inventory


def inventory_of(dataset: Dataset) -> Inventory | None:
    """The inventory of a dataset whose clips are files on disk, None for one that makes its clips."""
    return dataset.inventory if isinstance(dataset, OnDisk) else None


def require_outside_dataset(output: Path, dataset: Dataset) -> None:
    """Raise `UserError` where `output` lies in a folder of the dataset's files, which are only read."""
    if inventory := inventory_of(dataset):
        require_outside(output, inventory)


def require_outside(output: Path, inventory: Inventory, *roots: Path | str | None) -> None:
    """Raise `UserError` where `output` lies in a folder of the dataset's files or below one of `roots`.

    Dataset folders are only read. `roots` are the folders that the user named for the search.
    """
    target = output.expanduser().resolve()
    for folder in [*(Path(root) for root in roots if root), *(split.base for split in inventory.splits.values())]:
        if target.is_relative_to(folder.expanduser().resolve()):
            raise UserError(f"--output {output} lies in the dataset's folder {folder}: choose another --output")
