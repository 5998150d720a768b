"""Tests of `vfbench.protocol.protocol`: ids that cover every field, frozen fields, identities of extractors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic
import pytest
import torch

from vfbench import plugins
from vfbench.interfaces import Clips, Extractor, Features, Request, WeightStatus
from vfbench.protocol.protocol import ADDED_FIELDS, Measure, Protocol, extractor_ids

ROOT = Path(__file__).parent.parent

FIELDS: Mapping[str, Any] = {
    "name": "by-hand",
    "comparable": True,
    "dataset": "shapes",
    "data_fingerprint": "00ff",
    "split": "train",
    "prompts": "test",
    "selection": "seeded",
    "manifest": "",
    "selection_seed": 0,
    "frames": 16,
    "height": 32,
    "width": 32,
    "stride": 1,
    "fake_stride": 1,
    "drop_first": 0,
    "start": "zero",
    "geometry": "native",
    "filter": "none",
    "antialias": False,
    "quantise": "round",
    "n_real": 2048,
    "n_fake": 256,
    "repeats": 1,
    "measures": {"fvd": {"metric": "fvd(ddof=1)", "source": "judge.features"}},
    "extractors": {"judge": "abcd"},
}
ID = "efa32d9e0321"  # pinned: recorded results stay comparable with new ones
CHANGED: Mapping[str, Any] = {
    "comparable": False,
    "dataset": "other",
    "data_fingerprint": "00fe",
    "split": "both",
    "prompts": "train",
    "selection": "sorted",
    "manifest": "00ff",
    "selection_seed": 1,
    "frames": 17,
    "height": 33,
    "width": 31,
    "stride": 2,
    "fake_stride": 2,
    "drop_first": 2,
    "start": "hashed",
    "geometry": "centre-crop",
    "filter": "bilinear",
    "antialias": True,
    "quantise": "truncate",
    "n_real": 2047,
    "n_fake": 255,
    "repeats": 2,
    "measures": {"fvd": {"metric": "fvd(ddof=0)", "source": "judge.features"}},
    "extractors": {"judge": "abce"},
}


def test_the_id_of_a_protocol_is_pinned() -> None:
    assert Protocol(**FIELDS).id == ID


def test_every_field_is_covered() -> None:
    assert set(Protocol.model_fields) == set(FIELDS) == {"name", *CHANGED}


def id_with(**changes: Any) -> str:
    """Id of the protocol `FIELDS` with changed fields."""
    return Protocol(**{**FIELDS, **changes}).id


@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.pitfall("rules that the protocol leaves out")
def test_the_id_changes_with_every_field(name: str) -> None:
    assert id_with(**{name: CHANGED[name]}) != ID


def test_added_fields_are_left_out_at_their_defaults() -> None:
    assert {name: Protocol.model_fields[name].default for name in ADDED_FIELDS} == ADDED_FIELDS


def test_every_value_of_a_field_has_its_own_id() -> None:
    ids = {id_with(drop_first=n) for n in range(4)} | {id_with(fake_stride=n) for n in range(2, 5)}
    assert len(ids) == 7


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*/*.json")), ids=lambda path: path.stem)
def test_results_older_than_a_field_keep_their_id(path: Path) -> None:
    fields = json.loads(path.read_text())["protocol"]
    recorded = fields.pop("id")
    present = [name for name in ADDED_FIELDS if name in fields]
    assert present == list(ADDED_FIELDS)[: len(present)]  # fields were added in this order
    assert Protocol(**fields).id == recorded
    assert Protocol(**{**fields, **ADDED_FIELDS}).id == recorded


def test_name_and_order_do_not_change_the_id() -> None:
    assert Protocol(**{**FIELDS, "name": "renamed"}).id == ID
    assert Protocol(**dict(sorted(FIELDS.items()))).id == ID


def test_the_record_holds_every_field_and_restores_the_protocol() -> None:
    record = Protocol(**FIELDS).to_json()
    assert record == {"id": ID, **FIELDS}
    assert Protocol(**{key: value for key, value in record.items() if key != "id"}).id == ID


@pytest.mark.parametrize("model", [Protocol(**FIELDS), Measure(metric="fvd", source="judge.features")])
def test_models_are_frozen_and_refuse_unknown_fields(model: pydantic.BaseModel) -> None:
    for name, value in model.model_dump().items():
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            setattr(model, name, value)
    with pytest.raises(pydantic.ValidationError, match="extra"):
        type(model)(**model.model_dump(), surprise=1)


@pytest.mark.parametrize(
    "change",
    [
        *({"frames": 0}, {"n_fake": 1}, {"n_real": 1}, {"stride": 0}, {"fake_stride": 0}),
        *({"drop_first": -1}, {"repeats": 0}),
        *({"start": "middle"}, {"split": "validation"}, {"selection": "first"}, {"quantise": "floor"}),
    ],
)
def test_impossible_fields_are_refused(change: Mapping[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(change))):
        Protocol(**{**FIELDS, **change})


# Identities of extractors.


@dataclass
class Network:
    """Stand-in extractor with the attributes that a protocol reads."""

    name: str
    fingerprint: str
    weight_status: WeightStatus
    outputs: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, clips: Clips, requests: Sequence[Request], outputs: Sequence[str]) -> dict[str, Features]:
        raise NotImplementedError


SPECS = {"i3d": "i3d(bn_eps=1e-05, resize='squash')", "clip": "clip"}
PUBLISHED: Mapping[str, Extractor] = {name: Network(name, f"hash of {name}", "verified") for name in SPECS}


def test_published_networks_are_identified_by_their_spec() -> None:
    assert extractor_ids(SPECS, PUBLISHED) == extractor_ids(SPECS, {"i3d": PUBLISHED["i3d"]}) == SPECS


def test_other_weights_are_identified_by_their_fingerprint() -> None:
    random = {"i3d": Network("i3d", "aa", "nonstandard"), "clip": Network("clip", "bb", "unpublished")}
    identities = extractor_ids(SPECS, random)
    assert identities == {"i3d": "i3d(bn_eps=1e-05, resize='squash') aa", "clip": "bb"}
    others = extractor_ids(SPECS, {**random, "i3d": Network("i3d", "ab", "nonstandard")})
    assert len({id_with(extractors=t) for t in (SPECS, identities, others)}) == 3


def test_the_shapes_judge_is_identified_by_its_fingerprint() -> None:
    judge: Extractor = plugins.load("extractor", "shapes_judge", torch.device("cpu"))
    assert extractor_ids({"shapes_judge": "shapes_judge"}, {"shapes_judge": judge}) == {
        "shapes_judge": judge.fingerprint
    }
