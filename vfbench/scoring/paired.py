"""PSNR, SSIM and LPIPS of generated clips against the real clips of one name: reconstruction and prediction.

The frames are those of a generated clip that the protocol scores, and the same frames of the real file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from vfbench.clips import ClipFolder, read_clip
from vfbench.clips.kept import clip_names
from vfbench.clips.text import first_few
from vfbench.errors import MissingData, UserError
from vfbench.protocol.protocol import Protocol
from vfbench.report.result_parts import ScoreRecord
from vfbench.report.similarity import Similarity
from vfbench.utils.progress import Progress


@dataclass(frozen=True)
class PairedClips:
    """Generated clips, each with the index of the real clip that has its name."""

    fake: ClipFolder
    real: ClipFolder
    partners: Sequence[int]
    protocol: Protocol
    similarity: Similarity

    @property
    def missing(self) -> list[str]:
        """Remarks on the measures that cannot be computed."""
        size = min(self.protocol.height, self.protocol.width)
        return [f"no {title}: {reason}" for title, reason in self.similarity.unavailable(size).items()]

    def scores(self) -> dict[str, ScoreRecord]:
        """Score of each measure: mean over the clips with its 95 % interval.

        Raises `UserError` naming a real clip of another size, and `MissingData` one that is short or damaged.
        """
        with Progress("compare pairs", len(self.partners), "clips") as progress:
            for index, partner in enumerate(self.partners):
                clips = self._read(self.fake, index), self._read(self.real, partner)
                if clips[0].shape != clips[1].shape:
                    raise UserError(
                        f"{self.real.root}: {self.real.entries[partner].name} has frames of "
                        f"{tuple(clips[1].shape[-2:])}, its generated partner of {tuple(clips[0].shape[-2:])} (height, "
                        "width): bring both to one size, or leave out --paired"
                    )
                self.similarity.add(*clips)
                progress.advance(1)
        return {
            name: _record(each.value, each.half_width, len(each.values), each.title, each.better)
            for name, each in self.similarity.scores.items()
            if each.values
        }

    def _read(self, folder: ClipFolder, index: int) -> UInt8[Tensor, "frames 3 height width"]:
        scored = self.protocol
        return read_clip(folder, index, frames=scored.frames, stride=scored.fake_stride, drop_first=scored.drop_first)


def _record(value: float, half_width: float, count: int, title: str, better: str) -> ScoreRecord:
    return ScoreRecord(
        value=value,
        low=value - half_width,
        high=value + half_width,
        floor=math.nan,
        n_real=count,
        n_fake=count,
        title=title,
        better="lower" if better == "lower" else "higher",
        note="against the real clip of the same name",
    )


def pair(fake: ClipFolder, real: Sequence[ClipFolder], protocol: Protocol, device: torch.device) -> PairedClips:
    """Find the real clip of each generated one.

    Raises `UserError` where the real clips are no single folder of files, and `MissingData` for clips without partner.
    """
    if len(real) != 1:
        raise UserError("--paired pairs files of one name: give one folder of real clips as --real")
    places = {name: index for index, name in enumerate(clip_names(real[0]))}
    names = clip_names(fake)
    if missing := [name for name in names if name not in places]:
        raise MissingData(
            f"{real[0].root} lacks {len(missing):,} of the {len(names):,} clips of {fake.root}: {first_few(missing)}; "
            "give the real clip of each the same name, or list the clips to score in --list FILE"
        )
    return PairedClips(fake, real[0], [places[name] for name in names], protocol, Similarity(device))
