"""What stands on disk of a dataset, found by names alone, and what should stand there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vfbench import clips
from vfbench.clips import DEEP, ClipFolder, Depth
from vfbench.errors import UserError
from vfbench.interfaces import Dataset, Split


@dataclass(frozen=True)
class Inventory:
    """The videos of a dataset by split, each with the class that its entry names as `group`.

    `layout` says in words how the files lie, `copy` which known copy of the dataset this is. `listed` are the names
    that official lists give a split, in their order; `extra` stand on disk and in no list, `leaked` in the folders of
    two splits, of which the lists name one. `official` is how many videos each split of the official copy has, where
    that is known. `origin` tells from a video's name the recording that it was cut from: two
    splits must not share one. `depth` is that of `identity`.
    What was prepared is `made_of` files that are elsewhere, the identity that each split had there, and `fitted` as
    `vfbench.clips.transform.ClipTransform.fitting` says: it has that size and geometry, and no other, and was read by
    `decoder`.
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
    depth: Depth = DEEP
    made_of: Mapping[Split, str] = field(default_factory=dict)
    fitted: str = ""
    decoder: str = "auto"
    leaked: tuple[str, ...] = ()
    official: Mapping[Split, int] = field(default_factory=dict)

    def identity(self, split: Split, decoder: str = "auto") -> str:
        """What tells the pixels of a split from all others: its decoders, and the hash of its files."""
        found = self.splits[split]
        return self.made_of.get(split) or f"{clips.decoder(found, decoder)} {clips.content_hash(found, self.depth)}"

    def missing(self, split: Split) -> list[str]:
        """The listed names that are not on disk."""
        there = {entry.name for entry in self.splits[split].entries} if split in self.splits else set()
        return [name for name in self.listed.get(split, ()) if name not in there]

    @property
    def note(self) -> str:
        """What a reader must know of the copy, such as `5 of 9,537 listed train clips present`."""
        partial = [
            f"{len(names) - len(gone):,} of {len(names):,} listed {split} clips present"
            for split, names in self.listed.items()
            if (gone := self.missing(split))
        ]
        return "; ".join([*partial, *map(clips.printable, self.notes)])


def require_apart(output: Path, dataset: Dataset) -> None:
    """The same for a dataset, whose files lie in folders if it has an inventory."""
    if isinstance(inventory := getattr(dataset, "inventory", None), Inventory):
        require_outside(output, inventory)


def require_outside(output: Path, inventory: Inventory, *roots: Path | str | None) -> None:
    """Raise `UserError` where `output` lies within the dataset's own folder, which is only read.

    That is the folder of its files, and each of `roots`, in which the user had it looked for.
    """
    place = output.expanduser().resolve()
    for folder in [*(Path(root) for root in roots if root), *(found.base for found in inventory.splits.values())]:
        if place.is_relative_to(folder.expanduser().resolve()):
            said = f"--output {output} is within the dataset's own folder {folder}"
            raise UserError(f"{said}, which is only read: choose another --output")
