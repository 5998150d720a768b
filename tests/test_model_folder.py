"""Clips made elsewhere answer the requests they were made for, each once, or the run says which has none."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clipfiles import write_frames, write_list, write_video
from conftest import Command, results
from contract import check_sampler
from helpers import CPU, tiny_dataset
from torch import Tensor

from vfbench.baselines import folder
from vfbench.baselines.folder import FolderSampler
from vfbench.clips.caption_file import read_captions
from vfbench.datasets import shapes
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import BuildContext, Request, derive_seed
from vfbench.pipeline import requests as generate
from vfbench.pipeline.options import RunOptions
from vfbench.pipeline.plan import plan

DATA = tiny_dataset(4, 16)
PROMPTS = ("a cat", "a dog", "a cat", "a fox", "a cat")


@dataclass(frozen=True)
class Foretold(BuildContext):
    """A setting that tells all requests of its run."""

    requests: Sequence[Request] = ()


def asked(prompts: Sequence[str] = PROMPTS) -> list[Request]:
    return [Request(i, 500 + i, i % len(DATA.classes), prompt) for i, prompt in enumerate(prompts)]


def pictures(count: int = 6) -> Tensor:
    """Clips that all differ, uint8 (B, 4, 3, 16, 16)."""
    return DATA.clips("test", range(count))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Six clips as frame folders `c0` to `c5`."""
    for i, clip in enumerate(pictures()):
        write_frames(tmp_path / "clips" / f"c{i}", clip.permute(0, 2, 3, 1).numpy())
    return tmp_path / "clips"


def table(root: Path, lines: Mapping[str, object]) -> str:
    return str(write_list(root.parent / "table.tsv", *(f"{name}\t{value}" for name, value in lines.items())))


BY_PROMPT = {"c5": "a cat", "c1": "a dog", "c0": "a cat", "c2": "a fox", "c4": "a cat"}


def make(place: Path, requests: Sequence[Request] = (), **options: Any) -> FolderSampler:
    given = {"root": str(place), **options}
    return folder.build(Foretold(DATA, CPU, requests=requests), **given)


def test_the_first_request_for_a_prompt_gets_the_first_clip_of_the_file(clips: Path) -> None:
    sampler = make(clips, asked(), prompts=table(clips, BY_PROMPT))
    assert sampler.conditioning == "text"
    assert torch.equal(sampler.sample(asked()), pictures()[[5, 1, 0, 2, 4]])


def test_it_keeps_what_a_sampler_promises(clips: Path) -> None:
    for requests in ((), asked()):  # told of the run's requests, or not
        check_sampler(make(clips, requests, prompts=table(clips, BY_PROMPT)), asked())


def test_a_run_that_goes_on_gets_the_clips_that_it_would_have_got(clips: Path) -> None:
    """The second half alone, as after an interruption or on another worker."""
    sampler = make(clips, asked(), prompts=table(clips, BY_PROMPT))
    assert torch.equal(sampler.sample(asked()[2:]), pictures()[[0, 2, 4]])


def test_clips_are_matched_by_class(clips: Path) -> None:
    names = [DATA.classes[request.label] for request in asked()]
    sampler = make(clips, asked(), classes=table(clips, dict(zip(["c3", "c2", "c0", "c1", "c5"], names, strict=True))))
    assert sampler.conditioning == "class"
    assert torch.equal(sampler.sample(asked()), pictures()[[3, 2, 0, 1, 5]])


def test_clips_are_matched_by_seed(clips: Path) -> None:
    sampler = make(clips, seeds=table(clips, {f"c{i}": 504 - i for i in range(5)}))
    assert sampler.conditioning == "none"
    assert torch.equal(sampler.sample(asked()), pictures()[[4, 3, 2, 1, 0]])


# What is missing.


def test_requests_without_a_clip_are_named_before_any_work(clips: Path) -> None:
    lines = {name: prompt for name, prompt in BY_PROMPT.items() if name not in ("c4", "c2")}
    message = r"no clip for 2 of 5 requests: 3 \(a fox\), 4 \(a cat\); make these clips.*reuse=True"
    with pytest.raises(MissingData, match=message):
        make(clips, asked(), prompts=table(clips, lines))
    with pytest.raises(MissingData, match=message):
        make(clips, prompts=table(clips, lines)).sample(asked())


def test_a_clip_is_repeated_only_when_it_is_said(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = {"c5": "a cat", "c1": "a dog", "c0": "a cat", "c2": "a fox"}
    sampler = make(clips, asked(), prompts=table(clips, lines), reuse=True)
    assert torch.equal(sampler.sample(asked()), pictures()[[5, 1, 0, 2, 5]])
    assert "warning: 1 of 5 requests get the clip of another" in capsys.readouterr().err
    with pytest.raises(MissingData, match=r"no clip for 1 of 1 requests: 0 \(a cow\)"):
        sampler.sample([Request(0, 0, 0, "a cow")])


def test_clips_that_answer_nothing_are_counted(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(clips, asked()[:2], prompts=table(clips, BY_PROMPT))
    assert "note: 3 of 5 clips of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"c0": "a cat", "c9": "a dog"}, r"1 of 2 clips are not in .*clips: c9; write paths .* such as c0"),
        ({}, "names no clip"),
    ],
)
def test_a_file_that_does_not_fit_the_folder_is_named(clips: Path, lines: dict[str, str], message: str) -> None:
    with pytest.raises(MissingData, match=message):
        make(clips, prompts=table(clips, lines))


@pytest.mark.parametrize(
    "options",
    [{}, {"prompts": "a.tsv", "seeds": "b.tsv"}, {"prompts": "a.tsv", "root": None}],
)
def test_which_clips_answer_what_must_be_said_once(clips: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="folder needs clips and one file"):
        make(clips, **options)


def test_a_clip_of_another_resolution_is_named(clips: Path) -> None:
    write_frames(clips / "large", np.zeros((4, 32, 32, 3), np.uint8) + 9)
    sampler = make(clips, prompts=table(clips, {"c0": "a cat", "large": "a dog"}))
    with pytest.raises(MissingData, match="large has 32x32 pixels, the first clip c0 16x16"):
        sampler.sample(asked(["a cat", "a dog"]))


def test_clips_are_as_long_as_the_shortest_unless_it_is_said(clips: Path) -> None:
    (clips / "c1" / "0003.png").unlink()
    lines = table(clips, BY_PROMPT)
    assert make(clips, prompts=lines).shape.frames == 3
    assert make(clips, prompts=lines, frames=2).sample(asked()).shape == (5, 2, 3, 16, 16)
    with pytest.raises(MissingData, match="1 of 5 clips have fewer than 4 frames: c1"):
        make(clips, prompts=lines, frames=4)
    with pytest.raises(UserError, match=r"folder\(frames=0\)"):
        make(clips, prompts=lines, frames=0)


def test_the_fingerprint_is_of_the_clips_and_of_what_is_said_of_them(clips: Path) -> None:
    first = make(clips, prompts=table(clips, BY_PROMPT)).weights
    assert make(clips, prompts=table(clips, BY_PROMPT)).weights == first
    assert make(clips, prompts=table(clips, {**BY_PROMPT, "c5": "a dog"})).weights != first
    shutil.copy(clips / "c3" / "0000.png", clips / "c5" / "0000.png")
    assert make(clips, prompts=table(clips, BY_PROMPT)).weights != first


# The file.


def test_a_file_is_read_line_by_line(tmp_path: Path) -> None:
    path = write_list(tmp_path / "p.tsv", "\ufeffb.mp4\ta cat", "", "a.mp4 \t two  dogs ", "b.mp4\ta cat")
    assert list(read_captions(path, "prompt").items()) == [("b.mp4", "a cat"), ("a.mp4", "two  dogs")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b.mp4", "line 2: needed: path below the folder, a tab, the seed: 'b.mp4"),
        ("\t17", "line 2: needed"),
        ("a.mp4\t18", "line 2: a.mp4 has two seeds"),
    ],
)
def test_a_line_that_says_nothing_or_two_things_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(MissingData, match=message):
        read_captions(write_list(tmp_path / "p.tsv", "a.mp4\t17", line), "seed")


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.tsv", tmp_path / "bytes.tsv"):
        (tmp_path / "bytes.tsv").write_bytes(b"\xff\xfe\xfa")
        with pytest.raises(MissingData, match=f"{path.name}: cannot be read as UTF-8 text"):
            read_captions(path, "prompt")


# The whole way.


def test_clips_of_another_model_get_its_scores(vfbench: Command, tmp_path: Path) -> None:
    """What `noise` makes, saved as videos and run as a folder, scores as `noise` does."""
    pytest.importorskip("av")
    given = ["--dataset", "shapes", "--num-samples", 16, "--num-real", 16, "--smoke", "--metrics", "fvd"]
    theirs = plan(RunOptions(model="noise", device="cpu", num_samples=16, num_real=16, smoke=True))
    requests = generate.make_requests(shapes.build(), "test", 16, 0)
    assert list(theirs.requests) == requests
    for request, clip in zip(requests, theirs.sampler.sample(requests), strict=True):
        write_video(tmp_path / "clips" / f"{request.index}.avi", clip.permute(0, 2, 3, 1).numpy())
    lines = table(tmp_path / "clips", {f"{i}.avi": derive_seed(0, i) for i in range(16)})
    model = f"folder(root='{tmp_path / 'clips'}', seeds='{lines}')"
    for name, spec in {"noise": "noise", "folder": model}.items():
        done = vfbench("run", "--model", spec, *given, "--device", "cpu", "--output", tmp_path / name)
        assert done.code == 0, done.err
    ours, expected = results(tmp_path / "folder"), results(tmp_path / "noise")
    assert ours["scores"] == expected["scores"]
    assert ours["protocol"] == expected["protocol"]
    assert not ours["reference"]
    lost = vfbench("run", "--model", model, *given, "--device", "cpu", "--seed", 1, "--output", tmp_path / "other")
    assert lost.code == 4
    assert "has no clip for" in lost.err
