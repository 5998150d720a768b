"""Clips that others made, as the generated side of a score: what they were asked to show, and whether they fit.

A file of prompts has a line for each clip, its path below the folder, a tab and the prompt, in UTF-8:

    cats/0001.mp4 <TAB> a cat jumps over a wall
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from vfbench import clips as folders
from vfbench import plugins
from vfbench.clips import ClipFolder
from vfbench.clips.caption_file import told as read_told
from vfbench.clips.text import few
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Clips, ClipShape, Features, Request, Split, WeightStatus
from vfbench.plugins import Spec
from vfbench.protocol.protocol import Protocol, frames_needed

CLASS = "clip"  # of clips without a class


class GivenClips:
    """Found clips as a dataset, all in split `train`: the frames that a protocol scores of them, never resized."""

    name = "made"

    def __init__(self, found: ClipFolder, protocol: Protocol, captions: Sequence[str]) -> None:
        self.found, self._protocol = found, protocol
        self.shape = ClipShape(protocol.frames, protocol.height, protocol.width)
        self.classes: tuple[str, ...] = found.groups or (CLASS,)
        self.words: tuple[str, ...] = tuple(sorted({word for caption in captions for word in caption.split()}))
        self._captions = tuple(captions)

    def size(self, split: Split) -> int:
        """How many clips were found; `test` has none."""
        return len(self.found) if split == "train" else 0

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Clips:
        """The scored frames of the clips at `indices`, uint8 (B, T, 3, H, W).

        Raises `MissingData` naming a clip that is damaged, too short or of another resolution than the first.
        """
        clips = _taken(self.found, indices, self._protocol)
        height, width = clips.shape[-2:]
        if (height, width) != (self.shape.height, self.shape.width):
            raise MissingData(
                f"{self.found.root}: {self.found.entries[indices[0]].name} has {width}x{height} pixels, the first clip "
                f"{self.shape.width}x{self.shape.height}; bring all to one, or name those of one by --list FILE"
            )
        return clips.to(device)

    def labels(self, split: Split, indices: Sequence[int]) -> list[int]:
        """The class of each clip, an index into `classes`."""
        return [self.classes.index(self.found.entries[index].group or CLASS) for index in indices]

    def captions(self, split: Split, indices: Sequence[int]) -> list[str]:
        """What each clip was asked to show; empty where nobody says."""
        return [self._captions[index] for index in indices]

    def requests(self) -> list[Request]:
        """All clips as answers to requests; nobody knows their seeds."""
        everyone = range(len(self.found))
        described = zip(everyone, self.labels("train", everyone), self._captions, strict=True)
        return [Request(index, 0, label, caption) for index, label, caption in described]

    def parts(self, size: int) -> Iterator[tuple[GivenClips, range]]:
        """All clips in order, as datasets with the indices that count in each, up to `size` clips at a time.

        Each knows only its own clips, so that its fingerprint outlasts a change of others. Those of arrays stay whole:
        a file would be hashed once for every part of it.
        """
        for start in range(0, len(self.found), size):
            taken = range(start, min(start + size, len(self.found)))
            if self.found.kind == "arrays":
                yield self, taken
            else:
                found = replace(self.found, entries=self.found.entries[taken.start : taken.stop])
                yield GivenClips(found, self._protocol, self._captions[taken.start : taken.stop]), range(len(taken))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the clips, their captions, the decoder and which frames are taken."""
        taken = f"{self.shape}/{self._protocol.fake_stride}/{self._protocol.drop_first}"
        made_of = [taken, folders.decoder(self.found), self.manifest, *self._captions]
        return hashlib.sha256("\n".join(made_of).encode()).hexdigest()

    @cached_property
    def manifest(self) -> str:
        """`vfbench.clips.content_hash` of the clips."""
        return folders.content_hash(self.found)


def captions(found: ClipFolder, prompts: Path | None, *, listed: bool) -> tuple[str, ...]:
    """What each clip was asked to show: its prompt, else its class in words; empty without either.

    `listed`: a list says which clips count, so that the file may have prompts of others. Raises `MissingData` naming a
    clip without a prompt, or a prompt without a clip: a clip that is not there would be missing from the score.
    """
    if prompts is None:
        return tuple(folders.in_words(entry.group) for entry in found.entries) if found.groups else ()
    told = read_told(prompts, "prompt")
    names = [entry.name for entry in found.entries]
    if lost := [name for name in names if name not in told]:
        raise MissingData(
            f"{prompts}: no prompt for {len(lost):,} of {len(names):,} clips: {few(lost)}; "
            "write a line for each: its path below the folder, a tab, the prompt"
        )
    if (missing := sorted(told.keys() - set(names), key=folders.natural)) and not listed:
        raise MissingData(
            f"{prompts}: {len(missing):,} prompts are of clips that {found.root} does not hold: {few(missing)}; "
            "make these clips, or name those that count by --list FILE"
        )
    return tuple(told[name] for name in names)


def require_fit(found: ClipFolder, protocol: Protocol, real: Spec) -> None:
    """Raise `UserError` where clips are not of the protocol's resolution, or too short for its frames.

    The message says how the dataset `real` could be asked for clips of that kind instead. Raises also what reading the
    first clip does: `MissingData` for damage, `UserError` for bytes that are all 0 or 1.
    """
    height, width = folders.resolution(found)
    if (height, width) != (protocol.height, protocol.width):
        like = {"height": height, "width": width, **({"geometry": "squash"} if height != width else {})}
        raise UserError(
            f"{found.root}: the clips have {width}x{height} pixels (width x height), and protocol {protocol.name} "
            f"scores {protocol.width}x{protocol.height}; none is resized here: make clips of that size"
            f"{_instead(real, like)}"
        )
    stride, drop_first = protocol.fake_stride, protocol.drop_first
    if short := folders.too_short(found, frames=protocol.frames, stride=stride, drop_first=drop_first):
        need = frames_needed(protocol.frames, stride, drop_first)
        raise UserError(
            f"{found.root}: {len(short):,} of {len(found):,} clips have fewer than the {need} frames that protocol "
            f"{protocol.name} needs: {few(short)}; make them longer, or name the others by --list FILE"
        )
    _taken(found, [0], protocol)


def _taken(found: ClipFolder, indices: Sequence[int], protocol: Protocol) -> Clips:
    """The frames that a protocol scores of generated clips."""
    stride, drop_first = protocol.fake_stride, protocol.drop_first
    return folders.clips(found, indices, frames=protocol.frames, stride=stride, drop_first=drop_first)


def _instead(real: Spec, options: Mapping[str, Any]) -> str:
    """The flag that asks for other real clips, if the dataset can make them."""
    able = options.keys() <= plugins.options("dataset", real.name).keys()
    return f', or have real clips like them: --real "{real.merged(options)}"' if able else ""


HASH = "hash"
PARTS = 4  # numbers of 24 bits, each of which a float32 holds exactly


class Bytes:
    """Tells clips by their bytes, behind the interface of a feature network, so that what it tells is kept like theirs.

    `hash` (4): the first 96 bits of the SHA-256 of the frames that are scored.
    """

    name = "bytes"
    fingerprint = hashlib.sha256(b"sha256/96").hexdigest()
    weight_status: WeightStatus = "unpublished"
    outputs: Mapping[str, int] = {HASH: PARTS}

    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """Float32 (B, 4) on the CPU."""
        digests = [hashlib.sha256(clip.contiguous().numpy().tobytes()).digest() for clip in clips.cpu()]
        rows = [[int.from_bytes(digest[3 * i : 3 * i + 3], "little") for i in range(PARTS)] for digest in digests]
        return {HASH: torch.tensor(rows, dtype=torch.float32)}
