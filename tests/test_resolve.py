"""Tests of `vfbench.protocol.resolve`: rules of the dataset, of a preset, and options of the user."""

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
    ("spec", "name", "smoke", "expected"),
    [
        (SHAPES, None, False, "shapes"),
        (SHAPES, "shapes", True, "shapes"),
        (SHAPES, "tats", False, "tats"),
        (UCF101, None, False, "strict"),
        (UCF101, None, True, "ucf101-smoke"),
        (UCF101, "mcvd", True, "mcvd"),
    ],
)
def test_rules_come_from_the_dataset_or_a_preset(spec: Spec, name: str | None, smoke: bool, expected: str) -> None:
    assert resolve_rules(spec, name, smoke=smoke).name == expected


def test_a_dataset_without_protocols_has_a_smoke_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(shapes, "PROTOCOLS")
    assert resolve_rules(SHAPES, None, smoke=False).name == "strict"
    rules = resolve_rules(SHAPES, None, smoke=True)
    assert (rules.name, rules.comparable) == ("smoke", False)


@pytest.mark.parametrize(
    ("spec", "name", "message"),
    [
        (SHAPES, "shaps", r"no protocol called 'shaps': did you mean 'shapes'\?"),
        (UCF101, "stylegan", r"no protocol called 'stylegan': did you mean 'stylegan-v'\?"),
        (UCF101, "shapes", "protocol shapes belongs to shapes, not to ucf101"),
        (UCF101, "ucf101-smoke", "ucf101-smoke of ucf101 is not comparable: add --smoke"),
    ],
)
def test_protocols_of_other_datasets_are_refused(spec: Spec, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_rules(spec, name, smoke=False)


@pytest.mark.parametrize("dataset", ["shapes", "ucf101"])
def test_protocols_name_existing_extractors_metrics_and_outputs(dataset: str) -> None:
    for fields in protocols(dataset).values():
        for measure in fields["measures"].values():
            extractor, _, output = measure["source"].partition(".")
            assert extractor in plugins.names("extractor")
            assert plugins.load("metric", measure["metric"]).output == output


@pytest.mark.parametrize("name", presets.available())
def test_moving_shapes_keep_their_size_under_every_preset(name: str) -> None:
    fields = resolve_rules(SHAPES, name, smoke=False)
    assert (fields.height, fields.width) == (32, 32)
    assert (fields.start, fields.geometry, fields.filter) == ("zero", "native", "none")
    assert fields.selection != "windows"
    larger = resolve_rules(Spec("shapes", {"height": 64, "width": 64}), name, smoke=False)
    assert (larger.height, larger.width) == (64, 64)


@pytest.mark.parametrize("name", ["ucf101-smoke", "strict"])
def test_options_of_the_user_override_the_rules(name: str) -> None:
    rules = resolve_rules(Spec("ucf101", {"start": "zero", "geometry": "squash"}), name, smoke=True)
    assert (rules.start, rules.geometry, rules.filter) == ("zero", "squash", "bilinear")


@pytest.mark.parametrize("start", ["every", "chunks"])
def test_a_multi_clip_start_is_recorded_as_windows(start: str) -> None:
    windows = Spec("ucf101", {"start": start})
    assert resolve_rules(windows, "strict", smoke=False).selection == "windows"
    assert resolve_rules(windows, "ucf101-smoke", smoke=True).selection == "windows"
    assert resolve_rules(Spec("ucf101", {"start": "hashed"}), "tats", smoke=False).selection == "seeded"
    with pytest.raises(UserError, match=r"several clips per video, and protocol stylegan-v.*--protocol"):
        resolve_rules(windows, "stylegan-v", smoke=False)


def test_dataset_options_come_from_the_user_then_the_rules() -> None:
    fields = resolve_rules(UCF101, "mcvd", smoke=False)
    options = dataset_spec(Spec("ucf101", {"height": 32}), fields).options
    assert (options["frames"], options["height"], options["width"], options["filter"]) == (20, 32, 64, "lanczos")
    assert "selection" not in options
    assert dataset_spec(SHAPES, resolve_rules(SHAPES, "mcvd", smoke=False)).options == {
        "frames": 16,
        "height": 32,
        "width": 32,
    }


def test_departures_from_a_preset_are_listed() -> None:
    text = departures(resolve_rules(SHAPES, "latte", smoke=False), SHAPES)
    assert text.startswith("latte, but height 32, width 32, stride 1, start zero")
    assert departures(resolve_rules(UCF101, "latte", smoke=False), UCF101) == ""
    assert departures(resolve_rules(SHAPES, None, smoke=False), SHAPES) == ""
    larger = Spec("ucf101", {"height": 512})
    assert departures(resolve_rules(larger, "latte", smoke=False), larger) == "latte, but height 512"
