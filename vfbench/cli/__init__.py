"""The command line: flags in, one call, text out. Nothing here that a Python user would miss.

A command is a function of one of these files, listed below. Heavy modules are imported inside the commands, so that
`--help` and a mistyped flag answer at once.
"""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vfbench.cli import data, generate, hub, report, run, score, show, train, weights
from vfbench.cli._options import Context, option
from vfbench.cli.config import defaults, normal, place
from vfbench.errors import GateFailed, Interrupted, UserError


class _Commands(TyperGroup):
    """All commands. Ctrl-C ends each with exit code 130 and the command that goes on."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was given; `ctx.obj` holds its arguments."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message += place(error)
            raise
        except (RuntimeError, MemoryError, OSError):
            from vfbench.utils.memory import needed

            with needed("this command"):  # what no part of it has taken care of
                raise
        except KeyboardInterrupt:
            again = shlex.join(["python", "-m", "vfbench", *ctx.obj])
            raise Interrupted(f"stopped; what is done is kept, go on with\n  {again}") from None


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it takes [run] for markup, and breaks lines that a script may want to read
    help="Benchmark video-generation models: generate clips, score them, put the scores side by side.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def _main(
    context: Context,
    config: Annotated[
        Path | None, option("--config", help="TOML file with one table per command, e.g. [run] steps = 50.")
    ] = None,
) -> None:
    if config is not None:
        commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group has commands
        context.default_map = defaults(config, commands)


# In the order in which --help shows them; groups come last.
for command in (
    run.run,
    generate.generate,
    score.score,
    train.train,
    report.table,
    report.compare,
    run.calibrate,
    report.gate,
    show.ls,
    show.show,
    show.diff_protocols,
):
    app.command()(command)
app.add_typer(data.data, name="data")
app.add_typer(weights.weights, name="weights")
app.add_typer(hub.hub, name="hub")


def main(given: list[str] | None = None) -> None:
    """Run the command line and exit with its code (see `vfbench.errors`); a usage error exits with 2."""
    warnings.showwarning = _warn  # type: ignore[assignment]  # it needs the message alone
    try:
        try:
            given = normal(sys.argv[1:] if given is None else given)
            app(given, prog_name="vfbench", obj=given)
        except UserError as error:
            failed = error.exit_code == GateFailed.exit_code  # a verdict, not a mistake
            print(error if failed else f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough; what is left must not be tried again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def _warn(message: Warning | str, *_: Any) -> None:
    """A warning as a line to read, without the place in our code that gave it."""
    print(f"warning: {message}", file=sys.stderr)
