"""Tests of `vfbench.plugins`: parsing specs, loading plug-ins, refused names and options, broken plug-ins."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest

from vfbench import plugins
from vfbench.cli import _plugin_options
from vfbench.datasets.shapes import Shapes
from vfbench.errors import UserError
from vfbench.interfaces import ClipShape
from vfbench.plugins import Kind, Spec

KINDS: tuple[Kind, ...] = get_args(Kind)
BUILT_IN: list[tuple[Kind, str]] = [(kind, name) for kind in KINDS for name in plugins.names(kind)]
CONTEXT = {"model": ["context"], "dataset": [], "metric": [], "extractor": ["device"]}  # positional arguments


# Parsing.


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
def test_a_printed_spec_parses_to_itself(spec: Spec) -> None:
    assert plugins.parse(str(spec)) == spec


def test_a_spec_prints_its_options_in_alphabetical_order() -> None:
    assert str(Spec("x", {"b": 1, "a": 2})) == str(Spec("x", {"a": 2, "b": 1})) == "x(a=2, b=1)"


def test_merged_options_override_unless_none() -> None:
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
def test_a_malformed_spec_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"videofusion\(steps=50\)") as caught:
        plugins.parse(text)
    assert f"'{text}'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x(form=one)", "form=one"),
        ("x(lam=[0.1, nan])", r"lam=\[0.1, nan\]"),
        ("x(a=1, b=2, a=3)", "a is given twice"),
        ("x(5)", "options need names"),
        ("x(a=1", "unbalanced brackets"),
    ],
)
def test_a_malformed_spec_is_refused_with_the_reason(text: str, reason: str) -> None:
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
def test_no_code_in_a_spec_is_executed(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError):
        plugins.parse(text.format(tmp_path / "executed"))
    assert list(tmp_path.iterdir()) == []


# Loading.


def test_a_built_in_dataset_is_built_with_its_options() -> None:
    data = plugins.load("dataset", "shapes(frames=4, height=16)")
    assert isinstance(data, Shapes)
    assert data.shape == ClipShape(4, 16, 32)
    assert plugins.load("dataset", Spec("shapes", {"width": 8})).shape.width == 8


def test_options_are_listed_with_their_defaults() -> None:
    assert plugins.options("dataset", "shapes") == {"frames": 16, "height": 32, "width": 32}


def test_short_and_long_names_load_one_metric() -> None:
    assert plugins.module("metric", "is") is plugins.module("metric", "inception_score")
    assert "is" in plugins.names("metric")
    assert "inception_score" not in plugins.names("metric")


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("model", "videofuson", r"model .*'videofuson'.*'videofusion'.*vdm"),
        ("dataset", "shape", "'shape'.*'shapes'"),
        ("metric", "fdv", "'fdv'.*'fvd'"),
        ("metric", "zzzz", "metric .*'zzzz': known: "),
        ("dataset", ".", "dataset .*'.'"),
        ("dataset", "..shapes", "'shapes'"),
        ("metric", "_frechet", "metric .*'_frechet'"),  # a helper module
        ("model", "no.such.module", "'no.such.module' cannot be imported"),
        ("model", "json.decoder", "`build`"),
        ("dataset", "shapes(frame=3)", "dataset shapes .*'frame'.*'frames'"),
        ("dataset", "shapes(frames='3')", "frames='3' .*int"),
        ("dataset", "shapes(frames=3.0)", "frames=3.0 .*int"),
        ("dataset", "shapes(frames=True)", "frames=True .*int"),
        ("dataset", "shapes(frames=None)", "frames=None .*int"),
        ("dataset", "shapes(frames=0)", "0x32x32"),  # refused by the plug-in
    ],
)
def test_wrong_names_and_options_are_refused_with_the_nearest(kind: Kind, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
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
    """Name of an importable module in a third-party package."""
    package = tmp_path / "third_party_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text(PLUGIN)
    (package / "lame.py").write_text("import a_module_that_does_not_exist")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith(package.name)]:  # of an earlier test
        del sys.modules[name]
    return "third_party_package.model"


def test_a_dotted_name_is_imported(third_party: str) -> None:
    assert plugins.load("model", third_party) == ("nothing", 0.5, None, False, 1)
    assert plugins.load("model", third_party, "context") == ("context", 0.5, None, False, 1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("rate=1", (1.0, None, False, 1)),  # an int is accepted as float
        ("path='x', flag=True", (0.5, "x", True, 1)),
        ("path=None, many=3", (0.5, None, False, 3)),
    ],
)
def test_options_of_the_right_type_are_passed(third_party: str, options: str, expected: tuple[Any, ...]) -> None:
    values = plugins.load("model", f"{third_party}({options})")[1:]
    assert values == expected
    assert type(values[0]) is float


@pytest.mark.parametrize(
    ("option", "type_name"),
    [
        ("rate=True", "float"),
        ("rate='1'", "float"),
        ("path=1", "str or None"),
        ("flag=1", "bool"),
        ("flag=None", "bool"),
        ("many=False", "int"),
    ],
)
def test_options_of_the_wrong_type_are_refused(third_party: str, option: str, type_name: str) -> None:
    with pytest.raises(UserError, match=f"{option} of model {third_party} must be {type_name}"):
        plugins.load("model", f"{third_party}({option})")


DESCRIBED = """from typing import Annotated, Any, Literal

Start = Annotated[str, ("zero", "hashed"), "First frame."]


def build(
    *,
    start: Start = "zero",
    end: Start | None = None,
    size: Annotated[float, "Size of a clip."] = 1.0,
    count: int | Literal["all"] = "all",
    form: Annotated[Literal["one", "two"], "Number of networks."] = "one",
    old: Annotated[str, Any] = "",
    free: Annotated[Any, "Anything."] = 0,
    needed: int,
):
    return start, end, size, count, form, old, free, needed
"""


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Name of a metric with choices and purposes in its annotations."""
    (tmp_path / "described").mkdir()
    (tmp_path / "described" / "model.py").write_text(DESCRIBED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "described.model", raising=False)
    monkeypatch.delitem(sys.modules, "described", raising=False)
    return "described.model"


def test_annotated_options_are_converted_like_plain_ones(described: str) -> None:
    values = plugins.load("metric", f"{described}(size=2, start='any word', end=None, count=3, free=[1], needed=1)")
    assert values == ("any word", None, 2.0, 3, "one", "", [1], 1)
    assert type(values[2]) is float


@pytest.mark.parametrize(
    ("option", "type_name"),
    [
        ("start=1", "str"),
        ("end=1", "str or None"),
        ("size='1'", "float"),
        ("count=1.5", "int or str"),
        ("form=2", "str"),
        ("old=None", "str"),
    ],
)
def test_annotated_options_of_the_wrong_type_are_refused(described: str, option: str, type_name: str) -> None:
    with pytest.raises(UserError, match=f"{option} of metric {described} must be {type_name}$"):
        plugins.load("metric", f"{described}(needed=1, {option})")


def test_options_are_described_in_aligned_columns(described: str) -> None:
    assert _plugin_options.lines(plugins.keywords("metric", described)) == [
        "start = 'zero'     zero or hashed        First frame.",
        "end = None         zero, hashed or None  First frame.",
        "size = 1.0         float                 Size of a clip.",
        "count = 'all'      int or all",
        "form = 'one'       one or two            Number of networks.",
        "old = ''           str",
        "free = 0           Any                   Anything.",
        "needed (required)  int",
    ]


def test_a_long_list_of_choices_does_not_widen_its_column() -> None:
    words = [f"{'long' * 5}{i}" for i in range(3)]
    annotations = {"a": Annotated[str, words, "Word."], "b": Annotated[int, "Number."]}
    options = {
        name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=0, annotation=annotation)
        for name, annotation in annotations.items()
    }
    assert _plugin_options.lines(options) == [
        f"a = 0  {words[0]}, {words[1]} or {words[2]}  Word.",
        "b = 0  int  Number.",
    ]


def test_options_are_described_for_json(described: str) -> None:
    options = plugins.keywords("metric", described)
    records = _plugin_options.records(options)
    assert records["end"] == {"type": "str or None", "choices": ["zero", "hashed"], "purpose": "First frame."}
    assert records["old"] == {"type": "str", "choices": [], "purpose": ""}
    assert "needed" not in _plugin_options.defaults(options)
    assert _plugin_options.defaults(options)["size"] == 1.0


def register_entry_points(monkeypatch: pytest.MonkeyPatch, **targets: str) -> None:
    """Register models as installed packages do."""
    entries = EntryPoints(EntryPoint(name, target, "vfbench.models") for name, target in targets.items())
    monkeypatch.setattr(plugins, "_installed", lambda kind, _: entries.select(group=f"vfbench.{kind}s"))


def test_entry_points_add_names(monkeypatch: pytest.MonkeyPatch, third_party: str) -> None:
    register_entry_points(monkeypatch, **{"my-model": third_party})
    assert plugins.names("model")["my-model"] == f"from {third_party}"
    assert "my-model" not in plugins.names("dataset")
    assert plugins.load("model", "my-model(many=2)") == ("nothing", 0.5, None, False, 2)
    with pytest.raises(UserError, match="'my-model'"):
        plugins.load("model", "my-modle")


def test_entry_points_cannot_replace_a_built_in_name(monkeypatch: pytest.MonkeyPatch, third_party: str) -> None:
    register_entry_points(monkeypatch, vdm=third_party)
    assert plugins.module("model", "vdm").__name__ == "vfbench.baselines.vdm"
    assert plugins.names("model")["vdm"].startswith("VDM")


def test_an_entry_point_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch, third_party: str) -> None:
    register_entry_points(monkeypatch, lame=third_party.replace("model", "lame"))
    assert "lame" in plugins.names("model")  # listing imports nothing
    with pytest.raises(UserError, match=r"'lame' cannot be imported: .*a_module_that_does_not_exist"):
        plugins.load("model", "lame")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rate = 1 / 0", "ZeroDivisionError: division by zero"),
        (
            "import torch; torch.nothing",
            "AttributeError: module 'torch' has no attribute 'nothing'",
        ),  # raised in another module
        ("import nothing_at_all", "No module named 'nothing_at_all'"),
        ("from torch import nothing", "cannot import name 'nothing' from 'torch'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def build(:", "invalid syntax"),
    ],
)
def test_an_import_error_is_reported_with_the_line(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing").mkdir()
    (tmp_path / "failing" / "model.py").write_text(f'"""Mine."""\n\n{line}\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "failing", raising=False)
    with pytest.raises(UserError, match=rf"'failing\.model' cannot be imported: {re.escape(message)}") as caught:
        plugins.module("model", "failing.model")
    assert "model.py, line 3)" in str(caught.value)


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
    with pytest.warns(UserWarning, match=r"broken\.py is broken"):
        assert plugins.names("model") == {"good": "A plug-in of a third party."}


@pytest.mark.parametrize(
    ("kind", "build", "message"),
    [
        ("model", "def build(): ...", r"a BuildContext and keyword-only options \(too many"),
        ("extractor", "def build(): ...", r"a device and keyword-only options \(too many"),
        ("dataset", "def build(root): ...", r"keyword-only options alone \(missing a required argument"),
        ("metric", "build = 3", r"keyword-only options alone \(3 is not"),
    ],
)
def test_a_build_of_the_wrong_signature_is_refused(
    kind: Kind, build: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"wrong_{kind}").mkdir()
    (tmp_path / f"wrong_{kind}" / "plugin.py").write_text(build)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"wrong_{kind}.plugin"
    with pytest.raises(UserError, match=rf"{kind} '{name}' \(.*plugin\.py\): build .*{message}"):
        plugins.options(kind, name)


@pytest.mark.parametrize("kind", ["model", "dataset", "metric"])
def test_a_top_level_module_is_refused_with_the_dotted_form(kind: Kind, third_party: str, tmp_path: Path) -> None:
    (tmp_path / "lonely.py").write_text(PLUGIN)
    with pytest.raises(UserError, match=r"package\.lonely$"):
        plugins.load(kind, "lonely")
    for other in ("json", "third_party_package", "nowhere"):  # standard library, a package, and a missing module
        with pytest.raises(UserError, match=f"no {kind} called '{other}'") as caught:
            plugins.load(kind, other)
        assert "package." not in str(caught.value)


# Built-in plug-ins.


def test_the_listing_holds_the_built_in_plug_ins() -> None:
    assert {"videofusion", "vdm"} <= plugins.names("model").keys()
    assert "shapes" in plugins.names("dataset")
    assert {"fvd", "kvd", "is", "clipsim"} <= plugins.names("metric").keys()
    assert "shapes_judge" in plugins.names("extractor")


@pytest.mark.parametrize(("kind", "name"), BUILT_IN, ids=str)
def test_every_built_in_plug_in_has_a_description_and_a_typed_build(kind: Kind, name: str) -> None:
    assert len(plugins.names(kind)[name]) > 10
    signature = inspect.signature(plugins.module(kind, name).build, eval_str=True)
    positional = [p.name for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    assert positional == CONTEXT[kind]
    assert all(p.annotation is not p.empty for p in signature.parameters.values())
    assert signature.return_annotation is not signature.empty
    for option, default in plugins.options(kind, name).items():
        assert default is not inspect.Parameter.empty, option
        assert plugins.parse(str(Spec(name, {option: default}))).options == {option: default}  # round trip


@pytest.mark.parametrize(("kind", "name"), [each for each in BUILT_IN if each[0] != "extractor"], ids=str)
def test_every_option_of_a_built_in_plug_in_has_a_purpose(kind: Kind, name: str) -> None:
    functions = ["build", *(["create"] if kind == "model" and plugins.defines(kind, name, "create") else [])]
    for function in functions:
        for option, parameter in plugins.keywords(kind, name, function).items():
            purpose, choices = (
                read(parameter.annotation) for read in (_plugin_options.purpose, _plugin_options.choices)
            )
            assert re.fullmatch(r"[A-Z].{5,95}\.", str(purpose)), option
            assert not choices or parameter.default in (None, *choices), option


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("dataset", "folder(root='.', start='own')", r"start must be one of zero, hashed, .*every, chunks"),
        ("metric", "kvd(estimator='biassed')", "no estimator called 'biassed'"),
        ("metric", "fvd(ddof=2)", "ddof = 2"),
    ],
)
def test_a_value_outside_the_choices_is_refused_by_the_plug_in(kind: Kind, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plugins.load(kind, text)


def test_datasets_are_imported_without_torch() -> None:
    """Imports of every file of a dataset, in a process of its own."""
    imports = ", ".join(f"vfbench.datasets.{name}" for name in plugins.names("dataset"))
    code = f"import {imports}, sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
