"""Tests of the `folder` model: given clips are matched to requests by prompt, class or seed."""

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
class RunContext(BuildContext):
    """Build context with all requests of its run."""

    requests: Sequence[Request] = ()


def requests_for(prompts: Sequence[str] = PROMPTS) -> list[Request]:
    return [Request(i, 500 + i, i % len(DATA.classes), prompt) for i, prompt in enumerate(prompts)]


def dataset_clips(count: int = 6) -> Tensor:
    """Clips that all differ, uint8 (B, 4, 3, 16, 16)."""
    return DATA.clips("test", range(count))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Six clips as frame folders `c0` to `c5`."""
    for i, clip in enumerate(dataset_clips()):
        write_frames(tmp_path / "clips" / f"c{i}", clip.permute(0, 2, 3, 1).numpy())
    return tmp_path / "clips"


def write_table(root: Path, lines: Mapping[str, object]) -> str:
    return str(write_list(root.parent / "table.tsv", *(f"{name}\t{value}" for name, value in lines.items())))


BY_PROMPT = {"c5": "a cat", "c1": "a dog", "c0": "a cat", "c2": "a fox", "c4": "a cat"}


def build_sampler(root: Path, /, requests: Sequence[Request] = (), **options: Any) -> FolderSampler:
    return folder.build(RunContext(DATA, CPU, requests=requests), **{"root": str(root), **options})


def test_clips_of_one_prompt_are_used_in_file_order(clips: Path) -> None:
    sampler = build_sampler(clips, requests_for(), prompts=write_table(clips, BY_PROMPT))
    assert sampler.conditioning == "text"
    assert torch.equal(sampler.sample(requests_for()), dataset_clips()[[5, 1, 0, 2, 4]])


def test_the_sampler_keeps_the_contract(clips: Path) -> None:
    for requests in ((), requests_for()):  # without and with the requests of the run
        check_sampler(build_sampler(clips, requests, prompts=write_table(clips, BY_PROMPT)), requests_for())


def test_a_resumed_run_gets_the_clips_of_its_requests(clips: Path) -> None:
    """Sample the second half alone, as after an interruption or on another worker."""
    sampler = build_sampler(clips, requests_for(), prompts=write_table(clips, BY_PROMPT))
    assert torch.equal(sampler.sample(requests_for()[2:]), dataset_clips()[[0, 2, 4]])


def test_clips_are_matched_by_class(clips: Path) -> None:
    names = [DATA.classes[request.label] for request in requests_for()]
    sampler = build_sampler(
        clips, requests_for(), classes=write_table(clips, dict(zip(["c3", "c2", "c0", "c1", "c5"], names, strict=True)))
    )
    assert sampler.conditioning == "class"
    assert torch.equal(sampler.sample(requests_for()), dataset_clips()[[3, 2, 0, 1, 5]])


def test_clips_are_matched_by_seed(clips: Path) -> None:
    sampler = build_sampler(clips, seeds=write_table(clips, {f"c{i}": 504 - i for i in range(5)}))
    assert sampler.conditioning == "none"
    assert torch.equal(sampler.sample(requests_for()), dataset_clips()[[4, 3, 2, 1, 0]])


# Missing clips.


def test_requests_without_a_clip_are_named(clips: Path) -> None:
    lines = {name: prompt for name, prompt in BY_PROMPT.items() if name not in ("c4", "c2")}
    message = r"2 of 5 requests: 3 \(a fox\), 4 \(a cat\); .*reuse=True"
    with pytest.raises(MissingData, match=message):
        build_sampler(clips, requests_for(), prompts=write_table(clips, lines))
    with pytest.raises(MissingData, match=message):
        build_sampler(clips, prompts=write_table(clips, lines)).sample(requests_for())


def test_reuse_repeats_clips_with_a_warning(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = {"c5": "a cat", "c1": "a dog", "c0": "a cat", "c2": "a fox"}
    sampler = build_sampler(clips, requests_for(), prompts=write_table(clips, lines), reuse=True)
    assert torch.equal(sampler.sample(requests_for()), dataset_clips()[[5, 1, 0, 2, 5]])
    assert "warning: 1 of 5 requests" in capsys.readouterr().err
    with pytest.raises(MissingData, match=r"1 of 1 requests: 0 \(a cow\)"):
        sampler.sample([Request(0, 0, 0, "a cow")])


def test_unused_clips_are_counted_in_a_note(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_sampler(clips, requests_for()[:2], prompts=write_table(clips, BY_PROMPT))
    assert "note: 3 of 5 clips of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"c0": "a cat", "c9": "a dog"}, r"1 of 2 clips .*clips: c9; .*c0"),
        ({}, "no clip"),
    ],
)
def test_a_file_that_does_not_match_the_folder_is_refused(clips: Path, lines: dict[str, str], message: str) -> None:
    with pytest.raises(MissingData, match=message):
        build_sampler(clips, prompts=write_table(clips, lines))


@pytest.mark.parametrize(
    "options",
    [{}, {"prompts": "a.tsv", "seeds": "b.tsv"}, {"prompts": "a.tsv", "root": None}],
)
def test_exactly_one_matching_file_is_required(clips: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="one file"):
        build_sampler(clips, **options)


def test_a_clip_of_another_resolution_is_refused(clips: Path) -> None:
    write_frames(clips / "large", np.zeros((4, 32, 32, 3), np.uint8) + 9)
    sampler = build_sampler(clips, prompts=write_table(clips, {"c0": "a cat", "large": "a dog"}))
    with pytest.raises(MissingData, match=r"large .*32x32 .*c0 16x16"):
        sampler.sample(requests_for(["a cat", "a dog"]))


def test_clips_are_as_long_as_the_shortest_by_default(clips: Path) -> None:
    (clips / "c1" / "0003.png").unlink()
    lines = write_table(clips, BY_PROMPT)
    assert build_sampler(clips, prompts=lines).shape.frames == 3
    assert build_sampler(clips, prompts=lines, frames=2).sample(requests_for()).shape == (5, 2, 3, 16, 16)
    with pytest.raises(MissingData, match=r"1 of 5 clips .*4 frames: c1"):
        build_sampler(clips, prompts=lines, frames=4)
    with pytest.raises(UserError, match=r"folder\(frames=0\)"):
        build_sampler(clips, prompts=lines, frames=0)


def test_the_weight_hash_covers_clips_and_the_matching_file(clips: Path) -> None:
    first = build_sampler(clips, prompts=write_table(clips, BY_PROMPT)).weights
    assert build_sampler(clips, prompts=write_table(clips, BY_PROMPT)).weights == first
    assert build_sampler(clips, prompts=write_table(clips, {**BY_PROMPT, "c5": "a dog"})).weights != first
    shutil.copy(clips / "c3" / "0000.png", clips / "c5" / "0000.png")
    assert build_sampler(clips, prompts=write_table(clips, BY_PROMPT)).weights != first


# Matching file.


def test_a_file_is_read_line_by_line(tmp_path: Path) -> None:
    path = write_list(tmp_path / "p.tsv", "\ufeffb.mp4\ta cat", "", "a.mp4 \t two  dogs ", "b.mp4\ta cat")
    assert list(read_captions(path, "prompt").items()) == [("b.mp4", "a cat"), ("a.mp4", "two  dogs")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b.mp4", "line 2: .*'b.mp4"),
        ("\t17", "line 2: needed"),
        ("a.mp4\t18", "line 2: a.mp4"),
    ],
)
def test_an_incomplete_or_conflicting_line_is_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(MissingData, match=message):
        read_captions(write_list(tmp_path / "p.tsv", "a.mp4\t17", line), "seed")


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.tsv").write_bytes(b"\xff\xfe\xfa")
    for name, message in (("none.tsv", "does not exist"), ("bytes.tsv", "is not UTF-8 text")):
        with pytest.raises(MissingData, match=f"{name} {message}"):
            read_captions(tmp_path / name, "prompt")


# Scores.


@pytest.mark.slow
def test_saved_clips_score_as_their_model(vfbench: Command, tmp_path: Path) -> None:
    """Save clips of `noise` as videos and score them as a folder."""
    pytest.importorskip("av")
    options = ["--dataset", "shapes", "--num-samples", 16, "--num-real", 16, "--smoke", "--metrics", "fvd"]
    noise_plan = plan(RunOptions(model="noise", device="cpu", num_samples=16, num_real=16, smoke=True))
    requests = list(generate.make_requests(shapes.build(), "test", 16, 0))
    assert list(noise_plan.requests) == requests
    for request, clip in zip(requests, noise_plan.sampler.sample(requests), strict=True):
        write_video(tmp_path / "clips" / f"{request.index}.avi", clip.permute(0, 2, 3, 1).numpy())
    lines = write_table(tmp_path / "clips", {f"{i}.avi": derive_seed(0, i) for i in range(16)})
    model = f"folder(root='{tmp_path / 'clips'}', seeds='{lines}')"
    for name, spec in {"noise": "noise", "folder": model}.items():
        outcome = vfbench("run", "--model", spec, *options, "--device", "cpu", "--output", tmp_path / name)
        assert outcome.code == 0, outcome.err
    result, expected = results(tmp_path / "folder"), results(tmp_path / "noise")
    assert result["scores"] == expected["scores"]
    assert result["protocol"] == expected["protocol"]
    assert not result["reference"]
    unmatched = vfbench(
        "run", "--model", model, *options, "--device", "cpu", "--seed", 1, "--output", tmp_path / "other"
    )
    assert unmatched.code == 4
    assert "no clip for" in unmatched.err
