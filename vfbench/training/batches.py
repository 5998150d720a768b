"""What each step learns from: a function of the seed and the step alone, whoever draws it, and when.

Clips, times and noise of a step come from one generator, drawn for the whole batch. A process takes its part of them,
so that the number of processes and parts changes no draw, and the weights by the rounding of sums alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from vfbench.interfaces import Clips, Conditioning, Dataset, derive_seed
from vfbench.training.options import Drawing, TrainOptions

CONDITIONED = {"text": 0.8, "class": 0.1, "none": 0.1}  # which condition a training clip keeps, and how often
_DRAWS: tuple[Callable[..., Any], ...] = (torch.rand, torch.randn, torch.randint)


class Batch(NamedTuple):
    """Clips with what is said of them: those at `part` of a batch of `whole` clips.

    Times and noise come from `generator`, drawn within `draws`.
    """

    clips: Clips
    labels: list[int]
    captions: list[str]
    modes: list[Conditioning]
    generator: torch.Generator
    part: slice
    whole: int

    def draws(self) -> AbstractContextManager[Any]:
        """Within, what is drawn from `generator` for this part is cut from what the whole batch would draw."""
        return nullcontext() if len(self.clips) == self.whole else _Cut(self.generator, self.part, self.whole)


class _Cut(TorchFunctionMode):
    """Draws (B, ...) as the rows `part` of a draw of (whole, ...); a draw that is not by clip is left as it is.

    A mode, because a model draws where it likes, and knows only its own clips.
    """

    def __init__(self, generator: torch.Generator, part: slice, whole: int) -> None:
        super().__init__()
        self.generator, self.part, self.whole = generator, part, whole

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is not self.generator:
            return func(*args, **kwargs)
        if func not in _DRAWS or "size" in kwargs:
            raise ValueError("a model draws for training by torch.rand, randn or randint, with the size before options")
        bounds, size = (args[:-1], args[-1]) if isinstance(args[-1], tuple) else ((), args)
        if size[:1] != (self.part.stop - self.part.start,):
            return func(*args, **kwargs)
        return func(*bounds, (self.whole, *size[1:]), **kwargs)[self.part]


@dataclass(frozen=True)
class Batches:
    """The batches of a training, by step; `share` is the part of each that this process learns from.

    `drawn` says how clips are drawn (`vfbench.training.options.drawn`).
    """

    dataset: Dataset
    options: TrainOptions
    drawn: dict[str, Any]
    share: slice
    device: torch.device

    def __call__(self, step: int) -> list[Batch]:
        """The parts of this process's share, one for each of `accumulate`."""
        generator = torch.Generator().manual_seed(derive_seed(self.options.seed, step))
        count, size, own = self.options.batch_size, self.dataset.size("train"), self.share
        indices = torch.randint(size, (count,), generator=generator).tolist()
        chosen = torch.multinomial(
            torch.tensor(list(CONDITIONED.values())), count, replacement=True, generator=generator
        )
        modes: list[Conditioning] = [list(CONDITIONED)[i] for i in chosen.tolist()]
        labels, captions = self.dataset.labels("train", indices[own]), self.dataset.captions("train", indices[own])
        clips = self._clips(step, indices)
        parts = []
        for place in _parts(own, self.options.accumulate):
            at = slice(place.start - own.start, place.stop - own.start)
            told = (clips[at], labels[at], captions[at], modes[place])
            parts.append(Batch(*told, generator.clone_state(), place, count))
        return parts

    def _clips(self, step: int, indices: list[int]) -> Clips:
        own = indices[self.share]
        if not isinstance(self.dataset, Drawing):
            return self.dataset.clips("train", own, self.device)
        first = step * len(indices) + self.share.start
        seeds = [derive_seed(self.options.seed, first + i, "clip") for i in range(len(own))]
        return self.dataset.draw("train", own, seeds, **self.drawn)


def _parts(share: slice, count: int) -> list[slice]:
    size = (share.stop - share.start) // count
    return [slice(start, start + size) for start in range(share.start, share.stop, size)]
