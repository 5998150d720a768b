"""`ls`, `show` and `diff-protocols`: what there is to choose from, and what it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vfbench.cli._shared import option


def ls(
    what: Annotated[
        Literal["models", "datasets", "metrics", "extractors", "protocols"], typer.Argument(help="What to list.")
    ],
) -> None:
    """List what there is to choose from."""
    from vfbench import plugins

    names: dict[str, str]
    if what == "protocols":
        from vfbench import presets

        names = {name: f"for {fields['dataset']}" for name, fields in _own_protocols().items()}
        names |= {name: preset.summary for name, preset in presets.available().items()}
    else:
        names = plugins.names(what.removesuffix("s"))  # type: ignore[arg-type]  # one of its kinds
    width = max(map(len, names), default=0)
    for name, text in names.items():
        print(f"{name:<{width}}  {text}".rstrip())


def show(
    kind: Annotated[Literal["model", "dataset", "metric", "protocol"], typer.Argument(help="What it is.")],
    name: Annotated[str, typer.Argument(help="Its name; see `vfbench ls`.")],
    as_json: Annotated[bool, option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what a plug-in is, the options it takes and its presets; of a protocol, every field and its source."""
    from vfbench import files, plugins

    if kind == "protocol":
        _show_protocol(name, as_json)
        return
    module = plugins.module(kind, name)
    text, options = (module.__doc__ or name).strip(), plugins.options(kind, name)
    presets = getattr(module, "PRESETS", {})
    if as_json:
        print(files.as_json({"name": name, "text": text, "options": options, "presets": presets}), end="")
        return
    print(text)
    for key, default in options.items():
        print(f"  {key} = {default!r}")
    for preset, fields in presets.items():
        print(f"preset {preset}: {json.dumps(fields)}")


def _show_protocol(name: str, as_json: bool) -> None:
    from vfbench import files, presets

    found = _protocol(name)
    if isinstance(found, presets.Preset):
        print(files.as_json(found.model_dump()) if as_json else f"{found.describe()}\n", end="")
    else:
        print(files.as_json(found) if as_json else "\n".join([*presets.columns(list(presets.flat(found))), ""]), end="")


def diff_protocols(
    ours: Annotated[str, typer.Argument(help="Name of a protocol, run folder or results.json.")],
    theirs: Annotated[str, typer.Argument(help="Another one.")],
) -> None:
    """Show the fields in which two protocols differ, and only these."""
    from vfbench import presets

    found = presets.differences(_protocol(ours), _protocol(theirs))
    rows = [("", ours, theirs), *((field, *pair) for field, pair in found.items())]
    print("\n".join(presets.columns(rows)) if found else "no field differs")


def _protocol(name: str) -> Any:
    """A preset, or the fields of a protocol that a dataset names or a result records."""
    from vfbench import presets, table

    own = _own_protocols()
    if name in own:
        return own[name]
    if name not in presets.available() and (os.sep in name or Path(name).exists()):
        return table.load([Path(name)])[0]["protocol"]
    return presets.load(name, *own)


def _own_protocols() -> dict[str, dict[str, Any]]:
    """The protocols that are a dataset's own."""
    from vfbench import plugins
    from vfbench.rules import protocols

    return {n: {"dataset": d, **fields} for d in plugins.names("dataset") for n, fields in protocols(d).items()}
