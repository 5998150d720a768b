"""`ls`, `show` and `diff-protocols`: list and describe plug-ins and protocols."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vfbench.cli import _options as flags
from vfbench.cli._options import option
from vfbench.errors import UserError
from vfbench.utils import console
from vfbench.utils.source_cache import cached

if TYPE_CHECKING:
    from vfbench.plugins import Kind as PluginKind
    from vfbench.protocol.presets import Preset
    from vfbench.training.match_flops import Size


def ls(
    kind: Annotated[
        Literal["models", "datasets", "metrics", "extractors", "protocols"] | None,
        typer.Argument(help="Kind to list; all by default."),
    ] = None,
    as_json: flags.AsJson = False,
) -> None:
    """List the models, datasets, metrics, extractors and protocols, or one kind."""
    from vfbench.utils import files

    kinds = [kind] if kind else ["models", "datasets", "metrics", "extractors", "protocols"]
    names = {each: _names(each) for each in kinds}
    if as_json:
        print(files.as_json(names[kind] if kind else names), end="")
        return
    for i, (each, summaries) in enumerate(names.items()):
        if not kind:
            print(f"{'' if i == 0 else chr(10)}{each}:")
        width = max(map(len, summaries), default=0)
        for name, summary in summaries.items():
            print(f"{'' if kind else '  '}{name:<{width}}  {summary}".rstrip())


def _names(kind: str) -> dict[str, str]:
    """Names of one kind, each with a line on what it is."""
    from vfbench import plugins
    from vfbench.protocol import presets

    if kind != "protocols":
        return plugins.names(kind.removesuffix("s"))  # type: ignore[arg-type]  # one of its kinds
    of_datasets = {name: f"for {fields['dataset']}" for name, fields in _dataset_protocols().items()}
    return of_datasets | {name: preset.summary for name, preset in presets.available().items()}


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

    if kind != "model" and (flag := "--preset" if preset else "--dataset" if dataset else ""):
        raise UserError(f"{flag}: a {kind} has no presets; leave the flag out, or write: show model NAME {flag} ...")
    if kind == "protocol":
        _show_protocol(name, as_json)
        return
    if (spec := plugins.parse(name)).options:
        raise UserError(f"{name}: give the name alone, {spec.name}, without options")

    def describe() -> tuple[str, list[str]]:
        return _describe(kind, name, preset, dataset, data_root, as_json)

    cacheable = not (dataset or data_root) and plugins.is_built_in(kind, name)
    text, notes = cached(["show", kind, name, preset, as_json], describe) if cacheable else describe()
    for note in notes:
        console.info(f"note: {note}")
    console.result(text)


def _describe(
    kind: PluginKind, name: str, preset: str | None, dataset: str | None, root: Path | None, as_json: bool
) -> tuple[str, list[str]]:
    """Text for stdout, and notes for stderr."""
    from vfbench import plugins
    from vfbench.cli import _plugin_options
    from vfbench.utils import files

    if preset:
        return _describe_preset(name, preset, dataset, root, as_json), []
    module = plugins.module(kind, name)
    text, options = (module.__doc__ or name).strip(), plugins.keywords(kind, name)
    presets, trainable = plugins.constants(kind, name).presets, plugins.defines(kind, name, "create")
    train_options = plugins.keywords(kind, name, "create") if trainable else {}
    sizes, notes = _preset_sizes(name, presets, dataset, root) if trainable else ({}, [])
    if as_json:
        groups = {"options": options, **({"train_options": train_options} if trainable else {})}
        record = {"name": name, "text": text, "presets": presets}
        record |= {key: _plugin_options.defaults(group) for key, group in groups.items()}
        record |= {f"about_{key}": _plugin_options.records(group) for key, group in groups.items()}
        size_records = {key: _size_record(size) if size else None for key, size in sizes.items()}
        return files.as_json({**record, "sizes": size_records}).rstrip(), notes
    lines = [text, *(f"  {line}" for line in _plugin_options.lines(options))]
    if trainable:
        lines.append("to train (None is the model's default):")
        lines += [f"  {line}" for line in _plugin_options.lines(train_options)]
    if sizes:
        lines += _size_table(sizes, "do not fit" if dataset else "not counted")
    else:
        lines += [f"preset {preset}: {json.dumps(fields)}" for preset, fields in presets.items()]
    return "\n".join(lines), notes


def _describe_preset(model: str, preset: str, dataset: str | None, root: Path | None, as_json: bool) -> str:
    from vfbench.protocol import presets
    from vfbench.training import budget, match_flops
    from vfbench.utils import files

    size = match_flops.describe(model, preset, match_flops.dataset_for(model, preset, dataset, root))
    if as_json:
        record = {"name": model, "preset": preset, **_size_record(size), "training_flops": size.training_flops}
        return files.as_json({**record, "options": size.config.options}).rstrip()
    recipe = budget.recipe(preset)
    hours = budget.format_gpu_hours(size.training_flops, recipe.steps, recipe.batch_size)
    lines = {
        "clips": str(size.shape),
        "parameters": f"{size.parameters:,}",
        "a clip": f"{size.flops_per_clip / 1e9:,.1f} GFLOP in {size.evaluations} evaluations of the network",
        "training": f"{size.training_flops / 1e9:,.1f} GFLOP a clip and step",
        "to train": f"{recipe.steps:,} steps of {recipe.batch_size} clips by our assumption, {hours}",
    }
    rows = presets.align_columns([*lines.items(), *presets.flatten(size.config.options)])
    return "\n".join([f"{model} {preset}", *rows])


def _preset_sizes(
    model: str, presets: Iterable[str], dataset: str | None, root: Path | None
) -> tuple[dict[str, Size | None], list[str]]:
    """Size of each preset, and notes; None where the clips do not fit or the cost cannot be counted."""
    from vfbench.training import match_flops

    sizes: dict[str, Size | None] = {}
    notes: dict[str, None] = {}
    for preset in presets:
        data = match_flops.dataset_for(model, preset, dataset, root)
        try:
            sizes[preset] = match_flops.describe(model, preset, data)
        except UserError as error:
            sizes[preset] = None
            notes[str(error)] = None
    return sizes, list(notes)


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
        console.result(files.as_json(protocol) if as_json else "\n".join([*lines, ""]), end="")


def diff_protocols(
    ours: Annotated[str, typer.Argument(help="Name of a protocol, run folder or results.json.")],
    theirs: Annotated[str, typer.Argument(help="Protocol to compare it with.")],
    as_json: flags.AsJson = False,
) -> None:
    """Show the fields in which two protocols differ."""
    from vfbench.protocol import presets
    from vfbench.utils import files

    pairs = presets.different_fields(_load_protocol(ours), _load_protocol(theirs))
    if as_json:
        print(files.as_json(pairs), end="")
        return
    rows = [("", ours, theirs), *((field, *pair) for field, pair in pairs.items())]
    console.result("\n".join(presets.align_columns(rows)) if pairs else "no field differs")


def _load_protocol(name: str) -> Preset | Mapping[str, Any]:
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
