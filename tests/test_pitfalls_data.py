"""What goes wrong in the field with the clips that are scored, and what holds it here: pitfalls of the project's list.

Each test is short and looks from outside; thorough ones stand in the file of the module. The others of the 21 are in
`test_pitfalls_numbers.py` and `test_pitfalls_code.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch
from clipfiles import levels, names, pictures, stack, touch, write_frames, write_list, write_video
from conftest import Command, results
from PIL import Image
from pitfalls import CPU, protocol

from vfbench import clips as folders
from vfbench.clips import manifest
from vfbench.datasets import folder, shapes, ucf101
from vfbench.errors import MissingData, UserError
from vfbench.metrics import _i3d
from vfbench.metrics._i3d_network import I3D
from vfbench.pipeline import real_clips, requests
from vfbench.protocol.presets import for_dataset, load
from vfbench.weights import Filled

pytest.importorskip("av")  # without it no clip can be made, nor read


def ids(**values: list[Any]) -> set[str]:
    """The ids of the protocol with all combinations of the values of some fields."""
    return {protocol(**dict(zip(values, chosen, strict=True))).id for chosen in product(*values.values())}


# Which clips.


def test_pitfall_01_which_real_clips_are_scored_is_part_of_the_protocol() -> None:
    assert len(ids(selection=["seeded", "sorted", "windows"], selection_seed=[0, 1], start=["zero", "hashed"])) == 12
    assert len(ids(data_fingerprint=["00ff", "00fe"])) == 2
    drawn = real_clips.choose(13_320, 2_048, 0)
    assert drawn == real_clips.choose(13_320, 2_048, 0) != real_clips.choose(13_320, 2_048, 1)


def test_pitfall_01_which_real_clips_were_scored_can_be_read_and_given_back(tmp_path: Path) -> None:
    for i in range(6):
        write_video(tmp_path / f"{i}.avi", pictures(i, 20))
    data = folder.build(root=str(tmp_path), frames=4, height=8, width=8, start="hashed")
    rules = protocol(dataset="folder", n_real=4, n_fake=2)
    drawn = real_clips.draw(data, rules)
    assert (
        drawn == real_clips.draw(data, rules) != real_clips.draw(data, rules.model_copy(update={"selection_seed": 1}))
    )
    drawn.write(tmp_path / "manifest.csv")
    given = manifest.read(tmp_path / "manifest.csv").places(0, "real")
    clips, _ = real_clips.shown(data, given)
    assert torch.equal(clips, real_clips.shown(data, drawn.places(0, "real"))[0])


def test_pitfall_01_a_clip_more_less_or_other_is_another_dataset(tmp_path: Path) -> None:
    def fingerprint() -> str:
        return folder.build(root=str(tmp_path), frames=4, height=8, width=8).fingerprint

    write_video(tmp_path / "a.avi", pictures())
    write_video(tmp_path / "b.avi", pictures(1))
    seen = [fingerprint()]
    write_video(tmp_path / "c.avi", pictures(2))
    seen.append(fingerprint())
    write_video(tmp_path / "b.avi", pictures(3))
    seen.append(fingerprint())
    (tmp_path / "a.avi").unlink()
    seen.append(fingerprint())
    assert len(set(seen)) == 4


def test_pitfall_02_the_split_is_part_of_the_protocol() -> None:
    assert len(ids(split=["train", "test", "both"], prompts=["train", "test"])) == 6


def test_pitfall_03_more_clips_than_there_are_is_refused(
    monkeypatch: pytest.MonkeyPatch, vfbench: Command, tmp_path: Path
) -> None:
    drawn = real_clips.choose(3_000, 2_048, 0)
    assert len(set(drawn)) == len(drawn)  # no video twice
    there = shapes.build().size("train")
    too_many = {**shapes.PROTOCOLS["shapes"], "n_real": there + 1}
    monkeypatch.setattr(shapes, "PROTOCOLS", {"shapes": too_many})
    done = vfbench("run", "--model", "noise", "--num-samples", 256, "--output", tmp_path / "run")
    assert done.code == 4
    assert f"{there:,} real clips" in done.err


@pytest.mark.parametrize("count", ["n_real", "n_fake"])
def test_pitfall_04_how_many_videos_is_part_of_the_protocol(count: str) -> None:
    assert len(ids(**{count: [256, 2_047, 2_048, 2_049]})) == 4
    with pytest.raises(pydantic.ValidationError, match=count):
        protocol(**{count: 1})


def test_pitfall_04_a_handful_of_videos_is_refused(vfbench: Command, tmp_path: Path) -> None:
    done = vfbench("run", "--model", "noise", "--num-samples", 4, "--output", tmp_path / "run")
    assert done.code == 2
    assert "4 generated clips are too few: fvd needs" in done.err


# Which frames.


def test_pitfall_09_real_and_generated_clips_have_strides_of_their_own(tmp_path: Path) -> None:
    assert len(ids(stride=[1, 3], fake_stride=[1, 3])) == 4
    latte = for_dataset(load("latte"), "taichi_hd")
    assert (latte["stride"], latte["fake_stride"]) == (6, 1)
    write_video(tmp_path / "a.avi", pictures())
    assert levels(folders.clip(folders.detect(tmp_path), 0, frames=3, stride=3)) == [0, 30, 60]


def test_pitfall_10_how_clips_were_stored_is_compared_and_is_part_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_frames(tmp_path / "png/a", pictures())
    write_frames(tmp_path / "jpeg/a", pictures(), "{:04}.jpg", quality=75)
    write_frames(tmp_path / "large/a", pictures(height=16, width=20))
    real, lossy, large = (folders.detect(tmp_path / name) for name in ("png", "jpeg", "large"))
    assert folders.mismatches(real, real) == []
    assert folders.mismatches(real, lossy)[0].startswith("compression: real lossless, fake jpeg")
    assert folders.mismatches(real, large)[0].startswith("resolution (width x height): real 10x8, fake 20x16")

    def fingerprint(name: str) -> str:
        return folder.build(root=str(tmp_path / name), frames=4, height=8, width=8).fingerprint

    before = fingerprint("png")
    assert fingerprint("jpeg") != before
    monkeypatch.setattr(folders, "decoder", lambda *_: "another decoder")
    assert fingerprint("png") != before


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["1.png", "2.png"], "no clips but single images .*frames must stand in a folder for each clip"),
        (["a/b/c/1.png"], "frame folders lie 3 levels deep .*give a folder further down"),
        (["a/1.png", "b/c/1.png"], "frame folders at different depths"),
        (["a.mp4", "c/1.png"], "holds videos .*and frame folders .*which are the clips"),
    ],
)
def test_pitfall_11_a_wrong_layout_is_refused_with_what_was_found(tmp_path: Path, files: list[str], said: str) -> None:
    with pytest.raises(MissingData, match=said):
        folders.detect(touch(tmp_path, *files))


def test_pitfall_11_a_layout_is_listed_before_any_work(tmp_path: Path) -> None:
    touch(tmp_path, "clips/x/a/1.png", "clips/y/b/1.png", "clips/__MACOSX/c/1.png", "clips/notes.txt")
    told = folders.detect(tmp_path / "clips").describe()
    assert re.search(r"^found +frame folders: 2, classes: 2$", told, re.MULTILINE)
    assert re.search("not scored, no layout reads them: notes.txt", told)
    assert re.search("ignored: __MACOSX", told)


def test_pitfall_12_short_clips_are_named_and_never_padded(tmp_path: Path) -> None:
    write_video(tmp_path / "long.avi", pictures(frames=16))
    write_video(tmp_path / "short.avi", pictures(frames=15))
    found = folders.detect(tmp_path)
    assert folders.too_short(found, frames=16) == ["short.avi"]
    with pytest.raises(MissingData, match=r"short\.avi.*15"):
        folders.clips(found, [0, 1], frames=16)


def test_pitfall_12_i3d_says_how_many_frames_it_needs() -> None:
    empty = _i3d.I3DExtractor(
        I3D().folded(), Filled("0" * 64, weight_status="nonstandard"), CPU
    )  # no clip reaches the network
    with pytest.raises(UserError, match="8 frames, and I3D reads no fewer than 9"):
        empty(shapes.build(frames=8).clips("train", range(1)), [], ["logits"])


def test_pitfall_13_which_frames_enter_is_part_of_the_protocol(tmp_path: Path) -> None:
    assert len(ids(frames=[16, 20], drop_first=[0, 4])) == 4
    write_video(tmp_path / "a.avi", pictures())
    assert levels(folders.clip(folders.detect(tmp_path), 0, frames=2, drop_first=4)) == [40, 50]


def gif(path: Path) -> None:
    """Frames that last from 20 ms to a second."""
    first, *rest = map(Image.fromarray, pictures(frames=16))
    first.save(path, save_all=True, append_images=rest, duration=[1000, *[20] * 14, 500])


def irregular(path: Path) -> None:
    """A video whose frames come at uneven times."""
    import av

    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream("ffv1", rate=25, pix_fmt="bgr0", height=8, width=10)
        for k, image in enumerate(pictures(frames=16)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = k * k
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(("name", "write"), [("a.gif", gif), ("a.mkv", irregular)])
def test_pitfall_14_frames_are_those_in_the_file_whatever_their_times(tmp_path: Path, name: str, write: Any) -> None:
    write(tmp_path / name)
    found = folders.detect(tmp_path)
    assert levels(folders.clip(found, 0, frames=16)) == [10 * k for k in range(16)]
    with pytest.raises(MissingData, match=r"needs 17 frames.*decoded 16"):
        folders.clip(found, 0, frames=17)


# What makes a number again.


def test_pitfall_15_a_result_holds_all_that_makes_it_again(
    vfbench: Command, checkpoints: Path, tmp_path: Path, few_real: None
) -> None:
    sampler = "vdm(steps=2, solver='ddim', guidance=1.5)"
    made = ("--checkpoint", checkpoints / "vdm", "--num-samples", 8, "--smoke", "--seed", 5, "--device", "cpu")
    found: list[Mapping[str, Any]] = []
    for name in ("first", "again"):
        assert vfbench("run", "--model", sampler, *made, "--output", tmp_path / name).code == 0
        found.append(results(tmp_path / name))
    assert found[0]["scores"] == found[1]["scores"]
    result = found[0]
    assert result["seed"] == 5
    assert {"steps=2", "solver='ddim'", "guidance=1.5"} <= set(re.findall(r"\w+='?[\w.]+'?", result["model_spec"]))
    assert re.fullmatch("[0-9a-f]{64}", result["weights"])
    assert result["protocol"]["data_fingerprint"] == shapes.build().fingerprint
    assert {"prompts", "split", "selection", "selection_seed", "start"} <= result["protocol"].keys()
    asked = [requests.make_requests(shapes.build(), "test", 8, seed) for seed in (5, 5, 6)]
    assert asked[0] == asked[1]
    assert not {request.seed for request in asked[0]} & {request.seed for request in asked[2]}


def test_pitfall_20_how_to_get_a_dataset_is_said_without_tricks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VFBENCH_DATA", raising=False)
    with pytest.raises(MissingData) as refused:
        ucf101.build()
    assert "https://www.crcv.ucf.edu/data/UCF101.php" in str(refused.value)
    assert "--data-root DIR" in str(refused.value)
    assert "no-check-certificate" not in str(refused.value)


def test_pitfall_20_how_much_of_a_dataset_is_missing_is_said(tmp_path: Path) -> None:
    lists, there = tmp_path / "ucfTrainTestlist", tmp_path / "UCF-101/YoYo/v_YoYo_g08_c01.avi"
    lists.mkdir()
    write_list(lists / "classInd.txt", "1 YoYo")
    write_list(lists / "trainlist01.txt", *(f"YoYo/v_YoYo_g{k:02}_c01.avi 1" for k in range(8, 11)), "")
    write_list(lists / "testlist01.txt", "YoYo/v_YoYo_g01_c01.avi", "")
    write_video(there, pictures(frames=20))
    found = ucf101.find(str(tmp_path))
    assert found.missing("train") == ["YoYo/v_YoYo_g09_c01.avi", "YoYo/v_YoYo_g10_c01.avi"]
    assert found.missing("test") == ["YoYo/v_YoYo_g01_c01.avi"]
    assert found.note == "1 of 3 listed train clips present; 0 of 1 listed test clips present"


def test_pitfall_20_listed_clips_that_are_missing_are_counted_and_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", stack(1))
    listing = write_list(tmp_path / "list.txt", "a.npy", "b.npy", "c.npy")
    with pytest.raises(MissingData, match=r"2 of 3 listed clips are not in .*: b\.npy, c\.npy"):
        folders.detect(tmp_path, listing=listing)
    assert names(folders.detect(tmp_path))[0].startswith("a.npy")
