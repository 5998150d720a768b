"""Clips made elsewhere as a model: each request of a run gets a clip that was made for it.

    python -m vfbench run --model "folder(root='their_clips', prompts='prompts.tsv')" --dataset ucf101

A file assigns the clips. It has one line per clip: the path below the folder, a tab, and the clip's prompt (`prompts`),
class name (`classes`) or request seed (`seeds`, as `interfaces.derive_seed` gives for the run's seed and the number of
the clip). Of several clips with one prompt or class, the first request gets the first in the file, the next request the
next.

`vfbench score` is for clips without requests: it scores all clips of a folder, whatever their number. Here number,
prompts and seeds are the run's, so that the row compares pair by pair with models that ran here, and a missing clip is
an error. As in `vfbench score`, and by the same code, clips are read without resizing or changing their frame rate.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

from torch import nn

from vfbench import clips
from vfbench.clips import ClipFolder
from vfbench.clips.caption_file import read_captions
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import BuildContext, Clips, ClipShape, Conditioning, Dataset, Request
from vfbench.utils import console
from vfbench.utils.files import file_sha256

CONDITIONING: Mapping[str, Conditioning] = {"prompts": "text", "classes": "class", "seeds": "none"}
SINGULAR = {"prompts": "prompt", "classes": "class", "seeds": "seed"}


def build(
    context: BuildContext,
    *,
    root: Annotated[str | None, "Folder of the clips."] = None,
    prompts: Annotated[
        str | None, "File with the prompt of each clip, as TSV (path, a tab, its prompt), CSV or JSON."
    ] = None,
    classes: Annotated[
        str | None, "File with the class name of each clip, as TSV (path, a tab, its class name), CSV or JSON."
    ] = None,
    seeds: Annotated[
        str | None, "File with the request seed of each clip, as TSV (path, a tab, its request seed), CSV or JSON."
    ] = None,
    frames: Annotated[int | None, "Frames to take from each clip; by default as many as the shortest has."] = None,
    reuse: Annotated[bool, "Assign a clip to several requests where clips are too few."] = False,
) -> FolderSampler:
    """The clips of the folder `root` as a sampler; one of `prompts`, `classes` and `seeds` names the assignment file.

    Each clip gives its first `frames` frames; by default as many as the shortest clip has. `reuse` assigns a clip to
    several requests where clips are too few: the scores are then of fewer clips than they state, and the model's name
    in every result shows the option. Raises `UserError` for invalid options, and `MissingData` naming what is missing:
    a file, a clip that the file names, requests without a clip, a clip with fewer than `frames` frames.
    """
    if context.checkpoint is not None:
        raise UserError("folder reads the clips that root holds: leave out --checkpoint")
    options = {"prompts": prompts, "classes": classes, "seeds": seeds}
    assignments = {key: file for key, file in options.items() if file is not None}
    if root is None or len(assignments) != 1:
        raise UserError(
            "folder needs clips and one file that assigns them to requests: give folder(root='FOLDER', "
            "prompts='FILE'), with a line per clip: path below the folder, a tab, its prompt; or classes= or seeds= in "
            "place of prompts="
        )
    ((key, file),) = assignments.items()
    table = Path(file).expanduser()
    all_clips = clips.detect(root)
    keys = read_captions(table, SINGULAR[key], [entry.name for entry in all_clips.entries])
    folder = _listed_clips(all_clips, list(keys), table)
    sampler = FolderSampler(folder, keys, key, context.dataset, _shape(folder, frames), reuse=reuse, table=table)
    if context.requests:
        sampler.assign(context.requests)
        sampler.print_usage(context.requests)
    return sampler


class FolderSampler:
    """Clips of a folder as a sampler, by their prompt, class name or seed; a request keeps the clip it once got."""

    networks: ClassVar[Mapping[str, nn.Module]] = {}

    def __init__(
        self,
        folder: ClipFolder,
        keys: Mapping[str, str],
        key: str,
        dataset: Dataset,
        shape: ClipShape,
        *,
        reuse: bool,
        table: Path,
    ) -> None:
        self.folder, self.shape, self.reuse, self.table = folder, shape, reuse, table
        self.conditioning = CONDITIONING[key]
        self._key, self._classes = key, dataset.classes
        self._clips: dict[str, list[int]] = {}
        for index, entry in enumerate(folder.entries):
            self._clips.setdefault(keys[entry.name], []).append(index)
        self._num_used: Counter[str] = Counter()
        self._assigned: dict[tuple[int, int], int] = {}

    @cached_property
    def weights(self) -> str:
        """SHA-256 of clips, assignment file and decoder versions, in place of a checkpoint's."""
        parts = [clips.content_hash(self.folder), file_sha256(self.table), clips.decoder_versions(self.folder)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def assign(self, requests: Sequence[Request]) -> None:
        """Assign a clip to each request that has none; raises `MissingData` naming requests that get none."""
        missing = [request for request in requests if not self._assign(request)]
        if missing:
            examples = clips.first_few([f"{request.index} ({self._value(request)})" for request in missing])
            raise MissingData(
                f"{self.table} has no clip for {len(missing):,} of {len(requests):,} requests: {examples}; make these "
                f"clips and give each a line, its path, a tab, the {SINGULAR[self._key]}"
                + ("" if self.reuse else "; or give reuse=True, which assigns a clip to several requests")
            )

    def _assign(self, request: Request) -> bool:
        """Assign a clip to the request if it has none; False where none is left."""
        value = self._value(request)
        indices, num_used = self._clips.get(value, []), self._num_used[value]
        if (request.seed, request.index) in self._assigned:
            return True
        if not indices or (num_used >= len(indices) and not self.reuse):
            return False
        self._assigned[request.seed, request.index] = indices[num_used % len(indices)]
        self._num_used[value] += 1
        return True

    def _value(self, request: Request) -> str:
        """The prompt, class name or seed by which the file assigns a clip to the request."""
        if self._key == "classes":
            return self._classes[request.label]
        return request.prompt if self._key == "prompts" else str(request.seed)

    def print_usage(self, requests: Sequence[Request]) -> None:
        """Print the number of unused clips and of requests with a repeated clip to stderr, where not 0."""
        num_used, total = len(set(self._assigned.values())), len(self.folder)
        if unused := total - num_used:
            console.info(f"note: {unused:,} of {total:,} clips of {self.folder.root} are not used")
        if repeated := len(requests) - num_used:
            console.warn(f"{repeated:,} of {len(requests):,} requests get the clip of another")

    def sample(self, requests: Sequence[Request]) -> Clips:
        """The clips of the requests, uint8 (B, T, 3, H, W).

        New requests are assigned clips in their order. Raises `MissingData` naming requests without a clip, and a clip
        that is damaged or has another resolution than the first.
        """
        self.assign(requests)
        indices = [self._assigned[request.seed, request.index] for request in requests]
        return clips.read_clips(self.folder, indices, frames=self.shape.frames)


def _listed_clips(folder: ClipFolder, names: Sequence[str], table: Path) -> ClipFolder:
    """The clips that the file names, in its order."""
    entries = {entry.name: entry for entry in folder.entries}
    if missing := [name for name in names if name not in entries]:
        raise MissingData(
            f"{table}: {len(missing):,} of {len(names):,} clips are not in {folder.root}: {clips.first_few(missing)}; "
            f"write paths relative to that folder, such as {folder.entries[0].name}"
        )
    if not names:
        raise MissingData(f"{table} names no clip; write a line for each: path below the folder, a tab, what it is for")
    return replace(folder, entries=tuple(entries[name] for name in names))


def _shape(folder: ClipFolder, frames: int | None) -> ClipShape:
    if frames is not None and frames < 1:
        raise UserError(f"folder(frames={frames}): frames must be at least 1")
    if frames is not None and (short := clips.too_short(folder, frames=frames)):
        raise MissingData(
            f"{folder.root}: {len(short):,} of {len(folder):,} clips have fewer than {frames} frames: "
            f"{clips.first_few(short)}; make them longer, or ask for fewer frames"
        )
    return ClipShape(frames or min(map(clips.count_frames, folder.entries)), *clips.resolution(folder))
