"""Any text-to-video, image-to-video or unconditional pipeline of the diffusers library, by hub id or folder.

A clip's noise is drawn on the CPU from a generator of its own, so that it follows from its request alone. What a
pipeline takes decides what it is shown of a request: the prompt where it takes one; the first frame of the request's
real clip where it takes an image, which is looking at the data: such a row compares only with others that do, and
`drop_first` of a protocol keeps that frame out of the score. Image-to-video pipelines get one clip at a time, since
several of them mix the images of a batch.

The clips have the pipeline's own size. A run refuses them where its protocol scores another one; `fit` says how they
shall be brought to the size of the dataset's: `centre-crop` or `squash` of `vfbench.clips.transform`, bilinear with
antialiasing, after rounding to bytes.

The presets of Wan, `wan` and `wan-480p`, depart from the example of their model in one thing: that has a long negative
prompt, and they have none. Who wants it gives it: `negative='...'`.

The preset `modelscope` is often taken for VideoFusion, and is not: the released ModelScope model is one latent U-Net
with independent noise for every frame (its authors: github.com/modelscope/modelscope, issue 284).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from vfbench.baselines import _pipelines
from vfbench.baselines._pipeline_sampler import Pipeline
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
# Settings of the examples in diffusers 0.42 (in the file of each pipeline) or, where it says so, of its documentation.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # TextToVideoSDPipeline, 8 frames a second; steps, guidance and frames are the defaults of its call.
    "modelscope": {
        "id": "damo-vilab/text-to-video-ms-1.7b",
        "variant": "fp16",
        "dtype": "float16",
        "steps": 50,
        "guidance": 9.0,
        "frames": 16,
    },
    # AnimateDiffPipeline, from the documentation; the size is that of the image model.
    "animatediff": {
        "id": "SG161222/Realistic_Vision_V5.1_noVAE",
        "adapter": "guoyww/animatediff-motion-adapter-v1-5-2",
        "dtype": "float16",
        "steps": 25,
        "guidance": 7.5,
        "negative": "bad quality, worse quality",
        "frames": 16,
    },
    # CogVideoXPipeline, 8 frames a second: 6 seconds and a frame.
    "cogvideox": {
        "id": "THUDM/CogVideoX-2b",
        "dtype": "float16",
        "steps": 50,
        "guidance": 6.0,
        "frames": 49,
        "height": 480,
        "width": 720,
    },
    # LTXPipeline, 24 frames a second; guidance is the default of its call.
    "ltx": _LTX,
    # LTXImageToVideoPipeline of the same id: its example has the same settings.
    "ltx-image": {"pipeline": "LTXImageToVideoPipeline", **_LTX},
    # WanPipeline, 16 frames a second; steps are the default of its call. Its example's negative prompt is left out.
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
    setting: BuildContext,
    *,
    preset: str | None = None,
    id: str | None = None,
    revision: str | None = None,
    variant: str | None = None,
    pipeline: str | None = None,
    adapter: str | None = None,
    dtype: str | None = None,
    vae_dtype: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    negative: str | None = None,
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    shift: float | None = None,
    fit: str | None = None,
    offload: str = "none",
) -> Pipeline:
    """The sampler of a pipeline; an option that is not given is the preset's, else the pipeline's own.

    `id` is an id of the Hugging Face hub or a folder, `revision` and `variant` (such as fp16) are those of the hub.
    `pipeline` names the class to open it as, where one id serves several (`LTXImageToVideoPipeline`), and `adapter` is
    AnimateDiff's motion adapter for the image pipeline `id`. `dtype` of the weights is that of the run if
    nobody says it. `shift` is that of flow-matching schedulers. `offload` keeps whole networks (`model`) or single
    layers (`sequential`) off the GPU until they are called. Raises `UserError` for what the pipeline does not take,
    `MissingData` for a pipeline that is not there or not to be trusted, and `BadEnvironment` without the library.
    """
    if setting.checkpoint is not None:
        raise UserError("diffusers reads the pipeline that id names: leave out --checkpoint")
    given = {name: value for name, value in locals().items() if name != "setting" and value is not None}
    if preset is not None and preset not in PRESETS:
        raise unknown("diffusers preset", preset, PRESETS)
    asked = {**PRESETS.get(preset or "", {}), **given}
    _check(asked, setting)
    own = _dtype("dtype", asked, setting.dtype)
    dtypes = {"default": own, "vae": _dtype("vae_dtype", asked, own)}
    folders = [_pipelines.pipeline_folder(asked["id"], asked.get("revision"), asked.get("variant"))]
    folders += [_pipelines.adapter_folder(asked["adapter"])] if "adapter" in asked else []
    adapted = folders[1] if folders[1:] else None
    way = (asked.get("variant"), adapted, asked.get("pipeline"))
    pipe = _pipelines.load(folders[0], dtypes, *way, doubtful=_doubtful(asked, given))
    if "shift" in asked:
        _shift(pipe, asked["shift"])
    sampler = Pipeline(pipe, setting, asked, _pipelines.digest(*folders))
    _place(pipe, setting.device, offload)
    return sampler


def _check(asked: Mapping[str, Any], setting: BuildContext) -> None:
    """Raise `UserError` for options that make no sense, before anything is loaded."""
    if not asked.get("id"):
        presets = ", ".join(PRESETS)
        raise UserError(f"diffusers: which pipeline? Give id='OWNER/NAME', id='FOLDER' or preset= one of {presets}")
    for name in ("steps", "frames", "height", "width"):
        if asked.get(name, 1) < 1:
            raise UserError(f"diffusers({name}={asked[name]}): {name} must be at least 1")
    if not 0 <= asked.get("guidance", 1) < math.inf:
        raise UserError(f"diffusers(guidance={asked['guidance']}): choose a finite number of at least 0; 1 is none")
    if not 0 < asked.get("shift", 1) < math.inf:
        raise UserError(f"diffusers(shift={asked['shift']}): choose a finite number above 0")
    for name, words in {"fit": FITS, "offload": OFFLOADS}.items():
        if asked.get(name, words[0]) not in words:
            raise unknown(f"{name} of diffusers", asked[name], words)
    if asked.get("offload", "none") != "none" and setting.device.type != "cuda":
        raise UserError(f"diffusers(offload='{asked['offload']}') keeps networks off a GPU, and this runs on the CPU")


def _doubtful(asked: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """The options on which it depends whether a pipeline opens, in words; those of a preset go with it alone."""
    told = {name: f"{name}={asked[name]!r}" for name in ("variant", "adapter", "pipeline") if name in asked}
    own = [text for name, text in told.items() if name in given]
    if preset := [text for name, text in told.items() if name not in given]:
        own.append(f"preset={given['preset']!r} ({', '.join(preset)})")
    return " and ".join(own)


def _dtype(name: str, asked: Mapping[str, Any], default: torch.dtype) -> torch.dtype:
    if name not in asked:
        return default
    if asked[name] not in DTYPES:
        raise unknown(f"{name} of diffusers", asked[name], DTYPES)
    return DTYPES[asked[name]]


def _shift(pipe: Any, shift: float) -> None:
    """Give the scheduler another shift, under the name that it has there."""
    config = pipe.scheduler.config
    name = next((name for name in ("flow_shift", "shift") if name in config), None)
    if name is None:
        raise UserError(f"diffusers(shift={shift}): {type(pipe.scheduler).__name__} has no shift; leave it out")
    pipe.scheduler = type(pipe.scheduler).from_config(config, **{name: shift})


def _place(pipe: Any, device: torch.device, offload: str) -> None:
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)
