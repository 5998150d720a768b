"""The dataset card of a run: the real clips that its numbers are scored against, to read, to look at, to repeat.

data.md        copy, counts and hashes
manifest.csv   every real clip, see `vfbench.clips.manifest`
samples/real   a few of them: a sheet, and an animated WebP
"""

from __future__ import annotations

from vfbench import video
from vfbench.clips.inventory import Inventory, inventory_of
from vfbench.interfaces import Split
from vfbench.pipeline.eval_setup import EvalSetup
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.generate import NUM_PREVIEW
from vfbench.pipeline.real_clips import preview_clips
from vfbench.protocol.protocol import SPLITS
from vfbench.report.result_parts import DataRecord
from vfbench.utils import escape, files, text


def write(folder: RunFolder, setup: EvalSetup) -> DataRecord:
    """Write the card into a run folder, and return its record for `results.json`.

    Raises `MissingData` naming a clip that cannot be read, and `BadEnvironment` for a disk that does not take it.
    """
    setup.manifest.write(folder.manifest)
    _show(folder, setup)
    record = describe(setup)
    files.write_text(folder.card, _page(record))
    return record


def describe(setup: EvalSetup) -> DataRecord:
    """Origin, number and hashes of the real clips."""
    dataset, protocol, manifest = setup.dataset, setup.protocol, setup.manifest
    inventory = inventory_of(dataset)
    real = manifest.places(0, "real")
    return DataRecord(
        dataset=dataset.name,
        layout=inventory.layout if inventory else "made on demand",
        copy=inventory.copy if inventory else "the only one",
        fingerprint=dataset.fingerprint,
        splits={split: _counts(setup, split, inventory) for split in SPLITS[protocol.split]},
        draws=manifest.draws,
        clips=len(real),
        spare=len(manifest.places(0, "spare")),
        videos=len({(place.split, place.video) for place in real}),
        manifest=manifest.sha256,
        note=setup.dataset_note,
    )


def _counts(setup: EvalSetup, split: Split, inventory: Inventory | None) -> dict[str, int]:
    """Number of clips, of videos and of officially listed videos of a split."""
    counts = {"clips": setup.dataset.size(split)}
    if inventory and split in inventory.splits:
        counts["videos"] = len(inventory.splits[split])
    if inventory and split in inventory.listed:
        counts["listed"] = len(inventory.listed[split])
    return counts


def _show(folder: RunFolder, setup: EvalSetup) -> None:
    places = setup.manifest.places(0, "real")[:NUM_PREVIEW]
    clips, captions = preview_clips(setup.dataset, places)
    rows = zip(places, captions, strict=True)
    named = [f"{place.video} from {place.start}: {text}" for place, text in rows]
    video.write_preview(folder.samples / "real", clips, named)


def _page(record: DataRecord) -> str:
    """The card as Markdown."""
    counts = {name: ", ".join(f"{n:,} {of}" for of, n in split.items()) for name, split in record.splits.items()}
    draws = f", in each of {record.draws} draws" if record.draws > 1 else ""
    rows = {
        "layout": escape.markdown(record.layout),
        "copy": escape.markdown(record.copy_),
        **{f"split {name}": text for name, text in counts.items()},
        "scored": f"{text.count(record.clips, 'clip')} of {text.count(record.videos, 'video')}{draws}",
        "for the floor": f"{record.spare:,} clips of other videos",
        "fingerprint": f"`{record.fingerprint}`",
        "manifest.csv": f"`{record.manifest}` (SHA-256)",
        "note": escape.markdown(record.note) or "none",
    }
    table = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(
        [
            f"# Real clips: {escape.markdown(record.dataset)}",
            "",
            "| | |",
            "|:--|:--|",
            *table,
            "",
            "Look at them: `samples/real/sheet.png`. Score the same clips again: `--manifest manifest.csv`.",
            "",
        ]
    )
