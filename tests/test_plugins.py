"""Names to objects: nothing is executed, mistakes are named, and a broken plug-in breaks only itself."""

from __future__ import annotations

import inspect
import re
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any, get_args

import pytest

from vfbench import plugins
from vfbench.datasets.shapes import Shapes
from vfbench.errors import UserError
from vfbench.interfaces import ClipShape
from vfbench.plugins import Kind, Spec

KINDS: tuple[Kind, ...] = get_args(Kind)
BUILT_IN: list[tuple[Kind, str]] = [(kind, name) for kind in KINDS for name in plugins.names(kind)]
CONTEXT = {"model": ["context"], "dataset": [], "metric": [], "extractor": ["device"]}  # what the engine passes first


# Reading.


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("videofusion", "videofusion", {}),
        ("videofusion()", "videofusion", {}),
        ("  videofusion(steps=50, solver='ddim') ", "videofusion", {"steps": 50, "solver": "ddim"}),
        ("is", "is", {}),  # a keyword of Python, but a metric of the field
        ("is(splits=10)", "is", {"splits": 10}),
        ("my-model", "my-model", {}),
        ("my-model(lam=-0.5)", "my-model", {"lam": -0.5}),
        (
            "my_package.my_module(a=(1, 2), b={'x': [None, True]})",
            "my_package.my_module",
            {"a": (1, 2), "b": {"x": [None, True]}},
        ),
        ("folder(root='/a (b), c=d')", "folder", {"root": "/a (b), c=d"}),
    ],
)
def test_parse_reads_names_and_literals(text: str, name: str, options: dict[str, Any]) -> None:
    assert plugins.parse(text) == Spec(name, options)


@pytest.mark.parametrize(
    "spec",
    [Spec("vdm"), Spec("is", {"splits": 10}), Spec("a-b.c", {"z": "it's (x=1)", "a": [1.5, None, {"k": (True,)}]})],
    ids=str,
)
def test_a_spec_prints_as_it_is_typed(spec: Spec) -> None:
    assert plugins.parse(str(spec)) == spec


def test_a_spec_prints_its_options_in_one_order() -> None:
    assert str(Spec("x", {"b": 1, "a": 2})) == str(Spec("x", {"a": 2, "b": 1})) == "x(a=2, b=1)"


def test_merged_options_win_unless_they_are_not_given() -> None:
    assert Spec("x", {"a": 1, "b": 2}).merged({"b": 3, "c": None, "d": 0}) == Spec("x", {"a": 1, "b": 3, "d": 0})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(",
        "x(",
        "x(5)",
        "x(*[1])",
        "x(**{'a': 1})",
        "x(a=b)",
        "x(a=1 + y)",
        "x(a=1, a=2)",
        "x(a=1)(b=2)",
        "x() + y()",
        "x(a={[]: 1})",
        "x[0](a=1)",
        "1 + 2",
    ],
)
def test_what_cannot_be_read_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"videofusion\(steps=50\)") as caught:
        plugins.parse(text)
    assert f"'{text}'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x(form=one)", "form=one is neither a number, a list nor a quoted string"),
        ("x(lam=[0.1, nan])", r"lam=\[0.1, nan\] is neither"),
        ("x(a=1, b=2, a=3)", "a is given twice"),
        ("x(5)", "options need names"),
        ("x(a=1", "unbalanced brackets"),
    ],
)
def test_what_cannot_be_read_is_told_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"cannot read '{re.escape(text)}' \(.*{reason}"):
        plugins.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('{}')",
        "x(a=__import__('os').mkdir('{}'))",
        "x(a=[__import__('os').mkdir('{}')])",
        "x()(__import__('os').mkdir('{}'))",
        "(lambda: __import__('os').mkdir('{}'))()",
    ],
)
def test_nothing_in_a_name_is_executed(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError):
        plugins.parse(text.format(tmp_path / "executed"))
    assert list(tmp_path.iterdir()) == []


# Finding and calling.


def test_a_built_in_dataset_is_built_with_its_options() -> None:
    data = plugins.load("dataset", "shapes(frames=4, height=16)")
    assert isinstance(data, Shapes)
    assert data.shape == ClipShape(4, 16, 32)
    assert plugins.load("dataset", Spec("shapes", {"width": 8})).shape.width == 8


def test_options_are_listed_with_their_defaults() -> None:
    assert plugins.options("dataset", "shapes") == {"frames": 16, "height": 32, "width": 32}


def test_short_and_long_names_are_the_same_metric() -> None:
    assert plugins.module("metric", "is") is plugins.module("metric", "inception_score")
    assert "is" in plugins.names("metric")
    assert "inception_score" not in plugins.names("metric")


@pytest.mark.parametrize(
    ("kind", "text", "named"),
    [
        ("model", "videofuson", r"no model called 'videofuson': did you mean 'videofusion'\? known: .*vdm"),
        ("dataset", "shape", "did you mean 'shapes'"),
        ("metric", "fdv", "did you mean 'fvd'"),
        ("metric", "zzzz", "no metric called 'zzzz': known: "),
        ("dataset", ".", "no dataset called '.'"),
        ("dataset", "..shapes", "did you mean 'shapes'"),
        ("metric", "_frechet", "no metric called '_frechet'"),  # a helper is no plug-in
        ("model", "no.such.module", "model 'no.such.module' cannot be imported"),
        ("model", "json.decoder", "has no function `build`"),
        ("dataset", "shapes(frame=3)", "no option of dataset shapes called 'frame': did you mean 'frames'"),
        ("dataset", "shapes(frames='3')", "frames='3' of dataset shapes must be int"),
        ("dataset", "shapes(frames=3.0)", "frames=3.0 of dataset shapes must be int"),
        ("dataset", "shapes(frames=True)", "frames=True of dataset shapes must be int"),
        ("dataset", "shapes(frames=None)", "frames=None of dataset shapes must be int"),
        ("dataset", "shapes(frames=0)", "0x32x32 is too small"),  # the plug-in's own check is reached
    ],
)
def test_mistakes_are_named_and_the_nearest_match_offered(kind: Kind, text: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        plugins.load(kind, text)


PLUGIN = '''"""A plug-in of a third party.

More text.
"""

import collections.abc


def build(first="nothing", /, *, rate: float = 0.5, path: str | None = None, flag: bool = False, many: int = 1):
    return first, rate, path, flag, many
'''


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An importable module in a package of its own."""
    package = tmp_path / "third_party_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text(PLUGIN)
    (package / "lame.py").write_text("import a_module_that_does_not_exist")
    monkeypatch.syspath_prepend(tmp_path)
    return "third_party_package.model"


def test_a_dotted_name_is_imported_as_it_stands(third_party: str) -> None:
    assert plugins.load("model", third_party) == ("nothing", 0.5, None, False, 1)
    assert plugins.load("model", third_party, "context") == ("context", 0.5, None, False, 1)


@pytest.mark.parametrize(
    ("options", "built"),
    [
        ("rate=1", (1.0, None, False, 1)),  # a whole number is a rate too
        ("path='x', flag=True", (0.5, "x", True, 1)),
        ("path=None, many=3", (0.5, None, False, 3)),
    ],
)
def test_options_of_the_right_type_are_passed(third_party: str, options: str, built: tuple[Any, ...]) -> None:
    found = plugins.load("model", f"{third_party}({options})")[1:]
    assert found == built
    assert type(found[0]) is float


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("rate=True", "float"),
        ("rate='1'", "float"),
        ("path=1", "str or None"),
        ("flag=1", "bool"),
        ("flag=None", "bool"),
        ("many=False", "int"),
    ],
)
def test_options_of_the_wrong_type_are_refused(third_party: str, option: str, wanted: str) -> None:
    with pytest.raises(UserError, match=f"{option} of model {third_party} must be {wanted}"):
        plugins.load("model", f"{third_party}({option})")


def entries(monkeypatch: pytest.MonkeyPatch, **targets: str) -> None:
    """Pretend that installed packages registered these models."""
    registered = EntryPoints(EntryPoint(name, target, "vfbench.models") for name, target in targets.items())
    monkeypatch.setattr(plugins, "entry_points", registered.select)


def test_entry_points_add_names(monkeypatch: pytest.MonkeyPatch, third_party: str) -> None:
    entries(monkeypatch, **{"my-model": third_party})
    assert plugins.names("model")["my-model"] == f"from {third_party}"
    assert "my-model" not in plugins.names("dataset")
    assert plugins.load("model", "my-model(many=2)") == ("nothing", 0.5, None, False, 2)
    with pytest.raises(UserError, match="did you mean 'my-model'"):
        plugins.load("model", "my-modle")


def test_entry_points_cannot_replace_a_built_in_name(monkeypatch: pytest.MonkeyPatch, third_party: str) -> None:
    entries(monkeypatch, vdm=third_party)
    assert plugins.module("model", "vdm").__name__ == "vfbench.baselines.vdm"
    assert plugins.names("model")["vdm"].startswith("VDM")


def test_an_entry_point_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch, third_party: str) -> None:
    entries(monkeypatch, lame=third_party.replace("model", "lame"))
    assert "lame" in plugins.names("model")  # listing imports nothing
    with pytest.raises(UserError, match=r"'lame' cannot be imported: .*a_module_that_does_not_exist"):
        plugins.load("model", "lame")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("rate = 1 / 0", "ZeroDivisionError: division by zero"),
        ("import torch; torch.nothing", "AttributeError: module 'torch' has no attribute 'nothing'"),  # deeper inside
        ("import nothing_at_all", "No module named 'nothing_at_all'"),
        ("from torch import nothing", "cannot import name 'nothing' from 'torch'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def build(:", "invalid syntax"),
    ],
)
def test_a_file_that_fails_on_its_way_in_is_told_with_the_line(
    line: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing").mkdir()
    (tmp_path / "failing" / "model.py").write_text(f'"""Mine."""\n\n{line}\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "failing", raising=False)
    with pytest.raises(UserError, match=rf"model 'failing\.model' cannot be imported: {re.escape(named)}") as told:
        plugins.module("model", "failing.model")
    assert "model.py, line 3)" in str(told.value)


@pytest.mark.parametrize("content", [b"def build(:", b'"""\xff"""'], ids=["syntax", "bytes"])
def test_a_broken_file_warns_and_the_others_are_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    for folder in ("models", "baselines"):
        (tmp_path / folder).mkdir()
    (tmp_path / "models" / "good.py").write_text(PLUGIN)
    (tmp_path / "models" / "_helper.py").write_text(PLUGIN)
    (tmp_path / "models" / "__init__.py").write_text("")
    (tmp_path / "baselines" / "broken.py").write_bytes(content)
    monkeypatch.setattr(plugins, "_HERE", tmp_path)
    with pytest.warns(UserWarning, match=r"broken\.py is broken and cannot be used"):
        assert plugins.names("model") == {"good": "A plug-in of a third party."}


@pytest.mark.parametrize(
    ("kind", "build", "said"),
    [
        ("model", "def build(): ...", "a BuildContext and keyword-only options (too many"),
        ("extractor", "def build(): ...", "a device and keyword-only options (too many"),
        ("dataset", "def build(root): ...", "keyword-only options alone (missing a required argument"),
        ("metric", "build = 3", "keyword-only options alone (3 is not"),
    ],
)
def test_a_build_that_cannot_be_called_is_refused_with_the_way_it_must_be(
    kind: Kind, build: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"odd_{kind}").mkdir()
    (tmp_path / f"odd_{kind}" / "odd.py").write_text(build)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"odd_{kind}.odd"
    with pytest.raises(UserError, match=rf"{kind} '{name}' \(.*odd\.py\): build must take {re.escape(said)}"):
        plugins.options(kind, name)


@pytest.mark.parametrize("kind", ["model", "dataset", "metric"])
def test_a_module_without_a_package_is_told_of_the_dot(kind: Kind, third_party: str, tmp_path: Path) -> None:
    (tmp_path / "lonely.py").write_text(PLUGIN)
    with pytest.raises(UserError, match=r"your own module with its package: package\.lonely$"):
        plugins.load(kind, "lonely")
    for other in ("json", "third_party_package", "nowhere"):  # Python's own, a package, and nothing
        with pytest.raises(UserError, match=f"no {kind} called '{other}'") as told:
            plugins.load(kind, other)
        assert "your own" not in str(told.value)


# What is there.


def test_the_listing_holds_the_built_in_plug_ins() -> None:
    assert {"videofusion", "vdm"} <= plugins.names("model").keys()
    assert "shapes" in plugins.names("dataset")
    assert {"fvd", "kvd", "is", "clipsim"} <= plugins.names("metric").keys()
    assert "shapes_judge" in plugins.names("extractor")


@pytest.mark.parametrize(("kind", "name"), BUILT_IN, ids=str)
def test_every_built_in_plug_in_has_a_text_and_a_typed_build(kind: Kind, name: str) -> None:
    assert len(plugins.names(kind)[name]) > 10
    signature = inspect.signature(plugins.module(kind, name).build, eval_str=True)
    positional = [p.name for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    assert positional == CONTEXT[kind]
    assert all(p.annotation is not p.empty for p in signature.parameters.values())
    assert signature.return_annotation is not signature.empty
    for option, default in plugins.options(kind, name).items():
        assert default is not inspect.Parameter.empty, option
        assert plugins.parse(str(Spec(name, {option: default}))).options == {option: default}  # it can be typed
