"""`ls`, `show` and `diff-protocols`: what there is to choose from, and what it is."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vfbench.cli import _options as flags
from vfbench.cli._options import option
from vfbench.errors import UserError

if TYPE_CHECKING:
    from vfbench.training.match_flops import Size


def ls(
    what: Annotated[
        Literal["models", "datasets", "metrics", "extractors", "protocols"], typer.Argument(help="What to list.")
    ],
) -> None:
    """List what there is to choose from."""
    from vfbench import plugins

    names: dict[str, str]
    if what == "protocols":
        from vfbench.protocol import presets

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
    preset: Annotated[
        str | None, option("--preset", help="Of a model: a preset with all its options, and what it costs.")
    ] = None,
    dataset: Annotated[
        str | None, option("--dataset", help="Of a model: count for its clips; shapes, or what a preset is made for.")
    ] = None,
    data_root: flags.DataRoot = None,
    as_json: flags.AsJson = False,
) -> None:
    """Show what a plug-in is, the options it takes and its presets; of a protocol, every field and its source."""
    from vfbench import plugins
    from vfbench.utils import files

    if kind != "model" and (flag := "--preset" if preset else "--dataset" if dataset else ""):
        raise UserError(f"{flag}: a {kind} has no presets; leave it out, or write: show model NAME {flag} ...")
    if kind == "protocol":
        _show_protocol(name, as_json)
        return
    if (spec := plugins.parse(name)).options:
        raise UserError(f"{name}: give the name alone, {spec.name}; it is shown with all its options")
    if preset:
        _show_preset(name, preset, dataset, data_root, as_json)
        return
    module = plugins.module(kind, name)
    text, options = (module.__doc__ or name).strip(), plugins.options(kind, name)
    presets, trainable = getattr(module, "PRESETS", {}), hasattr(module, "create")
    sizes = _sizes(name, presets, dataset, data_root) if trainable else {}
    if as_json:
        found = {"name": name, "text": text, "options": options, "presets": presets}
        found |= {"train_options": plugins.options(kind, name, "create")} if trainable else {}
        counted = {key: _plain(size) if size else None for key, size in sizes.items()}
        print(files.as_json({**found, "sizes": counted}), end="")
        return
    print(text)
    for line in plugins.option_lines(kind, name):
        print(f"  {line}")
    if trainable:
        print("to train, None being the model's own:")
        for line in plugins.option_lines(kind, name, "create"):
            print(f"  {line}")
    settings = [] if sizes else [f"preset {preset}: {json.dumps(fields)}" for preset, fields in presets.items()]
    for line in _table(sizes, "do not fit" if dataset else "not counted") if sizes else settings:
        print(line)


def _show_preset(model: str, preset: str, dataset: str | None, root: Path | None, as_json: bool) -> None:
    from vfbench.protocol import presets
    from vfbench.training import budget, match_flops
    from vfbench.utils import files

    size = match_flops.describe(model, preset, match_flops.clips_for(model, preset, dataset, root))
    if as_json:
        print(
            files.as_json(
                {
                    "name": model,
                    "preset": preset,
                    **_plain(size),
                    "training_flops": size.training_flops,
                    "options": size.options,
                }
            ),
            end="",
        )
        return
    recipe = budget.recipe(preset)
    hours = budget.told_hours(size.training_flops, recipe.steps, recipe.batch_size)
    lines = {
        "clips": str(size.shape),
        "parameters": f"{size.parameters:,}",
        "a clip": f"{size.flops_per_clip / 1e9:,.1f} GFLOP in {size.evaluations} evaluations of the network",
        "training": f"{size.training_flops / 1e9:,.1f} GFLOP a clip and step",
        "to train": f"{recipe.steps:,} steps of {recipe.batch_size} clips by our assumption, {hours}",
    }
    print("\n".join([f"{model} {preset}", *presets.columns([*lines.items(), *presets.flat(size.options)])]))


def _sizes(model: str, presets: Iterable[str], dataset: str | None, root: Path | None) -> dict[str, Size | None]:
    """What each preset costs, None for one that such clips do not fit, or that cannot be counted at all."""
    from vfbench.training import match_flops

    found: dict[str, Size | None] = {}
    reasons: dict[str, None] = {}
    for preset in presets:
        data = match_flops.clips_for(model, preset, dataset, root)
        try:
            found[preset] = match_flops.describe(model, preset, data)
        except UserError as error:
            found[preset] = None
            reasons[str(error)] = None
    for reason in reasons:
        print(f"note: {reason}", file=sys.stderr)
    return found


def _plain(size: Size) -> dict[str, Any]:
    """What a size says, for JSON."""
    counted = ("parameters", "flops_per_clip", "evaluations")
    return {"clips": str(size.shape), **{name: getattr(size, name) for name in counted}}


def _table(sizes: Mapping[str, Size | None], otherwise: str) -> list[str]:
    """A line a preset, its numbers below each other, or `otherwise` where there are none."""
    rows = [("preset", "clips", "parameters", "GFLOP a clip", "evaluations")]
    for preset, size in sizes.items():
        if size is None:
            rows.append((preset, otherwise, "", "", ""))
            continue
        sampled = f"{size.flops_per_clip / 1e9:,.1f}"
        rows.append((preset, str(size.shape), f"{size.parameters:,}", sampled, str(size.evaluations)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [
        [cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(row)]
        for row in (zip(row, widths, strict=True) for row in rows)
    ]
    return ["  ".join(row).rstrip() for row in padded]


def _show_protocol(name: str, as_json: bool) -> None:
    from vfbench.protocol import presets
    from vfbench.utils import files

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
    from vfbench.protocol import presets

    found = presets.differences(_protocol(ours), _protocol(theirs))
    rows = [("", ours, theirs), *((field, *pair) for field, pair in found.items())]
    print("\n".join(presets.columns(rows)) if found else "no field differs")


def _protocol(name: str) -> Any:
    """A preset, or the fields of a protocol that a dataset names or a result records."""
    from vfbench.protocol import presets
    from vfbench.report import table

    own = _own_protocols()
    if name in own:
        return own[name]
    if name not in presets.available() and (os.sep in name or Path(name).exists()):
        return table.load([Path(name)])[0]["protocol"]
    return presets.load(name, *own)


def _own_protocols() -> dict[str, dict[str, Any]]:
    """The protocols that are a dataset's own."""
    from vfbench import plugins
    from vfbench.protocol.resolve import protocols

    return {n: {"dataset": d, **fields} for d in plugins.names("dataset") for n, fields in protocols(d).items()}
