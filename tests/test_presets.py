"""Tests of `vfbench.protocol.presets`: fields, sources, ids, differences, `show` and `diff-protocols`."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic
import pytest
from conftest import Command

from vfbench import plugins
from vfbench.errors import UserError
from vfbench.plugins import Kind
from vfbench.protocol import presets
from vfbench.protocol.presets import PRESET_FIELDS, Preset, different_fields, for_dataset, load
from vfbench.protocol.protocol import MULTI_CLIP_STARTS, Protocol

RECORD = Path(__file__).parent.parent / "results" / "records" / "vdm.json"
FILES = sorted(Path(presets.__file__).parent.glob("*.toml"))
NAMES = [file.stem for file in FILES]
DATASETS = ("shapes", "ucf101", "sky_timelapse", "taichi_hd", "of somebody else")
UCF101 = 13_320  # videos
# Ids on UCF101, with the fingerprint in `protocol`.
IDS: Mapping[str, str] = {
    "cd-fvd": "b4df4d43ff11",
    "deepmind": "86f2c27f6e96",
    "digan": "8ebc59434f6d",
    "latte": "f5b1bc63871c",
    "lvdm": "4161bfdf29f4",
    "magvit": "12c71d57ccfb",
    "mcvd": "754c2cdfbd78",
    "pvdm": "c3f371d7ac50",
    "strict": "4aa4849f4b94",
    "stylegan-v": "a2a7346a6961",
    "tats": "0ec65878a779",
    "videogpt": "4256ff3f49e9",
}
# Read from the code of each repository: ddof, I3D's batch norm epsilon and resize, n_real, n_fake.
PUBLISHED: Mapping[str, tuple[int, float, str, int | str, int]] = {
    "cd-fvd": (0, 1e-5, "squash", "all", 2048),
    "deepmind": (1, 1e-3, "tf1", 2048, 2048),
    "digan": (1, 1e-5, "crop", 2048, 2048),
    "latte": (0, 1e-3, "squash", 2048, 2048),
    "lvdm": (1, 1e-5, "squash", 2048, 2048),
    "magvit": (1, 1e-3, "tf1", 10_000, 10_000),
    "mcvd": (1, 1e-3, "crop", 256, 256),
    "pvdm": (1, 1e-5, "crop", 2048, 2048),
    "strict": (1, 1e-3, "squash", 2048, 2048),
    "stylegan-v": (0, 1e-3, "squash", 2048, 2048),
    "tats": (1, 1e-5, "squash", 2048, 2048),
    "videogpt": (1, 1e-5, "crop", 256, 256),
}
SPLIT_OF_UCF101 = {
    **dict.fromkeys(("stylegan-v", "latte", "digan", "lvdm", "cd-fvd"), "both"),
    **dict.fromkeys(("strict", "tats", "pvdm", "magvit", "deepmind"), "train"),
    **dict.fromkeys(("videogpt", "mcvd"), "test"),
}


def protocol(name: str, dataset: str = "ucf101", **settled: Any) -> Protocol:
    fields = for_dataset(load(name), dataset, settled)
    if fields["n_real"] == "all":
        fields["n_real"] = UCF101
    return Protocol(name=name, dataset=dataset, data_fingerprint="00ff", **fields)


# Preset files.


def test_the_preset_names() -> None:
    assert sorted(presets.available()) == NAMES == sorted(PUBLISHED)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dataset", DATASETS)
def test_every_preset_makes_a_protocol_on_every_dataset(name: str, dataset: str) -> None:
    built = protocol(name, dataset)
    assert (built.selection == "windows") is (built.start in MULTI_CLIP_STARTS)
    assert (for_dataset(load(name), dataset)["n_real"] == "all") is (built.selection == "all")


@pytest.mark.parametrize("name", NAMES)
def test_every_field_has_a_source_and_every_preset_deviations(name: str) -> None:
    preset = load(name)
    for rules in (preset, *preset.datasets.values()):
        assert [field for field in rules.values if not rules.sources[field].strip()] == []
    assert bool(preset.deviations) is (name != "strict")  # no published protocol
    assert [text for text in preset.deviations if not re.fullmatch(r"[A-Z].{30,}\.", text)] == []  # a sentence each


@pytest.mark.parametrize("name", NAMES)
def test_specs_are_canonical_and_every_extractor_is_measured(name: str) -> None:
    for dataset in DATASETS:
        fields = for_dataset(load(name), dataset)
        specs = [*fields["extractors"].values(), *(measure["metric"] for measure in fields["measures"].values())]
        assert [str(plugins.parse(spec)) for spec in specs] == specs
        assert {measure["source"].split(".")[0] for measure in fields["measures"].values()} == set(fields["extractors"])


def options_of(specs: Iterable[str], kind: Kind) -> Iterator[tuple[str, set[str], set[str]]]:
    """Name, options in the preset and existing options of each plug-in."""
    for spec in map(plugins.parse, specs):
        yield spec.name, set(spec.options), set(plugins.options(kind, spec.name))


@pytest.mark.parametrize("name", NAMES)
def test_metrics_and_extractors_of_a_preset_exist(name: str) -> None:
    fields = for_dataset(load(name), "ucf101")
    metrics = [measure["metric"] for measure in fields["measures"].values()]
    plug_in_options = [*options_of(metrics, "metric"), *options_of(fields["extractors"].values(), "extractor")]
    assert [plug_in for plug_in, options, known in plug_in_options if not options <= known] == []
    for measure in fields["measures"].values():
        plugins.load("metric", measure["metric"])
        extractor, output = measure["source"].split(".")
        module = plugins.module("extractor", extractor)
        (network,) = (value for key, value in vars(module).items() if key.endswith("Extractor") and key != "Extractor")
        assert output in getattr(network, "outputs", {output: 0})  # some have outputs once built only


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.pitfall("the split, and the epsilon of batch norm")
def test_presets_hold_the_published_values(name: str) -> None:
    fields = for_dataset(load(name), "ucf101")
    fvd = plugins.parse(fields["measures"]["fvd"]["metric"]).options
    i3d = plugins.parse(fields["extractors"]["i3d"]).options
    assert fields["measures"]["fvd"]["source"] == "i3d.logits"
    assert (fvd["ddof"], i3d["bn_eps"], i3d["resize"], fields["n_real"], fields["n_fake"]) == PUBLISHED[name]
    assert fields["split"] == SPLIT_OF_UCF101[name]


@pytest.mark.pitfall("strides of real and generated clips")
def test_the_published_exceptions() -> None:
    latte, tats, digan = load("latte"), load("tats"), load("digan")
    assert [for_dataset(latte, d)["stride"] for d in ("ucf101", "sky_timelapse", "taichi_hd")] == [3, 3, 6]
    assert {for_dataset(latte, d)["fake_stride"] for d in DATASETS} == {1}
    assert for_dataset(tats, "taichi_hd")["stride"] == for_dataset(digan, "taichi_hd")["stride"] == 4
    assert for_dataset(load("mcvd"), "ucf101")["frames"] == 20  # 4 of context and 16 generated, all scored
    truncating = {name for name in NAMES if for_dataset(load(name), "ucf101")["quantise"] == "truncate"}
    assert truncating == {"tats", "digan", "videogpt", "pvdm", "lvdm", "cd-fvd"}
    assert {name: n for name in NAMES if (n := for_dataset(load(name), "ucf101")["repeats"]) > 1} == {
        **{"digan": 10, "lvdm": 10, "magvit": 4}
    }


def test_the_inception_score_is_measured_on_ucf101_only() -> None:
    for name in NAMES:
        assert "is" not in for_dataset(load(name), "sky_timelapse")["measures"]
    assert "is(eps=0.0, splits=1)" in str(for_dataset(load("strict"), "ucf101")["measures"])
    assert "is(eps=0.0, shuffle_seed=42, splits=10)" in str(for_dataset(load("stylegan-v"), "ucf101")["measures"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_preset_files_have_short_lines(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert max(map(len, lines)) <= 120
    assert {line for line in lines if "  " in line.strip()} == set()


@pytest.mark.parametrize("name", NAMES)
def test_the_ids_of_presets_are_pinned(name: str) -> None:
    assert protocol(name).id == IDS[name]


def test_preset_ids_are_unique() -> None:
    assert len(set(IDS.values())) == len(NAMES)


# Validation of preset files.


def tats_content() -> dict[str, Any]:
    return {"name": "mine", **tomllib.loads(FILES[NAMES.index("tats")].read_text())}


@pytest.mark.parametrize("field", sorted(PRESET_FIELDS))
def test_a_preset_without_a_field_is_refused(field: str) -> None:
    preset = tats_content()
    for table in ("values", "sources", "instead"):
        preset[table].pop(field, None)
    with pytest.raises(pydantic.ValidationError, match=f"no value for {field}"):
        Preset(**preset)


@pytest.mark.parametrize(
    ("table", "field", "value", "message"),
    [
        ("values", "colour", "red", "no field of a protocol: colour"),
        ("values", "frames", "unknown", "values and instead do not agree in frames"),
        ("instead", "frames", 16, "values and instead do not agree in frames"),
        ("sources", "colour", "somewhere", "values and sources do not agree in colour"),
    ],
)
def test_a_preset_with_inconsistent_tables_is_refused(table: str, field: str, value: Any, message: str) -> None:
    preset = tats_content()
    preset[table][field] = value
    with pytest.raises(pydantic.ValidationError, match=message):
        Preset(**preset)


def test_a_preset_without_a_source_is_refused() -> None:
    preset = tats_content()
    del preset["datasets"]["ucf101"]["sources"]["measures"]
    with pytest.raises(pydantic.ValidationError, match="values and sources do not agree in measures"):
        Preset(**preset)


def test_an_unknown_preset_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="no protocol called 'stylegan': did you mean 'stylegan-v'"):
        load("stylegan")


# Dataset options.


def test_dataset_options_override_the_preset() -> None:
    preset, overridden = protocol("stylegan-v"), protocol("stylegan-v", filter="bilinear")
    assert (preset.filter, overridden.filter) == ("lanczos", "bilinear")
    assert preset.id != overridden.id


# Differences.


def test_differences_list_changed_fields_only() -> None:
    tats = load("tats")
    assert different_fields(tats, tats) == {}
    changed = different_fields(tats, load("lvdm"))
    assert changed["repeats"] == ("1", "10")
    assert changed["ucf101: split"] == ("train", "both")
    assert changed["ucf101: extractors.c3d"] == ("c3d(preprocess='tgan2')", "-")
    assert not {"split", "extractors.i3d", "n_real", "ucf101: repeats"} & changed.keys()
    assert {field: (b, a) for field, (a, b) in different_fields(load("lvdm"), tats).items()} == changed


def test_presets_and_results_are_compared_in_preset_fields() -> None:
    latte, stylegan_v = protocol("latte", "taichi_hd"), protocol("stylegan-v", "taichi_hd")
    assert different_fields(load("latte"), latte.to_json()) == different_fields(latte.to_json(), load("latte")) == {}
    assert different_fields(load("latte"), stylegan_v.to_json())["stride"] == ("6", "1")
    changed = different_fields(latte.to_json(), stylegan_v.to_json())
    assert {"id", "name", "stride"} <= changed.keys()
    assert "measures.fvd.metric" not in changed


def test_fields_missing_in_old_results_are_no_difference() -> None:
    new = protocol("tats").to_json()
    old = {field: value for field, value in new.items() if field not in ("fake_stride", "drop_first", "repeats")}
    assert different_fields(old, new) == {}


# The command line.


def test_ls_lists_presets_and_dataset_protocols(vfbench: Command) -> None:
    outcome = vfbench("ls", "protocols")
    rows = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert set(NAMES) <= rows.keys()
    assert rows["stylegan-v"] == load("stylegan-v").summary
    assert rows["shapes"] == "for shapes"


@pytest.mark.parametrize("name", ["latte", "strict"])
def test_show_prints_fields_sources_and_deviations(name: str, vfbench: Command) -> None:
    outcome, preset = vfbench("show", "protocol", name), load(name)
    assert (outcome.code, outcome.err) == (0, "")
    for rules in (preset, *preset.datasets.values()):
        for field, source in rules.sources.items():
            assert re.search(rf"^{field}\b.*{re.escape(source)}$", outcome.out, re.MULTILINE), field
    assert [f"- {text}" in outcome.out for text in preset.deviations] == [True] * len(preset.deviations)
    assert ("unknown, here test" in outcome.out) is (name == "latte")
    assert json.loads(vfbench("show", "protocol", name, "--json").out) == json.loads(preset.model_dump_json())


def test_show_reads_protocols_of_datasets_and_results(vfbench: Command) -> None:
    outcome = vfbench("show", "protocol", "shapes")
    assert re.search(r"^measures\.fvd\.source +shapes_judge\.features$", outcome.out, re.MULTILINE)
    recorded = json.loads(vfbench("show", "protocol", RECORD, "--json").out)
    assert recorded == json.loads(RECORD.read_text())["protocol"]


@pytest.mark.slow
def test_show_prints_plug_ins_as_json(vfbench: Command) -> None:
    printed = json.loads(vfbench("show", "model", "vdm", "--json").out)
    assert printed["options"] == plugins.options("model", "vdm")
    assert "tiny" in printed["presets"]


def test_diff_protocols_prints_differences_side_by_side(vfbench: Command) -> None:
    outcome = vfbench("diff-protocols", "stylegan-v", "latte")
    assert (outcome.code, outcome.err) == (0, "")
    head, *rows = [re.split(r"  +", line.strip()) for line in outcome.out.splitlines()]
    assert head == ["stylegan-v", "latte"]
    assert {row[0]: tuple(row[1:]) for row in rows} == different_fields(load("stylegan-v"), load("latte"))
    assert vfbench("diff-protocols", "tats", "tats").out == "no field differs\n"


def test_diff_protocols_reads_results_and_run_folders(vfbench: Command, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(RECORD.read_bytes())
    assert vfbench("diff-protocols", tmp_path, RECORD).out == "no field differs\n"
    outcome = vfbench("diff-protocols", "strict", tmp_path)
    assert re.search(r"^geometry +centre-crop +native$", outcome.out, re.MULTILINE)
    assert vfbench("diff-protocols", "shapes", tmp_path).code == 0


@pytest.mark.parametrize(
    ("names", "code", "message"),
    [
        (("stylegan", "tats"), 2, "no protocol called 'stylegan': did you mean 'stylegan-v'.*ucf101-smoke"),
        (("tats", "shaps"), 2, "did you mean 'shapes'"),
        (("tats", "runs/none"), 4, "runs/none"),
        (("tats",), 2, "argument 'theirs'"),
    ],
)
def test_unknown_protocols_are_refused(names: tuple[str, ...], code: int, message: str, vfbench: Command) -> None:
    outcome = vfbench("diff-protocols", *names)
    assert outcome.code == code
    assert re.search(message, outcome.err), outcome.err
    assert outcome.out == ""
