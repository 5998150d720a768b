"""A chain of two samplers: one makes small clips, a super-resolution model enlarges them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from vfbench import plugins
from vfbench.diffusion import hub
from vfbench.diffusion.priors import NoiseGenerator
from vfbench.diffusion.sampler import DiffusionSampler
from vfbench.diffusion.super_resolution import EnlargesClips, ReducedDataset, SmallClips
from vfbench.errors import MissingCheckpoint, MissingData, UserError
from vfbench.interfaces import (
    BuildContext,
    ChoosesPrecision,
    Clips,
    ClipShape,
    Conditioning,
    Configured,
    ReferenceSampler,
    Request,
    Sampler,
    Tunable,
)
from vfbench.plugins import Spec
from vfbench.utils import files
from vfbench.utils.hf_hub import HUB_PREFIX


@dataclass(frozen=True)
class CascadeSampler:
    """The sampler `base` of small clips, and the sampler `sr` that enlarges them."""

    base: Sampler
    sr: DiffusionSampler

    @property
    def stages(self) -> Mapping[str, Sampler]:
        """Both samplers, in their order."""
        return {"base": self.base, "sr": self.sr}

    @property
    def shape(self) -> ClipShape:
        """Shape of the large clips."""
        return self.sr.shape

    @property
    def reference(self) -> bool:
        """True where the small clips are real."""
        return _is_reference(self.base)

    @property
    def conditioning(self) -> Conditioning:
        """The conditioning of the small clips, which decide the content; where they are real, of the large ones."""
        return self.sr.conditioning if self.reference else self.base.conditioning

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The networks of both stages, such as `sr.network`."""
        return {
            f"{stage}.{name}": network
            for stage, sampler in self.stages.items()
            for name, network in sampler.networks.items()
        }

    @property
    def weights(self) -> str:
        """SHA-256 of the hashes of both checkpoints."""
        return files.json_digest([sampler.weights for sampler in self.stages.values()])

    @property
    def preset(self) -> str:
        """The presets of both stages."""
        return " + ".join(sampler.preset for sampler in self.stages.values() if isinstance(sampler, Configured))

    @property
    def configuration(self) -> str:
        """SHA-256 of everything that both stages were built from besides the weights."""
        stages = self.stages.values()
        return files.json_digest([each.configuration for each in stages if isinstance(each, Configured)])

    @property
    def sampling_options(self) -> Mapping[str, str | int | float]:
        """The options of both stages, such as `sr.steps`."""
        return {
            f"{stage}.{name}": value
            for stage, sampler in self.stages.items()
            if isinstance(sampler, Tunable)
            for name, value in sampler.sampling_options.items()
        }

    @property
    def noise_generator(self) -> NoiseGenerator:
        """The generator that draws the noise of both stages."""
        return self.sr.noise_generator

    def in_float32(self) -> CascadeSampler:
        """The cascade that makes the clips of the same requests in float32, in both stages."""
        base = self.base.in_float32() if isinstance(self.base, ChoosesPrecision) else self.base
        return CascadeSampler(base, replace(self.sr.in_float32(), small_clips=_small_clips(base, self.sr)))

    def sample(self, requests: Sequence[Request]) -> Clips:
        """One large clip per request, uint8 (B, T, 3, H, W)."""
        return self.sr.sample(requests)


def build_cascade(
    context: BuildContext, base: str, sr: str, level: float, options: Mapping[str, Any]
) -> CascadeSampler:
    """Load both stages, each a checkpoint or a model with its options; `options` are for both, where they take them.

    Raises `UserError` where `sr` does not enlarge clips, where the stages do not fit each other, and for a level out of
    range; `MissingData` where a checkpoint is missing.
    """
    if context.checkpoint is not None:
        raise UserError("cascade has two checkpoints: leave out --checkpoint, and give cascade(base=DIR, sr=DIR)")
    with _named("sr", sr):
        second = _load(sr, context, options)
        if not isinstance(second, DiffusionSampler) or not isinstance(second.model, EnlargesClips):
            raise UserError("it does not enlarge clips: train a model that does with --model super_resolution")
    small = ReducedDataset(context.dataset, second.model.factor)
    with _named("base", base):
        _require_shape(_checkpoint_shape(base), small.shape)
        first = _load(base, replace(context, dataset=small), options)
        _require_shape(first.shape, small.shape)
    small_clips = SmallClips(first.sample, level, real=_is_reference(first))
    return CascadeSampler(first, replace(second, small_clips=small_clips))


def _small_clips(base: Sampler, sr: DiffusionSampler) -> SmallClips | None:
    return replace(sr.small_clips, sample=base.sample) if sr.small_clips else None


def _is_reference(sampler: Sampler) -> bool:
    return isinstance(sampler, ReferenceSampler) and sampler.reference


def _require_shape(shape: ClipShape | None, small: ClipShape) -> None:
    if shape not in (None, small):
        raise MissingData(f"it makes clips of {shape}, and sr enlarges clips of {small}: give one for that size")


@contextmanager
def _named(stage: str, text: str) -> Iterator[None]:
    """Context manager: name the stage in an error, and the option that takes a missing checkpoint."""
    try:
        yield
    except MissingCheckpoint as error:
        raise MissingData(
            f"{stage}='{text}': vfbench ships no checkpoint of '{error.model}' for such clips: give {stage}=DIR, the "
            "--output of its training"
        ) from error
    except UserError as error:
        raise type(error)(f"{stage}='{text}': {error}") from error


def _load(text: str, context: BuildContext, options: Mapping[str, Any]) -> Sampler:
    """The sampler of a checkpoint (a folder or `hub:owner/name`), or of a model such as `videofusion(steps=10)`."""
    folder = _checkpoint(text)
    spec = plugins.parse(text) if folder is None else Spec(hub.read_config(folder).model)
    typed = [spec.name] if folder is None else []
    trusted = typed or plugins.is_known("model", spec.name)  # no module that only a file names is imported
    known = plugins.options("model", spec.name) if trusted else {}
    given = {name: value for name, value in options.items() if value is not None and name in known}
    spec = Spec(spec.name, {**given, **spec.options})
    sampler: Sampler = plugins.load_known("model", str(spec), replace(context, checkpoint=folder), typed=typed)
    return sampler


def _checkpoint_shape(text: str) -> ClipShape | None:
    """Clip shape of a checkpoint; None for the name of a model."""
    folder = _checkpoint(text)
    return None if folder is None else hub.read_config(folder).shape


def _checkpoint(text: str) -> Path | None:
    """Folder of the checkpoint that a text names; None for the name of a model."""
    is_folder = os.path.isdir(text) or os.sep in text.partition("(")[0]  # noqa: PTH112  # Path.is_dir may raise
    return hub.resolve_checkpoint(text) if is_folder or text.startswith(HUB_PREFIX) else None
