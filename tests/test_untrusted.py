"""Tests of files that somebody else wrote: no name in them imports a module, no value in them ends in a traceback."""

from __future__ import annotations

import contextlib
import copy
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command
from helpers import build_context, tiny_vdm
from resultfiles import PROTOCOL, record

import vfbench
from vfbench import plugins
from vfbench.baselines import vdm
from vfbench.clips import prepared
from vfbench.diffusion import hub
from vfbench.errors import MissingData, UserError
from vfbench.models import _pretrained_base
from vfbench.report import gate
from vfbench.training import model_card
from vfbench.utils import files
from vfbench.utils.tensor_files import write_tensors

MODULE = "trap_package.trap"
NAMES = [
    MODULE,
    f"{MODULE}(k=3)",
    "trap_package",
    "./trap_package/trap.py",
    f"{MODULE}:build",
    f"metrics.{MODULE}",
    "trap",
]


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder on the path of imports, and working directory; its modules write the file `imported` when imported."""
    code = f"open({str(tmp_path / 'imported')!r}, 'w').close()\ndef build(*context): return object()\n"
    (tmp_path / "trap_package").mkdir()
    for name in ("trap_package/__init__.py", "trap_package/trap.py", "trap.py"):
        (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("trap")]:
        del sys.modules[name]
    plugins._typed.clear()


def write_run(folder: Path, name: str) -> None:
    """A run whose results name a plug-in wherever they name one."""
    protocol = {**PROTOCOL, "name": name, "dataset": name, "measures": {"fvd": {"metric": name, "source": name}}}
    result = record(name, protocol={**protocol, "extractors": {"i3d": name}})
    folder.mkdir()
    files.write_json(
        folder / "results.json", {**result, "dataset": name, "model_spec": name, "preset": name, "seed": 0}
    )
    write_tensors(folder / "scored.safetensors", {"fake.groups": torch.zeros(2)}, run=result["run_id"])


@pytest.mark.one_case
@pytest.mark.parametrize("name", NAMES)
def test_no_command_imports_what_a_result_names(vfbench: Command, trap: Path, name: str) -> None:
    for run in "ab":
        write_run(trap / run, name)
    for command in ("table a b", "gate a --baseline b --rule fvd:+5%", "compare a b", "compare a b --metrics fvd"):
        outcome = vfbench(*command.split())
        assert outcome.code == (0 if command.startswith("table") else 2), (command, outcome.err)
        assert not (trap / "imported").exists(), command
    assert "protocol.measures.fvd.metric" in vfbench("compare", "a", "b").err


@pytest.mark.parametrize("name", NAMES)
def test_no_reader_imports_what_a_checkpoint_or_a_prepared_dataset_names(trap: Path, name: str) -> None:
    model = tiny_vdm()
    model.save(trap / "checkpoint")
    path = trap / "checkpoint" / "config.json"
    config = files.read_json(path)
    named = {"options": {**config["options"], "embedding": {"encoder": name}}, "preset": name, "dataset": name}
    for content in ({**config, **named}, {**config, **named, "model": name}):
        files.write_json(path, content)
        with contextlib.suppress(MissingData):  # no name of a plug-in
            model_card.command(hub.read_config(path.parent), path.parent)
        for read in (
            lambda: vdm.build(build_context(path.parent)),
            lambda: _pretrained_base.read(path.parent, model.config, build_context(path.parent).dataset),
        ):
            with pytest.raises(UserError):
                read()
    files.write_json(trap / "prepared.json", {"format": prepared.FORMAT, "dataset": name, "decoder": name})
    with pytest.raises(MissingData):
        prepared.read_inventory(trap, name)
    assert not (trap / "imported").exists()


def test_a_module_that_the_user_names_is_imported(trap: Path) -> None:
    with pytest.raises(UserError, match=f"'{MODULE}'"):
        plugins.load_known("metric", MODULE)
    assert not (trap / "imported").exists()
    plugins.load_known("metric", MODULE, typed=[MODULE])
    assert (trap / "imported").exists()
    plugins.load_known("metric", MODULE)  # known by now


VALUES: list[Any] = [
    None,
    True,
    -1,
    0.5,
    1e308,
    2**62,
    "x",
    "",
    [],
    {},
    [1, "a", None],
    {"a": {"b": [1]}},
    [[[[[[]]]]]],
]


def changed(content: Any, value: Any) -> Iterator[tuple[str, Any]]:
    """Copies of a JSON object, each with another field replaced by the value, and its path."""

    def places(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        for key in part if isinstance(part, dict) else range(len(part[:1])) if isinstance(part, list) else ():
            yield (*path, key)
            yield from places(part[key], (*path, key))

    for *parents, last in places(content):
        copied = part = copy.deepcopy(content)
        for key in parents:
            part = part[key]
        part[last] = value
        yield ".".join(map(str, (*parents, last))), copied


def use_result(folder: Path) -> None:
    """Show a result in every format, and judge it."""
    (result,) = vfbench.load_results(folder)
    table = vfbench.table([result], allow_mixed=True)
    for show in (table.to_markdown, table.to_latex, table.to_csv, table._repr_html_, result._repr_html_):
        show()
    for other in (result, vfbench.load_results(folder.parent / "good")[0]):
        gate.gate(result, other, ["fvd:+5%"])
        gate.gate(other, result, ["fvd:+5%"])


def use_checkpoint(folder: Path) -> None:
    """Build the model of a checkpoint."""
    hub.read_config(folder)
    vdm.build(build_context(folder))


def good_result() -> dict[str, Any]:
    measures = {"fvd": {"metric": "fvd(ddof=1)", "source": "shapes_judge.features"}}
    result = record("vdm", protocol={**PROTOCOL, "measures": measures, "extractors": {"shapes_judge": "a" * 64}})
    data = {"dataset": "shapes", "splits": {"train": {"clips": 3}}, "draws": 1}
    return {**result, "data": data, "fake": {"folder": "x", "notes": ["a"]}, "environment": {"torch": "2"}, "seed": 0}


@pytest.mark.one_case
@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize(("name", "use"), [("results.json", use_result), ("config.json", use_checkpoint)])
def test_a_wrong_value_is_refused_naming_the_file(
    tmp_path: Path, name: str, use: Callable[[Path], None], value: Any
) -> None:
    folder, good = tmp_path / "run", good_result()
    folder.mkdir()
    if name == "config.json":
        tiny_vdm().save(folder)
        good = files.read_json(folder / name)
        for long in ("classes", "words"):
            good[long] = good[long][:1]
    else:
        (tmp_path / "good").mkdir()
        (tmp_path / "good" / name).write_text(json.dumps(good))
    refused: list[tuple[str, UserError]] = []
    for field, content in changed(good, value):
        (folder / name).write_text(json.dumps(content))
        try:
            use(folder)
        except UserError as error:
            refused.append((field, error))
    for field, refusal in refused:
        if field in ("scores", "protocol.id"):  # the file is sound: it has no score, or another protocol
            continue
        assert isinstance(refusal, MissingData), field
        assert str(folder) in str(refusal), field
    assert len(refused) > 3


def prepared_index(**changes: Any) -> dict[str, Any]:
    video = ["a.avi", "a", 2, 8, 8, 0, 0, 25.0]
    content = {
        **{"format": prepared.FORMAT, "dataset": "ucf101", "fitted": "x", "decoder": "pyav", "options": {}},
        **{"command": "python -m vfbench data prepare ucf101", "vfbench": "x", "layout": "x", "copy": "x", "notes": []},
        **{"classes": [], "listed": {}, "extra": [], "leaked": [], "height": 8, "width": 8, "made_of": {}},
        **{
            "shards": [{"name": "000000.npy", "frames": 2, "sha256": "a" * 64}],
            "videos": {"train": [video]},
            **changes,
        },
    }
    return {**content, "sha256": files.json_digest(content)}


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("", {}),
        ("command", {"command": "rm -rf ."}),
        ("command", {"command": "python -m vfbench data prepare ucf101; rm -rf ."}),
        ("shards.0.name", {"shards": [{"name": "../../x.npy", "frames": 2, "sha256": "a" * 64}]}),
        ("shards.0.frames", {"shards": [{"name": "000000.npy", "frames": -2, "sha256": "a" * 64}]}),
        ("videos.train.0", {"videos": {"train": [["a.avi", "a", -2, 8, 8, 0, 0, None]]}}),
        ("a.avi", {"videos": {"train": [["a.avi", "a", 2, 8, 8, 1, 0, None]]}}),
        ("a.avi", {"videos": {"train": [["a.avi", "a", 2, 8, 8, 0, 1, None]]}}),
        ("height", {"height": 2**40}),
    ],
)
def test_an_index_of_other_places_or_commands_is_refused(tmp_path: Path, field: str, changes: dict[str, Any]) -> None:
    files.write_json(tmp_path / prepared.INDEX, prepared_index(**changes))
    if not field:
        assert prepared.read_index(tmp_path).height == 8
        return
    with pytest.raises(MissingData, match=field):
        prepared.read_index(tmp_path)
