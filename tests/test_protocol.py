"""A protocol is a promise: everything that can move a number is in its id, and nothing can be changed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic
import pytest

from vfbench import plugins
from vfbench.errors import UserError
from vfbench.protocol import JUDGED, Measure, Protocol, choose

FIELDS: Mapping[str, Any] = {
    "name": "by-hand",
    "comparable": True,
    "dataset": "shapes",
    "data_fingerprint": "00ff",
    "split": "train",
    "prompts": "test",
    "selection": "seeded",
    "selection_seed": 0,
    "frames": 16,
    "height": 32,
    "width": 32,
    "stride": 1,
    "start": "zero",
    "geometry": "native",
    "filter": "none",
    "antialias": False,
    "quantise": "round",
    "n_real": 2048,
    "n_fake": 256,
    "measures": {"fvd": {"metric": "fvd(ddof=1)", "source": "judge.features"}},
    "extractors": {"judge": "abcd"},
}
ID = "efa32d9e0321"  # a protocol recorded long ago must keep its id, or its numbers become strangers to new ones
CHANGED: Mapping[str, Any] = {
    "comparable": False,
    "dataset": "other",
    "data_fingerprint": "00fe",
    "split": "both",
    "prompts": "train",
    "selection_seed": 1,
    "frames": 17,
    "height": 33,
    "width": 31,
    "stride": 2,
    "start": "hashed",
    "geometry": "centre-crop",
    "filter": "bilinear",
    "antialias": True,
    "n_real": 2047,
    "n_fake": 255,
    "measures": {"fvd": {"metric": "fvd(ddof=0)", "source": "judge.features"}},
    "extractors": {"judge": "abce"},
}
ONE_VALUE = {"selection", "quantise"}  # fields that so far allow a single value


def test_the_id_of_a_protocol_is_pinned() -> None:
    assert Protocol(**FIELDS).id == ID


def test_every_field_is_tried() -> None:
    assert set(Protocol.model_fields) == set(FIELDS) == {"name", *CHANGED, *ONE_VALUE}


@pytest.mark.parametrize("field", CHANGED)
def test_the_id_changes_with_every_field(field: str) -> None:
    assert Protocol(**{**FIELDS, field: CHANGED[field]}).id != ID


@pytest.mark.parametrize("field", sorted(ONE_VALUE))
def test_fields_of_one_value_allow_no_other_and_are_part_of_the_id(field: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=field):
        Protocol(**{**FIELDS, field: "other"})
    assert Protocol(**FIELDS).model_copy(update={field: "other"}).id != ID


def test_name_and_order_do_not_change_the_id() -> None:
    assert Protocol(**{**FIELDS, "name": "renamed"}).id == ID
    assert Protocol(**dict(sorted(FIELDS.items()))).id == ID


def test_the_record_holds_every_field_and_makes_the_same_protocol() -> None:
    record = Protocol(**FIELDS).record()
    assert record == {"id": ID, **FIELDS}
    assert Protocol(**{key: value for key, value in record.items() if key != "id"}).id == ID


@pytest.mark.parametrize("thing", [Protocol(**FIELDS), Measure(metric="fvd", source="judge.features")])
def test_a_protocol_is_frozen_and_takes_no_unknown_field(thing: pydantic.BaseModel) -> None:
    for name, value in thing.model_dump().items():
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            setattr(thing, name, value)
    with pytest.raises(pydantic.ValidationError, match="extra"):
        type(thing)(**thing.model_dump(), surprise=1)


@pytest.mark.parametrize("change", [{"frames": 0}, {"n_fake": -1}, {"start": "middle"}, {"split": "validation"}])
def test_impossible_fields_are_refused(change: Mapping[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(change))):
        Protocol(**{**FIELDS, **change})


# The protocols that datasets offer.


def offered(dataset: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = plugins.module("dataset", dataset).PROTOCOLS
    return found


def test_a_dataset_has_its_own_protocol() -> None:
    assert choose(None, "shapes", offered("shapes"), smoke=False)["name"] == "shapes"
    assert choose("shapes", "shapes", offered("shapes"), smoke=True)["measures"] == JUDGED
    assert choose(None, "ucf101", offered("ucf101"), smoke=True)["name"] == "ucf101-smoke"


def test_a_dataset_without_one_can_be_tried_and_is_not_comparable() -> None:
    chosen = choose(None, "holidays", {}, smoke=True)
    assert (chosen["name"], chosen["comparable"]) == ("smoke", False)


@pytest.mark.parametrize(
    ("name", "dataset", "smoke", "said"),
    [
        ("shaps", "shapes", False, r"no protocol for shapes called 'shaps': did you mean 'shapes'\?"),
        ("shapes", "ucf101", True, "no protocol for ucf101 called 'shapes'.*ucf101-smoke"),
        (None, "ucf101", False, "ucf101 has no comparable protocol yet.*--smoke"),
        ("ucf101-smoke", "ucf101", False, "ucf101 has no comparable protocol yet.*--smoke"),
    ],
)
def test_a_protocol_that_does_not_fit_is_refused(name: str | None, dataset: str, smoke: bool, said: str) -> None:
    with pytest.raises(UserError, match=said):
        choose(name, dataset, offered(dataset), smoke=smoke)


@pytest.mark.parametrize("dataset", ["shapes", "ucf101"])
def test_protocols_measure_what_there_is(dataset: str) -> None:
    for fields in offered(dataset).values():
        for measure in fields["measures"].values():
            extractor, _, output = measure["source"].partition(".")
            assert extractor in plugins.names("extractor")
            assert plugins.load("metric", measure["metric"]).output == output
