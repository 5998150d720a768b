"""Every family of pipelines keeps the promises of a sampler, and none executes or fetches what it should not."""

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
from pipelines import FAMILIES, image_parts, motion_adapter, save  # noqa: E402  # they need the library

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
SETTING = BuildContext(DATA, CPU)
HAS_FTFY = importlib.util.find_spec("ftfy") is not None
needs_ftfy = pytest.mark.skipif(not HAS_FTFY, reason='Wan needs ftfy: pip install "vfbench[diffusers]"')
# Of the scheduler of Stable Video Diffusion.
old_numpy = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def of(*families: str) -> pytest.MarkDecorator:
    """A test for each of the families."""
    marks = {"wan": [needs_ftfy], "wan_from_image": [needs_ftfy], "svd": [old_numpy]}
    return pytest.mark.parametrize("family", [pytest.param(name, marks=marks.get(name, [])) for name in families])


Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The folder of a family's pipeline, made when it is first asked for."""
    root = tmp_path_factory.mktemp("pipelines")
    return lambda family: root / family if (root / family).exists() else save(family, root / family)


def requests(count: int = 3) -> list[Request]:
    """Of test clips whose first frames and captions differ."""
    indices = [0, 7, 19][:count]
    rows = zip(DATA.labels("test", indices), DATA.captions("test", indices), indices, strict=True)
    return [Request(i, 100 + i, label, caption, source) for i, (label, caption, source) in enumerate(rows)]


def make(saved: Folders, family: str = "modelscope", **options: Any) -> PipelineSampler:
    given = {"id": str(saved(family)), "steps": 2, **FAMILIES[family].options, **options}
    return diffusers.build(SETTING, **given)


def differ(a: Tensor, b: Tensor) -> bool:
    return not torch.equal(a, b)


# What a sampler promises.


@of(*FAMILIES)
def test_a_family_keeps_what_a_sampler_promises(saved: Folders, family: str) -> None:
    sampler = make(saved, family)
    assert sampler.shape == SHAPES[family]
    assert sampler.conditioning == ("none" if family in ("unconditional", "svd") else "text")
    check_sampler(sampler, requests())


@of("modelscope", "ltx", "wan")
def test_a_clip_follows_from_its_seed_and_its_prompt(saved: Folders, family: str) -> None:
    sampler, (first, *_) = make(saved, family), requests()
    clip = sampler.sample([first])
    assert differ(clip, sampler.sample([Request(0, 999, first.label, first.prompt)]))
    other = "blue triangle over left" if family == "modelscope" else "blue"
    assert differ(clip, sampler.sample([Request(0, first.seed, first.label, other)]))


@of("ltx_from_image", "cogvideox_from_image", "wan_from_image", "svd")
def test_an_image_pipeline_is_shown_the_first_frame_of_the_real_clip(saved: Folders, family: str) -> None:
    sampler, (first, second, _) = make(saved, family), requests()
    shown: list[Image.Image] = []
    call = type(sampler.pipe).__call__
    asked = Request(0, first.seed, first.label, first.prompt, second.source)

    def look(pipe: Any, **arguments: Any) -> Any:
        shown.append(arguments["image"])
        return call(pipe, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(sampler.pipe), "__call__", look)
        clips = [sampler.sample([request]) for request in (first, asked)]
    assert differ(*clips)
    real = DATA.clips("test", [second.source])[0, :1]
    side = SHAPES[family].height
    assert np.array_equal(np.array(shown[1]), transform.resize(real, side, side)[0].permute(1, 2, 0).numpy())


def test_one_folder_serves_text_and_image(saved: Folders) -> None:
    """Of an id such as LTX's, which names the pipeline of text alone."""
    text, image = make(saved, "ltx"), make(saved, "ltx", pipeline="LTXImageToVideoPipeline")
    assert type(image.pipe).__name__ == "LTXImageToVideoPipeline"
    assert image.weights == text.weights
    assert torch.equal(image.sample(requests()), make(saved, "ltx_from_image").sample(requests()))


@of("modelscope", "cogvideox", "ltx", "wan")
def test_the_ledger_counts_steps_and_guidance(saved: Folders, family: str) -> None:
    """Guidance shows the network each clip twice a step."""
    network = "unet" if family == "modelscope" else "transformer"
    costs = {
        (steps, guidance): measure(make(saved, family, steps=steps, guidance=guidance), requests()[0])
        for steps, guidance in ((2, 1.0), (3, 1.0), (3, 4.0))
    }
    assert [cost.calls[network] for cost in costs.values()] == [2, 3, 6]
    assert all(cost.evaluations == cost.calls[network] for cost in costs.values())
    assert all(cost.flops_per_clip > 0 for cost in costs.values())


def test_the_parameters_of_a_motion_adapter_count_once(saved: Folders) -> None:
    sampler = make(saved, "animatediff")
    assert "motion_adapter" in sampler.pipe.components
    assert set(sampler.networks) == {"unet", "vae", "text_encoder"}


# Options.


def test_guidance_and_negative_prompt_change_the_clip(saved: Folders) -> None:
    clips = [
        make(saved, **options).sample(requests(2))
        for options in ({"guidance": 1.0}, {"guidance": 9.0}, {"guidance": 9.0, "negative": "red circle"})
    ]
    assert differ(clips[0], clips[1])
    assert differ(clips[1], clips[2])


def test_the_size_is_the_one_asked_for(saved: Folders) -> None:
    sampler = make(saved, frames=2, height=32, width=48)
    assert sampler.shape == ClipShape(2, 32, 48)
    assert sampler.sample(requests(2)).shape == (2, 2, 3, 32, 48)


@pytest.mark.parametrize("fit", diffusers.FITS)
def test_clips_are_fitted_only_when_it_is_said(saved: Folders, fit: str) -> None:
    plain = make(saved, height=32, width=48)
    fitted = make(saved, height=32, width=48, fit=fit)
    assert (plain.shape, fitted.shape) == (ClipShape(4, 32, 48), ClipShape(4, 16, 16))
    clips = plain.sample(requests(1))
    seen = clips[..., 8:40] if fit == "centre-crop" else clips
    assert torch.equal(fitted.sample(requests(1)), transform.resize(seen, 16, 16))


def test_bytes_are_made_as_the_protocol_says(saved: Folders) -> None:
    options: dict[str, Any] = {"id": str(saved("modelscope")), "steps": 2, "frames": 4}
    rounded = diffusers.build(SETTING, **options).sample(requests(1)).int()
    cut_off = diffusers.build(BuildContext(DATA, CPU, quantise="truncate"), **options).sample(requests(1)).int()
    assert set((rounded - cut_off).flatten().tolist()) == {0, 1}


@needs_ftfy
def test_the_shift_reaches_the_scheduler(saved: Folders) -> None:
    shifted = make(saved, "wan", shift=7.0)
    assert shifted.pipe.scheduler.config.flow_shift == 7.0
    assert make(saved, "ltx", shift=2.0).pipe.scheduler.config.shift == 2.0
    assert differ(shifted.sample(requests(1)), make(saved, "wan").sample(requests(1)))


@needs_ftfy
def test_the_weights_have_the_type_asked_for(saved: Folders) -> None:
    sampler = make(saved, "wan", dtype="bfloat16", vae_dtype="float32")
    types = {name: {p.dtype for p in network.parameters()} for name, network in sampler.networks.items()}
    assert types.pop("vae") == {torch.float32}
    assert all(torch.bfloat16 in found for found in types.values())  # some layers always keep float32
    assert sampler.sample(requests(1)).shape == (1, 5, 3, 16, 16)


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_networks_are_kept_off_the_gpu_when_it_is_said(
    saved: Folders, monkeypatch: pytest.MonkeyPatch, offload: str
) -> None:
    placed: list[torch.device] = []
    monkeypatch.setattr(
        library.DiffusionPipeline, f"enable_{offload}_cpu_offload", lambda _, device: placed.append(device)
    )
    gpu = torch.device("cuda")
    sampler = diffusers.build(BuildContext(DATA, gpu), id=str(saved("modelscope")), offload=offload)
    assert placed == [gpu]
    assert {p.device for network in sampler.networks.values() for p in network.parameters()} == {CPU}


def test_a_motion_adapter_makes_an_image_pipeline_animatediff(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        parts = {**image_parts(), "safety_checker": None, "feature_extractor": None}
        library.StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(tmp_path / "images")
        motion_adapter().save_pretrained(tmp_path / "adapter")
    options: dict[str, Any] = {"id": str(tmp_path / "images"), "frames": 4, "steps": 2}
    sampler = diffusers.build(SETTING, adapter=str(tmp_path / "adapter"), **options)
    assert type(sampler.pipe).__name__ == "AnimateDiffPipeline"
    assert sampler.pipe.scheduler.config.beta_schedule == "linear"
    check_sampler(sampler, requests())
    with pytest.raises(UserError, match="StableDiffusionPipeline takes no num_frames"):
        diffusers.build(SETTING, **options)


@pytest.mark.parametrize("preset", diffusers.PRESETS)
def test_a_preset_has_options_that_its_pipeline_takes(saved: Folders, preset: str) -> None:
    """With the tiny pipeline of its family in place of the hub's, at a size that a test can do."""
    family = preset.removesuffix("-480p").removesuffix("-image")
    if family == "wan" and not HAS_FTFY:
        pytest.skip("Wan needs ftfy")
    fields = dict(diffusers.PRESETS[preset])
    assert fields.keys() <= plugins.options("model", "diffusers").keys()
    small = {"id": str(saved(family)), "dtype": "float32", "steps": 1, **FAMILIES[family].options}
    less = {name: value for name, value in fields.items() if name not in ("variant", "adapter", "height", "width")}
    assert len(diffusers.build(SETTING, **{**less, **small}).sample(requests(1))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": None}, "needs a pipeline.*preset= one of modelscope, animatediff"),
        ({"id": ""}, "needs a pipeline.*preset= one of modelscope, animatediff"),
        ({"preset": "wam"}, "did you mean 'wan'"),
        ({"steps": 0}, r"diffusers\(steps=0\): steps must be at least 1"),
        ({"height": -1}, "height must be at least 1"),
        ({"dtype": "float8"}, "no dtype of diffusers called 'float8'"),
        ({"fit": "native"}, "no fit of diffusers called 'native'"),
        ({"offload": "model"}, "keeps networks off a GPU, and this runs on the CPU"),
        ({"guidance": -1.0}, r"diffusers\(guidance=-1.0\): choose a finite number of at least 0"),
        ({"guidance": float("inf")}, r"diffusers\(guidance=inf\)"),
        ({"guidance": float("nan")}, r"diffusers\(guidance=nan\)"),
        ({"shift": 0.0}, r"diffusers\(shift=0.0\): choose a finite number above 0"),
        ({"pipeline": "LTXImageToVideoPipelin"}, "did you mean 'LTXImageToVideoPipeline'"),
        ({"pipeline": "UNet3DConditionModel"}, "no pipeline of diffusers called 'UNet3DConditionModel'"),
        ({"shift": 3.0}, "DDIMScheduler has no shift"),
        ({"revision": "main"}, "revision='main' needs a hub id"),
    ],
)
def test_options_without_sense_are_refused(saved: Folders, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(saved, **options)


def test_an_option_that_the_pipeline_lacks_is_refused(saved: Folders) -> None:
    with pytest.raises(UserError, match="DDPMPipeline takes no guidance_scale"):
        make(saved, "unconditional", guidance=2.0)


def test_a_size_that_the_pipeline_cannot_make_is_named_with_the_nearest(saved: Folders) -> None:
    message = r"LTXPipeline makes clips of 9x32x32, not 16x32x32.*diffusers\(frames=9, height=32, width=32\)"
    with pytest.raises(UserError, match=message):
        make(saved, "ltx", frames=16).sample(requests(1))


# What a pipeline may not do.


def test_a_pipeline_that_draws_noise_of_its_own_is_refused(saved: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = make(saved)
    call = type(sampler.pipe).__call__

    def careless(pipe: Any, **arguments: Any) -> Any:
        torch.rand(1)
        return call(pipe, **arguments)

    monkeypatch.setattr(type(sampler.pipe), "__call__", careless)
    with pytest.raises(UserError, match="draws random numbers outside the generator"), torch.random.fork_rng():
        sampler.sample(requests(1))


def test_a_pipeline_that_needs_a_video_is_refused(tmp_path: Path, saved: Folders) -> None:
    folder = shutil.copytree(saved("cogvideox"), tmp_path / "edit")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("CogVideoXPipeline", "CogVideoXVideoToVideoPipeline"))
    with pytest.raises(UserError, match="no text-to-video, image-to-video or unconditional"):
        diffusers.build(SETTING, id=str(folder))


@pytest.fixture
def copy(saved: Folders, tmp_path: Path) -> Path:
    """A pipeline that a test may spoil."""
    return Path(shutil.copytree(saved("modelscope"), tmp_path / "copy"))


def refused(folder: Path, message: str) -> None:
    with pytest.raises(MissingData, match=message):
        diffusers.build(SETTING, id=str(folder), frames=4)


def test_pickled_weights_are_not_opened(copy: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    refused(copy, "cannot be opened.*pytorch_model.bin is a pickle, which is never opened: save as safetensors")


@pytest.mark.parametrize("named", ["MyPipeline", ["mine", "MyPipeline"], "UNet3DConditionModel"])
def test_foreign_code_is_not_run(copy: Path, named: object) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "mine.py").write_text("raise AssertionError('it runs')")
    (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": named}))
    refused(copy, "is no pipeline of diffusers.*foreign code is not run")


def test_a_component_of_another_library_is_not_run(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "vae": ["os", "AutoencoderKL"]}))
    refused(copy, "vae is of 'os'")


def test_a_component_with_code_is_not_opened(copy: Path) -> None:
    (copy / "vae" / "diffusers.py").write_text("raise AssertionError('it runs')")
    refused(copy, "a pipeline that contains code is not opened")


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_weights_that_lack_a_tensor_are_named(copy: Path, part: str) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / part)
    lost = sorted(tensors)[3]
    save_file({name: tensors[name] for name in tensors if name != lost}, copy / part, metadata={"format": "pt"})
    refused(copy, f"{Path(part).parent} lacks 1 tensors, the first is '.*{lost.rpartition('.')[2]}'")


def test_damaged_weights_are_named(copy: Path) -> None:
    (copy / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
    refused(copy, "copy: this pipeline cannot be opened")


def test_full_memory_is_not_taken_for_a_damaged_pipeline(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(library.DiffusionPipeline, "from_pretrained", full)
    with pytest.raises(BadEnvironment, match=f"{copy} does not fit into the memory of this machine"):
        diffusers.build(SETTING, id=str(copy), frames=4)


def test_an_option_that_does_not_fit_the_pipeline_is_named(saved: Folders) -> None:
    folder = str(saved("modelscope"))
    with pytest.raises(
        MissingData, match=r"cannot be opened \(.*fp16.*\); leave out variant='fp16', or fetch it again"
    ):
        diffusers.build(SETTING, id=folder, variant="fp16")
    with pytest.raises(MissingData, match=r"expected .*transformer.*; leave out pipeline='LTXImageToVideoPipeline'"):
        diffusers.build(SETTING, id=folder, pipeline="LTXImageToVideoPipeline")


def test_an_option_of_a_preset_that_does_not_fit_is_told_with_the_preset(saved: Folders) -> None:
    said = r"leave out preset='modelscope' \(variant='fp16'\), or fetch it again"
    with pytest.raises(MissingData, match=said):
        diffusers.build(SETTING, preset="modelscope", id=str(saved("modelscope")))


def test_a_folder_without_a_pipeline_is_named(tmp_path: Path) -> None:
    refused(tmp_path, "holds no pipeline: it has no model_index.json")
    refused(tmp_path / "none" / "here", "no such folder, and no Hugging Face hub id")


def test_the_fingerprint_is_of_the_bytes(saved: Folders, copy: Path) -> None:
    first = make(saved).weights
    assert diffusers.build(SETTING, id=str(copy), frames=4).weights == first
    config = copy / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + "\n")
    assert diffusers.build(SETTING, id=str(copy), frames=4).weights != first


def test_a_hub_id_that_is_not_here_names_cache_and_command(vfbench: Command) -> None:
    done = vfbench("run", "--model", "diffusers(id='nobody/nothing')", "--dataset", "shapes", "--smoke")
    assert done.code == 4
    assert "id='nobody/nothing' is no folder here, and neither the hub nor the cache has it (HF_HOME=" in done.err
    assert "stacktrace" not in done.err
    assert "hf download nobody/nothing --include '*.safetensors'" in done.err


def test_without_the_library_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(BadEnvironment, match=r'pip install "vfbench\[diffusers\]"'):
        diffusers.build(SETTING, id="nobody/nothing")


def test_a_pipeline_that_would_mend_prompts_another_way_is_refused(
    saved: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys.modules[library.WanPipeline.__module__], "ftfy", raising=False)
    with pytest.raises(BadEnvironment, match=r'WanPipeline cleans prompts with ftfy: pip install "vfbench\[diff'):
        make(saved, "wan")


# What is told of the presets.


def test_that_wan_lacks_the_negative_prompt_of_its_example_is_shown(vfbench: Command) -> None:
    lacking = [name for name, fields in diffusers.PRESETS.items() if "Wan" in fields["id"] and "negative" not in fields]
    shown = " ".join(vfbench("show", "model", "diffusers").out.split())
    assert lacking == ["wan", "wan-480p"]
    assert "The presets of Wan, `wan` and `wan-480p`, leave out one setting" in shown
    assert "long negative prompt" in shown


# What comes out of a pipeline.


def test_every_form_of_pictures_is_the_same_clips() -> None:
    clips = torch.randint(256, (2, 4, 3, 6, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    last = clips.permute(0, 1, 3, 4, 2).numpy()
    nested = [[Image.fromarray(frame) for frame in clip] for clip in last]
    forms = [clips, clips.float() / 255, clips.transpose(1, 2) / 255, last, last / np.float32(255), nested, list(last)]
    for form in forms:
        assert torch.equal(to_clips(form, "round"), clips)
    assert torch.equal(to_clips(last[:, 0], "round"), clips[:, :1])


@pytest.mark.parametrize("pictures", [np.zeros((2, 4, 6, 8)), torch.zeros(2, 4, 5, 6, 8), np.zeros((6, 8, 3))])
def test_what_is_no_clip_is_refused(pictures: Any) -> None:
    with pytest.raises(ValueError, match="RGB clips are needed"):
        to_clips(pictures, "round")


# The whole way.


def spec(saved: Folders, family: str, **options: Any) -> str:
    given = {"id": str(saved(family)), "steps": 2, **FAMILIES[family].options, **options}
    return f"diffusers({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def run(vfbench: Command, model: str, output: Path, dataset: str, more: Sequence[object] = ()) -> Any:
    given = ["--num-samples", 8, "--num-real", 8, "--smoke", "--metrics", "fvd", "--device", "cpu", "--output", output]
    return vfbench("run", "--model", model, "--dataset", dataset, *given, *more)


@pytest.mark.parametrize("family", ["modelscope", pytest.param("wan", marks=[pytest.mark.slow, needs_ftfy])])
def test_a_pipeline_is_scored_by_the_command(saved: Folders, family: str, vfbench: Command, tmp_path: Path) -> None:
    frames, height, width = (16, 32, 32) if family == "modelscope" else (17, 32, 32)
    model = spec(saved, family, frames=frames, height=height, width=width)
    done = run(vfbench, model, tmp_path / "run", "shapes", ["--batch-size", 3])
    assert done.code == 0, done.err
    found = results(tmp_path / "run")
    assert found["weights"] == make(saved, family).weights
    assert found["cost"]["evaluations"] == 4
    assert found["scores"]["fvd"]["n_fake"] == 8


def test_clips_of_another_size_than_the_protocols_are_refused(saved: Folders) -> None:
    options = RunOptions(model=spec(saved, "modelscope", frames=16), device="cpu", smoke=True, num_samples=4)
    with pytest.raises(UserError, match=r"diffusers makes clips of 16x16x16, and protocol .* scores 16x32x32"):
        plan(options)
