"""Clips made elsewhere, as a model: each request of a run is answered with a clip that was made for it.

    python -m vfbench run --model "folder(root='their_clips', prompts='prompts.tsv')" --dataset ucf101

A file has a line for each clip: its path below the folder, a tab, and what the clip was made for: its prompt
(`prompts`), the name of its class (`classes`), or the seed of its request (`seeds`, as `interfaces.derive_seed` gives
it for the run's seed and the number of the clip). Of several clips for one prompt or class, the first request gets the
first in the file, the next request the next.

`vfbench score` is for clips that answer nobody's requests: it scores all that a folder holds, as many as there are.
This is for those that do: number, prompts and seeds are the run's, so that the row compares with those of models that
ran here, pair by pair, and a clip that is not there is an error. The clips are neither resized nor re-timed, as in
`vfbench score`, and read by the same code.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from torch import nn

from vfbench import clips
from vfbench.clips import ClipFolder
from vfbench.clips.caption_file import told
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import BuildContext, Clips, ClipShape, Conditioning, Dataset, Request
from vfbench.utils.files import file_sha256

WAYS: Mapping[str, Conditioning] = {"prompts": "text", "classes": "class", "seeds": "none"}
SINGULAR = {"prompts": "prompt", "classes": "class", "seeds": "seed"}


def build(
    setting: BuildContext,
    *,
    root: str | None = None,
    prompts: str | None = None,
    classes: str | None = None,
    seeds: str | None = None,
    frames: int | None = None,
    reuse: bool = False,
) -> Answers:
    """The clips of a folder as a sampler; exactly one of `prompts`, `classes` and `seeds` names the file.

    The clips are `frames` long, from their first on; without it, as long as the shortest. `reuse` lets a clip answer
    several requests where there are too few: the scores are then those of fewer clips than they say, and the model's
    name in every result shows it. Raises `UserError` for options that make no sense, and `MissingData` naming what is
    missing: a file, a clip that the file names, the requests without a clip, a clip with fewer than `frames` frames.
    """
    if setting.checkpoint is not None:
        raise UserError("folder reads the clips that root holds: leave out --checkpoint")
    files = {"prompts": prompts, "classes": classes, "seeds": seeds}
    given = {way: file for way, file in files.items() if file is not None}
    if root is None or len(given) != 1:
        raise UserError(
            "folder: which clips answer which requests? Give folder(root='FOLDER', prompts='FILE'), with a line for "
            "each clip: path below the folder, a tab, its prompt; or classes= or seeds= in place of prompts="
        )
    ((way, file),) = given.items()
    table = Path(file).expanduser()
    lines = told(table, SINGULAR[way])
    found = _listed(clips.detect(root), list(lines), table)
    sampler = Answers(found, lines, way, setting.dataset, _shape(found, frames), reuse=reuse, table=table)
    if asked := setting.requests:
        sampler.answer(asked)
        sampler.tell(asked)
    return sampler


class Answers:
    """Found clips behind the common interface. A request that was answered once keeps its clip."""

    networks: ClassVar[Mapping[str, nn.Module]] = {}

    def __init__(
        self,
        found: ClipFolder,
        lines: Mapping[str, str],
        way: str,
        dataset: Dataset,
        shape: ClipShape,
        *,
        reuse: bool,
        table: Path,
    ) -> None:
        self.found, self.shape, self.reuse, self.table = found, shape, reuse, table
        self.conditioning = WAYS[way]
        self._way, self._classes = way, dataset.classes
        self._clips: dict[str, list[int]] = {}
        for place, entry in enumerate(found.entries):
            self._clips.setdefault(lines[entry.name], []).append(place)
        self._used: Counter[str] = Counter()
        self._answers: dict[tuple[int, int], int] = {}

    @cached_property
    def weights(self) -> str:
        """SHA-256 of the clips, of what is said of them and of the decoder: there is no checkpoint."""
        parts = [clips.content_hash(self.found), file_sha256(self.table), clips.decoder(self.found)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def answer(self, requests: Sequence[Request]) -> None:
        """Give each request that has none a clip of its own; raises `MissingData` naming those that get none."""
        lost = [request for request in requests if not self._answered(request)]
        if lost:
            named = clips.few([f"{request.index} ({self._key(request)})" for request in lost])
            raise MissingData(
                f"{self.table} has no clip for {len(lost):,} of {len(requests):,} requests: {named}; make these clips "
                f"and give each a line, its path, a tab, the {SINGULAR[self._way]}"
                + ("" if self.reuse else "; or say reuse=True, which lets a clip answer several requests alike")
            )

    def _answered(self, request: Request) -> bool:
        """Whether the request has a clip, or gets one now."""
        key = self._key(request)
        there, used = self._clips.get(key, []), self._used[key]
        if (request.seed, request.index) in self._answers:
            return True
        if not there or (used >= len(there) and not self.reuse):
            return False
        self._answers[request.seed, request.index] = there[used % len(there)]
        self._used[key] += 1
        return True

    def _key(self, request: Request) -> str:
        """What the file must say of a clip that answers the request."""
        if self._way == "classes":
            return self._classes[request.label]
        return request.prompt if self._way == "prompts" else str(request.seed)

    def tell(self, requests: Sequence[Request]) -> None:
        """Say how many clips answer nothing, and how many answers are repeated."""
        used = len(set(self._answers.values()))
        if left := len(self.found) - used:
            print(
                f"note: {left:,} of {len(self.found):,} clips of {self.found.root} answer no request", file=sys.stderr
            )
        if again := len(requests) - used:
            print(f"warning: {again:,} of {len(requests):,} requests get a clip that others got", file=sys.stderr)

    def sample(self, requests: Sequence[Request]) -> Clips:
        """The clips that answer the requests, uint8 (B, T, 3, H, W).

        Requests that the run has not told of before get theirs in the order in which they come. Raises `MissingData`
        naming requests without a clip, and a clip that is damaged or of another resolution than the first.
        """
        self.answer(requests)
        places = [self._answers[request.seed, request.index] for request in requests]
        return clips.clips(self.found, places, frames=self.shape.frames)


def _listed(found: ClipFolder, names: Sequence[str], table: Path) -> ClipFolder:
    """The clips that the file names, in its order."""
    there = {entry.name: entry for entry in found.entries}
    if lost := [name for name in names if name not in there]:
        raise MissingData(
            f"{table}: {len(lost):,} of {len(names):,} clips are not in {found.root}: {clips.few(lost)}; write paths "
            f"relative to that folder, such as {found.entries[0].name}"
        )
    if not names:
        raise MissingData(f"{table} names no clip; write a line for each: path below the folder, a tab, what it is for")
    return replace(found, entries=tuple(there[name] for name in names))


def _shape(found: ClipFolder, frames: int | None) -> ClipShape:
    if frames is not None and frames < 1:
        raise UserError(f"folder(frames={frames}): frames must be at least 1")
    if frames is not None and (short := clips.too_short(found, frames=frames)):
        raise MissingData(
            f"{found.root}: {len(short):,} of {len(found):,} clips have fewer than {frames} frames: "
            f"{clips.few(short)}; make them longer, or ask for fewer frames"
        )
    return ClipShape(frames or min(map(clips.count, found.entries)), *clips.resolution(found))
