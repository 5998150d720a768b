"""Clips made elsewhere, as the generated side of a score, with their captions.

`vfbench.clips.caption_file` has the formats of a file of prompts, such as a line for each clip:

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

from vfbench import plugins
from vfbench.clips import (
    ClipFolder,
    class_caption,
    content_hash,
    decoder_versions,
    measure_all,
    natural_key,
    read_clips,
    require_frame_sizes,
    resolution,
)
from vfbench.clips.caption_file import read_captions
from vfbench.clips.text import first_few
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Clips, ClipShape, Features, Request, Split, WeightStatus
from vfbench.plugins import Spec
from vfbench.protocol.protocol import Protocol, frames_needed

CLASS = "clip"  # of clips without a class


class GivenClips:
    """Dataset of the clips in a folder, all in split `train`.

    Its clips are cut to the frames that the protocol scores. They are never resized.
    """

    name = "made"

    def __init__(self, folder: ClipFolder, protocol: Protocol, captions: Sequence[str]) -> None:
        self.folder, self._protocol = folder, protocol
        self.shape = ClipShape(protocol.frames, protocol.height, protocol.width)
        self.classes: tuple[str, ...] = folder.classes or (CLASS,)
        self.words: tuple[str, ...] = tuple(sorted({word for caption in captions for word in caption.split()}))
        self._captions = tuple(captions)

    def size(self, split: Split) -> int:
        """Number of clips: all in `train`, none in `test`."""
        return len(self.folder) if split == "train" else 0

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Clips:
        """The scored frames of the clips at `indices`, uint8 (B, T, 3, H, W).

        Raises `MissingData` naming a clip that is damaged, too short or of another resolution than the first.
        """
        clips = _scored_frames(self.folder, indices, self._protocol)
        height, width = clips.shape[-2:]
        if (height, width) != (self.shape.height, self.shape.width):
            raise MissingData(
                f"{self.folder.root}: {self.folder.entries[indices[0]].name} has {width}x{height} pixels, the first "
                f"clip {self.shape.width}x{self.shape.height}; resize all to one size, or list some in --list FILE"
            )
        return clips.to(device)

    def labels(self, split: Split, indices: Sequence[int]) -> list[int]:
        """The class of each clip, an index into `classes`."""
        return [self.classes.index(self.folder.entries[index].class_name or CLASS) for index in indices]

    def captions(self, split: Split, indices: Sequence[int]) -> list[str]:
        """The caption of each clip; empty where none is known."""
        return [self._captions[index] for index in indices]

    def requests(self) -> list[Request]:
        """One request per clip, with its label and caption; the seed is 0, since it is not known."""
        indices = range(len(self.folder))
        rows = zip(indices, self.labels("train", indices), self._captions, strict=True)
        return [Request(index, 0, label, caption) for index, label, caption in rows]

    def parts(self, size: int) -> Iterator[tuple[GivenClips, range]]:
        """All clips in order, up to `size` at a time: a dataset of them, and their indices in it.

        Each dataset holds only its own clips, so its fingerprint stays when other clips change. Clips of array files
        stay in one dataset: a file would be hashed once for every part of it.
        """
        for start in range(0, len(self.folder), size):
            indices = range(start, min(start + size, len(self.folder)))
            if self.folder.kind == "arrays":
                yield self, indices
            else:
                part = slice(indices.start, indices.stop)
                folder = replace(self.folder, entries=self.folder.entries[part])
                yield GivenClips(folder, self._protocol, self._captions[part]), range(len(indices))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the clips, their captions, the decoder and which frames are taken."""
        frames = f"{self.shape}/{self._protocol.fake_stride}/{self._protocol.drop_first}"
        parts = [frames, decoder_versions(self.folder), self.content_hash, *self._captions]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @cached_property
    def content_hash(self) -> str:
        """`vfbench.clips.content_hash` of the clips."""
        return content_hash(self.folder)


def clip_captions(folder: ClipFolder, prompts: Path | None, *, listed: bool) -> tuple[str, ...]:
    """The caption of each clip: its prompt, else the name of its class; empty without either.

    With `listed`, a list names the clips that count, so the file may hold prompts of others. Raises `MissingData`
    naming a clip without a prompt, or a prompt without a clip: that clip would be missing from the score.
    """
    if prompts is None:
        return tuple(class_caption(entry.class_name) for entry in folder.entries) if folder.classes else ()
    names = [entry.name for entry in folder.entries]
    captions = read_captions(prompts, "prompt", names)
    if uncaptioned := [name for name in names if name not in captions]:
        raise MissingData(
            f"{prompts}: no prompt for {len(uncaptioned):,} of {len(names):,} clips: {first_few(uncaptioned)}; "
            f"name each by its path below the folder, such as {uncaptioned[0]}"
        )
    if (missing := sorted(captions.keys() - set(names), key=natural_key)) and not listed:
        raise MissingData(
            f"{prompts}: {len(missing):,} prompts are of clips that {folder.root} does not hold: {first_few(missing)}; "
            "make these clips, or name those that count by --list FILE"
        )
    return tuple(captions[name] for name in names)


def require_fit(folder: ClipFolder, protocol: Protocol, real: Spec) -> None:
    """Raise `UserError` where clips do not have the protocol's resolution, or too few frames.

    The message names the option of the dataset `real` that gives real clips of that resolution. Raises `MissingData`
    naming clips of another size than the first, by the headers of all files. Also raises the errors of reading the
    first clip: `MissingData` for damage, `UserError` for bytes that are all 0 or 1.
    """
    height, width = resolution(folder)
    if (height, width) != (protocol.height, protocol.width):
        actual = {"height": height, "width": width, **({"geometry": "squash"} if height != width else {})}
        raise UserError(
            f"{folder.root}: the clips have {width}x{height} pixels (width x height), and protocol {protocol.name} "
            f"scores {protocol.width}x{protocol.height}; none is resized here: make clips of that size"
            f"{_real_like(real, actual)}"
        )
    stride, drop_first = protocol.fake_stride, protocol.drop_first
    need, measures = frames_needed(protocol.frames, stride, drop_first), measure_all(folder.entries)
    clips = list(zip(folder.entries, measures, strict=True))
    if odd := [f"{each.name} ({w}x{h})" for each, (_, h, w) in clips if (h, w) != (height, width)]:
        raise MissingData(
            f"{folder.root}: {len(odd):,} of {len(folder):,} clips lack the {width}x{height} pixels of the first: "
            f"{first_few(odd)}; resize all to one size, or list the clips of one size in --list FILE"
        )
    if short := [each.name for each, (frames, _, _) in clips if frames < need]:
        raise UserError(
            f"{folder.root}: {len(short):,} of {len(folder):,} clips have fewer than the {need} frames that protocol "
            f"{protocol.name} needs: {first_few(short)}; make them longer, or list the others in --list FILE"
        )
    require_frame_sizes(folder, range(drop_first, need, stride))
    _scored_frames(folder, [0], protocol)


def _scored_frames(folder: ClipFolder, indices: Sequence[int], protocol: Protocol) -> Clips:
    """The frames of generated clips that a protocol scores, uint8 (B, T, 3, H, W)."""
    stride, drop_first = protocol.fake_stride, protocol.drop_first
    return read_clips(folder, indices, frames=protocol.frames, stride=stride, drop_first=drop_first)


def _real_like(real: Spec, options: Mapping[str, Any]) -> str:
    """The flag that asks for real clips like these, where the dataset can make them."""
    possible = options.keys() <= plugins.options("dataset", real.name).keys()
    return f', or have real clips like them: --real "{real.merged(options)}"' if possible else ""


HASH = "hash"
HASH_WORDS = 4  # numbers of 24 bits, which float32 holds exactly


class ClipHash:
    """Extractor of a hash of each clip: identical clips have identical features.

    Output `hash` (4): the first 96 bits of the SHA-256 of the scored frames.
    """

    name = "bytes"
    fingerprint = hashlib.sha256(b"sha256/96").hexdigest()
    weight_status: WeightStatus = "unpublished"
    outputs: Mapping[str, int] = {HASH: HASH_WORDS}

    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        """Float32 (B, 4) on the CPU."""
        digests = [hashlib.sha256(clip.contiguous().numpy().tobytes()).digest() for clip in clips.cpu()]
        rows = [[int.from_bytes(digest[3 * i : 3 * i + 3], "little") for i in range(HASH_WORDS)] for digest in digests]
        return {HASH: torch.tensor(rows, dtype=torch.float32)}
