"""Names to objects: the file system is the registry.

`videofusion(steps=50)` names the file `vfbench/models/videofusion.py`; its `build(**options)` makes the object, and
its options are the typed keyword arguments of `build`. Packages of third parties add names by entry points
(`vfbench.models`, `vfbench.datasets`, `vfbench.metrics`), and a dotted name is imported as it stands.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import traceback
import warnings
from collections import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from vfbench.errors import UserError, unknown

Kind = Literal["model", "dataset", "metric", "extractor"]
_HERE = Path(__file__).parent
_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "model": ("models", "baselines"),
    "dataset": ("datasets",),
    "metric": ("metrics",),
    "extractor": ("metrics",),  # the feature networks: files that begin with an underscore and have a `build`
}
_CONTEXT = {"model": "the setting", "extractor": "the device"}  # what `build` is given besides its options
_CALL = re.compile(r"(?P<name>[\w.-]+)(\((?P<options>.*)\))?", re.DOTALL)
_SHORT = {"is": "inception_score"}  # `is` cannot be typed as a Python module


@dataclass(frozen=True)
class Spec:
    """A plug-in's name and the options given to it; prints as it is typed."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in sorted(self.options.items()))
        return f"{self.name}({inside})" if inside else self.name

    def merged(self, options: Mapping[str, Any]) -> Spec:
        """The same plug-in with more options; a value of None means not given."""
        return Spec(self.name, {**self.options, **{k: v for k, v in options.items() if v is not None}})


def parse(text: str) -> Spec:
    """Read `name` or `name(key=literal, ...)`; nothing in it is executed."""
    found = _CALL.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError("no name, or brackets that are not closed")
        call = ast.parse(f"_({found['options'] or ''})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("options need names")
        options = [_option(keyword) for keyword in call.keywords]
        if twice := next((name for i, (name, _) in enumerate(options) if name in dict(options[:i])), None):
            raise ValueError(f"{twice} stands there twice")
        return Spec(found["name"], dict(options))
    except (SyntaxError, TypeError, ValueError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise UserError(
            f"cannot read '{text}' ({reason}): write name or name(option=value, ...), for example videofusion(steps=50)"
        ) from error


def _option(keyword: ast.keyword) -> tuple[str, Any]:
    if keyword.arg is None:
        raise ValueError("options need names")
    try:
        return keyword.arg, ast.literal_eval(keyword.value)
    except (TypeError, ValueError) as error:
        said = ast.unparse(keyword.value)
        raise ValueError(f"{keyword.arg}={said} is neither a number, a list nor a word in quotes") from error


def names(kind: Kind) -> dict[str, str]:
    """Every known name with the first line of its text, without importing anything; a broken file only warns."""
    found = {}
    for path in _files(kind):
        try:
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
        except (SyntaxError, UnicodeDecodeError) as error:
            warnings.warn(f"{path.name} is broken and cannot be used: {error}", stacklevel=2)
            continue
        found[public(path.stem)] = text.split("\n")[0]
    for entry in entry_points(group=f"vfbench.{kind}s"):
        found.setdefault(entry.name, f"from {entry.value}")
    return dict(sorted(found.items()))


def module(kind: Kind, name: str) -> ModuleType:
    """Import a plug-in's module; raises `UserError` with the nearest name, or saying why it cannot be imported."""
    stem = _SHORT.get(name, name)
    target = next((t for t in _targets(kind, stem)), None)
    try:
        if target is not None:
            return importlib.import_module(target)
        for entry in entry_points(group=f"vfbench.{kind}s", name=name):
            return importlib.import_module(entry.value)
        if "." in name and not name.startswith("."):
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever somebody's file does on its way in
        raise UserError(f"{kind} '{name}' cannot be imported: {_failure(error)}") from error
    raise _unknown(kind, name)


def _unknown(kind: Kind, name: str) -> UserError:
    """The error for a name that is not there, with a word on a file of one's own that bears it."""
    error = unknown(kind, name, names(kind))
    spec = PathFinder.find_spec(name) if kind != "extractor" and name.isidentifier() else None  # imports nothing
    if spec is None or spec.submodule_search_locations is not None or name in sys.stdlib_module_names:
        return error
    return UserError(f"{error}; a module of your own is named with its package: package.{name}")


def _failure(error: BaseException) -> str:
    """Why an import failed, with the first line of the imported file that had part in it."""
    what = str(error) if isinstance(error, ImportError | SyntaxError) else f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)[1:]
    place = next((frame for frame in frames if "importlib" not in frame.filename), None)
    if place is None or isinstance(error, SyntaxError):  # the file itself is not there, or is named already
        return what
    return f"{what} ({place.filename}, line {place.lineno})"


def load(kind: Kind, spec: Spec | str, *context: Any) -> Any:
    """Import a plug-in and call its `build(*context, **options)`, with the options checked against its signature."""
    spec = parse(spec) if isinstance(spec, str) else spec
    build, given = _function(kind, spec.name, "build"), accepted(kind, spec)
    for name, default in options(kind, spec.name).items():
        if default is inspect.Parameter.empty and name not in given:
            raise UserError(f"{kind} {spec.name} needs its option {name}: write {spec.name}({name}=...)")
    return build(*context, **given)


def accepted(kind: Kind, spec: Spec, function: str = "build") -> dict[str, Any]:
    """The options of a spec as a function of the plug-in's file takes them: a whole number is a float where one is
    wanted.

    Raises `UserError` for a name that the function does not know, offering the nearest, and for a value of another
    type than its annotation. What a word of a `Literal` means, the plug-in knows, and checks itself.
    """
    known = _keywords(kind, spec.name, function)
    result = {}
    for name, value in spec.options.items():
        if name not in known:
            raise _elsewhere(kind, spec.name, name, function) or unknown(f"option of {kind} {spec.name}", name, known)
        result[name] = fitted(value, known[name].annotation)
        if result[name] is MISFIT:
            wanted = in_words(known[name].annotation)
            raise UserError(f"option {name}={value!r} of {kind} {spec.name} must be {wanted}")
    return result


def _elsewhere(kind: Kind, plugin: str, option: str, function: str) -> UserError | None:
    """The error for an option that another function of the plug-in's file takes."""
    other = {"build": "create", "create": "build"}[function]
    if not hasattr(module(kind, plugin), other) or option not in options(kind, plugin, other):
        return None
    if other == "create":
        return UserError(f"option {option} of {kind} {plugin} is chosen when it is trained: its checkpoint has its own")
    return UserError(f"option {option} of {kind} {plugin} is of sampling, not of training: give it to `run`")


def options(kind: Kind, name: str, function: str = "build") -> dict[str, Any]:
    """The options that a function of a plug-in's file takes, with their defaults."""
    return {key: p.default for key, p in _keywords(kind, name, function).items()}


def option_lines(kind: Kind, name: str, function: str = "build") -> list[str]:
    """The options that a function of a plug-in's file takes: a line each, with the default and what it may be."""
    known = _keywords(kind, name, function)
    return [f"{key} = {p.default!r}  ({in_words(p.annotation)})" for key, p in known.items()]


def whole(kind: Kind, spec: Spec, name: str | None = None) -> Spec:
    """A spec with the options that were not given, as they are now: a later default must not pass for this one."""
    return Spec(name or spec.name, {**options(kind, spec.name), **spec.options})


def _function(kind: Kind, name: str, function: str) -> Callable[..., Any]:
    """A function of a plug-in's file; raises `UserError` where it is not there, or `build` cannot be called."""
    found = module(kind, name)
    if not hasattr(found, function):
        raise UserError(f"{kind} '{name}' ({found.__name__}) has no function `{function}`")
    called: Callable[..., Any] = getattr(found, function)
    if function == "build" and (why := _uncallable(called, context=kind in _CONTEXT)):
        of = f"{_CONTEXT[kind]}, its options keyword-only" if kind in _CONTEXT else "keyword-only options alone"
        section = "Add a feature network" if kind == "extractor" else f"Add a {kind}"
        place = f"{kind} '{name}' ({found.__file__})"
        raise UserError(f"{place}: build must be a function of {of} ({why}); see CONTRIBUTING.md, {section}")
    return called


def _uncallable(function: object, *, context: bool) -> str:
    """Why it cannot be called with its context, or without any, and with its options by name; empty where it can."""
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]
        named = {p.name: None for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
        signature.bind(*[None] * context, **named)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


def _keywords(kind: Kind, name: str, function: str) -> dict[str, inspect.Parameter]:
    called = _function(kind, name, function)
    try:
        parameters = inspect.signature(called, eval_str=True).parameters.values()
    except Exception as error:  # whatever an annotation does that is evaluated only now
        raise UserError(f"{kind} '{name}': an annotation of {function} cannot be read: {error}") from error
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}


def _files(kind: Kind) -> list[Path]:
    files = [p for folder in _FOLDERS[kind] for p in sorted((_HERE / folder).glob("*.py")) if p.stem != "__init__"]
    if kind == "extractor":
        return [p for p in files if p.stem.startswith("_") and "\ndef build(" in p.read_text()]
    return [p for p in files if not p.stem.startswith("_")]


def public(stem: str) -> str:
    """The name that a plug-in's file goes by."""
    return next((short for short, long in _SHORT.items() if long == stem), stem.lstrip("_"))


def _targets(kind: Kind, stem: str) -> list[str]:
    return [f"vfbench.{p.parent.name}.{p.stem}" for p in _files(kind) if p.stem.lstrip("_") == stem]


MISFIT = object()  # no value of an annotation


def fitted(value: Any, annotation: Any) -> Any:
    """The value as the annotation has it, or `MISFIT`; what cannot be told of a literal fits."""
    kinds = _alternatives(annotation)
    if annotation in (Any, inspect.Parameter.empty) or type(value) in kinds:
        return value
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) is bool:  # an int to Python, and to nobody else
        return MISFIT
    for kind in kinds:
        plain = get_origin(kind) or kind
        if plain is abc.Sequence:
            if isinstance(value, list | tuple):
                items = [fitted(item, get_args(kind)[0]) for item in value]
                return MISFIT if MISFIT in items else type(value)(items)
        elif isinstance(plain, type) and isinstance(value, plain):
            return value
    return MISFIT


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union; of a `Literal`, the types of its words."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return [kind for member in get_args(annotation) for kind in _alternatives(member)]
    return list({type(word): 0 for word in get_args(annotation)}) if origin is Literal else [annotation]


def in_words(annotation: Any) -> str:
    """An annotation in words: `float, a list of float or None`."""
    names = [_word(kind) for kind in _alternatives(annotation) if kind is not Path]  # which nobody can type
    return " or ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])


def _word(kind: Any) -> str:
    if get_origin(kind) is abc.Sequence:
        return f"a list of {in_words(get_args(kind)[0])}"
    return "None" if kind is type(None) else getattr(kind, "__name__", str(kind))
