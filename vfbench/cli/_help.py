"""Help pages: flags in groups, drawn by rich on a terminal and plain elsewhere."""

from __future__ import annotations

import sys
from typing import Any

from typer.core import TyperCommand, TyperGroup

from vfbench.utils import console

GROUPS = {
    "Model": ("model", "checkpoint", "preset", "match_flops", "base_init", "base_from", "init_from"),
    "Data": ("dataset", "data_root", "real", "fake", "listing", "prompts", "crop", "flip", "conditions"),
    "Sampling": (
        *("num_samples", "seed", "steps", "solver", "guidance", "eta", "threshold", "frames", "overlap"),
        *("prompt", "label", "share_base_noise"),
    ),
    "Training": (
        *(
            "lr",
            "lr_schedule",
            "warmup",
            "weight_decay",
            "clip_norm",
            "ema",
            "accumulate",
            "checkpoint_activations",
            "compile",
        ),
        *("save_every", "sample_every", "half"),
    ),
    "Measuring": (
        "protocol",
        "metrics",
        "num_real",
        "manifest",
        "weights",
        "extractors",
        "smoke",
        "paired",
        "kinds",
        "rule",
        "baseline",
    ),
    "Running": (
        "workers",
        "executor",
        "ray_address",
        "device",
        "dtype",
        "compile",
        "batch_size",
        "resume",
        "dry_run",
        "price_per_hour",
    ),
    "Output": ("output", "num_clips", "keep_clips", "profile", "name", "format", "form", "log_to", "plot", "as_json"),
}


def group_of(parameter: str, command: str = "") -> str:
    """Heading of a flag in the help of a command."""
    if command == "train" and parameter in ("steps", "seed"):
        return "Training"
    if command != "train" and parameter == "compile":
        return "Running"
    if command in ("train", "prepare") and parameter == "workers":  # threads that read it
        return "Data"
    return next((group for group, names in GROUPS.items() if parameter in names), "Options")


class Command(TyperCommand):
    """Command whose help lists its flags in groups."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page: by rich on a terminal, else as plain text."""
        _format_help(super().format_help, self, ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the flags of each group."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], **{group: [] for group in GROUPS}}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                is_argument = parameter.param_type_name == "argument"
                heading = "Arguments" if is_argument else group_of(parameter.name or "", self.name or "")
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


class Group(TyperGroup):
    """Group of commands with the same help pages."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page: by rich on a terminal, else as plain text."""
        _format_help(super().format_help, self, ctx, formatter)


def _format_help(write: Any, command: Any, ctx: Any, formatter: Any) -> None:
    if not console.is_terminal(sys.stdout):
        write(ctx, formatter)
        return
    from rich.markup import escape

    if command.rich_markup_mode == "rich":  # already escaped
        write(ctx, formatter)
        return
    command.rich_markup_mode = "rich"
    command.help = escape(command.help or "")  # rich would read [run] as markup
    for parameter in command.params:
        if getattr(parameter, "help", None):
            parameter.help = escape(parameter.help)
        if parameter.param_type_name == "option" and isinstance(command, Command):
            parameter.rich_help_panel = group_of(parameter.name or "", command.name or "")
    write(ctx, formatter)
