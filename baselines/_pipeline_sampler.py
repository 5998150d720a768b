"""A loaded diffusers pipeline behind the common interface: what it is called with, and what it is asked first."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor, nn

from vfbench.baselines._pipelines import to_clips
from vfbench.clips import transform
from vfbench.errors import UserError
from vfbench.interfaces import BuildContext, Clips, ClipShape, Conditioning, Request

Takes: TypeAlias = Mapping[str, inspect.Parameter]  # the parameters of a pipeline's call

# What the options are called by pipelines.
NAMES = {
    "steps": ("num_inference_steps",),
    "guidance": ("guidance_scale",),
    "negative": ("negative_prompt",),
    "frames": ("num_frames", "video_length"),
    "height": ("height",),
    "width": ("width",),
}


class Pipeline:
    """A loaded pipeline behind the common interface."""

    def __init__(self, pipe: Any, setting: BuildContext, asked: Mapping[str, Any], weights: str) -> None:
        self.pipe, self.weights, self._setting = pipe, weights, setting
        self._takes = inspect.signature(type(pipe).__call__).parameters
        self._looks = "image" in self._takes
        _require_usable(pipe, self._takes)
        self.conditioning: Conditioning = "text" if "prompt" in self._takes else "none"
        self.own = ClipShape(
            *(asked.get(side) or _own(pipe, self._takes, side) for side in ("frames", "height", "width"))
        )
        self._cut = _fitting(asked, self.own, setting)
        self.shape = self._cut.shape if self._cut else self.own
        self._negative: str | None = asked.get("negative")
        self._call = _arguments(pipe, self._takes, asked)
        parts = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
        # The U-Net holds a copy of the motion adapter, which itself is never called.
        self.networks: Mapping[str, nn.Module] = {name: parts[name] for name in parts if name != "motion_adapter"}
        for network in self.networks.values():
            _first_by_place(network)
        pipe.set_progress_bar_config(disable=True)

    def sample(self, requests: Sequence[Request]) -> Clips:
        """One clip a request, uint8 (B, T, 3, H, W) on the CPU.

        Raises `UserError` where the pipeline draws noise from elsewhere than from a clip's own generator.
        """
        most = 1 if self._looks else len(requests)  # a pipeline that looks at an image takes one
        return torch.cat([self._made(requests[i : i + most]) for i in range(0, len(requests), most)])

    def _made(self, batch: Sequence[Request]) -> Clips:
        name, device = type(self.pipe).__name__, self._setting.device
        before = _random_state(device)
        result = self.pipe(**self._arguments(batch))
        if any(not torch.equal(*pair) for pair in zip(before, _random_state(device), strict=True)):
            raise UserError(
                f"{name} draws random numbers of its own, beside the generator of each clip: the same command would "
                "give other clips, so it is not run"
            )
        pictures = getattr(result, "frames", getattr(result, "images", None))
        if pictures is None:
            raise UserError(f"{name} gives neither frames nor images: it is no pipeline of video")
        clips = to_clips(pictures, self._setting.quantise)
        made = ClipShape(clips.shape[1], *clips.shape[3:])
        if made != self.own:
            raise UserError(
                f"{name} makes clips of {made} where {self.own} is asked for: ask for a size that it can make, "
                f"diffusers({made.options})"
            )
        return torch.stack([self._cut.fit(clip, "a clip") for clip in clips]) if self._cut else clips

    def _arguments(self, batch: Sequence[Request]) -> dict[str, Any]:
        """What the pipeline is called with for a batch."""
        found = {**self._call, "generator": [torch.Generator().manual_seed(request.seed) for request in batch]}
        if "prompt" in self._takes:
            found["prompt"] = [request.prompt for request in batch]
        if self._negative is not None:
            found["negative_prompt"] = [self._negative] * len(batch)
        if self._looks:
            (found["image"],) = map(self._first_frame, batch)
        if "batch_size" in self._takes:
            found["batch_size"] = len(batch)
        return found

    def _first_frame(self, request: Request) -> Image.Image:
        """The first frame of the request's real clip, the whole of it in the pipeline's size."""
        clip = self._setting.dataset.clips(request.split, [request.source])[0]
        sized = transform.resize(clip[:1], self.own.height, self.own.width)[0]
        return Image.fromarray(sized.permute(1, 2, 0).contiguous().numpy())


def _require_usable(pipe: Any, takes: Takes) -> None:
    """Raise `UserError` where a pipeline makes its clips from something else than text, an image or noise."""
    given = {"self", "generator", "prompt", "image", "batch_size", *(n for names in NAMES.values() for n in names)}
    free = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    needs = [n for n, p in takes.items() if p.default is p.empty and p.kind not in free and n not in given]
    needs += ["video"] if "video" in takes and "image" not in takes else []  # None by default, and refused later
    if needs:
        why = f"it needs {', '.join(needs)}"
    elif "generator" not in takes or not takes.keys() & {"prompt", "image", "batch_size"}:
        why = "it takes no generator, or neither prompt, image nor batch size"
    else:
        return
    raise UserError(f"{type(pipe).__name__} is no text-to-video, image-to-video or unconditional pipeline: {why}")


def _arguments(pipe: Any, takes: Takes, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What every call is given; raises `UserError` naming an option that the pipeline has none of."""
    found: dict[str, Any] = {"output_type": "np"}
    for option in NAMES.keys() & asked.keys():
        name = next((name for name in NAMES[option] if name in takes), None)
        if name is None:
            raise UserError(f"diffusers({option}={asked[option]!r}): {type(pipe).__name__} takes no {NAMES[option][0]}")
        if option != "negative":  # that is one for each clip
            found[name] = asked[option]
    return found


def _own(pipe: Any, takes: Takes, side: str) -> int:
    """Frames, height or width that a pipeline makes unless told: the default of its call, or what its network says."""
    names = [name for name in NAMES[side] if name in takes]
    if names and isinstance(takes[names[0]].default, int):
        return int(takes[names[0]].default)
    if side == "frames" and not names:
        return 1  # it makes images
    network = pipe.components.get("unet") or pipe.components.get("transformer")
    config: Mapping[str, Any] = network.config if network is not None else {}
    others = "num_frames" if side == "frames" else "sample_size"
    size = config.get(f"sample_{side}") or config.get(others)
    if size is None:
        raise UserError(f"{type(pipe).__name__} does not say its {side}: give it, diffusers(id=..., {side}=N)")
    if side == "frames":
        return int(size)
    scale: Any = getattr(pipe, "vae_scale_factor_spatial", None) or getattr(pipe, "vae_scale_factor", 1)
    return int(scale * (size if isinstance(size, int) else size[side == "width"]))


def _fitting(asked: Mapping[str, Any], own: ClipShape, setting: BuildContext) -> transform.ClipTransform | None:
    if "fit" not in asked:
        return None
    wanted = setting.dataset.shape
    return transform.ClipTransform(
        "diffusers", ClipShape(own.frames, wanted.height, wanted.width), geometry=asked["fit"]
    )


def _random_state(device: torch.device) -> list[Tensor]:
    """Of all generators that a pipeline could draw from without being told."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _first_by_place(network: nn.Module) -> None:
    """Have a network's first argument passed by place, where the cost ledger counts its rows; pipelines name it."""
    first = next(name for name in inspect.signature(type(network).forward).parameters if name != "self")

    def hook(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if inputs or first not in named:
            return inputs, named
        return (named[first],), {name: value for name, value in named.items() if name != first}

    network.register_forward_pre_hook(hook, with_kwargs=True)
