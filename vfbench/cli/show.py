"""`ls`, `show` and `diff-protocols`: list and describe plug-ins and protocols."""

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
    kind: Annotated[
        Literal["models", "datasets", "metrics", "extractors", "protocols"], typer.Argument(help="Kind to list.")
    ],
) -> None:
    """List the models, datasets, metrics, extractors or protocols."""
    from vfbench import plugins

    names: dict[str, str]
    if kind == "protocols":
        from vfbench.protocol import presets

        names = {name: f"for {fields['dataset']}" for name, fields in _dataset_protocols().items()}
        names |= {name: preset.summary for name, preset in presets.available().items()}
    else:
        names = plugins.names(kind.removesuffix("s"))  # type: ignore[arg-type]  # one of its kinds
    width = max(map(len, names), default=0)
    for name, text in names.items():
        print(f"{name:<{width}}  {text}".rstrip())


def show(
    kind: Annotated[Literal["model", "dataset", "metric", "protocol"], typer.Argument(help="Kind of NAME.")],
    name: Annotated[str, typer.Argument(help="Its name; see `vfbench ls`.")],
    preset: Annotated[
        str | None, option("--preset", help="For a model: show a preset with all its options and its cost.")
    ] = None,
    dataset: Annotated[
        str | None, option("--dataset", help="For a model: dataset whose clips to count; by default shapes.")
    ] = None,
    data_root: flags.DataRoot = None,
    as_json: flags.AsJson = False,
) -> None:
    """Show a plug-in with its options and presets, or a protocol with every field and its source."""
    from vfbench import plugins
    from vfbench.utils import files

    if kind != "model" and (flag := "--preset" if preset else "--dataset" if dataset else ""):
        raise UserError(f"{flag}: a {kind} has no presets; leave the flag out, or write: show model NAME {flag} ...")
    if kind == "protocol":
        _show_protocol(name, as_json)
        return
    if (spec := plugins.parse(name)).options:
        raise UserError(f"{name}: give the name alone, {spec.name}, without options")
    if preset:
        _show_preset(name, preset, dataset, data_root, as_json)
        return
    module = plugins.module(kind, name)
    text, options = (module.__doc__ or name).strip(), plugins.options(kind, name)
    presets, trainable = plugins.constants(kind, name).presets, plugins.defines(kind, name, "create")
    sizes = _preset_sizes(name, presets, dataset, data_root) if trainable else {}
    if as_json:
        record = {"name": name, "text": text, "options": options, "presets": presets}
        record |= {"train_options": plugins.options(kind, name, "create")} if trainable else {}
        size_records = {key: _size_record(size) if size else None for key, size in sizes.items()}
        print(files.as_json({**record, "sizes": size_records}), end="")
        return
    print(text)
    for line in plugins.option_lines(kind, name):
        print(f"  {line}")
    if trainable:
        print("to train (None is the model's default):")
        for line in plugins.option_lines(kind, name, "create"):
            print(f"  {line}")
    preset_lines = [] if sizes else [f"preset {preset}: {json.dumps(fields)}" for preset, fields in presets.items()]
    for line in _size_table(sizes, "do not fit" if dataset else "not counted") if sizes else preset_lines:
        print(line)


def _show_preset(model: str, preset: str, dataset: str | None, root: Path | None, as_json: bool) -> None:
    from vfbench.protocol import presets
    from vfbench.training import budget, match_flops
    from vfbench.utils import files

    size = match_flops.describe(model, preset, match_flops.dataset_for(model, preset, dataset, root))
    if as_json:
        print(
            files.as_json(
                {
                    "name": model,
                    "preset": preset,
                    **_size_record(size),
                    "training_flops": size.training_flops,
                    "options": size.options,
                }
            ),
            end="",
        )
        return
    recipe = budget.recipe(preset)
    hours = budget.format_gpu_hours(size.training_flops, recipe.steps, recipe.batch_size)
    lines = {
        "clips": str(size.shape),
        "parameters": f"{size.parameters:,}",
        "a clip": f"{size.flops_per_clip / 1e9:,.1f} GFLOP in {size.evaluations} evaluations of the network",
        "training": f"{size.training_flops / 1e9:,.1f} GFLOP a clip and step",
        "to train": f"{recipe.steps:,} steps of {recipe.batch_size} clips by our assumption, {hours}",
    }
    print("\n".join([f"{model} {preset}", *presets.align_columns([*lines.items(), *presets.flatten(size.options)])]))


def _preset_sizes(model: str, presets: Iterable[str], dataset: str | None, root: Path | None) -> dict[str, Size | None]:
    """Size of each preset; None, with a note on stderr, where the clips do not fit or the cost cannot be counted."""
    from vfbench.training import match_flops

    sizes: dict[str, Size | None] = {}
    reasons: dict[str, None] = {}
    for preset in presets:
        data = match_flops.dataset_for(model, preset, dataset, root)
        try:
            sizes[preset] = match_flops.describe(model, preset, data)
        except UserError as error:
            sizes[preset] = None
            reasons[str(error)] = None
    for reason in reasons:
        print(f"note: {reason}", file=sys.stderr)
    return sizes


def _size_record(size: Size) -> dict[str, Any]:
    """Clip shape and costs, for JSON."""
    fields = ("parameters", "flops_per_clip", "evaluations")
    return {"clips": str(size.shape), **{name: getattr(size, name) for name in fields}}


def _size_table(sizes: Mapping[str, Size | None], placeholder: str) -> list[str]:
    """One line per preset with aligned numbers, or `placeholder` where a preset has none."""
    rows = [("preset", "clips", "parameters", "GFLOP a clip", "evaluations")]
    for preset, size in sizes.items():
        if size is None:
            rows.append((preset, placeholder, "", "", ""))
            continue
        gflops = f"{size.flops_per_clip / 1e9:,.1f}"
        rows.append((preset, str(size.shape), f"{size.parameters:,}", gflops, str(size.evaluations)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [
        [cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(row)]
        for row in (zip(row, widths, strict=True) for row in rows)
    ]
    return ["  ".join(row).rstrip() for row in padded]


def _show_protocol(name: str, as_json: bool) -> None:
    from vfbench.protocol import presets
    from vfbench.utils import files

    protocol = _load_protocol(name)
    if isinstance(protocol, presets.Preset):
        print(files.as_json(protocol.model_dump()) if as_json else f"{protocol.describe()}\n", end="")
    else:
        lines = presets.align_columns(list(presets.flatten(protocol)))
        print(files.as_json(protocol) if as_json else "\n".join([*lines, ""]), end="")


def diff_protocols(
    ours: Annotated[str, typer.Argument(help="Name of a protocol, run folder or results.json.")],
    theirs: Annotated[str, typer.Argument(help="Protocol to compare it with.")],
) -> None:
    """Show the fields in which two protocols differ."""
    from vfbench.protocol import presets

    pairs = presets.differences(_load_protocol(ours), _load_protocol(theirs))
    rows = [("", ours, theirs), *((field, *pair) for field, pair in pairs.items())]
    print("\n".join(presets.align_columns(rows)) if pairs else "no field differs")


def _load_protocol(name: str) -> Any:
    """Preset called `name`, or fields of a protocol that a dataset declares or a result records."""
    from vfbench.protocol import presets
    from vfbench.report import results

    declared = _dataset_protocols()
    if name in declared:
        return declared[name]
    if name not in presets.available() and (os.sep in name or Path(name).exists()):
        return results.load([Path(name)])[0].protocol.to_json()
    return presets.load(name, *declared)


def _dataset_protocols() -> dict[str, dict[str, Any]]:
    """Fields of every protocol that a dataset declares, by name."""
    from vfbench import plugins
    from vfbench.protocol.resolve import protocols

    return {n: {"dataset": d, **fields} for d in plugins.names("dataset") for n, fields in protocols(d).items()}
