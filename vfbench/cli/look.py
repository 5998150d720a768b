"""`ls` and `show`: what there is to choose from, and what it is."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer


def ls(
    what: Annotated[
        Literal["models", "datasets", "metrics", "extractors", "protocols"], typer.Argument(help="What to list.")
    ],
) -> None:
    """List what there is to choose from."""
    from vfbench import plugins

    names: dict[str, str]
    if what == "protocols":
        from vfbench.plan import protocols

        names = {name: f"for {dataset}" for dataset in plugins.names("dataset") for name in protocols(dataset)}
    else:
        names = plugins.names(what.removesuffix("s"))  # type: ignore[arg-type]  # one of its kinds
    width = max(map(len, names), default=0)
    for name, text in names.items():
        print(f"{name:<{width}}  {text}".rstrip())


def show(
    kind: Annotated[Literal["model", "dataset", "metric"], typer.Argument(help="What it is.")],
    name: Annotated[str, typer.Argument(help="Its name; see `vfbench ls`.")],
) -> None:
    """Show what a plug-in is, the options it takes and its presets."""
    from vfbench import plugins

    module = plugins.module(kind, name)
    print((module.__doc__ or name).strip())
    for key, default in plugins.options(kind, name).items():
        print(f"  {key} = {default!r}")
    for preset, fields in getattr(module, "PRESETS", {}).items():
        print(f"preset {preset}: {json.dumps(fields)}")
