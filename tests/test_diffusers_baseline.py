"""Tests of the `diffusers` model: the sampler contract for every pipeline family, options, unsafe folders, presets."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command, results
from contract import check_sampler
from helpers import CPU, tiny_dataset
from PIL import Image
from torch import Tensor

from vfbench import plugins
from vfbench.baselines import diffusers
from vfbench.baselines._pipeline_sampler import PipelineSampler
from vfbench.baselines._pipelines import to_clips
from vfbench.clips import transform
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.interfaces import BuildContext, ClipShape, Request
from vfbench.pipeline.cost import measure
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan

library: Any = pytest.importorskip("diffusers", reason='needs pip install "vfbench[diffusers]"')
from pipelines import FAMILIES, image_parts, motion_adapter, save  # noqa: E402  # needs the library

SHAPES = {
    "modelscope": ClipShape(4, 16, 16),
    "animatediff": ClipShape(4, 16, 16),
    "cogvideox": ClipShape(9, 32, 32),
    "cogvideox_from_image": ClipShape(9, 32, 32),
    "ltx": ClipShape(9, 32, 32),
    "ltx_from_image": ClipShape(9, 32, 32),
    "wan": ClipShape(5, 16, 16),
    "wan_from_image": ClipShape(5, 16, 16),
    "svd": ClipShape(6, 16, 16),
    "unconditional": ClipShape(1, 16, 16),
}
DATA = tiny_dataset(4, 16)
CONTEXT = BuildContext(DATA, CPU)
HAS_FTFY = importlib.util.find_spec("ftfy") is not None
needs_ftfy = pytest.mark.skipif(not HAS_FTFY, reason='Wan needs ftfy: pip install "vfbench[diffusers]"')
# Raised by the scheduler of Stable Video Diffusion.
old_numpy = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def families(*names: str) -> pytest.MarkDecorator:
    """Parametrise a test over pipeline families."""
    marks = {"wan": [needs_ftfy], "wan_from_image": [needs_ftfy], "svd": [old_numpy]}
    return pytest.mark.parametrize("family", [pytest.param(name, marks=marks.get(name, [])) for name in names])


Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Function that returns the folder of a family's pipeline; pipelines are saved at first use."""
    root = tmp_path_factory.mktemp("pipelines")
    return lambda family: root / family if (root / family).exists() else save(family, root / family)


def requests(count: int = 3) -> list[Request]:
    """Requests of test clips with different first frames and captions."""
    indices = [0, 7, 19][:count]
    rows = zip(DATA.labels("test", indices), DATA.captions("test", indices), indices, strict=True)
    return [Request(i, 100 + i, label, caption, source) for i, (label, caption, source) in enumerate(rows)]


def build_sampler(pipeline_folder: Folders, family: str = "modelscope", **options: Any) -> PipelineSampler:
    options = {"id": str(pipeline_folder(family)), "steps": 2, **FAMILIES[family].options, **options}
    return diffusers.build(CONTEXT, **options)


def differ(a: Tensor, b: Tensor) -> bool:
    return not torch.equal(a, b)


# Sampler contract.


@pytest.mark.slow
@pytest.mark.one_case
@families(*FAMILIES)
def test_a_family_keeps_the_sampler_contract(pipeline_folder: Folders, family: str) -> None:
    sampler = build_sampler(pipeline_folder, family)
    assert sampler.shape == SHAPES[family]
    assert sampler.conditioning == ("none" if family in ("unconditional", "svd") else "text")
    check_sampler(sampler, requests())


@pytest.mark.slow
@pytest.mark.one_case
@families("modelscope", "ltx", "wan")
def test_a_clip_depends_on_seed_and_prompt(pipeline_folder: Folders, family: str) -> None:
    sampler, (first, *_) = build_sampler(pipeline_folder, family), requests()
    clip = sampler.sample([first])
    assert differ(clip, sampler.sample([Request(0, 999, first.label, first.prompt)]))
    other = "blue triangle over left" if family == "modelscope" else "blue"
    assert differ(clip, sampler.sample([Request(0, first.seed, first.label, other)]))


@pytest.mark.one_case
@families("ltx_from_image", "cogvideox_from_image", "wan_from_image", "svd")
def test_an_image_pipeline_gets_the_first_frame_of_the_real_clip(pipeline_folder: Folders, family: str) -> None:
    sampler, (first, second, _) = build_sampler(pipeline_folder, family), requests()
    images: list[Image.Image] = []
    call = type(sampler.pipe).__call__
    other = Request(0, first.seed, first.label, first.prompt, second.source)

    def record_image(pipe: Any, **arguments: Any) -> Any:
        images.append(arguments["image"])
        return call(pipe, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(sampler.pipe), "__call__", record_image)
        clips = [sampler.sample([request]) for request in (first, other)]
    assert differ(*clips)
    real = DATA.clips("test", [second.source])[0, :1]
    side = SHAPES[family].height
    assert np.array_equal(np.array(images[1]), transform.resize(real, side, side)[0].permute(1, 2, 0).numpy())


@pytest.mark.slow
def test_one_folder_holds_text_and_image_pipelines(pipeline_folder: Folders) -> None:
    """Build both from an id such as LTX's, whose index names the text pipeline only."""
    text, image = (
        build_sampler(pipeline_folder, "ltx"),
        build_sampler(pipeline_folder, "ltx", pipeline="LTXImageToVideoPipeline"),
    )
    assert type(image.pipe).__name__ == "LTXImageToVideoPipeline"
    assert image.weights == text.weights
    assert torch.equal(image.sample(requests()), build_sampler(pipeline_folder, "ltx_from_image").sample(requests()))


@pytest.mark.slow
@pytest.mark.one_case
@families("modelscope", "cogvideox", "ltx", "wan")
def test_cost_counts_steps_and_guidance(pipeline_folder: Folders, family: str) -> None:
    """Count two network calls a step under guidance."""
    network = "unet" if family == "modelscope" else "transformer"
    costs = {
        (steps, guidance): measure(
            build_sampler(pipeline_folder, family, steps=steps, guidance=guidance), requests()[0]
        )
        for steps, guidance in ((2, 1.0), (3, 1.0), (3, 4.0))
    }
    assert [cost.calls[network] for cost in costs.values()] == [2, 3, 6]
    assert all(cost.evaluations == cost.calls[network] for cost in costs.values())
    assert all(cost.flops_per_clip > 0 for cost in costs.values())


def test_parameters_of_a_motion_adapter_count_once(pipeline_folder: Folders) -> None:
    sampler = build_sampler(pipeline_folder, "animatediff")
    assert "motion_adapter" in sampler.pipe.components
    assert set(sampler.networks) == {"unet", "vae", "text_encoder"}


# Options.


@pytest.mark.slow
def test_guidance_and_negative_prompt_change_the_clip(pipeline_folder: Folders) -> None:
    clips = [
        build_sampler(pipeline_folder, **options).sample(requests(2))
        for options in ({"guidance": 1.0}, {"guidance": 9.0}, {"guidance": 9.0, "negative": "red circle"})
    ]
    assert differ(clips[0], clips[1])
    assert differ(clips[1], clips[2])


def test_frames_height_and_width_set_the_clip_size(pipeline_folder: Folders) -> None:
    sampler = build_sampler(pipeline_folder, frames=2, height=32, width=48)
    assert sampler.shape == ClipShape(2, 32, 48)
    assert sampler.sample(requests(2)).shape == (2, 2, 3, 32, 48)


@pytest.mark.one_case
@pytest.mark.parametrize("fit", diffusers.FITS)
def test_fit_resizes_clips_to_the_dataset(pipeline_folder: Folders, fit: str) -> None:
    plain = build_sampler(pipeline_folder, height=32, width=48)
    fitted = build_sampler(pipeline_folder, height=32, width=48, fit=fit)
    assert (plain.shape, fitted.shape) == (ClipShape(4, 32, 48), ClipShape(4, 16, 16))
    clips = plain.sample(requests(1))
    cropped = clips[..., 8:40] if fit == "centre-crop" else clips
    assert torch.equal(fitted.sample(requests(1)), transform.resize(cropped, 16, 16))


def test_pixel_values_are_rounded_or_truncated_by_the_protocol(pipeline_folder: Folders) -> None:
    options: dict[str, Any] = {"id": str(pipeline_folder("modelscope")), "steps": 2, "frames": 4}
    rounded = diffusers.build(CONTEXT, **options).sample(requests(1)).int()
    truncated = diffusers.build(BuildContext(DATA, CPU, quantise="truncate"), **options).sample(requests(1)).int()
    assert set((rounded - truncated).flatten().tolist()) == {0, 1}


@needs_ftfy
def test_the_shift_reaches_the_scheduler(pipeline_folder: Folders) -> None:
    shifted = build_sampler(pipeline_folder, "wan", shift=7.0)
    assert shifted.pipe.scheduler.config.flow_shift == 7.0
    assert build_sampler(pipeline_folder, "ltx", shift=2.0).pipe.scheduler.config.shift == 2.0
    assert differ(shifted.sample(requests(1)), build_sampler(pipeline_folder, "wan").sample(requests(1)))


@needs_ftfy
def test_dtype_sets_the_type_of_the_weights(pipeline_folder: Folders) -> None:
    sampler = build_sampler(pipeline_folder, "wan", dtype="bfloat16", vae_dtype="float32")
    types = {name: {p.dtype for p in network.parameters()} for name, network in sampler.networks.items()}
    assert types.pop("vae") == {torch.float32}
    assert all(torch.bfloat16 in dtypes for dtypes in types.values())  # some layers always keep float32
    assert sampler.sample(requests(1)).shape == (1, 5, 3, 16, 16)


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offload_leaves_networks_on_the_cpu(
    pipeline_folder: Folders, monkeypatch: pytest.MonkeyPatch, offload: str
) -> None:
    devices: list[torch.device] = []
    monkeypatch.setattr(
        library.DiffusionPipeline, f"enable_{offload}_cpu_offload", lambda _, device: devices.append(device)
    )
    gpu = torch.device("cuda")
    sampler = diffusers.build(BuildContext(DATA, gpu), id=str(pipeline_folder("modelscope")), offload=offload)
    assert devices == [gpu]
    assert {p.device for network in sampler.networks.values() for p in network.parameters()} == {CPU}


@pytest.mark.slow
def test_a_motion_adapter_turns_an_image_pipeline_into_animatediff(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        parts = {**image_parts(), "safety_checker": None, "feature_extractor": None}
        library.StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(tmp_path / "images")
        motion_adapter().save_pretrained(tmp_path / "adapter")
    options: dict[str, Any] = {"id": str(tmp_path / "images"), "frames": 4, "steps": 2}
    sampler = diffusers.build(CONTEXT, adapter=str(tmp_path / "adapter"), **options)
    assert type(sampler.pipe).__name__ == "AnimateDiffPipeline"
    assert sampler.pipe.scheduler.config.beta_schedule == "linear"
    check_sampler(sampler, requests())
    with pytest.raises(UserError, match="StableDiffusionPipeline takes no num_frames"):
        diffusers.build(CONTEXT, **options)


@pytest.mark.one_case
@pytest.mark.parametrize("preset", diffusers.PRESETS)
def test_a_preset_fits_its_pipeline(pipeline_folder: Folders, preset: str) -> None:
    """Build the tiny pipeline of the preset's family at a small size."""
    family = preset.removesuffix("-480p").removesuffix("-image")
    if family == "wan" and not HAS_FTFY:
        pytest.skip("Wan needs ftfy")
    fields = dict(diffusers.PRESETS[preset])
    assert fields.keys() <= plugins.options("model", "diffusers").keys()
    small = {"id": str(pipeline_folder(family)), "dtype": "float32", "steps": 1, **FAMILIES[family].options}
    options = {name: value for name, value in fields.items() if name not in ("variant", "adapter", "height", "width")}
    assert len(diffusers.build(CONTEXT, **{**options, **small}).sample(requests(1))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": None}, "preset= one of modelscope, animatediff"),
        ({"id": ""}, "preset= one of modelscope, animatediff"),
        ({"preset": "wam"}, "'wam'.*'wan'"),
        ({"steps": 0}, r"diffusers\(steps=0\)"),
        ({"height": -1}, "height .*at least 1"),
        ({"dtype": "float8"}, "dtype .*'float8'"),
        ({"fit": "native"}, "fit .*'native'"),
        ({"offload": "model"}, "offload.*CPU"),
        ({"guidance": -1.0}, r"diffusers\(guidance=-1.0\)"),
        ({"guidance": float("inf")}, r"diffusers\(guidance=inf\)"),
        ({"guidance": float("nan")}, r"diffusers\(guidance=nan\)"),
        ({"shift": 0.0}, r"diffusers\(shift=0.0\)"),
        ({"pipeline": "LTXImageToVideoPipelin"}, "'LTXImageToVideoPipeline'"),
        ({"pipeline": "UNet3DConditionModel"}, "pipeline .*'UNet3DConditionModel'"),
        ({"shift": 3.0}, "DDIMScheduler has no shift"),
        ({"revision": "main"}, "revision='main' needs a hub id"),
        ({"attention": "flush"}, "'flush'.*'flash'"),
        ({"attention": "flash_hub"}, "'flash_hub'"),  # downloads code
        ({"attention": "native"}, "TextToVideoSDPipeline has one attention"),
        ({"block_cache": 0.1}, "block_cache=0.1.*TextToVideoSDPipeline"),
        ({"block_cache": 0.0}, r"block_cache=0.0.*above 0"),
    ],
)
def test_invalid_options_are_refused(pipeline_folder: Folders, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_sampler(pipeline_folder, **options)


def test_an_option_unknown_to_the_pipeline_is_refused(pipeline_folder: Folders) -> None:
    with pytest.raises(UserError, match="DDPMPipeline takes no guidance_scale"):
        build_sampler(pipeline_folder, "unconditional", guidance=2.0)


def test_a_size_that_the_pipeline_cannot_sample_names_the_nearest(pipeline_folder: Folders) -> None:
    with pytest.raises(UserError, match=r"16x32x32.*diffusers\(frames=9, height=32, width=32\)"):
        build_sampler(pipeline_folder, "ltx", frames=16).sample(requests(1))


# Attention backends and caches.


@pytest.mark.slow
def test_a_lossy_cache_is_named_and_leaves_each_clip_to_its_request(pipeline_folder: Folders) -> None:
    plain, weak, strong = (
        build_sampler(pipeline_folder, "ltx", steps=8, **options)
        for options in ({}, {"block_cache": 1e-6}, {"block_cache": 100.0})
    )
    clips = torch.cat([plain.sample([request]) for request in requests()])
    assert torch.equal(weak.sample(requests()), clips)
    assert differ(strong.sample(requests()), clips)
    check_sampler(strong, requests())
    assert ("lossy" in strong.note(requests()), plain.note(requests())) == (True, "")


def test_a_transformer_of_one_block_takes_no_block_cache(pipeline_folder: Folders) -> None:
    with pytest.raises(UserError, match=r"block_cache=0.1.*does not take it"):
        build_sampler(pipeline_folder, "cogvideox", block_cache=0.1)


def test_an_attention_backend_is_used_while_its_pipeline_samples(
    pipeline_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.models import attention_dispatch

    used = list[str]()
    registry: Any = attention_dispatch._AttentionBackendRegistry
    dispatch = registry.get_active_backend

    def record() -> Any:
        used.append(dispatch()[0].value)
        return dispatch()

    monkeypatch.setattr(registry, "get_active_backend", record)
    for attention, expected in (("_native_math", "_native_math"), (None, "native")):
        used.clear()
        build_sampler(pipeline_folder, "ltx", attention=attention).sample(requests(1))
        assert set(used) == {expected}


def test_a_call_that_fails_leaves_nothing_in_the_cache(pipeline_folder: Folders) -> None:
    sampler, (first, *_) = build_sampler(pipeline_folder, "ltx", steps=4, block_cache=100.0), requests()
    expected = sampler.sample([first])

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("planted")

    decode = sampler.pipe.vae.decode
    sampler.pipe.vae.decode = fail
    with pytest.raises(RuntimeError, match="planted"):
        sampler.sample(requests(2)[1:])
    sampler.pipe.vae.decode = decode
    assert torch.equal(sampler.sample([first]), expected)


def test_an_attention_backend_whose_package_is_missing_is_refused(pipeline_folder: Folders) -> None:
    with pytest.raises(BadEnvironment, match=r"attention='flash'.*flash-attn"):
        build_sampler(pipeline_folder, "ltx", attention="flash")


# Unsafe or broken pipelines.


def test_a_pipeline_that_uses_global_random_numbers_is_refused(
    pipeline_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = build_sampler(pipeline_folder)
    call = type(sampler.pipe).__call__

    def sample_globally(pipe: Any, **arguments: Any) -> Any:
        torch.rand(1)
        return call(pipe, **arguments)

    monkeypatch.setattr(type(sampler.pipe), "__call__", sample_globally)
    with pytest.raises(UserError, match="draws random numbers outside the generator"), torch.random.fork_rng():
        sampler.sample(requests(1))


def test_a_pipeline_that_needs_a_video_is_refused(tmp_path: Path, pipeline_folder: Folders) -> None:
    folder = shutil.copytree(pipeline_folder("cogvideox"), tmp_path / "edit")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("CogVideoXPipeline", "CogVideoXVideoToVideoPipeline"))
    with pytest.raises(UserError, match="no text-to-video, image-to-video or unconditional"):
        diffusers.build(CONTEXT, id=str(folder))


@pytest.fixture
def folder_copy(pipeline_folder: Folders, tmp_path: Path) -> Path:
    """Writable copy of a pipeline."""
    return Path(shutil.copytree(pipeline_folder("modelscope"), tmp_path / "copy"))


def assert_refused(folder: Path, message: str) -> None:
    with pytest.raises(MissingData, match=message):
        diffusers.build(CONTEXT, id=str(folder), frames=4)


def test_pickled_weights_are_refused(folder_copy: Path) -> None:
    weights = folder_copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    assert_refused(folder_copy, "pytorch_model.bin is a pickle.*safetensors")


@pytest.mark.parametrize("class_name", ["MyPipeline", ["mine", "MyPipeline"], "UNet3DConditionModel"])
def test_foreign_pipeline_classes_are_refused(folder_copy: Path, class_name: object) -> None:
    index = json.loads((folder_copy / "model_index.json").read_text())
    (folder_copy / "mine.py").write_text("raise AssertionError('it runs')")
    (folder_copy / "model_index.json").write_text(json.dumps({**index, "_class_name": class_name}))
    assert_refused(folder_copy, "is no pipeline of diffusers")


def test_a_component_of_another_library_is_refused(folder_copy: Path) -> None:
    index = json.loads((folder_copy / "model_index.json").read_text())
    (folder_copy / "model_index.json").write_text(json.dumps({**index, "vae": ["os", "AutoencoderKL"]}))
    assert_refused(folder_copy, "vae is of 'os'")


def test_a_component_folder_with_code_is_refused(folder_copy: Path) -> None:
    (folder_copy / "vae" / "diffusers.py").write_text("raise AssertionError('it runs')")
    assert_refused(folder_copy, "contains code")


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_a_missing_tensor_is_named(folder_copy: Path, part: str) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder_copy / part)
    missing = sorted(tensors)[3]
    save_file(
        {name: tensors[name] for name in tensors if name != missing}, folder_copy / part, metadata={"format": "pt"}
    )
    assert_refused(folder_copy, f"{Path(part).parent} lacks 1 tensors.*'.*{missing.rpartition('.')[2]}'")


def test_damaged_weights_are_refused(folder_copy: Path) -> None:
    (folder_copy / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
    assert_refused(folder_copy, "copy: .*cannot be opened")


def test_out_of_memory_is_not_reported_as_a_damaged_pipeline(
    folder_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_out_of_memory(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(library.DiffusionPipeline, "from_pretrained", raise_out_of_memory)
    with pytest.raises(BadEnvironment, match=f"{folder_copy} does not fit into the memory of this machine"):
        diffusers.build(CONTEXT, id=str(folder_copy), frames=4)


def test_an_option_that_prevents_loading_is_named(pipeline_folder: Folders) -> None:
    folder = str(pipeline_folder("modelscope"))
    with pytest.raises(MissingData, match=r"cannot be opened .*variant='fp16'"):
        diffusers.build(CONTEXT, id=folder, variant="fp16")
    with pytest.raises(MissingData, match=r"transformer.*pipeline='LTXImageToVideoPipeline'"):
        diffusers.build(CONTEXT, id=folder, pipeline="LTXImageToVideoPipeline")


def test_a_preset_option_that_prevents_loading_names_the_preset(pipeline_folder: Folders) -> None:
    with pytest.raises(MissingData, match=r"preset='modelscope' \(variant='fp16'\)"):
        diffusers.build(CONTEXT, preset="modelscope", id=str(pipeline_folder("modelscope")))


def test_a_folder_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, "no model_index.json")
    assert_refused(tmp_path / "missing" / "folder", "no such folder")


@pytest.mark.slow
def test_the_weight_hash_covers_every_file(pipeline_folder: Folders, folder_copy: Path) -> None:
    first = build_sampler(pipeline_folder).weights
    assert diffusers.build(CONTEXT, id=str(folder_copy), frames=4).weights == first
    config = folder_copy / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + "\n")
    assert diffusers.build(CONTEXT, id=str(folder_copy), frames=4).weights != first


def test_a_missing_hub_id_names_cache_and_command(vfbench: Command) -> None:
    outcome = vfbench("run", "--model", "diffusers(id='nobody/nothing')", "--dataset", "shapes", "--smoke")
    assert outcome.code == 4
    assert "'nobody/nothing'" in outcome.err
    assert "HF_HOME=" in outcome.err
    assert "stacktrace" not in outcome.err
    assert "hf download nobody/nothing --include '*.safetensors'" in outcome.err


def test_without_diffusers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(BadEnvironment, match=r'pip install "vfbench\[diffusers\]"'):
        diffusers.build(CONTEXT, id="nobody/nothing")


def test_wan_without_ftfy_is_refused(pipeline_folder: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys.modules[library.WanPipeline.__module__], "ftfy", raising=False)
    with pytest.raises(BadEnvironment, match=r'ftfy: pip install "vfbench\[diff'):
        build_sampler(pipeline_folder, "wan")


# Documentation of the presets.


def test_the_help_names_the_wan_presets_without_negative_prompt(vfbench: Command) -> None:
    presets = [name for name, fields in diffusers.PRESETS.items() if "Wan" in fields["id"] and "negative" not in fields]
    text = " ".join(vfbench("show", "model", "diffusers").out.split())
    assert presets == ["wan", "wan-480p"]
    assert all(f"`{name}`" in text for name in presets)
    assert "negative prompt" in text


# Output formats of pipelines.


def test_every_output_format_gives_equal_clips() -> None:
    clips = torch.randint(256, (2, 4, 3, 6, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    channels_last = clips.permute(0, 1, 3, 4, 2).numpy()
    nested = [[Image.fromarray(frame) for frame in clip] for clip in channels_last]
    formats = [
        clips,
        clips.float() / 255,
        clips.transpose(1, 2) / 255,
        channels_last,
        channels_last / np.float32(255),
        nested,
        list(channels_last),
    ]
    for output in formats:
        assert torch.equal(to_clips(output, "round"), clips)
    assert torch.equal(to_clips(channels_last[:, 0], "round"), clips[:, :1])


@pytest.mark.parametrize("frames", [np.zeros((2, 4, 6, 8)), torch.zeros(2, 4, 5, 6, 8), np.zeros((6, 8, 3))])
def test_arrays_other_than_clips_are_refused(frames: Any) -> None:
    with pytest.raises(ValueError, match="RGB clips"):
        to_clips(frames, "round")


# Benchmark runs.


def spec(pipeline_folder: Folders, family: str, **options: Any) -> str:
    options = {"id": str(pipeline_folder(family)), "steps": 2, **FAMILIES[family].options, **options}
    return f"diffusers({', '.join(f'{name}={value!r}' for name, value in options.items())})"


def run(vfbench: Command, model: str, output: Path, dataset: str, more: Sequence[object] = ()) -> Any:
    options = ["--num-samples", 8, "--num-real", 8, "--smoke", "--metrics", "fvd", "--device", "cpu"]
    return vfbench("run", "--model", model, "--dataset", dataset, *options, "--output", output, *more)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["modelscope", pytest.param("wan", marks=needs_ftfy)])
def test_the_command_scores_a_pipeline(pipeline_folder: Folders, family: str, vfbench: Command, tmp_path: Path) -> None:
    frames, height, width = (16, 32, 32) if family == "modelscope" else (17, 32, 32)
    model = spec(pipeline_folder, family, frames=frames, height=height, width=width)
    outcome = run(vfbench, model, tmp_path / "run", "shapes", ["--batch-size", 3])
    assert outcome.code == 0, outcome.err
    result = results(tmp_path / "run")
    assert result["weights"] == build_sampler(pipeline_folder, family).weights
    assert result["cost"]["evaluations"] == 4
    assert result["sampling"]["steps"] == 2
    assert result["scores"]["fvd"]["n_fake"] == 8


def test_clips_of_another_size_are_refused(pipeline_folder: Folders) -> None:
    options = RunOptions(model=spec(pipeline_folder, "modelscope", frames=16), device="cpu", smoke=True, num_samples=4)
    with pytest.raises(UserError, match=r"16x16x16.* 16x32x32"):
        plan(options)
