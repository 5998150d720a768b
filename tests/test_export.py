"""Tests of `vfbench generate` (`vfbench.pipeline.export`): clip files, their records, and their scores."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, file_contents, flip_byte, results, resume_arguments
from helpers import CPU, tiny_dataset, tiny_vdm, tiny_videofusion
from PIL import Image
from torch import Tensor

from vfbench import clips as folders
from vfbench import plugins, video
from vfbench.clips.caption_file import read_captions
from vfbench.interfaces import BuildContext, derive_seed
from vfbench.pipeline import requests
from vfbench.video.encode import write_frames, write_mp4, write_playable

CAPTION = "a large red circle moves left over blue stripes"
TINY = "shapes(frames=4, height=8, width=8)"


@pytest.fixture(autouse=True)
def _tmp_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("videofusion")
    tiny_videofusion().save(folder)
    return folder


@pytest.fixture(scope="module")
def vdm_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("vdm")
    tiny_vdm().save(folder)
    return folder


def generate_args(folder: Path, *more: object) -> list[object]:
    """Arguments of `vfbench generate` for a tiny checkpoint."""
    return ["generate", "--dataset", TINY, "--checkpoint", folder, "--device", "cpu", "--steps", 2, *more]


def sample(folder: Path, count: int, **options: Any) -> Tensor:
    """Clips of the tiny model for the first `count` requests of a run with seed 0, without the command."""
    context = BuildContext(tiny_dataset(), CPU, checkpoint=folder)
    model = plugins.load("model", plugins.Spec("videofusion", {"steps": 2, **options}), context)
    clips: Tensor = model.sample(requests.make_requests(context.dataset, "test", count, 0))
    return clips


def read_clips(folder: Path) -> Tensor:
    detected = folders.detect(folder / "clips")
    clips: Tensor = folders.read_clips(detected, range(len(detected)), frames=folders.count_frames(detected.entries[0]))
    return clips


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "generate.json").read_text())
    return content


def image_info(path: str) -> tuple[tuple[int, int], int]:
    """Width and height of an image, and its number of frames."""
    with Image.open(path) as image:
        return image.size, getattr(image, "n_frames", 1)


# Files.


@pytest.mark.parametrize("shape", [(16, 3, 32, 32), (1, 3, 8, 8), (5, 3, 9, 13)], ids=str)
def test_mp4_and_png_are_lossless(shape: tuple[int, ...], tmp_path: Path) -> None:
    clip = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_mp4(tmp_path / "a:b.mp4", clip, fps=25)
    assert torch.equal(video.decode(tmp_path / "a:b.mp4"), clip)
    assert video.header(tmp_path / "a:b.mp4").rate == 25
    write_frames(tmp_path / "frames" / "0", clip)
    assert torch.equal(folders.read_clips(folders.detect(tmp_path / "frames"), [0], frames=len(clip))[0], clip)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a:b.mp4", "frames"]


@pytest.mark.one_case
@pytest.mark.parametrize("file_format", ["mp4", "npy", "png-folder"])
def test_written_clips_are_the_sampled_clips(file_format: str, checkpoint: Path, vfbench: Command) -> None:
    arguments = generate_args(checkpoint, "-n", 3, "--output", "out", "--format", file_format, "--batch-size", 2)
    outcome = vfbench(*arguments)
    assert outcome.code == 0, outcome.err
    output = Path("out")
    assert (read_clips(output).int() - sample(checkpoint, 3).int()).abs().max() <= 1  # batches of two and one
    names = [entry.name for entry in folders.detect(output / "clips").entries]
    expected = requests.make_requests(tiny_dataset(), "test", 3, 0)
    assert read_captions(output / "prompts.tsv", "prompt") == {
        n: r.prompt for n, r in zip(names, expected, strict=True)
    }
    assert read_captions(output / "seeds.tsv", "seed") == {n: str(r.seed) for n, r in zip(names, expected, strict=True)}
    assert [clip["name"] for clip in record(output)["clips"]] == names
    assert f"score --real '{TINY}' --fake out/clips --prompts out/prompts.tsv" in outcome.err


def test_webp_gets_a_note_on_formats_to_score(checkpoint: Path, vfbench: Command) -> None:
    outcome = vfbench(*generate_args(checkpoint, "-n", 2, "--output", "out", "--format", "webp"))
    assert "--format mp4, npy or png-folder" in outcome.err
    assert "next:" not in outcome.err
    assert image_info("out/clips/000001.webp") == ((8, 8), 4)


def test_a_contact_sheet_and_an_animation_are_written(checkpoint: Path, vfbench: Command) -> None:
    vfbench(*generate_args(checkpoint, "-n", 3, "--output", "out", "--batch-size", 1))
    size, _ = image_info("out/sheet.png")
    assert size[1] > 3 * 64  # three rows of enlarged clips, and captions
    assert image_info("out/clips.webp")[1] == 4


def test_a_repeated_command_writes_equal_files(checkpoint: Path, vfbench: Command) -> None:
    for name in ("one", "two"):
        assert vfbench(*generate_args(checkpoint, "-n", 2, "--seed", 5, "--output", name)).code == 0
    assert file_contents(Path("one")) == file_contents(Path("two"))


# Prompts, classes and options.


def test_clips_of_one_prompt_differ_by_seed(checkpoint: Path, vfbench: Command) -> None:
    vfbench(*generate_args(checkpoint, "-n", 2, "--prompt", CAPTION, "--output", "out"))
    assert set(read_captions(Path("out/prompts.tsv"), "prompt").values()) == {CAPTION}
    assert not Path("out/seeds.tsv").exists()  # a benchmark run has no such requests
    recorded = [(clip["asked"], clip["seed"]) for clip in record(Path("out"))["clips"]]
    assert recorded == [(CAPTION, derive_seed(0, i)) for i in (0, 1)]
    assert not torch.equal(*read_clips(Path("out")))


def test_a_class_is_chosen_by_name(checkpoint: Path, vfbench: Command) -> None:
    for name in ("circle grows", "square grows"):
        outcome = vfbench(*generate_args(checkpoint, "-n", 2, "--label", name, "--output", name))
        assert outcome.code == 0, outcome.err
        assert set(read_captions(Path(name, "classes.tsv"), "class").values()) == {name}
        assert not Path(name, "prompts.tsv").exists()
        assert record(Path(name))["conditioning"] == "class"
    assert not torch.equal(read_clips(Path("circle grows")), read_clips(Path("square grows")))


def test_shared_base_noise_is_that_of_the_first_clip(checkpoint: Path, vfbench: Command) -> None:
    vfbench(
        *generate_args(
            checkpoint, "-n", 3, "--prompt", CAPTION, "--share-base-noise", "--solver", "ddim", "--output", "out"
        )
    )
    clips = read_clips(Path("out"))
    assert all(torch.equal(clip[1], clips[0][1]) for clip in clips)  # the base frame of four
    assert not torch.equal(clips[1][0], clips[0][0])
    vfbench(*generate_args(checkpoint, "-n", 1, "--prompt", CAPTION, "--solver", "ddim", "--output", "first"))
    assert (read_clips(Path("first"))[0].int() - clips[0].int()).abs().max() <= 1
    assert {clip["base"] for clip in record(Path("out"))["clips"]} == {derive_seed(0, 0)}


def test_shared_base_noise_without_prompt_repeats_one_prompt(checkpoint: Path, vfbench: Command) -> None:
    vfbench(*generate_args(checkpoint, "-n", 3, "--share-base-noise", "--output", "out"))
    assert len({clip["asked"] for clip in record(Path("out"))["clips"]}) == 1


@pytest.mark.slow
def test_a_missing_checkpoint_names_the_training_command(vfbench: Command) -> None:
    outcome = vfbench("generate", "--model", "vdm", "--dataset", TINY, "--output", "out")
    assert outcome.code == 4
    assert "GPU-hours" in outcome.err
    assert f"vfbench train --model vdm --dataset '{TINY}' --preset tiny" in outcome.err
    assert not Path("out").exists()


@pytest.mark.slow
def test_clips_may_be_longer_than_in_training(checkpoint: Path, vfbench: Command) -> None:
    outcome = vfbench(*generate_args(checkpoint, "-n", 1, "--frames", 10, "--overlap", 1, "--output", "out"))
    assert outcome.code == 0, outcome.err
    assert torch.equal(read_clips(Path("out")), sample(checkpoint, 1, frames=10, overlap=1))
    assert record(Path("out"))["shape"] == "10x8x8"


def test_sampling_options_reach_the_sampler(checkpoint: Path, vfbench: Command) -> None:
    flags = ["--solver", "ddim", "--eta", 0.5, "--guidance", 3, "--threshold", 0.9]
    assert vfbench(*generate_args(checkpoint, "-n", 1, *flags, "--output", "out")).code == 0
    expected = sample(checkpoint, 1, solver="ddim", eta=0.5, guidance=3.0, threshold=0.9)
    assert torch.equal(read_clips(Path("out")), expected)


def test_the_real_control_writes_real_clips(vfbench: Command) -> None:
    assert vfbench("generate", "--model", "real", "--dataset", TINY, "-n", 2, "--output", "out").code == 0
    data = tiny_dataset()
    sources = [request.source for request in requests.make_requests(data, "test", 2, 0)]
    assert torch.equal(read_clips(Path("out")), data.clips("test", sources))


# Refused commands.


@pytest.mark.one_case
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--label", "circle grow"], 2, "'circle grow'.*'circle grows'"),
        (["--prompt", "a purple circle"], 2, "'purple'"),
        (["--prompt", CAPTION, "--label", "circle grows"], 2, "--prompt and --label"),
        (["--prompt", CAPTION, "--model", "videofusion(condition='class')"], 2, "--label NAME"),
        (["--label", "circle grows", "--model", "videofusion(condition='text')"], 2, "--prompt TEXT"),
        (["--prompt", CAPTION, "--model", "videofusion(condition='none')"], 2, "neither prompt nor class"),
        (["-n", "0"], 2, "--num-samples 0"),
        (["--batch-size", "0"], 2, "--batch-size 0"),
        (["--batch-size", "few"], 2, "--batch-size few.*auto"),
        (["--format", "gif"], 2, "'gif'.*'mp4'"),
        (["--frames", "2"], 2, "frames 2: .*4 frames"),
        (["--eta", "0.5"], 2, "eta 0.5: solver dpm"),
        (["--threshold", "2"], 2, "threshold 2.0"),
        (["--share-base-noise", "--threshold", "0.9"], 2, "--share-base-noise with threshold 0.9"),
        (["--share-base-noise", "--model", "videofusion(threshold=0.99)"], 2, "--share-base-noise with threshold 0.99"),
        (["--checkpoint", "nowhere"], 4, "nowhere"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_arguments_are_refused_and_write_nothing(
    arguments: list[str], code: int, message: str, checkpoint: Path, vfbench: Command
) -> None:
    outcome = vfbench(*generate_args(checkpoint, "-n", 1, "--output", "out", *arguments))
    assert outcome.code == code
    assert re.search(message, outcome.err), outcome.err
    assert list(Path().iterdir()) == []


def test_a_class_for_a_control_is_refused(vfbench: Command) -> None:
    outcome = vfbench("generate", "--model", "real", "--dataset", TINY, "--label", "circle grows", "--output", "out")
    assert (outcome.code, "neither prompt nor class" in outcome.err) == (2, True)


def test_sharing_base_noise_needs_a_model_with_a_noise_prior(vdm_checkpoint: Path, vfbench: Command) -> None:
    outcome = vfbench(*generate_args(vdm_checkpoint, "--model", "vdm", "--share-base-noise", "--output", "out"))
    assert outcome.code == 2
    assert re.search("--share-base-noise: vdm: .*videofusion", outcome.err)


@pytest.mark.parametrize("existing", ["folder", "file"])
def test_existing_output_is_not_overwritten(existing: str, checkpoint: Path, vfbench: Command) -> None:
    output = Path("out")
    if existing == "folder":
        output.mkdir()
    (output / "mine.txt" if existing == "folder" else output).write_text("mine")
    before = file_contents(Path())
    outcome = vfbench(*generate_args(checkpoint, "-n", 1, "--output", "out"))
    assert (outcome.code, "out is there already" in outcome.err) == (2, True)
    assert file_contents(Path()) == before


def test_an_empty_output_folder_is_used(checkpoint: Path, vfbench: Command) -> None:
    Path("out").mkdir()
    assert vfbench(*generate_args(checkpoint, "-n", 1, "--output", "out")).code == 0
    assert len(read_clips(Path("out"))) == 1


@pytest.mark.slow
def test_an_interrupted_command_keeps_its_clips_and_resumes(
    checkpoint: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vfbench(*generate_args(checkpoint, "-n", 3, "--batch-size", 2, "--output", "whole")).code == 0
    arguments = generate_args(checkpoint, "-n", 3, "--batch-size", 2, "--output", "out")

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vfbench.video.contact_sheet.write_sheet", interrupt)  # all chunks are there
        outcome = vfbench(*arguments)
    assert (outcome.code, resume_arguments(outcome.err)) == (130, list(map(str, arguments)))
    assert not Path("out").exists()
    assert vfbench("status", "out").out.count("3 of 3 clips, 2 of 2 chunks") == 1
    for damage in (
        lambda chunk: shutil.rmtree(chunk),
        lambda chunk: (chunk / "clips" / "000000.mp4").write_bytes(b"cut off"),
        lambda chunk: flip_byte(chunk / "videos" / "000001.mp4", -9),
        lambda chunk: (chunk / "chunk.json").write_text("{}"),
        lambda chunk: shutil.copytree(chunk.with_name("000001"), chunk, dirs_exist_ok=True),
    ):
        damage(Path(".out.partial/chunks/000000"))
        with monkeypatch.context() as patch:
            patch.setattr("vfbench.video.contact_sheet.write_sheet", interrupt)
            outcome = vfbench(*arguments)
        assert "resumed: 1 of 3 clips" in outcome.err
    assert vfbench(*arguments).code == 0
    assert file_contents(Path("out")) == file_contents(Path("whole"))
    assert sorted(path.name for path in Path().iterdir()) == ["out", "whole"]
    assert "finished" in vfbench("status", "out").out


def test_a_repeated_command_leaves_its_clips_and_another_is_refused(checkpoint: Path, vfbench: Command) -> None:
    assert vfbench(*generate_args(checkpoint, "-n", 1, "--output", "out")).code == 0
    before = Path("out/generate.json").stat().st_mtime_ns
    repeated = vfbench(*generate_args(checkpoint, "-n", 1, "--output", "out"))
    assert (repeated.code, "already" in repeated.err) == (0, True)
    assert Path("out/generate.json").stat().st_mtime_ns == before
    other = vfbench(*generate_args(checkpoint, "-n", 1, "--seed", 1, "--output", "out"))
    assert (other.code, "out is there already" in other.err) == (2, True)


def test_an_output_folder_below_a_file_is_refused(checkpoint: Path, vfbench: Command) -> None:
    Path("file").write_text("")
    outcome = vfbench(*generate_args(checkpoint, "-n", 1, "--output", "file/made"))
    assert outcome.code == 5
    assert "file" in outcome.err


@pytest.mark.parametrize(
    ("error_number", "remedy"),
    [(errno.ENOENT, "choose another place"), (errno.ENOSPC, "make room there"), (errno.EDQUOT, "make room there")],
)
def test_write_errors_get_the_fitting_advice(
    error_number: int, remedy: str, checkpoint: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(error_number, os.strerror(error_number))

    monkeypatch.setattr("vfbench.video.contact_sheet.write_sheet", fail)
    outcome = vfbench(*generate_args(checkpoint, "-n", 1, "--output", "out"))
    assert outcome.code == 5
    assert f"cannot write out ({os.strerror(error_number)}): {remedy}" in outcome.err
    assert [path.name for path in Path().iterdir()] == [".out.partial"]


# Scores.


@pytest.mark.slow
def test_written_clips_score_as_the_model_does(vfbench: Command) -> None:
    smoke = ["--device", "cpu", "--smoke", "--batch-size", 8]
    assert vfbench("run", "--steps", 1, *smoke, "--output", "model").code == 0
    count = results(Path("model"))["protocol"]["n_fake"]
    assert vfbench("generate", "--steps", 1, "-n", count, "--device", "cpu", "--output", "out").code == 0
    expected = {name: score["value"] for name, score in results(Path("model"))["scores"].items()}
    for option in ("prompts", "seeds"):
        model = f"folder(root='out/clips', {option}='out/{option}.tsv')"
        assert vfbench("run", "--model", model, *smoke, "--output", option).code == 0
        scores = {name: score["value"] for name, score in results(Path(option))["scores"].items()}
        assert scores == pytest.approx(expected)


@pytest.mark.slow
def test_a_run_scores_the_first_frames_of_long_clips(vfbench: Command) -> None:
    smoke = ["--device", "cpu", "--smoke", "--batch-size", 8]
    for name, model in {"short": "videofusion(steps=1)", "long": "videofusion(steps=1, frames=20)"}.items():
        outcome = vfbench("run", "--model", model, *smoke, "--output", name)
        assert outcome.code == 0, outcome.err
    assert results(Path("long"))["scores"] == results(Path("short"))["scores"]


@pytest.mark.parametrize("kind", ["mp4", "npy", "png-folder"])
def test_videos_to_watch_play_everywhere_and_are_never_scored(kind: str, checkpoint: Path, vfbench: Command) -> None:
    import av

    assert vfbench(*generate_args(checkpoint, "-n", 2, "--format", kind, "--output", "out")).code == 0
    with av.open("out/videos/000001.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.frames == 4
        assert float(stream.average_rate or 0) == 8
    assert [entry.name.partition("/")[0] for entry in folders.detect("out").entries] == ["clips", "clips"]


def test_an_odd_size_is_padded_and_the_index_comes_first(tmp_path: Path) -> None:
    write_playable(tmp_path / "a.mp4", torch.full((3, 3, 33, 17), 90, dtype=torch.uint8), 30 / 1.001)
    header = video.header(tmp_path / "a.mp4")
    assert (header.frames, header.height, header.width) == (3, 34, 18)
    assert header.rate == pytest.approx(29.97, abs=0.001)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's MALLOC_PERTURB_ fills the memory")
def test_a_playable_file_does_not_depend_on_what_the_memory_held(tmp_path: Path) -> None:
    program = (
        "import sys, torch; from vfbench.video.encode import write_playable\n"
        "for i in range(8):\n"
        "    draw = torch.Generator().manual_seed(i)\n"
        "    clip = torch.randint(0, 256, (4 + i, 3, 32, 32), dtype=torch.uint8, generator=draw)\n"
        "    write_playable(f'{sys.argv[1]}/{i}.mp4', clip)"
    )
    contents = []
    for fill in ("0", "1", "255"):
        (folder := tmp_path / fill).mkdir()
        environment = {**os.environ, "MALLOC_PERTURB_": fill}
        subprocess.run([sys.executable, "-c", program, str(folder)], env=environment, check=True)  # ours
        contents.append(file_contents(folder))
    assert contents[0] == contents[1] == contents[2]
