"""Any text-to-video, image-to-video or unconditional pipeline of the diffusers library, by hub id or folder.

A clip's noise is drawn on the CPU from a generator per clip, so that it depends on its request alone. The pipeline's
parameters decide its conditioning: the prompt, or the first frame of the request's real clip. Conditioning on an image
reads test data: such a row compares only with others that do, and `drop_first` of a protocol keeps that frame out of
the score. Image-to-video pipelines get one clip at a time, since several of them mix the images of a batch.

Clips have the pipeline's size. A run refuses them if its protocol scores another size. The option `fit` transforms them
to the dataset's size: `centre-crop` or `squash` of `vfbench.clips.transform`, bilinear with antialiasing, after
rounding to bytes.

The presets of Wan, `wan` and `wan-480p`, leave out one setting of their model's example, its long negative prompt. Add
it with `negative='...'`.

The preset `modelscope` is often taken for VideoFusion. It is not: the released ModelScope model is one latent U-Net
with independent noise for every frame (its authors: github.com/modelscope/modelscope, issue 284).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import torch

from vfbench.baselines import _pipelines
from vfbench.baselines._pipeline_sampler import PipelineSampler
from vfbench.baselines._pipeline_speed import check_attention, enable_block_cache
from vfbench.errors import UserError, unknown
from vfbench.interfaces import BuildContext

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OFFLOADS = ("none", "model", "sequential")
FITS = ("centre-crop", "squash")
_LTX: Mapping[str, Any] = {
    "id": "Lightricks/LTX-Video",
    "dtype": "bfloat16",
    "steps": 50,
    "guidance": 3.0,
    "negative": "worst quality, inconsistent motion, blurry, jittery, distorted",
    "frames": 161,
    "height": 480,
    "width": 704,
}
# Settings of the examples in diffusers 0.42 (in the file of each pipeline), or of its documentation where noted.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # TextToVideoSDPipeline, 8 frames per second; steps, guidance and frames are the defaults of its call.
    "modelscope": {
        "id": "damo-vilab/text-to-video-ms-1.7b",
        "variant": "fp16",
        "dtype": "float16",
        "steps": 50,
        "guidance": 9.0,
        "frames": 16,
    },
    # AnimateDiffPipeline, from the documentation; the size is the image model's.
    "animatediff": {
        "id": "SG161222/Realistic_Vision_V5.1_noVAE",
        "adapter": "guoyww/animatediff-motion-adapter-v1-5-2",
        "dtype": "float16",
        "steps": 25,
        "guidance": 7.5,
        "negative": "bad quality, worse quality",
        "frames": 16,
    },
    # CogVideoXPipeline, 8 frames per second: 6 seconds and a frame.
    "cogvideox": {
        "id": "THUDM/CogVideoX-2b",
        "dtype": "float16",
        "steps": 50,
        "guidance": 6.0,
        "frames": 49,
        "height": 480,
        "width": 720,
    },
    # LTXPipeline, 24 frames per second; guidance is the default of its call.
    "ltx": _LTX,
    # LTXImageToVideoPipeline of the same id, with the same settings in its example.
    "ltx-image": {"pipeline": "LTXImageToVideoPipeline", **_LTX},
    # WanPipeline, 16 frames per second; steps are the default of its call. Its example's negative prompt is left out.
    "wan": {
        "id": "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        "dtype": "bfloat16",
        "vae_dtype": "float32",
        "shift": 5.0,
        "steps": 50,
        "guidance": 5.0,
        "frames": 81,
        "height": 720,
        "width": 1280,
    },
    "wan-480p": {
        "id": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        "dtype": "bfloat16",
        "vae_dtype": "float32",
        "shift": 3.0,
        "steps": 50,
        "guidance": 5.0,
        "frames": 81,
        "height": 480,
        "width": 832,
    },
}


def build(
    context: BuildContext,
    *,
    preset: Annotated[str | None, PRESETS, "Pipeline with its settings."] = None,
    id: Annotated[str | None, "Hub id or folder of the pipeline."] = None,
    revision: Annotated[str | None, "Revision on the hub."] = None,
    variant: Annotated[str | None, "Variant of the weights on the hub, such as fp16."] = None,
    pipeline: Annotated[str | None, "Class to open it as, for an id that serves several."] = None,
    adapter: Annotated[str | None, "Motion adapter of AnimateDiff for the image pipeline id."] = None,
    dtype: Annotated[str | None, DTYPES, "Data type of the weights; the run's by default."] = None,
    vae_dtype: Annotated[str | None, DTYPES, "Data type of the VAE; dtype by default."] = None,
    steps: Annotated[int | None, "Sampling steps."] = None,
    guidance: Annotated[float | None, "Classifier-free guidance weight; 1 is none."] = None,
    negative: Annotated[str | None, "Negative prompt."] = None,
    frames: Annotated[int | None, "Frames of a clip."] = None,
    height: Annotated[int | None, "Height of a clip in pixels."] = None,
    width: Annotated[int | None, "Width of a clip in pixels."] = None,
    shift: Annotated[float | None, "Shift of a flow-matching scheduler."] = None,
    fit: Annotated[str | None, FITS, "Fit clips to the dataset's size: by centre crop, or the full frame."] = None,
    offload: Annotated[str, OFFLOADS, "Parts kept off the GPU until called: networks, or single layers."] = "none",
    attention: Annotated[str | None, "Attention backend of the library, such as flash, sage or xformers."] = None,
    block_cache: Annotated[float | None, "Threshold of First Block Cache, such as 0.05: faster, and lossy."] = None,
) -> PipelineSampler:
    """The sampler of a pipeline; an option that is not given is the preset's, else the pipeline's default.

    `id` is a hub id or a folder; `revision` and `variant` (such as fp16) are those of the hub. `pipeline` is the class
    to open it as, for an id that serves several (`LTXImageToVideoPipeline`). `adapter` is AnimateDiff's motion adapter
    for the image pipeline `id`. `dtype` is that of the weights, by default that of the run, and `vae_dtype` that of the
    VAE. `shift` is that of flow-matching schedulers. `offload` keeps networks (`model`) or single layers (`sequential`)
    off the GPU until they are called. `attention` names a backend of diffusers. `block_cache` makes other clips than
    the pipeline's own, one at a time; a note in the table says so (`vfbench.baselines._pipeline_speed`).

    Raises `UserError` for options that the pipeline does not take, `MissingData` for a pipeline that is missing or not
    trusted, and `BadEnvironment` without the library.
    """
    if context.checkpoint is not None:
        raise UserError("diffusers reads the pipeline that id names: leave out --checkpoint")
    user_options = {name: value for name, value in locals().items() if name != "context" and value is not None}
    if preset is not None and preset not in PRESETS:
        raise unknown("diffusers preset", preset, PRESETS)
    options = {**PRESETS.get(preset or "", {}), **user_options}
    _check_options(options, context)
    default_dtype = _dtype("dtype", options, context.dtype)
    dtypes = {"default": default_dtype, "vae": _dtype("vae_dtype", options, default_dtype)}
    folders = [_pipelines.pipeline_folder(options["id"], options.get("revision"), options.get("variant"))]
    folders += [_pipelines.adapter_folder(options["adapter"])] if "adapter" in options else []
    pipe = _pipelines.load(
        folders[0],
        dtypes,
        options.get("variant"),
        folders[1] if folders[1:] else None,
        options.get("pipeline"),
        suspect_options=_suspect_options(options, user_options),
    )
    if "shift" in options:
        _set_shift(pipe, options["shift"])
    if attention is not None:
        check_attention(attention, context.device, default_dtype, pipe)
    note = "" if block_cache is None else enable_block_cache(pipe, block_cache)
    sampler = PipelineSampler(pipe, context, options, _pipelines.folders_sha256(*folders), note)
    _move_to_device(pipe, context.device, offload)
    return sampler


def _check_options(options: Mapping[str, Any], context: BuildContext) -> None:
    """Raise `UserError` for options out of range, before anything is loaded."""
    if not options.get("id"):
        presets = ", ".join(PRESETS)
        raise UserError(f"diffusers needs a pipeline: give id='OWNER/NAME', id='FOLDER' or preset= one of {presets}")
    for name in ("steps", "frames", "height", "width"):
        if options.get(name, 1) < 1:
            raise UserError(f"diffusers({name}={options[name]}): {name} must be at least 1")
    if not 0 <= options.get("guidance", 1) < math.inf:
        raise UserError(f"diffusers(guidance={options['guidance']}): choose a finite number of at least 0; 1 is none")
    for name in ("shift", "block_cache"):
        if not 0 < options.get(name, 1) < math.inf:
            raise UserError(f"diffusers({name}={options[name]}): choose a finite number above 0")
    for name, choices in {"fit": FITS, "offload": OFFLOADS}.items():
        if options.get(name, choices[0]) not in choices:
            raise unknown(f"{name} of diffusers", options[name], choices)
    if options.get("offload", "none") != "none" and context.device.type != "cuda":
        raise UserError(f"diffusers(offload='{options['offload']}') keeps networks off a GPU, and this runs on the CPU")


def _suspect_options(options: Mapping[str, Any], user_options: Mapping[str, Any]) -> str:
    """The options that may keep a pipeline from opening, for an error message; a preset's are named with the preset."""
    texts = {name: f"{name}={options[name]!r}" for name in ("variant", "adapter", "pipeline") if name in options}
    suspects = [text for name, text in texts.items() if name in user_options]
    if of_preset := [text for name, text in texts.items() if name not in user_options]:
        suspects.append(f"preset={user_options['preset']!r} ({', '.join(of_preset)})")
    return " and ".join(suspects)


def _dtype(name: str, options: Mapping[str, Any], default: torch.dtype) -> torch.dtype:
    if name not in options:
        return default
    if options[name] not in DTYPES:
        raise unknown(f"{name} of diffusers", options[name], DTYPES)
    return DTYPES[options[name]]


def _set_shift(pipe: Any, shift: float) -> None:
    """Replace the scheduler by one with another shift, whose field name depends on its class."""
    config = pipe.scheduler.config
    name = next((name for name in ("flow_shift", "shift") if name in config), None)
    if name is None:
        raise UserError(f"diffusers(shift={shift}): {type(pipe.scheduler).__name__} has no shift; leave it out")
    pipe.scheduler = type(pipe.scheduler).from_config(config, **{name: shift})


def _move_to_device(pipe: Any, device: torch.device, offload: str) -> None:
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)
