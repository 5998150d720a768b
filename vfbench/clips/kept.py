"""Kept clips of two recipes, paired by the request that each clip answers.

A side is the folder of a run made with `--keep-clips`, a folder of `vfbench generate`, or any folder of clips. Clips of
runs and of `generate` are paired by the seed of their request, those of other folders by their names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from vfbench.clips.layout import ClipFile, ClipFolder, detect
from vfbench.clips.read import count_frames, read_clip
from vfbench.clips.scan import GENERATED
from vfbench.clips.text import first_few
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import derive_seed
from vfbench.utils.files import read_json
from vfbench.utils.tensor_files import read_metadata, read_tensors

RUN_FILE = "run.json"
KEEP = "repeat its command with --keep-clips and another --output"
Clip = UInt8[Tensor, "frames 3 height width"]


@runtime_checkable
class KeptClips(Protocol):
    """Clips of one recipe: their folder, and a key for each that is equal for clips of one request."""

    @property
    def folder(self) -> Path:
        """Folder that the user gave."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """Key of each clip: the seed of its request, or its name."""
        ...

    def asked(self, index: int) -> str:
        """Prompt, or the source of all prompts, of a clip; empty where not known."""
        ...

    def read(self, index: int) -> Clip:
        """Clip at an index, uint8 (T, 3, H, W); raises `MissingData` naming one that cannot be read."""
        ...


@dataclass(frozen=True)
class RunClips:
    """Clips in the chunks of a run, in the order of its requests."""

    folder: Path
    run: str  # id of the run
    keys: Sequence[str]  # seed of each request
    prompts: str  # split and fingerprint of the real clips whose labels and captions all requests have
    chunks: Sequence[tuple[Path, range]]  # files, and the numbers of the requests of each
    _last: dict[int, Tensor] = field(default_factory=dict)  # the chunk that was read last, by its number

    @classmethod
    def of(cls, folder: Path) -> RunClips:
        """Clips of a run by its record; raises `UserError` for the folder of a score, which keeps none."""
        record = read_json(folder / RUN_FILE)
        determines, run = record.get("determines"), record.get("id")
        if not isinstance(determines, dict) or not isinstance(run, str):
            raise MissingData(f"{folder / RUN_FILE} is damaged: repeat the command of the run with another --output")
        seed, protocol = determines.get("seed"), determines.get("protocol")
        if type(seed) is not int:
            raise UserError(f"{folder} is a score of clips made elsewhere: give the folder of those clips")
        drawn = [protocol.get(name) for name in ("prompts", "data_fingerprint")] if isinstance(protocol, dict) else []
        chunks = _chunks(folder)
        keys = [str(derive_seed(seed, index)) for _, requests in chunks for index in requests]
        return cls(folder, run, keys, " of ".join(map(str, drawn)), chunks)

    def asked(self, index: int) -> str:
        """Origin of all labels and captions."""
        return self.prompts

    def read(self, index: int) -> Clip:
        """Clip of a request."""
        number = next(number for number, (_, requests) in enumerate(self.chunks) if index in requests)
        if number not in self._last:
            self._last.clear()
            self._last[number] = self._read_chunk(self.chunks[number][0])
        return self._last[number][index - self.chunks[number][1].start]

    def _read_chunk(self, path: Path) -> Tensor:
        try:
            tensors, _ = read_tensors(path, run=self.run)
        except ValueError as error:
            raise MissingData(f"{path} cannot be used: {error}; repeat the command of the run to mend it") from error
        if "clips" not in tensors:
            raise MissingData(f"{self.folder} keeps features alone, and no clips: {KEEP}")
        return tensors["clips"]


def _chunks(folder: Path) -> list[tuple[Path, range]]:
    """Files of the chunks of a run, with their requests; raises `MissingData` where one is missing."""
    chunks = [(path, _requests(path)) for path in sorted((folder / "chunks").glob("*.safetensors"))]
    expected = 0
    for path, requests in chunks:
        if requests.start != expected:
            raise MissingData(f"{path}, or the chunk before it, is missing or damaged: repeat the command of the run")
        expected = requests.stop
    if not chunks:
        raise MissingData(f"{folder} has no clips (it has no chunks): {KEEP}")
    return chunks


def _requests(chunk: Path) -> range:
    """Numbers of the requests that the metadata of a chunk name; empty where they are damaged."""
    match = re.fullmatch(r"(\d{1,9})-(\d{1,9})", read_metadata(chunk).get("requests", ""))
    return range(int(match[1]), int(match[2]) + 1) if match else range(-1, -1)


@dataclass(frozen=True)
class FolderClips:
    """Clips in files; `prompts` has that of each where known."""

    folder: Path
    files: ClipFolder
    keys: Sequence[str]
    prompts: Sequence[str] = ()

    def asked(self, index: int) -> str:
        """Prompt of a clip; empty where not known."""
        return self.prompts[index] if self.prompts else ""

    def read(self, index: int) -> Clip:
        """All frames of a clip."""
        return read_clip(self.files, index, frames=count_frames(self.files.entries[index]))


def kept_clips(folder: Path) -> KeptClips:
    """Clips of a folder of any of the three kinds; raises `MissingData` for a folder without clips."""
    if (folder / GENERATED).is_file():
        return _generated(folder)
    if (folder / RUN_FILE).is_file():
        return RunClips.of(folder)
    files = detect(folder)
    if files.kind == "features":
        raise UserError(f"{folder} holds features, not clips: give a folder of clips")
    return FolderClips(folder, files, clip_names(files))


def _generated(folder: Path) -> FolderClips:
    """Clips that `generate` wrote, by the seeds and prompts in its record."""
    record, files = read_json(folder / GENERATED), detect(folder / "clips")
    try:
        entries = {str(each["name"]): (str(each["seed"]), str(each["asked"])) for each in record["clips"]}
        missing = sorted({entry.name for entry in files.entries} ^ entries.keys())
        requests = [] if missing else [entries[entry.name] for entry in files.entries]
    except (KeyError, TypeError) as error:
        raise MissingData(f"{folder / GENERATED} is damaged ({error!r}): make the clips again") from error
    if missing:
        raise MissingData(f"{folder}: {first_few(missing)}: clips and {GENERATED} differ; make the clips again")
    return FolderClips(folder, files, [seed for seed, _ in requests], [asked for _, asked in requests])


def clip_names(files: ClipFolder) -> list[str]:
    """Names of clips without what differs between formats: the suffix, and the name of a single array file."""
    rows = Counter(entry.path for entry in files.entries)
    return [_clip_name(entry, rows[entry.path], alone=len(rows) == 1) for entry in files.entries]


def _clip_name(entry: ClipFile, rows: int, *, alone: bool) -> str:
    if entry.kind == "frames":  # a folder
        return entry.name
    if entry.kind == "arrays":
        stem = entry.name.rpartition("[")[0].rpartition(".")[0]
        return str(entry.row) if alone and rows > 1 else f"{stem}[{entry.row}]" if rows > 1 else stem
    return entry.name.rpartition(".")[0]


def pairs(a: KeptClips, b: KeptClips) -> list[tuple[int, int]]:
    """Indices of the clips of both sides that answer one request, in the order of A.

    Raises `UserError` where the sides share no request, or a request has two prompts. For folders of clips, raises
    `MissingData` naming clips without a partner; of runs and of folders of `generate`, such clips are left out.
    """
    places = {key: index for index, key in enumerate(b.keys)}
    matched = [(index, places[key]) for index, key in enumerate(a.keys) if key in places]
    by_seed = not any(isinstance(each, FolderClips) and not each.prompts for each in (a, b))
    if not matched:
        advice = "make both with one --seed and --dataset" if by_seed else "give each pair of clips one name"
        raise UserError(f"{a.folder} and {b.folder} have no request in common: {advice}")
    if not by_seed and len(matched) < max(len(a.keys), len(b.keys)):
        missing = sorted(set(a.keys) ^ set(b.keys))
        raise MissingData(
            f"{a.folder} and {b.folder}: {len(missing):,} clips have no partner ({first_few(missing)}): make these, or "
            "take them out of the other folder"
        )
    if type(a) is type(b):
        for first, second in matched:
            if (texts := (a.asked(first), b.asked(second)))[0] != texts[1]:
                raise UserError(
                    f"{a.folder} and {b.folder} were asked for different things at request {a.keys[first]} "
                    f"('{texts[0]}' and '{texts[1]}'): make both with one --dataset and --prompt"
                )
    return matched
