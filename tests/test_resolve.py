"""Which rules a measurement follows: the dataset's own, a preset's, and what the user says before both."""

from __future__ import annotations

import pytest

from vfbench import plugins
from vfbench.datasets import shapes
from vfbench.errors import UserError
from vfbench.plugins import Spec
from vfbench.protocol import presets
from vfbench.protocol.resolve import dataset_spec, departures, protocols, resolve_rules

SHAPES, UCF101 = Spec("shapes"), Spec("ucf101")


@pytest.mark.parametrize(
    ("spec", "name", "smoke", "chosen"),
    [
        (SHAPES, None, False, "shapes"),
        (SHAPES, "shapes", True, "shapes"),
        (SHAPES, "tats", False, "tats"),
        (UCF101, None, False, "strict"),
        (UCF101, None, True, "ucf101-smoke"),
        (UCF101, "mcvd", True, "mcvd"),
    ],
)
def test_the_rules_are_the_datasets_own_or_a_preset(spec: Spec, name: str | None, smoke: bool, chosen: str) -> None:
    assert resolve_rules(spec, name, smoke=smoke).name == chosen


def test_a_dataset_without_a_protocol_can_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(shapes, "PROTOCOLS")
    assert resolve_rules(SHAPES, None, smoke=False).name == "strict"
    tried = resolve_rules(SHAPES, None, smoke=True)
    assert (tried.name, tried.comparable) == ("smoke", False)


@pytest.mark.parametrize(
    ("spec", "name", "said"),
    [
        (SHAPES, "shaps", r"no protocol called 'shaps': did you mean 'shapes'\?"),
        (UCF101, "stylegan", r"no protocol called 'stylegan': did you mean 'stylegan-v'\?"),
        (UCF101, "shapes", "protocol shapes belongs to shapes, not to ucf101"),
        (UCF101, "ucf101-smoke", "ucf101-smoke of ucf101 is not comparable: add --smoke"),
    ],
)
def test_a_protocol_that_does_not_fit_is_refused(spec: Spec, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        resolve_rules(spec, name, smoke=False)


@pytest.mark.parametrize("dataset", ["shapes", "ucf101"])
def test_protocols_measure_what_there_is(dataset: str) -> None:
    for fields in protocols(dataset).values():
        for measure in fields["measures"].values():
            extractor, _, output = measure["source"].partition(".")
            assert extractor in plugins.names("extractor")
            assert plugins.load("metric", measure["metric"]).output == output


@pytest.mark.parametrize("name", presets.available())
def test_moving_shapes_are_drawn_at_their_own_size_under_every_preset(name: str) -> None:
    fields = resolve_rules(SHAPES, name, smoke=False)
    assert (fields.height, fields.width) == (32, 32)
    assert (fields.start, fields.geometry, fields.filter) == ("zero", "native", "none")
    assert fields.selection != "windows"
    larger = resolve_rules(Spec("shapes", {"height": 64, "width": 64}), name, smoke=False)
    assert (larger.height, larger.width) == (64, 64)


@pytest.mark.parametrize("name", ["ucf101-smoke", "strict"])
def test_what_the_user_says_of_a_dataset_goes_before_the_rules(name: str) -> None:
    said = resolve_rules(Spec("ucf101", {"start": "zero", "geometry": "squash"}), name, smoke=True)
    assert (said.start, said.geometry, said.filter) == ("zero", "squash", "bilinear")


@pytest.mark.parametrize("start", ["every", "chunks"])
def test_windows_of_the_users_choice_are_recorded_as_drawn(start: str) -> None:
    windows = Spec("ucf101", {"start": start})
    assert resolve_rules(windows, "strict", smoke=False).selection == "windows"
    assert resolve_rules(windows, "ucf101-smoke", smoke=True).selection == "windows"
    assert resolve_rules(Spec("ucf101", {"start": "hashed"}), "tats", smoke=False).selection == "seeded"
    with pytest.raises(UserError, match=r"several clips per video, and protocol stylegan-v.*--protocol"):
        resolve_rules(windows, "stylegan-v", smoke=False)


def test_a_dataset_is_cut_as_the_rules_say_and_as_the_user_says_before() -> None:
    fields = resolve_rules(UCF101, "mcvd", smoke=False)
    said = dataset_spec(Spec("ucf101", {"height": 32}), fields).options
    assert (said["frames"], said["height"], said["width"], said["filter"]) == (20, 32, 64, "lanczos")
    assert "selection" not in said
    assert dataset_spec(SHAPES, resolve_rules(SHAPES, "mcvd", smoke=False)).options == {
        "frames": 16,
        "height": 32,
        "width": 32,
    }


def test_what_a_dataset_does_in_its_own_way_is_said() -> None:
    said = departures(resolve_rules(SHAPES, "latte", smoke=False), SHAPES)
    assert said.startswith("latte, but height 32, width 32, stride 1, start zero")
    assert departures(resolve_rules(UCF101, "latte", smoke=False), UCF101) == ""
    assert departures(resolve_rules(SHAPES, None, smoke=False), SHAPES) == ""
    larger = Spec("ucf101", {"height": 512})
    assert departures(resolve_rules(larger, "latte", smoke=False), larger) == "latte, but height 512"
