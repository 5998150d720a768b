"""The dataset card of a run: which real clips its numbers stand against, to read, to look at and to repeat.

data.md        copy, counts and hashes
manifest.csv   every real clip, see `vfbench.clips.manifest`
samples/real   a few of them: a sheet, and an animated WebP
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfbench import video
from vfbench.clips import printable
from vfbench.clips.inventory import Inventory
from vfbench.pipeline.eval_setup import EvalSetup
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.generate import NUM_PREVIEW
from vfbench.pipeline.real_clips import shown
from vfbench.protocol.protocol import SPLITS
from vfbench.utils import files


def write(folder: RunFolder, measuring: EvalSetup) -> dict[str, Any]:
    """Write the card into a run folder, and return what it says as it stands in `results.json`.

    Raises `MissingData` naming a clip that cannot be read, and `BadEnvironment` for a disk that does not take it.
    """
    measuring.manifest.write(folder.manifest)
    _show(folder, measuring)
    told = facts(measuring)
    files.write_text(folder.card, _page(told))
    return told


def facts(measuring: EvalSetup) -> dict[str, Any]:
    """Where the real clips come from, how many there are and what they are known by."""
    dataset, protocol, manifest = measuring.dataset, measuring.protocol, measuring.manifest
    inventory: Inventory | None = getattr(dataset, "inventory", None)
    real = manifest.places(0, "real")
    return {
        "dataset": dataset.name,
        "layout": inventory.layout if inventory else "made on demand",
        "copy": inventory.copy if inventory else "the only one",
        "fingerprint": dataset.fingerprint,
        "splits": {split: _split(measuring, split, inventory) for split in SPLITS[protocol.split]},
        "draws": manifest.draws,
        "clips": len(real),
        "spare": len(manifest.places(0, "spare")),
        "videos": len({(place.split, place.video) for place in real}),
        "manifest": manifest.sha256,
        "note": getattr(dataset, "note", ""),
    }


def _split(measuring: EvalSetup, split: Any, inventory: Inventory | None) -> dict[str, int]:
    found = {"clips": measuring.dataset.size(split)}
    if inventory and split in inventory.splits:
        found["videos"] = len(inventory.splits[split])
    if inventory and split in inventory.listed:
        found["listed"] = len(inventory.listed[split])
    return found


def _show(folder: RunFolder, measuring: EvalSetup) -> None:
    places = measuring.manifest.places(0, "real")[:NUM_PREVIEW]
    clips, captions = shown(measuring.dataset, places)
    rows = zip(places, captions, strict=True)
    named = [printable(f"{place.video} from {place.start}: {text}") for place, text in rows]
    video.write_preview(folder.samples / "real", clips, named)


def _page(told: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    counts = {name: ", ".join(f"{n:,} {of}" for of, n in there.items()) for name, there in told["splits"].items()}
    drawn = f", in each of {told['draws']} draws" * (told["draws"] > 1)
    rows = {
        "layout": told["layout"],
        "copy": told["copy"],
        **{f"split {name}": text for name, text in counts.items()},
        "scored": f"{told['clips']:,} clips of {told['videos']:,} videos{drawn}",
        "for the floor": f"{told['spare']:,} other clips",
        "fingerprint": f"`{told['fingerprint']}`",
        "manifest.csv": f"`{told['manifest']}` (SHA-256)",
        "note": told["note"] or "none",
    }
    table = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(
        [
            f"# Real clips: {told['dataset']}",
            "",
            "| | |",
            "|:--|:--|",
            *table,
            "",
            "Look at them: `samples/real/sheet.png`. Score the same clips again: `--manifest manifest.csv`.",
            "",
        ]
    )
