"""What each step learns from: a function of the seed and the step alone, whoever draws it, and when.

Clips, times and noise of a step come from one generator, drawn for the whole batch. A process takes its part of them,
so that the number of processes and parts changes no draw, and the weights by the rounding of sums alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vfbench.interfaces import Clips, Conditioning, Dataset, derive_seed
from vfbench.training.options import Drawing, TrainOptions

_DRAWS: tuple[Callable[..., Any], ...] = (torch.rand, torch.randn, torch.randint)


@dataclass
class Draws:
    """What a model draws in a step, for the whole batch of `whole` clips: drawn once, for whichever part asks first."""

    generator: torch.Generator
    whole: int
    made: list[tuple[tuple[Any, ...], Tensor]] = field(default_factory=list)

    def get(self, number: int, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Draw `number` of the step; raises ValueError where an earlier part drew something else there."""
        if number == len(self.made):
            self.made.append(((func, args), func(*args, **kwargs)))
        asked, drawn = self.made[number]
        if asked != (func, args):
            raise ValueError(f"parts of a batch draw alike: here {(func, args)}, in another part {asked}")
        return drawn


class Batch(NamedTuple):
    """Clips with what is said of them: those at `part` of a batch. Times and noise are drawn within `drawing`."""

    clips: Clips
    labels: list[int]
    captions: list[str]
    modes: list[Conditioning]
    part: slice
    draws: Draws

    def parts(self, count: int) -> list[Batch]:
        """The same in `count` equal parts, which draw the same together; raises ValueError where it does not split."""
        if len(self.clips) % count:
            raise ValueError(f"{len(self.clips)} clips are not {count} equal parts")
        size = len(self.clips) // count
        return [self._at(slice(start, start + size)) for start in range(0, len(self.clips), size)]

    def _at(self, rows: slice) -> Batch:
        place = slice(self.part.start + rows.start, self.part.start + rows.stop)
        return Batch(self.clips[rows], self.labels[rows], self.captions[rows], self.modes[rows], place, self.draws)

    @contextmanager
    def drawing(self) -> Iterator[torch.Generator]:
        """A generator; within, what is drawn from it for these clips is cut from what the whole batch draws."""
        if len(self.clips) == self.draws.whole:
            yield self.draws.generator.clone_state()  # parts may be asked for after all, and draw the same
            return
        with _Cut(self.draws, self.part):
            yield self.draws.generator


class _Cut(TorchFunctionMode):
    """Draws (B, ...) as the rows `part` of a draw of (whole, ...).

    A mode, because a model draws where it likes, and knows only its own clips.
    """

    def __init__(self, draws: Draws, part: slice) -> None:
        super().__init__()
        self.draws, self.part, self.number = draws, part, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is not self.draws.generator:
            return func(*args, **kwargs)
        if func not in _DRAWS or "size" in kwargs:
            raise ValueError("a model draws for training by torch.rand, randn or randint, with the size before options")
        bounds, size = (tuple(args[:-1]), args[-1]) if isinstance(args[-1], tuple) else ((), tuple(args))
        count = self.part.stop - self.part.start
        if size[:1] != (count,):
            raise ValueError(f"a model draws for training one row a clip: ({count}, ...) here, not {size}")
        number, self.number = self.number, self.number + 1
        return self.draws.get(number, func, (*bounds, (self.draws.whole, *size[1:])), kwargs)[self.part]


@dataclass(frozen=True)
class Batches:
    """The batches of a training, by step; `share` is the part of each that this process learns from.

    `drawn` and `conditions` say how clips are drawn, and what they are shown with (`vfbench.training.options`).
    """

    dataset: Dataset
    options: TrainOptions
    drawn: Mapping[str, Any]
    conditions: Mapping[Conditioning, float]
    share: slice
    device: torch.device

    def __call__(self, step: int) -> Batch:
        """This process's share of a step."""
        generator = torch.Generator().manual_seed(derive_seed(self.options.seed, step))
        count, size, own = self.options.batch_size, self.dataset.size("train"), self.share
        indices = torch.randint(size, (count,), generator=generator).tolist()
        weights = torch.tensor(list(self.conditions.values()))
        chosen = torch.multinomial(weights, count, replacement=True, generator=generator).tolist()
        modes = [list(self.conditions)[i] for i in chosen]
        labels, captions = self.dataset.labels("train", indices[own]), self.dataset.captions("train", indices[own])
        clips = self._clips(step, indices)
        return Batch(clips, labels, captions, modes[own], own, Draws(generator, count))

    def _clips(self, step: int, indices: list[int]) -> Clips:
        own = indices[self.share]
        if not isinstance(self.dataset, Drawing):
            return self.dataset.clips("train", own, self.device)
        first = step * len(indices) + self.share.start
        seeds = [derive_seed(self.options.seed, first + i, "clip") for i in range(len(own))]
        return self.dataset.draw("train", own, seeds, **self.drawn)
