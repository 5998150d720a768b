"""`generate`: clips as files that say what they are, read back bit for bit, and score as the model itself does."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, contents, results
from helpers import CPU, tiny_dataset, tiny_vdm, tiny_videofusion
from PIL import Image
from torch import Tensor

from vfbench import clips as folders
from vfbench import plugins, video
from vfbench.clips.caption_file import read_captions
from vfbench.interfaces import BuildContext, derive_seed
from vfbench.pipeline import requests
from vfbench.video.encode import write_frames, write_mp4

CAPTION = "a large red circle moves left over blue stripes"
TINY = "shapes(frames=4, height=8, width=8)"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("videofusion")
    tiny_videofusion().save(folder)
    return folder


@pytest.fixture(scope="module")
def of_vdm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("vdm")
    tiny_vdm().save(folder)
    return folder


def tiny(folder: Path, *more: object) -> list[object]:
    """The arguments for clips of a tiny model."""
    return ["generate", "--dataset", TINY, "--checkpoint", folder, "--device", "cpu", "--steps", 2, *more]


def sampled(folder: Path, count: int, **options: Any) -> Tensor:
    """What the tiny model makes of the first requests of a run with seed 0."""
    setting = BuildContext(tiny_dataset(), CPU, checkpoint=folder)
    model = plugins.load("model", plugins.Spec("videofusion", {"steps": 2, **options}), setting)
    clips: Tensor = model.sample(requests.make_requests(setting.dataset, "test", count, 0))
    return clips


def read(folder: Path) -> Tensor:
    found = folders.detect(folder / "clips")
    clips: Tensor = folders.read_clips(found, range(len(found)), frames=folders.count_frames(found.entries[0]))
    return clips


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "generate.json").read_text())
    return content


def shown(path: str) -> tuple[tuple[int, int], int]:
    """The size of a picture, and how many frames it has."""
    with Image.open(path) as image:
        return image.size, getattr(image, "n_frames", 1)


# Files.


@pytest.mark.parametrize("shape", [(16, 3, 32, 32), (1, 3, 8, 8), (5, 3, 9, 13)], ids=str)
def test_mp4_and_png_lose_nothing(shape: tuple[int, ...], tmp_path: Path) -> None:
    clip = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_mp4(tmp_path / "a:b.mp4", clip, fps=25)
    assert torch.equal(video.decode(tmp_path / "a:b.mp4"), clip)
    assert video.header(tmp_path / "a:b.mp4").rate == 25
    write_frames(tmp_path / "frames" / "0", clip)
    assert torch.equal(folders.read_clips(folders.detect(tmp_path / "frames"), [0], frames=len(clip))[0], clip)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a:b.mp4", "frames"]


@pytest.mark.parametrize("form", ["mp4", "npy", "png-folder"])
def test_what_is_read_back_is_what_the_model_made(form: str, checkpoint: Path, vfbench: Command) -> None:
    done = vfbench(*tiny(checkpoint, "-n", 3, "--output", "made", "--format", form, "--batch-size", 2))
    assert done.code == 0, done.err
    made = Path("made")
    assert (read(made).int() - sampled(checkpoint, 3).int()).abs().max() <= 1  # batches of two and one
    names = [entry.name for entry in folders.detect(made / "clips").entries]
    asked = requests.make_requests(tiny_dataset(), "test", 3, 0)
    assert read_captions(made / "prompts.tsv", "prompt") == {n: r.prompt for n, r in zip(names, asked, strict=True)}
    assert read_captions(made / "seeds.tsv", "seed") == {n: str(r.seed) for n, r in zip(names, asked, strict=True)}
    assert [clip["name"] for clip in record(made)["clips"]] == names
    assert "score --real 'shapes(frames=4, height=8, width=8)' --fake made/clips --prompts made/prompts.tsv" in done.err


def test_webp_is_to_look_at_and_says_so(checkpoint: Path, vfbench: Command) -> None:
    done = vfbench(*tiny(checkpoint, "-n", 2, "--output", "made", "--format", "webp"))
    assert "--format mp4, npy or png-folder" in done.err
    assert "next:" not in done.err
    assert shown("made/clips/000001.webp") == ((8, 8), 4)


def test_there_is_a_sheet_with_what_each_was_asked_for(checkpoint: Path, vfbench: Command) -> None:
    vfbench(*tiny(checkpoint, "-n", 3, "--output", "made", "--batch-size", 1))
    size, _ = shown("made/sheet.png")
    assert size[1] > 3 * 64  # three rows of clips shown large, and captions
    assert shown("made/clips.webp")[1] == 4


def test_the_same_command_makes_the_same_files(checkpoint: Path, vfbench: Command) -> None:
    for name in ("one", "two"):
        assert vfbench(*tiny(checkpoint, "-n", 2, "--seed", 5, "--output", name)).code == 0
    assert contents(Path("one")) == contents(Path("two"))


# What is asked for.


def test_a_prompt_is_of_all_clips_and_their_seeds_differ(checkpoint: Path, vfbench: Command) -> None:
    vfbench(*tiny(checkpoint, "-n", 2, "--prompt", CAPTION, "--output", "made"))
    assert set(read_captions(Path("made/prompts.tsv"), "prompt").values()) == {CAPTION}
    assert not Path("made/seeds.tsv").exists()  # no run asks for these
    found = record(Path("made"))
    assert [(clip["asked"], clip["seed"]) for clip in found["clips"]] == [(CAPTION, derive_seed(0, i)) for i in (0, 1)]
    assert not torch.equal(*read(Path("made")))


def test_a_class_is_asked_for_by_its_name(checkpoint: Path, vfbench: Command) -> None:
    for name in ("circle grows", "square grows"):
        done = vfbench(*tiny(checkpoint, "-n", 2, "--label", name, "--output", name))
        assert done.code == 0, done.err
        assert set(read_captions(Path(name, "classes.tsv"), "class").values()) == {name}
        assert not Path(name, "prompts.tsv").exists()
        assert record(Path(name))["conditioning"] == "class"
    assert not torch.equal(read(Path("circle grows")), read(Path("square grows")))


def test_fixed_base_noise_is_the_first_ones(checkpoint: Path, vfbench: Command) -> None:
    vfbench(
        *tiny(checkpoint, "-n", 3, "--prompt", CAPTION, "--share-base-noise", "--solver", "ddim", "--output", "made")
    )
    clips = read(Path("made"))
    assert all(torch.equal(clip[1], clips[0][1]) for clip in clips)  # the base frame of four
    assert not torch.equal(clips[1][0], clips[0][0])
    vfbench(*tiny(checkpoint, "-n", 1, "--prompt", CAPTION, "--solver", "ddim", "--output", "first"))
    assert (read(Path("first"))[0].int() - clips[0].int()).abs().max() <= 1
    assert {clip["base"] for clip in record(Path("made"))["clips"]} == {derive_seed(0, 0)}


def test_fixed_content_is_asked_for_alike_where_nothing_is_said(checkpoint: Path, vfbench: Command) -> None:
    vfbench(*tiny(checkpoint, "-n", 3, "--share-base-noise", "--output", "made"))
    assert len({clip["asked"] for clip in record(Path("made"))["clips"]}) == 1


def test_without_a_checkpoint_the_training_is_named(vfbench: Command) -> None:
    done = vfbench("generate", "--model", "vdm", "--dataset", "shapes(frames=4, height=8, width=8)", "--output", "made")
    assert done.code == 4
    assert "GPU-hours" in done.err
    assert "vfbench train --model vdm --dataset 'shapes(frames=4, height=8, width=8)' --preset tiny" in done.err
    assert not Path("made").exists()


def test_clips_may_be_longer_than_the_models(checkpoint: Path, vfbench: Command) -> None:
    done = vfbench(*tiny(checkpoint, "-n", 1, "--frames", 10, "--overlap", 1, "--output", "made"))
    assert done.code == 0, done.err
    assert torch.equal(read(Path("made")), sampled(checkpoint, 1, frames=10, overlap=1))
    assert record(Path("made"))["shape"] == "10x8x8"


def test_options_of_sampling_reach_the_clips(checkpoint: Path, vfbench: Command) -> None:
    flags = ["--solver", "ddim", "--eta", 0.5, "--guidance", 3, "--threshold", 0.9]
    assert vfbench(*tiny(checkpoint, "-n", 1, *flags, "--output", "made")).code == 0
    expected = sampled(checkpoint, 1, solver="ddim", eta=0.5, guidance=3.0, threshold=0.9)
    assert torch.equal(read(Path("made")), expected)


def test_a_control_shows_its_real_clips(vfbench: Command) -> None:
    assert vfbench("generate", "--model", "real", "--dataset", TINY, "-n", 2, "--output", "made").code == 0
    data = tiny_dataset()
    sources = [request.source for request in requests.make_requests(data, "test", 2, 0)]
    assert torch.equal(read(Path("made")), data.clips("test", sources))


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--label", "circle grow"], 2, "no class of shapes called 'circle grow': did you mean 'circle grows'"),
        (["--prompt", "a purple circle"], 2, "does not know 'purple'"),
        (["--prompt", CAPTION, "--label", "circle grows"], 2, "--prompt and --label: .* one of them"),
        (["--prompt", CAPTION, "--model", "videofusion(condition='class')"], 2, "takes a class: --label NAME"),
        (["--label", "circle grows", "--model", "videofusion(condition='text')"], 2, "takes a prompt: --prompt TEXT"),
        (["--prompt", CAPTION, "--model", "videofusion(condition='none')"], 2, "takes neither prompt nor class"),
        (["-n", "0"], 2, "--num-samples 0: at least 1"),
        (["--batch-size", "0"], 2, "--batch-size 0: .*at least 1"),
        (["--batch-size", "few"], 2, "--batch-size few is invalid: give a whole number or auto"),
        (["--format", "gif"], 2, "'gif' is not one of 'mp4'"),
        (["--frames", "2"], 2, "frames 2: this model makes clips of 4 frames or longer"),
        (["--eta", "0.5"], 2, "eta 0.5: solver dpm"),
        (["--threshold", "2"], 2, "threshold 2.0"),
        (
            ["--share-base-noise", "--threshold", "0.9"],
            2,
            "--share-base-noise with threshold 0.9: .* leave the threshold out",
        ),
        (["--share-base-noise", "--model", "videofusion(threshold=0.99)"], 2, "--share-base-noise with threshold 0.99"),
        (["--checkpoint", "nowhere"], 4, "nowhere"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    arguments: list[str], code: int, named: str, checkpoint: Path, vfbench: Command
) -> None:
    done = vfbench(*tiny(checkpoint, "-n", 1, "--output", "made", *arguments))
    assert done.code == code
    assert re.search(named, done.err), done.err
    assert list(Path().iterdir()) == []


def test_a_control_takes_no_class(vfbench: Command) -> None:
    done = vfbench("generate", "--model", "real", "--dataset", TINY, "--label", "circle grows", "--output", "made")
    assert (done.code, "real takes neither prompt nor class" in done.err) == (2, True)


def test_a_model_whose_frames_share_nothing_has_no_base_to_fix(of_vdm: Path, vfbench: Command) -> None:
    done = vfbench(*tiny(of_vdm, "--model", "vdm", "--share-base-noise", "--output", "made"))
    assert done.code == 2
    assert "--share-base-noise: vdm: its frames share no noise; choose a model whose frames do: videofusion" in done.err


@pytest.mark.parametrize("there", ["folder", "file"])
def test_nothing_is_written_over(there: str, checkpoint: Path, vfbench: Command) -> None:
    made = Path("made")
    if there == "folder":
        made.mkdir()
    (made / "mine.txt" if there == "folder" else made).write_text("mine")
    before = contents(Path())
    done = vfbench(*tiny(checkpoint, "-n", 1, "--output", "made"))
    assert (done.code, "made is there already" in done.err) == (2, True)
    assert contents(Path()) == before


def test_an_empty_folder_is_filled(checkpoint: Path, vfbench: Command) -> None:
    Path("made").mkdir()
    assert vfbench(*tiny(checkpoint, "-n", 1, "--output", "made")).code == 0
    assert len(read(Path("made"))) == 1


def test_stopped_it_leaves_nothing_and_says_so(
    checkpoint: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vfbench.video.contact_sheet.write_sheet", stopped)
    done = vfbench(*tiny(checkpoint, "-n", 1, "--output", "made"))
    assert (done.code, "nothing was written to made" in done.err) == (130, True)
    assert list(Path().iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(checkpoint: Path, vfbench: Command) -> None:
    Path("file").write_text("")
    done = vfbench(*tiny(checkpoint, "-n", 1, "--output", "file/made"))
    assert done.code == 5
    assert "file" in done.err


@pytest.mark.parametrize(
    ("number", "mend"),
    [(errno.ENOENT, "choose another place"), (errno.ENOSPC, "make room there"), (errno.EDQUOT, "make room there")],
)
def test_only_a_full_disk_is_mended_by_room(
    number: int, mend: str, checkpoint: Path, vfbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("vfbench.video.contact_sheet.write_sheet", refused)
    done = vfbench(*tiny(checkpoint, "-n", 1, "--output", "made"))
    assert done.code == 5
    assert f"cannot write made ({os.strerror(number)}): {mend}" in done.err
    assert list(Path().iterdir()) == []


# Scores.


@pytest.mark.slow
def test_as_a_folder_they_score_as_the_model_does(vfbench: Command) -> None:
    smoke = ["--device", "cpu", "--smoke", "--batch-size", 8]
    assert vfbench("run", "--steps", 1, *smoke, "--output", "model").code == 0
    count = results(Path("model"))["protocol"]["n_fake"]
    assert vfbench("generate", "--steps", 1, "-n", count, "--device", "cpu", "--output", "made").code == 0
    for way in ("prompts", "seeds"):
        model = f"folder(root='made/clips', {way}='made/{way}.tsv')"
        assert vfbench("run", "--model", model, *smoke, "--output", way).code == 0
        found = results(Path(way))["scores"]
        assert {n: s["value"] for n, s in found.items()} == pytest.approx(
            {n: s["value"] for n, s in results(Path("model"))["scores"].items()}
        )


@pytest.mark.slow
def test_a_run_scores_the_protocols_frames_of_long_clips(vfbench: Command) -> None:
    smoke = ["--device", "cpu", "--smoke", "--batch-size", 8]
    for name, model in {"short": "videofusion(steps=1)", "long": "videofusion(steps=1, frames=20)"}.items():
        done = vfbench("run", "--model", model, *smoke, "--output", name)
        assert done.code == 0, done.err
    assert results(Path("long"))["scores"] == results(Path("short"))["scores"]
