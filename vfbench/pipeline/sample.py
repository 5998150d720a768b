"""One call of a sampler, and the checks of what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from vfbench import video
from vfbench.errors import UserError, unknown
from vfbench.interfaces import Clips, ClipShape, Conditioning, DrawsNoise, ReferenceSampler, Request, Sampler

_PARTS: Mapping[str, Any] = {  # attributes of a sampler, and their types
    "sample": Callable,
    "shape": ClipShape,
    "conditioning": str,
    "networks": Mapping,
    "weights": str,
}


class NotFinite(UserError):
    """Clips that a model has made are NaN or infinite."""


def require_sampler(name: str, sampler: object) -> None:
    """Raise `UserError` naming the first part that the object built by model `name` lacks to be a `Sampler`."""
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


def is_control(sampler: Sampler) -> bool:
    """True for a control, which reads real clips: a reference row in tables."""
    return isinstance(sampler, ReferenceSampler) and sampler.reference


def noise_generator(sampler: Sampler) -> dict[str, str]:
    """The generator of a sampler's noise, as an entry of a record; none for that of a CPU, whose records lack it."""
    name = sampler.noise_generator if isinstance(sampler, DrawsNoise) else "mt19937"
    return {} if name == "mt19937" else {"noise_generator": name}


def sample(sampler: Sampler, batch: Sequence[Request]) -> Clips:
    """One clip per request, uint8 (B, T, 3, H, W); raises `UserError` naming requests that cannot be scored."""
    numbers = clip_numbers(batch)
    try:
        output = sampler.sample(batch)
        _require_bytes(numbers, output)
        clips = video.require_byte_range(output)
    except video.NotFinitePixels as error:
        raise NotFinite(f"{numbers} cannot be scored: {error}") from error
    except ValueError as error:
        raise UserError(f"{numbers} cannot be scored: {error}") from error
    count, frames, _, height, width = clips.shape
    if (count, shape := ClipShape(frames, height, width)) != (len(batch), sampler.shape):
        raise UserError(
            f"{numbers} cannot be scored: {len(batch)} of {sampler.shape} were due, {count} of {shape} came"
        )
    return clips


def _require_bytes(numbers: str, output: object) -> None:
    """Raise `UserError` for anything but a tensor of uint8 (B, T, 3, H, W)."""
    actual = type(output).__name__
    if isinstance(output, Tensor):
        if output.dtype == torch.uint8 and output.ndim == 5 and output.shape[2] == 3:
            return
        mend = ": see vfbench.video.to_uint8" if output.is_floating_point() else ""
        actual = f"{str(output.dtype).removeprefix('torch.')} {tuple(output.shape)}{mend}"
    raise UserError(
        f"{numbers} cannot be scored: sample must return a torch tensor of uint8 (B, T, 3, H, W), not {actual}"
    )


def clip_numbers(batch: Sequence[Request]) -> str:
    """Numbers of the clips of a batch, for a message: `clips 8 to 15`."""
    return f"clips {batch[0].index} to {batch[-1].index}" if len(batch) > 1 else f"clip {batch[0].index}"
