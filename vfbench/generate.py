"""Sampler + requests -> clips -> features, chunk by chunk, resumable and timed.

A clip needs no disk: its features are taken in the pass that makes it. Clips are kept when asked for, lossless. Where
memory is full, fewer clips are made or scored at once. That changes none of them but for rounding: at another
batch size a network adds up its numbers in another order, so that rare values are another by one level of 255, and more
of them in bfloat16.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor, nn

from vfbench import video
from vfbench.errors import UserError, unknown
from vfbench.interfaces import Clips, ClipShape, Conditioning, Dataset, Extractor, Request, Sampler, Split, derive_seed
from vfbench.memory import Batches
from vfbench.progress import Progress
from vfbench.store import RunFolder, read_tensors, write_tensors

SHOWN = 8  # clips in samples/
MOST = 10_000_000  # clips of a run: a hundred times what any protocol asks for, and what a process can hold
_PARTS: Mapping[str, Any] = {  # what a sampler has, and of what type
    "sample": Callable,
    "shape": ClipShape,
    "conditioning": str,
    "networks": Mapping,
    "weights": str,
}


@dataclass(frozen=True)
class Wanted:
    """What is to be kept of each clip: outputs of extractors, of its frames that are scored, and the clip itself.

    `batches` says how many clips each extractor has found to fit into the memory.
    """

    extractors: Mapping[str, Extractor]
    outputs: Mapping[str, Sequence[str]]
    clips: bool = False
    frames: slice = field(default_factory=lambda: slice(None))
    batches: dict[str, Batches] = field(default_factory=dict, init=False, compare=False, repr=False)

    def features(self, clips: Clips, requests: Sequence[Request]) -> dict[str, Tensor]:
        """All asked outputs as `extractor.output`, each from one pass of its network.

        Raises `UserError` naming the clip for NaN or infinity: no score is made of it, and no file keeps it.
        """
        found = {}
        for name in self.extractors:
            for output, value in self._outputs(name, clips, requests).items():
                if len(bad := (~torch.isfinite(value).all(1)).nonzero()):
                    broken = requests[int(bad[0])].index
                    raise UserError(
                        f"{name}.{output} of clip {broken} is NaN or infinite: that network or clip is broken"
                    )
                found[f"{name}.{output}"] = value
        return found

    def _outputs(self, name: str, clips: Clips, requests: Sequence[Request]) -> dict[str, Tensor]:
        """The asked outputs of one extractor, from one pass of its network or from as many as its memory wants."""
        extractor, outputs = self.extractors[name], self.outputs[name]

        def run(rows: Sequence[int]) -> Mapping[str, Tensor]:
            part = slice(rows[0], rows[-1] + 1)
            return extractor(clips[part], requests[part], outputs)

        def named(rows: Sequence[int]) -> str:
            return f"{name}: {len(rows)} clip{'s' * (len(rows) > 1)}"

        batches = self.batches.setdefault(name, Batches())
        found = [part for _, part in batches.each(range(len(clips)), run, named)]
        return {output: torch.cat([part[output] for part in found]) for output in found[0]}

    @property
    def names(self) -> set[str]:
        """The tensors a chunk must hold."""
        features = {f"{name}.{output}" for name, outputs in self.outputs.items() for output in outputs}
        return features | ({"clips"} if self.clips else set())


def requests(dataset: Dataset, split: Split, count: int, seed: int) -> list[Request]:
    """What the clips of a run shall show: labels and captions of real clips of `split`, drawn by the run's seed."""
    if count > MOST:
        raise UserError(f"--num-samples {count:,}: at most {MOST:,}")
    size = dataset.size(split)
    if size == 0:
        raise UserError(
            f"{dataset.name} has no {split} clips to take labels and captions from: give it some (a folder has splits "
            "in its children train and test), or choose a protocol with other prompts (python -m vfbench ls protocols)"
        )
    indices = [derive_seed(seed, index, "prompt") % size for index in range(count)]
    rows = zip(dataset.labels(split, indices), dataset.captions(split, indices), indices, strict=True)
    return [Request(i, derive_seed(seed, i), *row, split) for i, row in enumerate(rows)]


def require_sampler(name: str, sampler: object) -> None:
    """Raise `UserError` for the first thing in which what model `name` built is no `Sampler`."""
    for part, kind in _PARTS.items():
        try:
            found = getattr(sampler, part)
        except AttributeError as error:
            raise _no_sampler(name, f"it has no `{part}` ({error})") from error
        if not isinstance(found, kind):
            raise _no_sampler(name, f"its `{part}` must be a {kind.__name__}, not {type(found).__name__}")
        if part == "conditioning" and found not in get_args(Conditioning):
            raise UserError(f"model '{name}': {unknown(part, found, get_args(Conditioning))}")
        if part == "networks" and not all(isinstance(network, nn.Module) for network in found.values()):
            raise _no_sampler(name, "its `networks` must be a Mapping of names to torch modules")


def _no_sampler(name: str, why: str) -> UserError:
    return UserError(f"model '{name}': what build returned is no sampler: {why}; see CONTRIBUTING.md, Add a model")


def sample(sampler: Sampler, batch: Sequence[Request]) -> Clips:
    """The sampler's clips for a batch; raises `UserError` naming the requests where they are no clips to score."""
    named = _named(batch)
    try:
        made = sampler.sample(batch)
        _require_bytes(named, made)
        clips = video.checked(made)
    except ValueError as error:  # NaN, most often
        raise UserError(f"{named} cannot be scored: {error}") from error
    count, frames, _, height, width = clips.shape
    if (count, found := ClipShape(frames, height, width)) != (len(batch), sampler.shape):
        raise UserError(f"{named} cannot be scored: {len(batch)} of {sampler.shape} were due, {count} of {found} came")
    return clips


def _require_bytes(named: str, made: object) -> None:
    """Raise `UserError` for anything but a tensor of uint8 (B, T, 3, H, W)."""
    found = type(made).__name__
    if isinstance(made, Tensor):
        if made.dtype == torch.uint8 and made.ndim == 5 and made.shape[2] == 3:
            return
        mend = ": see vfbench.video.to_uint8" if made.is_floating_point() else ""
        found = f"{str(made.dtype).removeprefix('torch.')} {tuple(made.shape)}{mend}"
    raise UserError(
        f"{named} cannot be scored: sample must return a torch tensor of uint8 (B, T, 3, H, W), not {found}"
    )


def _named(batch: Sequence[Request]) -> str:
    return f"clips {batch[0].index} to {batch[-1].index}" if len(batch) > 1 else f"clip {batch[0].index}"


def generate(folder: RunFolder, sampler: Sampler, asked: Sequence[Request], wanted: Wanted, batch_size: int) -> float:
    """Make every chunk that is not whole on disk; returns the seconds that all chunks took, earlier ones included."""
    chunks = _chunks(folder, asked)
    seconds = {i: _finished(folder, i, part, wanted) for i, part in chunks.items()}
    missing = [i for i, spent in seconds.items() if spent is None]
    done = sum(len(chunks[i]) for i in chunks if i not in missing)
    if done:
        print(f"resumed: {done} of {len(asked)} clips are already there", file=sys.stderr)
    progress, batches = Progress("generate", len(asked), "clips", done=done), Batches(batch_size)
    for i in missing:
        seconds[i] = _make(folder, i, sampler, chunks[i], wanted, batches, progress)
    return sum(spent or 0.0 for spent in seconds.values())


def _chunks(folder: RunFolder, asked: Sequence[Request]) -> dict[int, Sequence[Request]]:
    size = folder.chunk_size
    return {i: asked[start : start + size] for i, start in enumerate(range(0, len(asked), size))}


def _finished(folder: RunFolder, index: int, part: Sequence[Request], wanted: Wanted) -> float | None:
    """The seconds a finished chunk took, or None when it must be made; says so when one is there that is not right."""
    path = folder.chunk_path(index)
    if not path.exists():
        return None
    try:
        _, metadata = _read(folder, index, part, wanted)
    except ValueError as error:
        print(f"{path} cannot be used: {error}; making it again", file=sys.stderr)
        return None
    return float(metadata["seconds"])


def _read(
    folder: RunFolder, index: int, part: Sequence[Request], wanted: Wanted
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A chunk's tensors and metadata; raises ValueError saying why it is not the whole chunk of these requests."""
    tensors, metadata = read_tensors(folder.chunk_path(index), **_identity(folder, part))
    if lacking := sorted(wanted.names - tensors.keys()):
        raise ValueError(f"it lacks {', '.join(lacking)}")
    if any(len(tensor) != len(part) for tensor in tensors.values()):
        raise ValueError(f"it does not hold {len(part)} clips")
    return tensors, metadata


def _identity(folder: RunFolder, part: Sequence[Request]) -> dict[str, str]:
    """What tells a chunk from every other chunk of every run."""
    return {"run": folder.run_id, "requests": f"{part[0].index}-{part[-1].index}"}


def _make(
    folder: RunFolder,
    index: int,
    sampler: Sampler,
    part: Sequence[Request],
    wanted: Wanted,
    batches: Batches,
    progress: Progress,
) -> float:
    rows: list[dict[str, Tensor]] = []
    seconds = 0.0

    def timed(batch: Sequence[Request]) -> tuple[Clips, float]:
        began = time.monotonic()
        clips = sample(sampler, batch)
        return clips, time.monotonic() - began

    for batch, (clips, spent) in batches.each(part, timed, _named):
        seconds += spent
        rows.append({**wanted.features(clips[:, wanted.frames], batch), "clips": clips})
        progress.advance(len(batch))
    tensors = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    if index == 0:  # before the chunk itself: a chunk on disk means that its samples are there
        _show(folder, tensors["clips"][:SHOWN], part)
    kept = {name: tensor for name, tensor in tensors.items() if name in wanted.names}
    write_tensors(folder.chunk_path(index), kept, **_identity(folder, part), seconds=f"{seconds:.3f}")
    return seconds


def _show(folder: RunFolder, clips: Clips, part: Sequence[Request]) -> None:
    scale = max(1, 64 // clips.shape[-1])
    captions = [request.prompt for request in part[: len(clips)]]
    video.write_sheet(folder.samples / "sheet.png", clips, captions=captions, scale=scale)
    video.write_webp(folder.samples / "clips.webp", clips, scale=2 * scale)


def load(folder: RunFolder, asked: Sequence[Request], wanted: Wanted) -> dict[str, Tensor]:
    """All features of a finished run, in the order of its requests."""
    parts = [_read(folder, i, part, wanted)[0] for i, part in _chunks(folder, asked).items()]
    return {name: torch.cat([part[name] for part in parts]) for name in wanted.names - {"clips"}}
