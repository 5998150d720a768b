"""Plug-in registry: a name is that of a file.

`videofusion(steps=50)` names the file `vfbench/models/videofusion.py`; its `build(**options)` returns the object, and
its options are the typed keyword-only parameters of `build`. Third-party packages add names through entry points
(`vfbench.models`, `vfbench.datasets`, `vfbench.metrics`), and a dotted name is imported as a module.

A spec that a user typed (a flag, a variable, a configuration file, a Python call) goes to `load`, which imports. A spec
that was read from any other file goes to `load_known`, which imports no module that the user has not named.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import threading
import traceback
import warnings
from collections import abc
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from vfbench.errors import UserError, unknown

Kind = Literal["model", "dataset", "metric", "extractor"]
_HERE = Path(__file__).parent
_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "model": ("models", "baselines"),
    "dataset": ("datasets",),
    "metric": ("metrics",),
    "extractor": ("metrics",),  # feature networks: files that begin with an underscore and define `build`
}
_CONTEXT = {"model": "a BuildContext", "extractor": "a device"}  # positional argument of `build`
_SPEC = re.compile(r"(?P<name>[\w.-]+)(\((?P<options>.*)\))?", re.DOTALL)
_SHORT = {"is": "inception_score"}  # `is` is a keyword, so no module has this name
_PARSING = threading.Lock()  # CPython 3.11 counts the depth of ast.parse for all threads together, and fails
_typed: set[tuple[Kind, str]] = set()  # dotted names that this process has imported, because its user named them


@dataclass(frozen=True)
class Spec:
    """Name and options of a plug-in; `str()` gives the text that `parse` reads."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in sorted(self.options.items()))
        return f"{self.name}({options})" if options else self.name

    def merged(self, options: Mapping[str, Any]) -> Spec:
        """Copy with more options; those that are None are ignored."""
        return Spec(self.name, {**self.options, **{k: v for k, v in options.items() if v is not None}})


def parse(text: str) -> Spec:
    """Parse `name` or `name(key=literal, ...)` without executing any of it."""
    match = _SPEC.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError("no name, or unbalanced brackets")
        with _PARSING:
            call = ast.parse(f"_({match['options'] or ''})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("options need names")
        options = [_option(keyword) for keyword in call.keywords]
        if duplicate := next((name for i, (name, _) in enumerate(options) if name in dict(options[:i])), None):
            raise ValueError(f"{duplicate} is given twice")
        return Spec(match["name"], dict(options))
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
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
        value = ast.unparse(keyword.value)
        raise ValueError(f"{keyword.arg}={value} is neither a number, a list nor a quoted string") from error


def names(kind: Kind) -> dict[str, str]:
    """Every known name with the first line of its docstring; imports nothing, and warns of a broken file."""
    summaries = {}
    for path in _files(kind):
        try:
            summaries[public_name(path.stem)] = _outline(path, path.stat().st_mtime_ns)[0]
        except (SyntaxError, UnicodeDecodeError) as error:
            warnings.warn(f"{path.name} is broken and cannot be used: {error}", stacklevel=2)
    for entry in registered(kind):
        summaries.setdefault(entry.name, f"from {entry.value}")
    return dict(sorted(summaries.items()))


def registered(kind: Kind, name: str = "") -> list[EntryPoint]:
    """Plug-ins that installed packages register, or those of one name."""
    return [entry for entry in _installed(kind, tuple(sys.path)) if name in ("", entry.name)]


@cache
def _installed(kind: Kind, search_path: tuple[str, ...]) -> list[EntryPoint]:
    """Plug-ins of all packages on `sys.path`, read once: that takes tens of milliseconds."""
    # Once the backport `importlib_metadata` is imported (Ray does), the entries are of its own class.
    return [EntryPoint(entry.name, entry.value, entry.group) for entry in entry_points(group=f"vfbench.{kind}s")]


@cache
def _outline(path: Path, modified: int) -> tuple[str, frozenset[str]]:
    """First line of a file's docstring, and the names that it defines or imports at its top level."""
    with _PARSING:
        tree, names = ast.parse(path.read_text()), set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return (ast.get_docstring(tree) or "").split("\n")[0], frozenset(names)


def module(kind: Kind, name: str) -> ModuleType:
    """Import a plug-in's module; raises `UserError` with the nearest name or the import error."""
    path = _built_in_file(kind, name)
    try:
        if path is not None:
            return importlib.import_module(f"vfbench.{path.parent.name}.{path.stem}")
        for entry in registered(kind, name):
            return importlib.import_module(entry.value)
        if "." in name and not name.startswith("."):
            imported = importlib.import_module(name)
            _typed.add((kind, name))
            return imported
    except (Exception, SystemExit) as error:  # the file of a third party may raise anything
        raise UserError(f"{kind} '{name}' cannot be imported: {_failure(error)}") from error
    raise _unknown_plugin(kind, name)


def require(kind: Kind, name: str) -> None:
    """Raise `UserError` with the nearest name for a plug-in that does not exist; imports nothing.

    A dotted name, which a third party's module may have, passes.
    """
    if not is_known(kind, name) and ("." not in name or name.startswith(".")):
        raise _unknown_plugin(kind, name)


def is_known(kind: Kind, name: str) -> bool:
    """True for a plug-in that is built in, registered by an entry point, or imported because the user named it."""
    return is_built_in(kind, name) or (kind, name) in _typed or bool(registered(kind, name))


def is_built_in(kind: Kind, name: str) -> bool:
    """True for a plug-in that comes with vfbench."""
    return _built_in_file(kind, name) is not None


def _unknown_plugin(kind: Kind, name: str) -> UserError:
    """Error for an unknown name, with a hint where a top-level module of the user has it."""
    error = unknown(kind, name, names(kind))
    spec = PathFinder.find_spec(name) if kind != "extractor" and name.isidentifier() else None  # does not import it
    if spec is None or spec.submodule_search_locations is not None or name in sys.stdlib_module_names:
        return error
    return UserError(f"{error}; give your own module with its package: package.{name}")


def _failure(error: BaseException) -> str:
    """Reason of a failed import, with the first line outside importlib in its traceback."""
    reason = str(error) if isinstance(error, ImportError | SyntaxError) else f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)[1:]
    origin = next((frame for frame in frames if "importlib" not in frame.filename), None)
    if origin is None or isinstance(error, SyntaxError):  # no such file, or the message names it
        return reason
    return f"{reason} ({origin.filename}, line {origin.lineno})"


@dataclass(frozen=True)
class Constants:
    """Module-level constants that a plug-in may declare in capitals beside `build`: PRESETS, PROTOCOLS and so on."""

    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of a model: options of `create` by preset
    protocols: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of a dataset; the first is its default
    settled: Mapping[str, Any] = field(default_factory=dict)  # protocol fields that the dataset decides itself
    how_to_get: str = ""  # of a dataset: where its files come from
    strengths: Mapping[str, Sequence[float]] = field(default_factory=dict)  # of `corrupted`: by kind of damage
    source: str = ""  # of a metric: its `extractor.output` where the protocol names none
    parts: Mapping[str, str] = field(default_factory=dict)  # of a metric without options: metrics that detail it


def constants(kind: Kind, name: str) -> Constants:
    """Constants that a plug-in declares; raises `UserError` where it cannot be imported."""
    declared = vars(module(kind, name))
    return Constants(
        **{entry.name: declared[key] for entry in fields(Constants) if (key := entry.name.upper()) in declared}
    )


def defines(kind: Kind, name: str, function: str) -> bool:
    """True where the plug-in defines the function, such as `create` of a model that can be trained.

    Imports a third party's plug-in, but none that comes with vfbench.
    """
    path = _built_in_file(kind, name)
    return (
        hasattr(module(kind, name), function)
        if path is None
        else function in _outline(path, path.stat().st_mtime_ns)[1]
    )


def trainable() -> list[str]:
    """Names of the models that can be trained: those with a function `create`, and so with presets."""
    return [name for name in names("model") if defines("model", name, "create")]


def load(kind: Kind, spec: Spec | str, *context: Any) -> Any:
    """Import a plug-in and call its `build(*context, **options)`, with the options checked against its signature."""
    spec = parse(spec) if isinstance(spec, str) else spec
    build, values = plugin_function(kind, spec.name, "build"), validated_options(kind, spec)
    for name, default in options(kind, spec.name).items():
        if default is inspect.Parameter.empty and name not in values:
            raise UserError(f"{kind} {spec.name} needs option {name}: write {spec.name}({name}=...)")
    return build(*context, **values)


def load_known(kind: Kind, text: str, *context: Any, typed: Collection[str] = ()) -> Any:
    """Load a plug-in by a spec that was read from a file; raises `UserError` for one that is not known.

    `typed` are names that the user gave with this command; a module of such a name may be imported.
    """
    spec = parse(text)
    if not is_known(kind, spec.name) and spec.name not in typed:
        raise UserError(
            f"{unknown(kind, spec.name, names(kind))}. To import a module of your own, name it in the command"
        )
    return load(kind, text, *context)


def validated_options(kind: Kind, spec: Spec, function: str = "build") -> dict[str, Any]:
    """Options of a spec, converted to the types that a function of the plug-in expects: an int to float, for example.

    Raises `UserError` for a name that the function does not have, with the nearest one, and for a value that does not
    match its annotation. The plug-in itself checks the values of a `Literal`.
    """
    known = keywords(kind, spec.name, function)
    result = {}
    for name, value in spec.options.items():
        if name not in known:
            error = _wrong_function(kind, spec.name, name, function)
            raise error or unknown(f"option of {kind} {spec.name}", name, known)
        result[name] = _convert(value, known[name].annotation)
        if result[name] is _MISMATCH:
            expected = describe_type(known[name].annotation)
            raise UserError(f"option {name}={value!r} of {kind} {spec.name} must be {expected}")
    return result


def _wrong_function(kind: Kind, plugin: str, option: str, function: str) -> UserError | None:
    """Error for an option of `create` given to `build`, or of `build` given to `create`; None for any other."""
    other = {"build": "create", "create": "build"}[function]
    if not defines(kind, plugin, other) or option not in options(kind, plugin, other):
        return None
    if other == "create":
        return UserError(f"option {option} of {kind} {plugin} is for training; the checkpoint fixes it: leave it out")
    advice = "use --preset" if option == "preset" else "give it to `run`"
    return UserError(f"option {option} of {kind} {plugin} is for sampling, not for training: {advice}")


def options(kind: Kind, name: str, function: str = "build") -> dict[str, Any]:
    """Options of a plug-in's function, with their defaults."""
    return {key: p.default for key, p in keywords(kind, name, function).items()}


def with_defaults(kind: Kind, spec: Spec, name: str | None = None) -> Spec:
    """Spec with the defaults of all other options, so that a record stays valid if a default changes."""
    return Spec(name or spec.name, {**options(kind, spec.name), **spec.options})


def plugin_function(kind: Kind, name: str, function: str) -> Callable[..., Any]:
    """Function of a plug-in, such as `build`, `create` or `find`.

    Raises `UserError` where it is missing, or `build` has the wrong parameters.
    """
    plugin = module(kind, name)
    if not hasattr(plugin, function):
        raise UserError(f"{kind} '{name}' ({plugin.__name__}) has no function `{function}`")
    target: Callable[..., Any] = getattr(plugin, function)
    if function == "build" and (problem := _signature_problem(target, context=kind in _CONTEXT)):
        parameters = f"{_CONTEXT[kind]} and keyword-only options" if kind in _CONTEXT else "keyword-only options alone"
        section = "Add a feature network" if kind == "extractor" else f"Add a {kind}"
        place = f"{kind} '{name}' ({plugin.__file__})"
        raise UserError(f"{place}: build must take {parameters} ({problem}); see CONTRIBUTING.md, {section}")
    return target


def _signature_problem(function: object, *, context: bool) -> str:
    """Reason why a function cannot be called with one positional argument, or none, and its options by name; or ''."""
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]
        named = {p.name: None for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
        signature.bind(*[None] * context, **named)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


def keywords(kind: Kind, name: str, function: str = "build") -> dict[str, inspect.Parameter]:
    """Keyword-only parameters of a plug-in's function; `vfbench.cli._plugin_options` describes them."""
    target = plugin_function(kind, name, function)
    try:
        parameters = inspect.signature(target, eval_str=True).parameters.values()
    except Exception as error:  # annotations are evaluated here and may raise anything
        raise UserError(f"{kind} '{name}': an annotation of {function} cannot be read: {error}") from error
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}


def _files(kind: Kind) -> list[Path]:
    files = [path for folder in _FOLDERS[kind] for path in _modules(_HERE / folder)]
    if kind == "extractor":
        return [p for p in files if p.stem.startswith("_") and "\ndef build(" in p.read_text()]
    return [p for p in files if not p.stem.startswith("_")]


@cache
def _modules(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if path.stem != "__init__")


def public_name(stem: str) -> str:
    """Public name of a plug-in, from the stem of its file."""
    return next((short for short, long in _SHORT.items() if long == stem), stem.lstrip("_"))


def _built_in_file(kind: Kind, name: str) -> Path | None:
    """File of a plug-in that comes with vfbench; None for any other name."""
    stem = _SHORT.get(name, name)
    return next((path for path in _files(kind) if path.stem.lstrip("_") == stem), None)


_MISMATCH = object()  # the result of `_convert` for a value of the wrong type


def _convert(value: Any, annotation: Any) -> Any:
    """Convert a value to its annotation, or return `_MISMATCH`; types that cannot be checked match."""
    kinds = _alternatives(annotation)
    if Any in kinds or inspect.Parameter.empty in kinds or type(value) in kinds:
        return value
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) is bool:  # bool is a subclass of int
        return _MISMATCH
    for kind in kinds:
        plain = get_origin(kind) or kind
        if plain is abc.Sequence:
            if isinstance(value, list | tuple):
                items = [_convert(item, get_args(kind)[0]) for item in value]
                return _MISMATCH if _MISMATCH in items else type(value)(items)
        elif isinstance(plain, type) and isinstance(value, plain):
            return value
    return _MISMATCH


def _alternatives(annotation: Any) -> list[Any]:
    """Members of a union, or the types of the values of a `Literal`; metadata of `Annotated` is dropped."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for member in get_args(annotation) for kind in _alternatives(member)]
    return list({type(value): 0 for value in get_args(annotation)}) if origin is Literal else [annotation]


def describe_type(annotation: Any, choices: Sequence[Any] = ()) -> str:
    """Annotation in words, `float, a list of float or None`; `choices` replace their type: `int, first or last`."""
    names = []
    for kind in _alternatives(annotation):
        values = [str(choice) for choice in choices if type(choice) is kind]
        names += values or ([_type_name(kind)] if kind is not Path else [])  # no literal gives a Path
    return " or ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])


def _type_name(kind: Any) -> str:
    if get_origin(kind) is abc.Sequence:
        return f"a list of {describe_type(get_args(kind)[0])}"
    return "None" if kind is type(None) else getattr(kind, "__name__", str(kind))
