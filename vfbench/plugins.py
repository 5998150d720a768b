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
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from vfbench.errors import UserError, unknown

Kind = Literal["model", "dataset", "metric", "extractor"]
_HERE = Path(__file__).parent
_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "model": ("models", "baselines"),
    "dataset": ("datasets",),
    "metric": ("metrics",),
    "extractor": ("metrics",),  # the feature networks: files that begin with an underscore and have a `build`
}
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
            raise ValueError("no name")
        call = ast.parse(f"_({found['options'] or ''})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("options need names")
        given = [keyword.arg for keyword in call.keywords]
        if None in given or len(set(given)) < len(given):
            raise ValueError("options need names, each its own")
        return Spec(found["name"], {str(k.arg): ast.literal_eval(k.value) for k in call.keywords})
    except (SyntaxError, TypeError, ValueError) as error:
        raise UserError(
            f"cannot read '{text}': write name or name(option=value, ...), for example videofusion(steps=50)"
        ) from error


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
    except (ImportError, SyntaxError) as error:
        raise UserError(f"{kind} '{name}' cannot be imported: {error}") from error
    raise unknown(kind, name, names(kind))


def load(kind: Kind, spec: Spec | str, *context: Any) -> Any:
    """Import a plug-in and call its `build(*context, **options)`, with the options checked against its signature."""
    spec = parse(spec) if isinstance(spec, str) else spec
    found = module(kind, spec.name)
    if not hasattr(found, "build"):
        raise UserError(f"{kind} '{spec.name}' ({found.__name__}) has no function `build`")
    return found.build(*context, **_checked(kind, spec, found))


def options(kind: Kind, name: str) -> dict[str, Any]:
    """The options a plug-in takes, with their defaults."""
    parameters = inspect.signature(module(kind, name).build).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def whole(kind: Kind, spec: Spec, name: str | None = None) -> Spec:
    """A spec with the options that were not given, as they are now: a later default must not pass for this one."""
    return Spec(name or spec.name, {**options(kind, spec.name), **spec.options})


def _checked(kind: Kind, spec: Spec, found: ModuleType) -> dict[str, Any]:
    signature = inspect.signature(found.build, eval_str=True)
    known = {p.name: p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
    result = {}
    for name, value in spec.options.items():
        if name not in known:
            raise unknown(f"option of {kind} {spec.name}", name, known)
        wanted = known[name].annotation
        accepted = tuple(a for a in (get_args(wanted) or (wanted,)) if isinstance(a, type))
        if float in accepted and type(value) is int:
            value = float(value)
        # A Literal is checked by the plug-in itself, which knows what its words mean.
        if accepted and not (isinstance(value, accepted) and (type(value) is not bool or bool in accepted)):
            raise UserError(
                f"option {name}={value!r} of {kind} {spec.name} must be {' or '.join(a.__name__ for a in accepted)}"
            )
        result[name] = value
    return result


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
