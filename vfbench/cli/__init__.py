"""Command line: each command reads its flags, makes one call, and prints the result.

The commands are functions of the modules imported below. They import heavy modules inside, so that `--help` and a
mistyped flag answer at once.
"""

from __future__ import annotations

import errno
import functools
import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

import vfbench
from vfbench.cli import data, generate, hub, imported, published, report, run, score, show, train, weights
from vfbench.cli._help import Command, Group
from vfbench.cli._options import Context, option
from vfbench.cli.config import load_defaults, normalise_arguments, require_known_variables, value_source
from vfbench.errors import BadEnvironment, GateFailed, Interrupted, UserError
from vfbench.utils import console


class _Commands(Group):
    """All commands; Ctrl-C ends each with exit code 130 and the command that resumes it."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command whose arguments `ctx.obj` holds."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message += value_source(error)
            raise
        except typer.Exit:
            raise
        except (RuntimeError, MemoryError, OSError):
            from vfbench.utils.memory import require_memory

            with require_memory("this command"):  # turns out-of-memory errors that the command let pass into `NoMemory`
                raise
        except KeyboardInterrupt:
            command = shlex.join(["python", "-m", "vfbench", *ctx.obj])
            raise Interrupted(f"stopped; finished work is kept, resume with\n  {command}") from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich draws help on a terminal alone: see `vfbench.cli._help`
    help="Benchmark video-generation models: generate clips, score them, put the scores side by side.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback(invoke_without_command=True)
def _main(
    context: Context,
    config: Annotated[
        Path | None, option("--config", help="TOML file with one table per command, e.g. [run] steps = 50.")
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
    quiet: Annotated[bool, option("--quiet", help="Print results and warnings alone.")] = False,
    verbose: Annotated[bool, option("--verbose", help="Print more of what is done.")] = False,
) -> None:
    if version:
        print(vfbench.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        context.fail("Missing command.")
    if not {"--help", "-h"} & set(context.obj):
        require_known_variables(context.command, os.environ)
    console.set_verbosity("quiet" if quiet else "verbose" if verbose else "normal")
    if config is not None:
        context.default_map = load_defaults(config, command_line().commands)


# In the order of --help; groups come last.
for command in (
    run.run,
    run.status,
    run.replay,
    generate.generate,
    score.score,
    train.train,
    imported.import_,
    report.table,
    report.report,
    report.compare,
    report.drift,
    run.sensitivity,
    report.gate,
    show.ls,
    show.show,
    show.diff_protocols,
    published.published,
    published.explain,
):
    app.command(command.__name__.rstrip("_").replace("_", "-"), cls=Command)(command)
app.add_typer(data.data, name="data")
app.add_typer(weights.weights, name="weights")
app.add_typer(hub.hub, name="hub")


@functools.cache
def command_line() -> Group:
    """All commands and their flags, built once."""
    group = typer.main.get_command(app)
    assert isinstance(group, Group)
    return group


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code (see `vfbench.errors`); a usage error exits with 2."""
    warnings.showwarning = _warn  # type: ignore[assignment]  # only the message is printed
    if arguments is None and not sys.flags.safe_path:
        sys.path.append(os.getcwd())  # noqa: PTH109  # where `python -m vfbench` finds a user's own plug-in, too
    with console.robust_streams():
        try:
            try:
                arguments = normalise_arguments(sys.argv[1:] if arguments is None else arguments)
                command_line()(arguments, prog_name="vfbench", obj=arguments)
            finally:
                sys.stdout.flush()
        except UserError as error:
            gate_failed = error.exit_code == GateFailed.exit_code  # a result, not a mistake
            console.error(str(error) if gate_failed else f"error: {error}")
            raise SystemExit(error.exit_code) from None
        except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
            raise SystemExit(1) from None
        except OSError as error:  # a path that no file can have: too long, below a file, or a loop of links
            if error.errno not in _IMPOSSIBLE_PATHS or error.filename is None:
                raise
            console.error(f"error: {error.filename}: {error.strerror}")
            raise SystemExit(BadEnvironment.exit_code) from None
        except RuntimeError as error:
            if not str(error).startswith("Symlink loop"):  # so says `Path.resolve`
                raise
            console.error(f"error: {error}")
            raise SystemExit(BadEnvironment.exit_code) from None


_IMPOSSIBLE_PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EEXIST)


def _warn(message: Warning | str, *_: Any) -> None:
    """Print a warning as one line, without its source location."""
    console.warn(str(message))
