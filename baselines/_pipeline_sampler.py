"""A loaded diffusers pipeline as a sampler: check its interface, call it, and convert its clips."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor, nn

from vfbench.baselines._pipeline_speed import attention_backend, clean_cache
from vfbench.baselines._pipelines import to_clips
from vfbench.clips import transform
from vfbench.errors import UserError
from vfbench.interfaces import BuildContext, Clips, ClipShape, Conditioning, Request
from vfbench.utils.device import exact_float32

Parameters: TypeAlias = Mapping[str, inspect.Parameter]  # of a pipeline's `__call__`

# Parameter names of pipelines for each option.
PARAMETER_NAMES = {
    "steps": ("num_inference_steps",),
    "guidance": ("guidance_scale",),
    "negative": ("negative_prompt",),
    "frames": ("num_frames", "video_length"),
    "height": ("height",),
    "width": ("width",),
}

_RECORDED = ("steps", "guidance", "negative", "shift", "attention", "block_cache")


class PipelineSampler:
    """A loaded diffusers pipeline as a sampler.

    `options` are those of `vfbench.baselines.diffusers.build`, `weights` the SHA-256 of the pipeline's files.
    `cache_note` is the remark on a cache that the pipeline uses, for tables. Raises `UserError` for a pipeline that
    does not generate clips from text, an image or noise, and for unsupported options.
    """

    def __init__(
        self, pipe: Any, context: BuildContext, options: Mapping[str, Any], weights: str, cache_note: str = ""
    ) -> None:
        self.pipe, self.weights, self._context, self._cache_note = pipe, weights, context, cache_note
        self._options, self._attention = options, options.get("attention")
        self._parameters = inspect.signature(type(pipe).__call__).parameters
        self._takes_image = "image" in self._parameters
        _require_generator(pipe, self._parameters)
        self.conditioning: Conditioning = "text" if "prompt" in self._parameters else "none"
        sides = ("frames", "height", "width")
        self.native_shape = ClipShape(
            *(options.get(side) or _default_size(pipe, self._parameters, side) for side in sides)
        )
        self._transform = _fit_transform(options, self.native_shape, context)
        self.shape = self._transform.shape if self._transform else self.native_shape
        self._negative_prompt: str | None = options.get("negative")
        self._fixed_arguments = _fixed_arguments(pipe, self._parameters, options)
        parts = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
        # The U-Net holds a copy of the motion adapter, which itself is never called.
        self.networks: Mapping[str, nn.Module] = {name: parts[name] for name in parts if name != "motion_adapter"}
        for network in self.networks.values():
            _pass_first_by_position(network)
        pipe.set_progress_bar_config(disable=True)

    @property
    def sampling_options(self) -> Mapping[str, str | int | float]:
        """The options of sampling that were given; for the others the pipeline has its own."""
        return {name: self._options[name] for name in _RECORDED if self._options.get(name) is not None}

    def sample(self, requests: Sequence[Request]) -> Clips:
        """One clip per request, uint8 (B, T, 3, H, W) on the CPU.

        Raises `UserError` where the pipeline draws random numbers from another generator than the clip's, and where its
        clips do not have the expected shape.
        """
        # Several image pipelines mix the images of a batch, and a cache decides by all clips of it what to reuse.
        batch_size = 1 if self._takes_image or self._cache_note else len(requests)
        batches = (requests[i : i + batch_size] for i in range(0, len(requests), batch_size))
        return torch.cat([self._sample_batch(batch) for batch in batches])

    def note(self, requests: Sequence[Request]) -> str:
        """Remark to print beside the scores: on a cache, or empty."""
        return self._cache_note

    def _sample_batch(self, batch: Sequence[Request]) -> Clips:
        name, device = type(self.pipe).__name__, self._context.device
        states = _random_states(device)
        # Exact in the parts of that type.
        with exact_float32(device), attention_backend(self._attention), clean_cache(self.pipe):
            result = self.pipe(**self._arguments(batch))
        if any(not torch.equal(*pair) for pair in zip(states, _random_states(device), strict=True)):
            raise UserError(
                f"{name} draws random numbers outside the generator of each clip, so the same command would give other "
                "clips: choose another pipeline"
            )
        output = getattr(result, "frames", getattr(result, "images", None))
        if output is None:
            raise UserError(f"{name} gives neither frames nor images: choose a video pipeline")
        clips = to_clips(output, self._context.quantise)
        shape = ClipShape(clips.shape[1], *clips.shape[3:])
        if shape != self.native_shape:
            raise UserError(
                f"{name} makes clips of {shape}, not {self.native_shape}: choose a size that it can make, "
                f"diffusers({shape.options})"
            )
        return torch.stack([self._transform.fit(clip, "a clip") for clip in clips]) if self._transform else clips

    def _arguments(self, batch: Sequence[Request]) -> dict[str, Any]:
        """The keyword arguments of the pipeline's call for a batch."""
        generators = [torch.Generator().manual_seed(request.seed) for request in batch]
        arguments = {**self._fixed_arguments, "generator": generators}
        if "prompt" in self._parameters:
            arguments["prompt"] = [request.prompt for request in batch]
        if self._negative_prompt is not None:
            arguments["negative_prompt"] = [self._negative_prompt] * len(batch)
        if self._takes_image:
            (arguments["image"],) = map(self._first_frame, batch)
        if "batch_size" in self._parameters:
            arguments["batch_size"] = len(batch)
        return arguments

    def _first_frame(self, request: Request) -> Image.Image:
        """The first frame of the request's real clip, resized without cropping to the pipeline's size."""
        clip = self._context.dataset.clips(request.split, [request.source])[0]
        frame = transform.resize(clip[:1], self.native_shape.height, self.native_shape.width)[0]
        return Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())


def _require_generator(pipe: Any, parameters: Parameters) -> None:
    """Raise `UserError` for a pipeline that generates from other inputs than text, an image or noise."""
    option_names = (name for names in PARAMETER_NAMES.values() for name in names)
    supported = {"self", "generator", "prompt", "image", "batch_size", *option_names}
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    required = [n for n, p in parameters.items() if p.default is p.empty and p.kind not in variadic]
    unsupported = [name for name in required if name not in supported]
    if "video" in parameters and "image" not in parameters:  # its default is None, which the pipeline then refuses
        unsupported.append("video")
    if unsupported:
        reason = f"it needs {', '.join(unsupported)}"
    elif "generator" not in parameters or not parameters.keys() & {"prompt", "image", "batch_size"}:
        reason = "it takes no generator, or neither prompt, image nor batch size"
    else:
        return
    raise UserError(f"{type(pipe).__name__} is no text-to-video, image-to-video or unconditional pipeline: {reason}")


def _fixed_arguments(pipe: Any, parameters: Parameters, options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are equal in every call; raises `UserError` for an option that the pipeline does not take."""
    arguments: dict[str, Any] = {"output_type": "np"}
    for option, names in PARAMETER_NAMES.items():
        if option not in options:
            continue
        name = next((name for name in names if name in parameters), None)
        if name is None:
            raise UserError(
                f"diffusers({option}={options[option]!r}): {type(pipe).__name__} takes no {names[0]}; leave it out"
            )
        if option != "negative":  # passed once per clip
            arguments[name] = options[option]
    return arguments


def _default_size(pipe: Any, parameters: Parameters, side: str) -> int:
    """Default frames, height or width of a pipeline: of its call, or of its network's configuration."""
    names = [name for name in PARAMETER_NAMES[side] if name in parameters]
    if names and isinstance(parameters[names[0]].default, int):
        return int(parameters[names[0]].default)
    if side == "frames" and not names:
        return 1  # an image pipeline
    network = pipe.components.get("unet") or pipe.components.get("transformer")
    config: Mapping[str, Any] = network.config if network is not None else {}
    size = config.get(f"sample_{side}") or config.get("num_frames" if side == "frames" else "sample_size")
    if size is None:
        raise UserError(f"{type(pipe).__name__} has no default {side}: give it, diffusers(id=..., {side}=N)")
    if side == "frames":
        return int(size)
    scale: Any = getattr(pipe, "vae_scale_factor_spatial", None) or getattr(pipe, "vae_scale_factor", 1)
    return int(scale * (size if isinstance(size, int) else size[side == "width"]))


def _fit_transform(
    options: Mapping[str, Any], native_shape: ClipShape, context: BuildContext
) -> transform.ClipTransform | None:
    """The transform of the option `fit` to the dataset's frame size; None without it."""
    if "fit" not in options:
        return None
    size = context.dataset.shape
    return transform.ClipTransform(
        "diffusers", ClipShape(native_shape.frames, size.height, size.width), geometry=options["fit"]
    )


def _random_states(device: torch.device) -> list[Tensor]:
    """States of torch's global generators on the CPU and the device."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _pass_first_by_position(network: nn.Module) -> None:
    """Hook a network so that its first argument is positional: the cost ledger counts its rows, pipelines name it."""
    first = next(name for name in inspect.signature(type(network).forward).parameters if name != "self")

    def hook(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if inputs or first not in named:
            return inputs, named
        return (named[first],), {name: value for name, value in named.items() if name != first}

    network.register_forward_pre_hook(hook, with_kwargs=True)
